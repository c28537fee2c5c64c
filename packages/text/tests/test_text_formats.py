"""Compressed files, Parquet, saved data sets, FASTA: the same documents, or the reason why not."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from ssl_core.data import split_holdout
from ssl_core.data.fetch import Failure, Fetcher
from ssl_core.errors import CorruptSample, UserError
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader
from ssl_text.sources import files, spans
from ssl_text.sources.opening import open_any
from ssl_text.sources.passage import text_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [
    {"text": "first, with a comma", "label": "a", "group": "x"},
    {"text": "été", "label": "b", "group": "y"},
    {"text": "third", "label": "a", "group": "y"},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(path: Path, format: str = "auto", **options: object):
    return open_any(str(path), format=format, options=TextOptions(**options), limit=None)


def texts(source) -> list[str]:
    return [text_of(source[i].payload, source[i].key) for i in range(len(source))]


def packed(data: bytes, suffix: str) -> bytes:
    return gzip.compress(data) if suffix == ".gz" else pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.fasta"])
def test_compressed_files_read_as_their_plain_ones(tmp_path, suffix, name):
    content = {
        "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
        "a.csv": 'text,label\n"first, with a comma",a\nété,b\nthird,a\n',
        "a.txt": "one\n\nthree\n",
        "a.fasta": ">one\nMKV\nLL\n>two\nAC*\n",
    }[name].encode()
    (tmp_path / "plain").mkdir()
    (tmp_path / "packed").mkdir()
    (tmp_path / "plain" / name).write_bytes(content)
    (tmp_path / "packed" / f"{name}{suffix}").write_bytes(packed(content, suffix))
    whole = opened(tmp_path / "plain" / name)
    for place in (tmp_path / "packed" / f"{name}{suffix}", tmp_path / "packed"):
        if name == "a.txt" and place.is_dir():
            continue  # a folder of plain text holds one document a file
        source = opened(place)
        assert texts(source) == texts(whole)
        assert source.classes == whole.classes
        assert [source[i].label for i in range(len(source))] == [
            whole[i].label for i in range(len(whole))
        ]
        assert source[0].key == whole[0].key.replace(name, name + suffix)


def test_a_file_is_unpacked_once_and_again_when_it_changed(tmp_path, cache):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"one\n"))
    assert texts(opened(path)) == ["one"]
    first = sorted(cache.rglob("*.txt"))
    assert texts(opened(path)) == ["one"]
    assert sorted(cache.rglob("*.txt")) == first
    path.write_bytes(gzip.compress(b"another\n"))
    assert texts(opened(path)) == ["another"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_and_foreign_files_are_named_and_leave_nothing(tmp_path, cache, suffix):
    data = packed(bytes(range(256)) * 2000 + b"text\n" * 1000, suffix)
    path = tmp_path / f"a.txt{suffix}"
    for wrong in (data[: len(data) // 2], b"no such format" * 10):
        path.write_bytes(wrong)
        with pytest.raises(UserError, match=r"a\.txt\..* is damaged or cut off"):
            opened(path)
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_parquet_and_its_splits(tmp_path):
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        (tmp_path / split).mkdir()
        table = pa.Table.from_pylist([{"more": 1.5, **row} for row in rows])
        pq.write_table(table, tmp_path / split / "part.parquet", row_group_size=2)
    source = opened(tmp_path)
    assert texts(source) == ["first, with a comma", *(row["text"] for row in ROWS)]
    assert source.classes == ["a", "b"]
    assert [source.head(i).label for i in range(4)] == [0, 0, 1, 0]
    assert source[2].key == "train/part.parquet:2"
    assert source[2].meta == {"group": "y", "split": "train"}
    assert source.lengths.tolist() == [19, 19, 5, 5]
    train, held = split_holdout(source, 0.5)
    assert (train.indices.tolist(), held.indices.tolist()) == ([1, 2, 3], [0])
    assert train.lengths.tolist() == [19, 5, 5]
    again = pickle.loads(pickle.dumps(source))
    assert texts(again) == texts(source)
    assert again.fingerprint() == source.fingerprint()


def test_bad_tables_are_the_users_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None], "n": [1, 2]}), path)
    with pytest.raises(CorruptSample, match="no text in column 'text'"):
        texts(opened(path))
    with pytest.raises(UserError, match="did you mean 'text'"):
        opened(path, text_field="texts")
    with pytest.raises(UserError, match="holds int64, not text"):
        opened(path, text_field="n")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        opened(path)


def save_to_disk(folder: Path, rows: list[dict], names: list[str] | None, shards: int = 1) -> None:
    """The layout of `datasets.Dataset.save_to_disk`, version 4."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    files = []
    for shard in range(shards):
        name = f"data-{shard:05d}-of-{shards:05d}.arrow"
        with pa.OSFile(str(folder / name), "wb") as out, pa.ipc.new_stream(out, table.schema) as to:
            to.write_table(table.take(list(range(shard, len(rows), shards))))
        files.append({"filename": name})
    label = {"names": names, "_type": "ClassLabel"} if names else {"_type": "Value"}
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": label}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))


def test_saved_data_sets_need_no_library(tmp_path):
    rows = [{"text": f"document {i}", "label": i % 2} for i in range(5)]
    for split in ("train", "test"):
        save_to_disk(tmp_path / "set" / split, rows, ["neg", "pos"], shards=2)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = opened(tmp_path / "set")
    assert source.classes == ["neg", "pos"]
    assert texts(source)[:5] == [f"document {i}" for i in (0, 2, 4, 1, 3)]
    assert [source[i].label for i in range(5)] == [0, 0, 0, 1, 1]
    assert source[3].key == "train-1:1"
    assert source[9].meta == {"split": "test"}
    alone = opened(tmp_path / "set" / "test")
    assert len(alone) == 5
    assert alone[0].key == "test-0:1"
    (tmp_path / "set" / "test" / "state.json").unlink()
    with pytest.raises(UserError, match="no whole saved data set"):
        opened(tmp_path / "set")


@pytest.mark.parametrize("chunk", [1, 3, 1 << 24])
def test_fasta_entries_do_not_depend_on_the_chunk(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(spans, "_CHUNK", chunk)
    path = tmp_path / "a.fa"
    path.write_bytes(b"; a note\n>one > two\nMKV\r\nLL\n>empty\n>three\nac d*\n")
    source = opened(path)
    assert [source.head(i).key for i in range(3)] == ["a.fa:2", "a.fa:5", "a.fa:6"]
    assert text_of(source[0].payload, "") == "MKVLL"
    assert text_of(source[2].payload, "") == "acd"
    with pytest.raises(CorruptSample, match="empty document"):
        text_of(source[1].payload, source[1].key)
    reader = TextReader.fit(source, TextOptions(kind="amino", max_length=8))
    assert reader.text(reader.decode(source[2])) == "ACD"


def test_fasta_without_entries_is_refused(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text("MKV\n")
    with pytest.raises(UserError, match="it is no FASTA"):
        opened(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_other_encodings_are_told_before_any_work(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes("text,label\n".encode(encoding))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        opened(path)


def test_bad_documents_are_counted_with_their_reasons(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROW_LIMIT", 100)
    path = tmp_path / "a.jsonl"
    good = json.dumps({"text": "words"}).encode()
    latin = json.dumps({"text": "x"}).encode().replace(b"x", b"caf\xe9")
    huge = json.dumps({"text": "long " * 40}).encode()
    path.write_bytes(b"\n".join([good, b"{broken", b'{"text": " "}', latin, huge, good]))
    source = opened(path)
    reader = TextReader.fit(source, TextOptions(kind="character"))
    fetcher = Fetcher(source, reader)
    found = [fetcher.decode(i) for i in range(6)]
    reasons = [item.reason if isinstance(item, Failure) else "" for item in found]
    for reason, word in zip(
        reasons,
        ["", "not JSON", "empty document", "invalid UTF-8 at byte", "more than", ""],
        strict=True,
    ):
        assert word in reason
        assert bool(word) == bool(reason)


def test_a_folder_of_texts_tells_which_one_is_binary(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "b.txt").write_bytes(b"\x00\x01")
    source = opened(tmp_path)
    with pytest.raises(CorruptSample, match=r"b\.txt: zero at byte 0"):
        text_of(source[1].payload, source[1].key)
