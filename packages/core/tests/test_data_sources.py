"""Folders, file lists, manifests and arrays as sources, and the errors for those that are none."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core.data import ArraySource, FileSource, labels_of, open_source, read_bytes
from ssl_core.data.folder import list_folder
from ssl_core.data.heads import digest, evenly, head_of
from ssl_core.data.labels import encode_labels, from_paths
from ssl_core.errors import UserError

SUFFIXES = [".jpg", "PNG", ".nii.gz"]


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def keys_of(source) -> list[str]:
    keys = [source[i].key for i in range(len(source))]
    assert keys == [head_of(source, i).key for i in range(len(source))]
    return keys


# -- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
        (["10", "9", ""], [1, 0, -1], ["9", "10"]),
        ([10, 9, None], [1, 0, -1], ["9", "10"]),
        ([2.0, float("nan"), 0.0], [1, -1, 0], ["0", "2"]),
        ([-1, 5, 5], [-1, 0, 0], ["5"]),
        ([True, False], [1, 0], ["False", "True"]),
        ([b"x", "y"], [0, 1], ["x", "y"]),
        (["2", "a"], [0, 1], ["2", "a"]),
        ([None, ""], None, None),
        ([], None, None),
    ],
)
def test_labels_as_people_write_them(values, labels, classes) -> None:
    got, names = encode_labels(values)
    assert (None if got is None else got.tolist(), names) == (labels, classes)


def test_given_classes_are_kept() -> None:
    labels, classes = encode_labels(["dog", 0, None, "1"], classes=["cat", "dog", "eel"])
    assert labels.tolist() == [1, 0, -1, 1]
    assert classes == ["cat", "dog", "eel"]
    with pytest.raises(UserError, match=r"row 1 has 'cow'.*'cat'"):
        encode_labels(["cat", "cow"], classes=["cat"])


@pytest.mark.parametrize(
    ("names", "labels", "classes", "splits"),
    [
        (["a/1", "b/2", "a/3"], [0, 1, 0], ["a", "b"], None),
        (["x/y/a/1", "x/y/b/z/2"], [0, 1], ["a", "b"], None),
        (["a/1", "a/2"], None, None, None),
        (["1", "2"], None, None, None),
        (["a/1", "b/2", "3"], [0, 1, -1], ["a", "b"], None),
        (["train/a/1", "val/a/2", "train/b/3"], [0, 0, 1], ["a", "b"], ["train", "val", "train"]),
        (["d/Train/a/1", "d/test/b/2"], [0, 1], ["a", "b"], ["train", "test"]),
        (["train/1", "validation/2"], None, None, ["train", "val"]),
        (["train/a/1", "train/b/2"], [0, 1], ["a", "b"], None),
        (["train/1", "extra/2"], [1, 0], ["extra", "train"], None),
        (["train/1", "val/2", "3"], None, None, ["train", "val", "train"]),
        (["/far/1", "a/2", "b/3"], [0, 1, 2], ["", "a", "b"], None),
        (
            ["train/a/1", "train/b/2", "unlabeled/3", "test/b/4"],
            [0, 1, -1, 1],
            ["a", "b"],
            ["train", "train", "train", "test"],
        ),
    ],
)
def test_folders_spell_classes_and_splits(names, labels, classes, splits) -> None:
    got = from_paths(names)
    assert (None if got[0] is None else got[0].tolist(), got[1], got[2]) == (
        labels,
        classes,
        splits,
    )


# -- folders ---------------------------------------------------------------------------------


def test_folder_lists_wanted_files_sorted(tmp_path: Path) -> None:
    write(tmp_path, "b/2.JPG", "b/10.png", "a/x/1.jpg", "a/notes.txt", "a/scan.nii.gz", "a/s.gz")
    write(tmp_path, ".cache/1.jpg", "a/._1.jpg", "__MACOSX/1.jpg", "b/.jpg")
    source = open_source(tmp_path, suffixes=SUFFIXES)
    assert keys_of(source) == ["a/scan.nii.gz", "a/x/1.jpg", "b/10.png", "b/2.JPG"]
    assert source.classes == ["a", "b"]
    assert labels_of(source).tolist() == [0, 0, 1, 1]
    assert [read_bytes(source[i]) for i in range(4)] == [key.encode() for key in keys_of(source)]


def test_flat_folder_has_no_classes(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, "2.jpg", "1.jpg"), suffixes=SUFFIXES)
    assert keys_of(source) == ["1.jpg", "2.jpg"]
    assert source.classes is None
    assert source[0].label is None


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    outside = write(tmp_path / "outside", "3.jpg")
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    (root / "0link").symlink_to(root / "b", target_is_directory=True)
    (root / "c").symlink_to(outside, target_is_directory=True)
    (outside / "back").symlink_to(root, target_is_directory=True)
    (root / "b" / "4.jpg").symlink_to(outside / "3.jpg")
    (root / "b" / "gone.jpg").symlink_to(outside / "nowhere.jpg")
    assert list_folder(str(root), SUFFIXES).names == [
        "a/1.jpg",
        "b/2.jpg",
        "b/4.jpg",
        "b/gone.jpg",  # a sample that cannot be read, to be counted as one
        "c/3.jpg",
    ]


def test_pipes_and_folders_named_like_samples_are_no_samples(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg/inner.txt")
    os.mkfifo(tmp_path / "3.jpg")
    (tmp_path / "4.jpg").symlink_to(tmp_path / "3.jpg")
    assert list_folder(str(tmp_path), SUFFIXES).names == ["1.jpg"]


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(name, "wb") as file:
        file.write(b"x")
    source = open_source(tmp_path, suffixes=SUFFIXES)
    assert read_bytes(source[0]) == b"x"
    assert len(source.fingerprint()) == 16


def test_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file ending in \.jpg, \.png, \.nii\.gz; it is empty"):
        open_source(tmp_path, suffixes=SUFFIXES)
    write(tmp_path, "a/1.tif", "a/2.TIF", "b/readme")
    with pytest.raises(UserError, match=r"3 folders; it holds .*2 \.tif, 1 without suffix"):
        open_source(tmp_path, suffixes=SUFFIXES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(UserError, match="b cannot be read"):
            open_source(tmp_path, suffixes=SUFFIXES)
    finally:
        (tmp_path / "b").chmod(0o755)


def test_missing_path_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "photos/1.jpg")
    with pytest.raises(UserError, match=r"photso does not exist; did you mean .*photos\?"):
        open_source(tmp_path / "photso", suffixes=SUFFIXES)
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere" / "deep", suffixes=SUFFIXES)


def test_formats_are_checked(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "x.bin")
    with pytest.raises(UserError, match="did you mean 'folder'"):
        open_source(tmp_path, suffixes=SUFFIXES, format="foldr")
    with pytest.raises(UserError, match="not a folder"):
        open_source(tmp_path / "1.jpg", suffixes=SUFFIXES, format="folder")
    with pytest.raises(UserError, match="is a folder, where a file"):
        open_source(tmp_path, suffixes=SUFFIXES, format="list")
    with pytest.raises(UserError, match=r"cannot tell what .*x\.bin is"):
        open_source(tmp_path / "x.bin", suffixes=SUFFIXES)


def test_one_file_is_a_source_of_one(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, "1.jpg") / "1.jpg", suffixes=SUFFIXES)
    assert keys_of(source) == ["1.jpg"]
    assert read_bytes(source[0]) == b"1.jpg"


def test_fingerprint_tells_names_and_sizes_apart(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return open_source(tmp_path, suffixes=SUFFIXES).fingerprint()

    write(tmp_path, "1.jpg", "2.jpg")
    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "2.jpg").write_bytes(b"longer than before")
    second = fingerprint()
    (tmp_path / "2.jpg").rename(tmp_path / "3.jpg")
    assert len({first, second, fingerprint()}) == 3


# -- file lists ------------------------------------------------------------------------------


def test_list_is_relative_to_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "data", "cat/1.jpg", "dog/2.jpg")
    absolute = write(tmp_path / "far", "3.jpg") / "3.jpg"
    (tmp_path / "data" / "files.txt").write_text(
        f"# chosen by hand\n\ndog/2.jpg\ncat/1.jpg \n{absolute}\n"
    )
    source = open_source(tmp_path / "data" / "files.txt", suffixes=SUFFIXES)
    assert keys_of(source) == ["dog/2.jpg", "cat/1.jpg", str(absolute)]
    assert [read_bytes(source[i]) for i in range(3)] == [b"dog/2.jpg", b"cat/1.jpg", b"3.jpg"]


def test_list_of_missing_files_is_an_error_and_one_missing_is_not(tmp_path: Path) -> None:
    path = write(tmp_path, "1.jpg") / "files.txt"
    path.write_text("1.jpg\n2.jpg\n")
    assert len(open_source(path, suffixes=SUFFIXES)) == 2
    path.write_text("sub/1.jpg\nsub/2.jpg\n")
    with pytest.raises(UserError, match="none of the 2 files looked for"):
        open_source(path, suffixes=SUFFIXES)
    path.write_text("\n# nothing\n")
    with pytest.raises(UserError, match="lists no files"):
        open_source(path, suffixes=SUFFIXES)
    path.write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(UserError, match="not a text file"):
        open_source(path, suffixes=SUFFIXES)


# -- arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "tensor", "list"])
def test_arrays_give_rows_with_labels(kind: str) -> None:
    rows = np.arange(12).reshape(4, 3)
    data = {"array": rows, "tensor": torch.from_numpy(rows), "list": list(rows)}[kind]
    source = ArraySource(data, ["b", "a", None, "b"], meta={"group": [1, 1, 2, 2]})
    assert keys_of(source) == ["0", "1", "2", "3"]
    assert np.array_equal(np.asarray(source[2].payload), rows[2])
    assert labels_of(source).tolist() == [1, 0, -1, 1]
    assert source.classes == ["a", "b"]
    assert source[3].meta == {"group": 2}


def test_array_fingerprint_sees_content_labels_and_keys() -> None:
    rows = np.arange(12).reshape(4, 3)
    prints = [
        ArraySource(rows).fingerprint(),
        ArraySource(rows + 1).fingerprint(),
        ArraySource(rows, [0, 1, 0, 1]).fingerprint(),
        ArraySource(rows, keys=list("abcd")).fingerprint(),
        ArraySource(rows[:3]).fingerprint(),
        ArraySource([{"a": 1}]).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert ArraySource(rows.copy()).fingerprint() == prints[0]
    assert ArraySource(torch.from_numpy(rows)).fingerprint() == prints[0]
    half = ArraySource(torch.zeros(3, 2, dtype=torch.bfloat16))
    assert half.fingerprint() == half.fingerprint()


def test_array_columns_must_fit() -> None:
    with pytest.raises(UserError, match="labels: 2 values for 3 items"):
        ArraySource([1, 2, 3], [0, 1])
    with pytest.raises(UserError, match="group: 1 values"):
        ArraySource([1, 2, 3], meta={"group": [0]})


def test_array_files(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    np.save(tmp_path / "x.npy", rows)
    np.savez(tmp_path / "x.npz", images=rows, y=[3, 5, 3, 5])
    plain = open_source(tmp_path / "x.npy", suffixes=SUFFIXES)
    assert np.array_equal(plain[3].payload, rows[3])
    assert plain.classes is None
    both = open_source(tmp_path / "x.npz", suffixes=SUFFIXES)
    assert np.array_equal(both[1].payload, rows[1])
    assert both.classes == ["3", "5"]
    assert labels_of(both).tolist() == [0, 1, 0, 1]
    np.savez(tmp_path / "x.npz", other=rows)
    with pytest.raises(UserError, match=r"no array 'data'; it holds \['other'\]"):
        open_source(tmp_path / "x.npz", suffixes=SUFFIXES)


def test_array_files_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read as NumPy arrays"):
        open_source(tmp_path / "x.npy", suffixes=SUFFIXES)
    (tmp_path / "y.npy").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="cannot be read as NumPy arrays"):
        open_source(tmp_path / "y.npy", suffixes=SUFFIXES)


# -- small tools -----------------------------------------------------------------------------


def test_digest_knows_where_parts_end() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest([1]) == digest(["1"])
    assert digest(["\udce9"])


def test_evenly_keeps_both_ends() -> None:
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]


def test_sources_survive_pickling(tmp_path: Path) -> None:
    for source in (
        open_source(write(tmp_path, "a/1.jpg", "b/2.jpg"), suffixes=SUFFIXES),
        ArraySource(np.zeros((2, 3)), [0, 1]),
        FileSource(tmp_path, ["a/1.jpg"]),
    ):
        again = pickle.loads(pickle.dumps(source))
        assert again.fingerprint() == source.fingerprint()
        assert keys_of(again) == keys_of(source)
