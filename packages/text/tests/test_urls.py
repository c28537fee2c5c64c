"""Artificial URLs: the same bytes every time, no domain on both sides, readable as they are."""

from __future__ import annotations

import json
import re
from collections import Counter
from urllib.parse import urlsplit

import pytest

from ssl_core.data import split_holdout
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_core.rng import generator
from ssl_core.runs.parts import write_samples
from ssl_text.domain import TEXT
from ssl_text.urls import FAMILIES, PAIRS, write_urls


def rows(folder, side):
    return [json.loads(line) for line in (folder / side / "urls.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples") / "urls"
    write_samples(TEXT, folder, count=400, seed=3, kind="urls")
    return folder


def test_same_arguments_same_bytes(folder, tmp_path):
    write_urls(tmp_path / "again", count=400, seed=3)
    write_urls(tmp_path / "other", count=400, seed=4)
    for side in ("train", "test"):
        files = [place / side / "urls.jsonl" for place in (folder, tmp_path / "again")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert rows(tmp_path / "other", "train") != rows(folder, "train")


def test_families_have_equal_shares_and_no_domain_is_on_both_sides(folder):
    train, test = rows(folder, "train"), rows(folder, "test")
    assert Counter(row["label"] for row in train) == dict.fromkeys(FAMILIES, 40)
    assert Counter(row["label"] for row in test) == dict.fromkeys(FAMILIES, 10)
    assert not {row["group"] for row in train} & {row["group"] for row in test}


def test_they_are_urls_of_the_domain_they_name(folder):
    for row in rows(folder, "train"):
        parts = urlsplit(row["text"])
        assert parts.scheme in ("http", "https")
        assert parts.hostname == row["group"] or parts.hostname.endswith("." + row["group"])
        assert parts.path.startswith("/")


def test_the_domain_reads_them_with_their_own_sides(folder):
    source = TEXT.open(Data(path=str(folder)))
    assert set(source.classes) == set(FAMILIES)
    train, test = split_holdout(source, 0.5)
    assert (len(train), len(test)) == (320, 80)


def test_wrong_arguments_are_the_users_error(folder):
    with pytest.raises(UserError, match="count: 10 is too few; write at least 16"):
        write_urls(folder, count=10)
    with pytest.raises(UserError, match="is not empty"):
        write_urls(folder, count=100)
    with pytest.raises(UserError, match="'links' is not known; available: urls"):
        write_samples(TEXT, folder.parent / "new", count=100, seed=0, kind="links")


def test_a_pair_is_told_by_the_order_of_its_parts_alone():
    for number, arrange in enumerate(PAIRS.values()):
        (harmless, _), (other, _) = arrange(generator("parts", number))
        bags = [Counter(re.split(r"([^a-z0-9])", text)) for text in (harmless, other)]
        assert bags[0] == bags[1]
        assert harmless != other
