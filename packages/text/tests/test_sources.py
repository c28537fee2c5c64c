"""Sources: every byte of every document, and the reason for each that cannot be read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from ssl_core.data import split_holdout
from ssl_core.errors import CorruptSample, UserError
from ssl_text.options import TextOptions
from ssl_text.sources import spans
from ssl_text.sources.opening import open_any
from ssl_text.sources.passage import PLAIN_LIMIT, text_of


def opened(path: Path, format: str = "auto", limit: int | None = None, **options: object):
    return open_any(str(path), format=format, options=TextOptions(**options), limit=limit)


def texts(source) -> list[str]:
    return [text_of(source[i].payload, source[i].key) for i in range(len(source))]


def written(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 24])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"first\nsecond\nlast", ["first", "second", "last"]),
        (b"first\r\n\r\nsecond\r\n", ["first", "second"]),
        (b"\n\n\xc3\xa9t\xc3\xa9\n\n", ["été"]),
        (b"one", ["one"]),
    ],
)
def test_lines_do_not_depend_on_the_chunk(tmp_path, monkeypatch, chunk, content, expected):
    monkeypatch.setattr(spans, "_CHUNK", chunk)
    source = opened(written(tmp_path / "a.txt", content))
    assert texts(source) == expected


def test_lines_are_named_by_their_number(tmp_path):
    source = opened(written(tmp_path / "a.txt", "first\n\nthird\r\n\r\nfifth"))
    assert [source[i].key for i in range(3)] == ["a.txt:1", "a.txt:3", "a.txt:5"]
    assert source.head(2).key == "a.txt:5"
    assert source.head(2).payload is None
    with pytest.raises(IndexError):
        source[3]


def test_paragraphs(tmp_path):
    path = written(tmp_path / "a.txt", "\none\ntwo\n \n\t\nthree\r\nfour\r\n\r\n")
    source = opened(path, "paragraphs")
    assert texts(source) == ["one\ntwo", "three\r\nfour"]
    assert [source[i].key for i in range(2)] == ["a.txt:2", "a.txt:6"]


def test_folder_of_files_has_classes_and_splits(tmp_path):
    for name in ("train/a/1.txt", "train/b/2.txt", "test/a/3.txt", "test/b/4.md"):
        written(tmp_path / name, f"text of {name}")
    written(tmp_path / "train/a/notes.bin", b"\x00")
    source = opened(tmp_path)
    assert source.classes == ("a", "b")
    assert [source[i].key for i in range(4)] == sorted(source[i].key for i in range(4))
    assert texts(source)[0] == "text of test/a/3.txt"
    train, held = split_holdout(source, 0.5)
    assert [train[i].label for i in range(len(train))] == [0, 1]
    assert {held[i].key for i in range(len(held))} == {"test/a/3.txt", "test/b/4.md"}


def test_lines_of_one_file_stay_together(tmp_path):
    for number in range(12):
        written(tmp_path / f"{number}.txt", f"one {number}\ntwo {number}\nthree {number}\n")
    train, held = split_holdout(opened(tmp_path, "lines"), 0.3)
    files = [{part[i].key.split(":")[0] for i in range(len(part))} for part in (train, held)]
    assert len(train) + len(held) == 36
    assert not files[0] & files[1]


def test_jsonl(tmp_path):
    rows = [
        {"text": "first\nline", "label": "b", "group": "g"},
        {"text": "zweite", "label": "a"},
        {"text": "third", "label": None, "group": "h"},
    ]
    path = written(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    source = opened(path)
    assert texts(source) == ["first\nline", "zweite", "third"]
    assert source.classes == ("a", "b")
    assert [source[i].label for i in range(3)] == [1, 0, None]
    assert [dict(source.head(i).meta) for i in range(3)] == [{"group": "g"}, {}, {"group": "h"}]


def test_jsonl_under_other_names(tmp_path):
    path = written(
        tmp_path / "a.ndjson", '{"body": "hello", "stars": 5}\n{"body": "x", "stars": 1}'
    )
    source = opened(path, text_field="body", label_field="stars")
    assert source.classes == ("1", "5")
    assert texts(source) == ["hello", "x"]
    with pytest.raises(UserError, match=r"text_field: 'bodi' .* did you mean 'body'"):
        opened(path, text_field="bodi")


@pytest.mark.parametrize("chunk", [3, 1 << 24])
def test_csv_cells_may_span_lines(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(spans, "_CHUNK", chunk)
    content = 'label,text\r\n1,"two\r\nlines, ""quoted"""\r\n0,plain\r\n,last'
    source = opened(written(tmp_path / "a.csv", content))
    assert texts(source) == ['two\r\nlines, "quoted"', "plain", "last"]
    assert [source[i].label for i in range(3)] == [1, 0, None]
    assert [source[i].key for i in range(3)] == ["a.csv:2", "a.csv:4", "a.csv:5"]


def test_a_quote_that_is_never_closed_joins_no_rows(tmp_path):
    path = written(tmp_path / "a.csv", 'text,label\none,x\n"two,x\nthree,y\n')
    with pytest.raises(UserError, match=r"a\.csv: double quotes do not pair up: the row on line 3"):
        opened(path)


def test_a_json_file_of_rows_is_read_and_one_value_refused(tmp_path):
    rows = '{"text": "one"}\n{"text": "two"}\n'
    assert texts(opened(written(tmp_path / "rows.json", rows))) == ["one", "two"]
    for value in ('[{"text": "one"}]', '{\n  "text": "one"\n}'):
        with pytest.raises(UserError, match="one JSON value; write one object a line"):
            opened(written(tmp_path / "value.json", value))


def test_tsv_takes_quotes_as_they_are(tmp_path):
    source = opened(written(tmp_path / "a.tsv", 'text\tlabel\nan "inch is 1"\tx\n5" tall\ty\n'))
    assert texts(source) == ['an "inch is 1"', '5" tall']
    with pytest.raises(
        UserError, match=r"data\.options\.text_field: 'txt' is not known; did you mean 'text'"
    ):
        opened(tmp_path / "a.tsv", text_field="txt")


def test_manifest_of_text_files(tmp_path):
    written(tmp_path / "docs/a.txt", "document a")
    written(tmp_path / "docs/b.txt", "document b")
    source = opened(written(tmp_path / "list.csv", "path,label\ndocs/b.txt,y\ndocs/a.txt,x\n"))
    assert texts(source) == ["document b", "document a"]
    assert [source[i].label for i in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"ok\nbad \xff here\n", r"a\.txt:2: invalid UTF-8 at byte 7 \(0xff\)"),
        ("a.txt", b"ok\n   \n", r"a\.txt:2: empty document"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": 5}\n', r"a\.jsonl:2: no text in field 'text'"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": "o', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b'{"text": "ok"}\n[1]\n', r"a\.jsonl:2: no text in field 'text'"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": " "}\n', r"a\.jsonl:2: empty document"),
        ("a.csv", b"label,text\n1,ok\n2\n", r"a\.csv:3: 1 columns, the text is in column 2"),
    ],
)
def test_a_broken_document_says_why(tmp_path, name, content, reason):
    source = opened(written(tmp_path / name, content))
    assert text_of(source[0].payload, source[0].key) == "ok"
    with pytest.raises(CorruptSample, match=reason):
        text_of(source[1].payload, source[1].key)


def test_an_empty_file_is_a_corrupt_document(tmp_path):
    written(tmp_path / "a.txt", "")
    written(tmp_path / "b.txt", "text")
    source = opened(tmp_path)
    with pytest.raises(CorruptSample, match=r"a\.txt: empty document"):
        text_of(source[0].payload, source[0].key)


def test_long_documents_end_at_a_whole_character(tmp_path):
    path = written(tmp_path / "a.txt", "x" + "é" * PLAIN_LIMIT)
    for source in (opened(path), opened(path, "files")):
        assert text_of(source[0].payload, "a") == "x" + "é" * (PLAIN_LIMIT // 2 - 1)
    assert text_of(path, "a") == "x" + "é" * (PLAIN_LIMIT // 2 - 1)


def test_limit_fingerprint_and_pickling(tmp_path):
    path = written(tmp_path / "a.txt", "\n".join(map(str, range(100))))
    source = opened(path)
    assert len(opened(path, limit=7)) == 7
    assert texts(pickle.loads(pickle.dumps(source))) == texts(source)
    before = source.fingerprint()
    assert opened(path).fingerprint() == before
    written(path, "\n".join(map(str, range(101))))
    assert opened(path).fingerprint() != before


@pytest.mark.parametrize(
    ("name", "content", "format", "message"),
    [
        ("a.txt", "\n\n", "auto", "no documents"),
        ("a.csv", "", "auto", "needs a header"),
        ("a.txt", "x", "jason", "'jason' is not known; did you mean 'jsonl'"),
    ],
)
def test_wrong_data_is_the_users_error(tmp_path, name, content, format, message):
    with pytest.raises(UserError, match=message):
        opened(written(tmp_path / name, content), format)


def test_missing_and_empty_folders_are_the_users_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no file ending in \.txt"):
        opened(tmp_path)


def test_options_are_checked():
    with pytest.raises(UserError, match="did you mean 'max_length'"):
        TextOptions.of({"max_lenght": 5})
    with pytest.raises(UserError, match="max_length: 2 is not an integer of at least 4"):
        TextOptions.of({"max_length": 2})
