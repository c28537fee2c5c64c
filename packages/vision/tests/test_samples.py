"""The embedded digits: real files, the same bytes every time, no scan on both sides."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ssl_core.data.manifest import read_table
from ssl_core.errors import UserError
from ssl_core.rng import generator
from ssl_vision import samples
from ssl_vision.decode import decode_image
from ssl_vision.formats import sniff


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in images(folder)
    }


def images(folder: Path) -> list[Path]:
    """The image files, sorted."""
    return sorted(path for path in folder.rglob("*.*") if path.suffix != ".csv")


def test_layout_formats_and_repeatability(tmp_path) -> None:
    samples.write_samples(tmp_path / "a", count=150, seed=3)
    samples.write_samples(tmp_path / "b", count=150, seed=3)
    samples.write_samples(tmp_path / "c", count=150, seed=4)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert len(first) == 150
    assert not set(first.values()) & set(contents(tmp_path / "c").values())
    assert sum(name.startswith("test") for name in first) == 30
    assert {name.split("/")[1] for name in first} == set("0123456789")
    for path in images(tmp_path / "a"):
        assert sniff(path.read_bytes()) == {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
        assert decode_image(path).shape == (3, samples.SIDE, samples.SIDE)


def test_captions_tell_what_is_there(tmp_path) -> None:
    samples.write_samples(tmp_path, count=60, seed=3)
    table = read_table(tmp_path / "captions.csv")
    assert sorted(table["path"]) == [str(p.relative_to(tmp_path)) for p in images(tmp_path)]
    for path, label, split, caption in zip(*table.values(), strict=True):
        assert path.startswith(f"{split}/{label}/")
        size, brightness, digit = caption.split()[1:]
        assert samples.WORDS.index(digit) == int(label)
        assert size in ("small", "large")
        pixels = decode_image(tmp_path / path).float().mean(0)
        middle = pixels.median()  # most of a scene is ground
        lighter = (pixels.max() - middle) > (middle - pixels.min())
        assert bool(lighter) == (brightness == "light")


def test_no_scan_is_on_both_sides(tmp_path, monkeypatch) -> None:
    """Scenes are replaced by the scan's own bytes; these must not repeat across the sides."""
    monkeypatch.setattr(
        samples, "draw_scene", lambda scan, rng: samples.Scene(scan, scan, True, 20)
    )
    monkeypatch.setattr(samples, "_encoded", lambda scan, suffix: scan.tobytes())
    samples.write_samples(tmp_path / "a", count=4000, seed=0)
    sides = {
        side: {path.read_bytes() for path in (tmp_path / "a" / side).rglob("*.*")}
        for side in ("train", "test")
    }
    assert not sides["train"] & sides["test"]
    assert len(sides["train"]) + len(sides["test"]) >= 1795  # two scans may be alike
    scans, labels = samples.digit_scans()
    digit = {scan.tobytes(): str(label) for scan, label in zip(scans, labels, strict=True)}
    for path in images(tmp_path / "a"):
        assert digit[path.read_bytes()] == path.parent.name


def test_scenes_differ_in_place_size_and_colour() -> None:
    scan = samples.digit_scans()[0][0]
    scenes = np.stack([samples.draw_scene(scan, generator("t", i)).pixels for i in range(40)])
    corner = scenes[:, :3, :3].mean((1, 2))  # background colours
    assert corner.std(0).min() > 10
    assert np.abs(scenes.astype(int) - scenes[0]).mean((1, 2, 3))[1:].min() > 5


def test_wrong_arguments_are_user_errors(tmp_path) -> None:
    with pytest.raises(UserError, match="count: 19"):
        samples.write_samples(tmp_path / "a", count=19)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        samples.write_samples(tmp_path / "full", count=30)
