"""The token cache: the reader's own samples to the last id, made once, whole or absent."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_core import api
from ssl_core.data import Loader, Stream, Subset
from ssl_core.data.buckets import BucketedStream
from ssl_core.data.fetch import Failure, Fetcher
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_core.tensors import read_tensors
from ssl_text.domain import TEXT
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader
from ssl_text.sources import tokens
from ssl_text.sources.opening import open_any
from ssl_text.sources.passage import text_of

OPTIONS = TextOptions(max_length=12, vocab_size=300, words=True)


@pytest.fixture
def source(tmp_path):
    rows = [{"text": f"word number {i} " * (1 + i % 7), "label": i % 3} for i in range(40)]
    lines = [json.dumps(row) for row in rows]
    lines[5] = "{broken"
    lines[11] = json.dumps({"text": "  "})
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    return open_any(str(path), format="auto", options=OPTIONS, limit=None)


@pytest.fixture
def reader(source):
    return TextReader.fit(source, OPTIONS)


def cached(source, reader, folder: Path, **options):
    return tokens.cached_tokens(
        source, reader, replace(OPTIONS, token_cache=str(folder), **options)
    )


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("chunk", [7, 4096])
def test_samples_heads_and_failures_are_the_sources(
    source, reader, tmp_path, monkeypatch, words, chunk
):
    monkeypatch.setattr(tokens, "_DOCUMENTS", chunk)
    reader.words = words
    part = Subset(source, [*range(30), 39, 35])
    kept = cached(part, reader, tmp_path / "cache")
    plain, fast = Fetcher(part, reader), Fetcher(kept, reader)
    assert len(kept) == len(part)
    assert kept.fingerprint() == part.fingerprint()
    for row in range(len(part)):
        slow, quick = plain.decode(row), fast.decode(row)
        if isinstance(slow, Failure):
            assert (slow.key, slow.reason) == (quick.key, quick.reason)
            continue
        assert torch.equal(slow.sample, quick.sample)
        assert slow.sample.dtype == quick.sample.dtype
        assert (slow.key, slow.label) == (quick.key, quick.label)
        assert kept.lengths[row] == slow.sample.shape[-1]
    assert [row for row in range(32) if kept.lengths[row] == 0] == [5, 11]
    again = pickle.loads(pickle.dumps(kept))
    assert torch.equal(again[3].payload.sample, kept[3].payload.sample)


def test_batches_are_the_same_with_and_without(source, reader, tmp_path):
    kept = cached(source, reader, tmp_path / "cache")
    stream = Stream(len(source), 8, seed=3)
    with (
        Loader(source, reader, stream, workers=0, max_corrupt=0.5) as slow,
        Loader(kept, reader, stream, workers=2, max_corrupt=0.5) as fast,
    ):
        for one, other in zip(slow.batches(0, 12), fast.batches(0, 12), strict=True):
            assert torch.equal(one.data.ids, other.data.ids)
            assert torch.equal(one.data.starts, other.data.starts)
            assert torch.equal(one.ids, other.ids)
            assert torch.equal(one.label, other.label)
            assert one.keys == other.keys
        assert slow.corrupt == fast.corrupt == 2


def test_it_is_made_once_and_again_for_another_tokenizer_or_text(
    source, reader, tmp_path, monkeypatch
):
    folder = tmp_path / "cache"
    made: list[Path] = []
    fill = tokens._fill

    def counted(place, *rest, **options):
        made.append(place)
        return fill(place, *rest, **options)

    monkeypatch.setattr(tokens, "_fill", counted)
    cached(source, reader, folder)
    cached(source, reader, folder)
    assert len(made) == 1
    other = TextReader.fit(source, replace(OPTIONS, vocab_size=280))
    cached(source, other, folder)
    reader.max_length = 10
    cached(source, reader, folder)
    assert len(made) == 3
    path = source.parts[0].path
    path.write_text(path.read_text().replace("number", "NUMBER"))  # as many bytes, documents
    cached(source, reader, folder)
    assert len(made) == 4


def test_an_interrupted_cache_is_no_cache(source, reader, tmp_path, monkeypatch):
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "_append", broken)
        with pytest.raises(KeyboardInterrupt):
            cached(source, reader, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(cached(source, reader, tmp_path / "cache")) == 40


def test_pieces_hold_every_token_of_every_document_once(source, reader, tmp_path):
    kept = cached(source, reader, tmp_path / "cache", split=True)
    by_document: dict[str, list[int]] = {}
    keys = set()
    for row in range(len(kept)):
        head = kept.head(row)
        assert head.key not in keys
        keys.add(head.key)
        if kept.lengths[row] == 0:
            assert head.key in ("a.jsonl:6", "a.jsonl:12")
            continue
        ids = kept[row].payload.sample[0].tolist()
        assert len(ids) <= 12
        assert (ids[0], ids[-1]) == (reader.special.cls, reader.special.sep)
        by_document.setdefault(head.key.split("#")[0], []).extend(ids[1:-1])
    for row in range(40):
        record = source[row]
        if row not in (5, 11):
            whole = reader.tokenizer.encode(text_of(record.payload, ""), add_special_tokens=False)
            assert by_document[record.key] == whole.ids
    assert kept.fingerprint() != source.fingerprint()


def test_options_that_need_each_other(tmp_path):
    with pytest.raises(UserError, match=r"split: needs data\.options\.token_cache"):
        TextOptions(split=True)
    with pytest.raises(UserError, match="token_cache: 3"):
        TextOptions(token_cache=3)


def test_the_domain_prepares_only_what_is_asked_for(source, reader, tmp_path):
    assert TEXT.prepared(source, reader, Data()) is source
    data = Data(options={"max_length": 12, "words": True, "token_cache": str(tmp_path / "c")})
    assert len(TEXT.prepared(source, reader, data)) == 40


def test_buckets_of_a_source_of_texts(source):
    stream = BucketedStream.of(Stream(len(source), 8), source, window=5)
    plain = Stream(len(source), 8)
    index = [stream.rows(step)[0] for step in range(5)]
    assert sorted(i for rows in index for i in rows) == list(range(40))
    spread = [source.lengths[rows].max() - source.lengths[rows].min() for rows in index]
    loose = [
        source.lengths[rows].max() - source.lengths[rows].min()
        for rows in (plain.rows(step)[0] for step in range(5))
    ]
    assert sum(spread) < sum(loose) / 3


def test_runs_end_in_the_same_bits_and_pieces_train_in_buckets(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    path = source.parts[0].path

    def weights(name: str, **settings: object) -> dict[str, torch.Tensor]:
        options = {"max_length": 12, "vocab_size": 300, **settings.pop("options", {})}
        run = api.pretrain(
            TEXT,
            "mlm",
            data=path,
            steps=3,
            batch_size=8,
            out=tmp_path / name,
            settings={
                "encoder.depth": 1,
                "encoder.dim": 16,
                "data.options": options,
                "data.max_corrupt": 0.5,
                "data.workers": 0,
                **settings,
            },
            progress=False,
        )
        return read_tensors(run.weights)

    plain = weights("plain")
    cached = weights("cached", options={"token_cache": True})
    assert plain.keys() == cached.keys()
    assert all(torch.equal(plain[name], cached[name]) for name in plain)
    assert len(list((tmp_path / "cache" / "text" / "tokens").iterdir())) == 1
    pieces = weights("pieces", options={"token_cache": True, "split": True}, **{"data.buckets": 3})
    assert not all(torch.equal(plain[name], pieces[name]) for name in plain)
