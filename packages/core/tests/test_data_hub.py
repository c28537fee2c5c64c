"""Data sets in the Hugging Face format, as `save_to_disk` leaves them (needs the extra `hub`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_core.data import labels_of, open_source, split_holdout
from ssl_core.data.hub import HubSource, open_hub
from ssl_core.errors import UserError


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-core\[hub\]'"):
        open_source("hf:some/name:train", suffixes=[".jpg"])


class Table:
    """What `HubSource` uses of a `datasets.Dataset`, over plain lists."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
        self.columns, self.features = columns, features
        self.column_names = list(columns)
        self._fingerprint = str(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, at: int | str) -> Any:
        if isinstance(at, str):
            return self.columns[at]
        return {name: column[at] for name, column in self.columns.items()}

    def cast_column(self, name: str, feature: Any) -> Table:
        return Table(self.columns, {**self.features, name: feature})


class Image:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    names = ("cat", "dog")


def table(values: list[bytes], labels: list[int]) -> Table:
    columns = {
        "caption": [f"about {value!r}" for value in values],
        "picture": [{"bytes": value, "path": None} for value in values],
        "label": labels,
    }
    return Table(columns, {"caption": None, "picture": Image(), "label": ClassLabel()})


def test_rows_of_all_splits_are_records() -> None:
    source = HubSource(
        {"train": table([b"a", b"b", b"c"], [1, 0, -1]), "test": table([b"d"], [1])}, name="x"
    )
    assert source.column == "picture"
    assert [source[i].payload for i in range(4)] == [b"a", b"b", b"c", b"d"]
    assert [source[i].key for i in range(4)] == ["train/0", "train/1", "train/2", "test/0"]
    assert labels_of(source).tolist() == [1, 0, -1, 1]
    assert source.classes == ["cat", "dog"]
    assert source[3].meta == {"caption": "about b'd'", "split": "test"}
    train, held = split_holdout(source, 0.5)
    assert (len(train), len(held)) == (3, 1)


def test_columns_can_be_chosen_and_wrong_ones_are_named() -> None:
    rows = {"train": table([b"a"], [0])}
    assert HubSource(rows, name="x", column="caption")[0].payload == "about b'a'"
    with pytest.raises(UserError, match="did you mean 'caption'"):
        HubSource(rows, name="x", column="captions")
    with pytest.raises(UserError, match=r"no known sample column in \['a'\]"):
        HubSource({"train": Table({"a": [1]}, {"a": None})}, name="x")


def test_saved_data_sets_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "size": datasets.Value("int64"),
        }
    )
    rows = {
        "image": [{"bytes": bytes([i]), "path": None} for i in range(6)],
        "label": [0, 1, 1, 0, 1, 0],
        "size": list(range(6)),
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(tmp_path / "one")
    source = open_source(tmp_path / "one", suffixes=[".jpg"])
    assert [source[i].payload for i in range(6)] == [bytes([i]) for i in range(6)]
    assert labels_of(source).tolist() == rows["label"]
    assert source[2].meta == {"size": 2, "split": "train"}
    parts = datasets.DatasetDict(
        {"train": whole.select(range(4)), "validation": whole.select([4, 5])}
    )
    parts.save_to_disk(tmp_path / "two")
    both = open_source(f"hf:{tmp_path / 'two'}", suffixes=[".jpg"])
    train, held = split_holdout(both, 0.1)
    assert (len(train), len(held)) == (4, 2)
    assert held[1].payload == bytes([5])
    one = open_hub(f"hf:{tmp_path / 'two'}:validation")
    assert len(one) == 2
    with pytest.raises(UserError, match=r"split: 'validaton'.* did you mean 'validation'"):
        open_hub(f"hf:{tmp_path / 'two'}:validaton")
    with pytest.raises(UserError, match="cannot be loaded"):
        open_hub(f"hf:{tmp_path / 'none'}")
