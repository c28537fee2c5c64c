"""Limits and hold-outs: who is held out depends on a record's own name, or on its group, alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ssl_core.data import (
    ArraySource,
    FileSource,
    Subset,
    labels_of,
    limited,
    open_source,
    split_holdout,
)
from ssl_core.data.heads import head_of, heads_of
from ssl_core.errors import UserError


def source_of(keys, **columns) -> ArraySource:
    keys = list(keys)
    return ArraySource(keys, keys=keys, meta=columns)


def names(source) -> set[str]:
    return {head_of(source, i).key for i in range(len(source))}


def test_subset_passes_everything_on() -> None:
    base = ArraySource([10, 11, 12, 13], ["a", "b", "a", "b"])
    part = Subset(base, [3, 0])
    assert [part[i].payload for i in range(2)] == [13, 10]
    assert [part[i].label for i in range(2)] == [1, 0]
    assert part.classes == ["a", "b"]
    inner = Subset(part, [1])
    assert inner[0].key == inner.head(0).key == "0"
    assert part.fingerprint() != Subset(base, [0, 3]).fingerprint()
    assert (
        part.fingerprint()
        == Subset(ArraySource(base.data, ["a", "b", "a", "b"]), [3, 0]).fingerprint()
    )


def test_holdout_divides_all_records_in_their_share() -> None:
    base = source_of(f"file{i}" for i in range(5000))
    train, held = split_holdout(base, 0.2)
    assert names(train) | names(held) == names(base)
    assert len(train) + len(held) == 5000
    assert abs(len(held) - 1000) < 4 * np.sqrt(5000 * 0.2 * 0.8)
    assert np.array_equal(train.indices, np.sort(train.indices))


def test_holdout_stays_when_files_are_added_or_the_share_grows() -> None:
    few = source_of(f"file{i}" for i in range(1000))
    more = source_of([f"new{i}" for i in range(500)] + [f"file{i}" for i in range(1000)][::-1])
    held = names(split_holdout(few, 0.2)[1])
    assert held == names(split_holdout(more, 0.2)[1]) & names(few)
    assert held < names(split_holdout(few, 0.3)[1])


def test_groups_stay_on_one_side() -> None:
    groups = [i // 7 for i in range(2000)]
    base = source_of((f"file{i}" for i in range(2000)), group=groups)
    train, held = split_holdout(base, 0.25)
    of = {f"file{i}": group for i, group in enumerate(groups)}
    assert not {of[name] for name in names(train)} & {of[name] for name in names(held)}
    assert 300 < len(held) < 700
    blank = source_of((f"file{i}" for i in range(2000)), group=[None] * 1000 + [""] * 1000)
    plain = source_of(f"file{i}" for i in range(2000))
    assert names(split_holdout(blank, 0.25)[1]) == names(split_holdout(plain, 0.25)[1])


def test_own_splits_are_used_val_before_test() -> None:
    splits = ["train", "val", "test", "", None, "Validation"]
    base = source_of("abcdef", split=splits)
    train, held = split_holdout(base, 0.5)
    assert names(train) == {"a", "d", "e"}
    assert names(held) == {"b", "f"}
    train, held = split_holdout(source_of("ab", split=["test", "train"]), 0.0)
    assert (names(train), names(held)) == ({"b"}, {"a"})


def test_splits_of_one_kind_are_no_splits_and_unknown_ones_are_errors() -> None:
    base = source_of((f"file{i}" for i in range(100)), split=["train"] * 100)
    assert len(split_holdout(base, 0.2)[1]) > 5
    with pytest.raises(UserError, match="'extra' is no part"):
        split_holdout(source_of("abc", split=["train", "test", "extra"]), 0.2)


def test_split_folders_are_recognised(tmp_path: Path) -> None:
    for name in ("train/cat/1", "train/dog/2", "val/cat/3", "val/dog/4"):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    source = open_source(tmp_path, suffixes=[".jpg"])
    train, held = split_holdout(source, 0.2)
    assert names(train) == {"train/cat/1.jpg", "train/dog/2.jpg"}
    assert names(held) == {"val/cat/3.jpg", "val/dog/4.jpg"}
    assert [held[i].label for i in range(2)] == [0, 1]


@pytest.mark.parametrize("share", [0.001, 0.2, 0.999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_small_sets_have_something_on_both_sides(count: int, share: float) -> None:
    train, held = split_holdout(source_of(f"f{i}" for i in range(count)), share)
    assert len(train) >= 1
    assert len(held) >= 1
    assert len(train) + len(held) == count


def test_no_holdout_and_impossible_ones() -> None:
    train, held = split_holdout(source_of("abc"), 0)
    assert (len(train), len(held)) == (3, 0)
    with pytest.raises(UserError, match="single group"):
        split_holdout(source_of("abc", group=["g"] * 3), 0.2)
    with pytest.raises(UserError, match="single group"):
        split_holdout(source_of("a"), 0.2)
    with pytest.raises(UserError, match="0 <= holdout < 1"):
        split_holdout(source_of("abc"), 1.0)


def test_limit_spreads_over_the_source() -> None:
    base = ArraySource(np.arange(1000), [0] * 500 + [1] * 500)
    part = limited(base, 100)
    labels = [part[i].label for i in range(100)]
    assert labels == sorted(labels)
    assert 30 < sum(labels) < 70
    assert limited(base, None) is base
    assert limited(base, 1000) is base
    with pytest.raises(UserError, match="limit: 0"):
        limited(base, 0)


def test_who_is_held_out_is_the_published_rule() -> None:
    """blake2b of "key NAME" (or "group NAME") as a share of 2^64, below `share`: for ever."""
    keys = [f"ordner/ä{i}\udcff.jpg" for i in range(300)]
    groups = ["" if i % 3 else f"g{i // 9}" for i in range(300)]
    source = FileSource("/nowhere", keys, meta={"group": groups})

    def unit(word: str) -> float:
        data = word.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=8).digest()
        return int.from_bytes(digest, "little") / 2**64

    words = [f"group {g}" if g else f"key {k}" for k, g in zip(keys, groups, strict=True)]
    expected = [i for i, word in enumerate(words) if unit(word) < 0.3]
    assert split_holdout(source, 0.3)[1].indices.tolist() == expected
    small = FileSource("/nowhere", [f"{i:03d}" for i in range(24)])
    assert split_holdout(small, 0.2)[1].indices.tolist() == [2, 6, 10, 16, 19, 23]


def test_heads_in_columns_are_the_heads_one_by_one() -> None:
    meta = {"group": list("aabb"), "split": ["train", "val", "", None], "other": [1, 2, 3, 4]}
    source = FileSource("/x", list("wxyz"), labels=np.array([0, -1, 1, 0]), meta=meta)

    class Plain:
        """The same source without columns."""

        def __init__(self) -> None:
            self.head, self.classes = source.head, None

        def __len__(self) -> int:
            return 4

    whole, single = heads_of(source), heads_of(Plain())
    for name in ("keys", "groups", "splits", "labels"):
        assert list(getattr(whole, name)) == list(getattr(single, name))
    part = heads_of(Subset(source, [3, 1]))
    assert (part.keys, part.groups, part.splits) == (["z", "x"], ["b", "a"], [None, "val"])
    assert labels_of(Subset(source, [3, 1])).tolist() == [0, -1]
    assert labels_of(FileSource("/x", ["a", "b"])).tolist() == [-1, -1]
