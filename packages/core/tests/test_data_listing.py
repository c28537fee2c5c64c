"""Kept listings: equal to a walk, invalidated by what changes, harmless when damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssl_core.data import listing as kept
from ssl_core.data.folder import list_folder
from ssl_core.data.open import open_source


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    for name in ("a/1.jpg", "a/2.JPG", "b/c/3.png", "b/notes.txt", "4.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    settle(tmp_path / "photos")
    return str(tmp_path / "photos")


def settle(root: Path) -> None:
    """Folders look as if nothing had changed for a minute."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        old = folder.stat().st_mtime_ns - 60 * 10**9
        os.utime(folder, ns=(old, old))


def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def walk(root: str, suffixes):
        made.append(root)
        return list_folder(root, suffixes)

    monkeypatch.setattr(kept, "list_folder", walk)
    return made


def test_a_kept_listing_is_the_walk(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = walks(monkeypatch)
    first = kept.listed(photos, [".jpg", ".png"], worth=1)
    again = kept.listed(photos, [".jpg", ".png"], worth=1)
    assert len(made) == 1
    assert first == again == list_folder(photos, [".jpg", ".png"])
    assert kept.listed(photos, [".png"], worth=1).names == ["b/c/3.png"]
    assert len(made) == 2  # other suffixes are another listing


@pytest.mark.parametrize("change", ["add", "remove", "rename", "folder"])
def test_what_changes_a_folder_is_seen(photos: str, monkeypatch, change: str) -> None:
    kept.listed(photos, [".jpg", ".png"], worth=1)
    deep = Path(photos, "b", "c")
    match change:
        case "add":
            (deep / "5.png").write_bytes(b"x")
        case "remove":
            (deep / "3.png").unlink()
        case "rename":
            (deep / "3.png").rename(deep / "6.png")
        case "folder":
            (deep / "d").mkdir()
            (deep / "d" / "7.png").write_bytes(b"x")
    assert kept.listed(photos, [".jpg", ".png"], worth=1) == list_folder(photos, [".jpg", ".png"])


def test_a_folder_that_just_changed_is_not_kept(photos: str, monkeypatch) -> None:
    made = walks(monkeypatch)
    Path(photos, "new.jpg").write_bytes(b"x")
    for _ in range(2):
        assert "new.jpg" in kept.listed(photos, [".jpg"], worth=1).names
    assert len(made) == 2


def test_a_damaged_cache_is_walked_over(photos: str, tmp_path: Path) -> None:
    expected = kept.listed(photos, [".jpg"], worth=1)
    (file,) = (tmp_path / "cache" / "listings").iterdir()
    for content in (b"", b"[]", b'{"version": 1}', file.read_bytes()[:-20]):
        file.write_bytes(content)
        assert kept.listed(photos, [".jpg"], worth=1) == expected


def test_names_that_are_no_text_survive(photos: str) -> None:
    strange = os.fsencode(photos) + b"/a/\xff\n.jpg"
    Path(os.fsdecode(strange)).write_bytes(b"x")
    settle(Path(photos))
    first = kept.listed(photos, [".jpg"], worth=1)
    assert kept.listed(photos, [".jpg"], worth=1) == first
    assert any("\udcff" in name for name in first.names)


def test_small_folders_leave_no_cache_and_open_as_before(photos: str, tmp_path: Path) -> None:
    source = open_source(photos, suffixes=[".jpg", ".png"])
    assert list(source.classes) == ["a", "b"]
    assert not (tmp_path / "cache").exists()
