"""Tables of files: CSV in its dialects, Parquet, and what is said about wrong ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ssl_core.data import labels_of, open_source
from ssl_core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"x")
    return tmp_path


def opened(folder: Path, text: str | bytes, name: str = "table.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    return open_source(folder / name, suffixes=[".jpg"])


def test_columns_become_label_and_meta(folder: Path) -> None:
    source = opened(
        folder,
        "Path,age,Label,Group\n"
        'images/0.jpg,7,cat,a\nimages/1.jpg,,"dog, big",a\n\nimages/2.jpg,9,,b\n',
    )
    assert len(source) == 3
    assert source.classes == ["cat", "dog, big"]
    assert labels_of(source).tolist() == [0, 1, -1]
    assert source[0].key == "images/0.jpg"
    assert source[0].payload == str(folder / "images" / "0.jpg")
    assert source[0].meta == {"age": "7", "group": "a"}
    assert source[1].meta == {"age": None, "group": "a"}
    assert source[2].label is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "file;class\r\nimages/0.jpg;1\r\nimages/1.jpg;2\r\n"),
        ("t.tsv", "filename\ty\nimages/0.jpg\t1\nimages/1.jpg\t2\n"),
        ("t.csv", b"\xef\xbb\xbffilepath,target\nimages/0.jpg,1\nimages/1.jpg,2\n"),
    ],
)
def test_dialects(folder: Path, name: str, text: str | bytes) -> None:
    source = opened(folder, text, name)
    assert [source[i].key for i in range(2)] == ["images/0.jpg", "images/1.jpg"]
    assert labels_of(source).tolist() == [0, 1]
    assert source.classes == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pth,label\nimages/0.jpg,1\n", r"no column 'path'; its columns are \['pth', 'label'\]"),
        ("pth,label\nimages/0.jpg,1\n", "rename 'pth' to 'path'"),
        ("a,b\n1,2\n", "name the column of files 'path'"),
        ("path,label\nimages/0.jpg,1\nimages/1.jpg,1,2\n", "line 3 of .* has 3 cells"),
        ("path,label\n", "a header and no rows"),
        ("", "no column 'path'"),
        ("path,path\nx,y\n", "names a column twice"),
        ("path,label\nimages/0.jpg,1\n,2\n", "row 2 of .* has no path"),
        (b"path\n\xff\xfe\n", "not a table in UTF-8"),
        ("path\nimage/0.jpg\n", "none of the 1 files looked for"),
    ],
)
def test_wrong_tables_say_what_is_wrong(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(folder, text)


def test_parquet_keeps_types(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "path": [f"images/{i}.jpg" for i in range(3)],
            "label": pyarrow.array([4, None, 2], pyarrow.int64()),
            "weight": [0.5, 1.5, 2.5],
        }
    )
    parquet.write_table(table, folder / "t.parquet")
    source = open_source(folder / "t.parquet", suffixes=[".jpg"])
    assert labels_of(source).tolist() == [1, -1, 0]
    assert source.classes == ["2", "4"]
    assert source[2].meta == {"weight": 2.5}
    (folder / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        open_source(folder / "t.parquet", suffixes=[".jpg"])


def test_parquet_without_pyarrow_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-core\[table\]'"):
        open_source(folder / "t.parquet", suffixes=[".jpg"])
