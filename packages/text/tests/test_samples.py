"""The embedded corpus: the same bytes every time, files on one side, harder than counting words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ssl_core.data import split_holdout
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_text.domain import TEXT
from ssl_text.samples import LEAST_CHARACTERS, TOPICS, documents, even_shares, write_samples


def rows(folder: Path, side: str) -> list[dict[str, str]]:
    text = (folder / side / "documents.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "text"
    write_samples(folder, count=600, seed=3)
    return folder


def test_same_arguments_same_bytes(folder, tmp_path):
    write_samples(tmp_path / "again", count=600, seed=3)
    write_samples(tmp_path / "other", count=600, seed=4)
    for side in ("train", "test"):
        files = [place / side / "documents.jsonl" for place in (folder, tmp_path / "again")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert rows(tmp_path / "other", "train") != rows(folder, "train")


def test_every_topic_on_both_sides_and_no_file_on_two(folder):
    train, test = rows(folder, "train"), rows(folder, "test")
    assert Counter(row["label"] for row in train) == dict.fromkeys(TOPICS, 40)
    assert Counter(row["label"] for row in test) == dict.fromkeys(TOPICS, 10)
    assert not {row["group"] for row in train} & {row["group"] for row in test}
    lengths = [len(row["text"]) for row in train + test]
    assert min(lengths) >= LEAST_CHARACTERS
    assert max(lengths) <= LEAST_CHARACTERS + 81


def test_the_domain_reads_it_with_its_own_sides(folder):
    source = TEXT.open(Data(path=str(folder)))
    assert tuple(source.classes) == tuple(TOPICS)
    train, test = split_holdout(source, 0.5)
    assert (len(train), len(test)) == (480, 120)
    assert all(test.head(i).meta["split"] == "test" for i in range(120))


def test_shares_are_even_as_far_as_they_go():
    assert even_shares(10, [9, 9, 9]) == [3, 3, 4]
    assert even_shares(10, [1, 9, 9]) == [1, 4, 5]
    assert even_shares(19, [1, 9, 9]) == [1, 9, 9]
    with pytest.raises(UserError, match="20 documents of one side, of 19"):
        even_shares(20, [1, 9, 9])


def test_documents_are_docstrings_and_comments():
    source = '"""One.\n\n    Two."""\n# three\nx = "# four"\ndef f():\n    r"""Five."""\n' * 40
    text = "\n".join(documents(source))
    assert text.startswith("One.\nTwo.\nthree\nFive.\nOne.")
    assert "four" not in text
    assert documents("x = 1\n") == []


def test_wrong_arguments_are_the_users_error(folder):
    with pytest.raises(UserError, match="count: 10 is too few"):
        write_samples(folder, count=10)
    with pytest.raises(UserError, match="is not empty"):
        write_samples(folder, count=100)
