"""The vision domain as the command walks it: files in, batches and views out, recipes valid."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import ssl_vision
from ssl_core.batch import Batch
from ssl_core.data import decode_all, split_holdout
from ssl_core.data.captions import Captioned
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_core.runs.config import build, recipe_names, shipped
from ssl_core.runs.inspection import inspect_data
from ssl_vision.domain import VISION

PUBLISHED = ("_imagenet", "_cifar10", "_yfcc15m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "digits"
    VISION.samples(path, count=60, seed=0)
    return path


def test_from_folder_to_views(folder, tmp_path) -> None:
    data = Data(path=str(folder))
    train, held = split_holdout(VISION.open(data), 0.2)
    assert (len(train), len(held)) == (48, 12)
    assert list(train.classes) == list("0123456789")
    reader = VISION.fit_reader(train, data)
    reader.save(tmp_path)
    batches = list(decode_all(train, VISION.load_reader(tmp_path), range(48), batch_size=20))
    assert [len(batch) for batch in batches] == [20, 20, 8]
    assert reader.raw(batches[0].data).shape == (20, 3 * 32 * 32)
    for name in set(VISION.views) - {"captioned"}:  # these have no captions
        policy = VISION.create_views(name, reader.spec, {})
        views = policy(batches[0], Rng.at(0, 0, batches[0].ids))
        assert all(len(view) == 20 for view in views)
        assert policy.plain(batches[0]).shape == (20, 3, 40, 40)


def test_damaged_files_are_passed_over_and_named(folder, tmp_path) -> None:
    mixed = tmp_path / "mixed"
    (mixed / "empty").mkdir(parents=True)
    photo = Image.effect_noise((64, 48), 60)
    photo.save(mixed / "good.jpg")
    photo.save(mixed / "whole.png")
    whole = (mixed / "good.jpg").read_bytes()
    (mixed / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (mixed / "notes.jpg").write_text("not a picture")
    bomb = bytearray((mixed / "whole.png").read_bytes())
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    (mixed / "bomb.png").write_bytes(bomb)
    data = Data(path=str(mixed))
    source = VISION.open(data)
    reader = VISION.fit_reader(source, data)
    failures = {}
    batches = decode_all(
        source,
        reader,
        range(len(source)),
        batch_size=8,
        on_corrupt=lambda failure: failures.update({failure.key: failure.reason}),
    )
    assert sorted(key for batch in batches for key in batch.keys) == ["good.jpg", "whole.png"]
    assert "truncated" in failures["cut.jpg"]
    assert "not an image file" in failures["notes.jpg"]
    assert "30000 x 30000 pixels exceed" in failures["bomb.png"]


@pytest.mark.parametrize("name", recipe_names(VISION))
def test_recipes_are_valid_and_build(name: str, folder) -> None:
    taught = name.startswith(("seed", "feature_dist"))  # their user names the teacher
    recipe = build(VISION, name, assignments=["method.teacher=RUN"] if taught else [])
    spec = {"channels": 3, "size": 40, "height": 40, "width": 40, "dtype": "uint8"}
    spec |= {"range": [0, 255], "mean": [0.5] * 3, "std": [0.25] * 3}
    if "captions" in recipe.data.options:
        spec["captions"] = {"vocab_size": 300, "length": 8, "pad_id": 0}
    policy = VISION.create_views(recipe.views.name, spec, recipe.views.options)
    ids = torch.arange(2)
    data = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    if "captions" in spec:
        data = Captioned(data, torch.zeros(2, 8, dtype=torch.int64))
    views = policy(Batch(data, ids, ids), Rng.at(0, 0, ids))
    assert views[0].data.shape[:2] == (2, 3)
    assert recipe.method.name in VISION.methods
    assert recipe.encoder.name in VISION.encoder_names()


@pytest.mark.parametrize("name", [n for n in recipe_names(VISION) if n.endswith(PUBLISHED)])
def test_nothing_of_the_laptop_default_shows_through_published_recipes(name: str) -> None:
    taught = {"teacher": "RUN"} if name.startswith("seed") else {}
    own, built = shipped(VISION, name), build(VISION, name, flags={"method": taught})
    own = {**own, "method": {**own["method"], **taught}}
    for section in ("views", "encoder", "method"):
        named = getattr(built, section)
        assert {"name": named.name, **named.options} == own[section]
    for section in ("optimizer", "train"):
        values = getattr(built, section).model_dump()
        assert {key: values[key] for key in own[section]} == own[section] | {
            key: tuple(value) for key, value in own[section].items() if isinstance(value, list)
        }


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, ssl_vision, ssl_vision.__main__; dir(ssl_vision)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    assert ssl_vision.VISION is VISION
    for name in ssl_vision.__all__:
        assert getattr(ssl_vision, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        _ = ssl_vision.pretrian


def test_inspect_tells_formats_sizes_and_what_is_left_out(tmp_path) -> None:
    photo = Image.effect_noise((64, 48), 60)
    photo.convert("RGB").save(tmp_path / "a.jpg")
    photo.save(tmp_path / "b.gif", save_all=True, append_images=[Image.new("L", (64, 48))])
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.resize((30, 20)).save(tmp_path / "c.jpg", exif=exif)
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((8, 20, 30), np.uint16))
    np.save(tmp_path / "e.npy", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "f.png").write_bytes(b"no image")
    found = VISION.facts(VISION.open(Data(path=str(tmp_path))), range(6))
    assert found["formats"] == {"JPEG": 2, "GIF": 1, "TIFF": 1}
    assert found["modes"]["1 x uint16"] == 1
    assert found["width"] == {"least": 30, "median": 30, "most": 64}
    assert found["notes"] == {
        "GIF files with several frames or pages; only the first is read": 1,
        "files turned as their EXIF orientation says": 1,
        "TIFF files with several frames or pages; only the first is read": 1,
    }


def test_inspect_draws_the_views_that_training_makes(folder, tmp_path) -> None:
    recipe = build(VISION, flags={"data": {"path": str(folder)}, "method": {"name": "dino"}})
    picture = tmp_path / "views.png"
    shown = inspect_data(VISION, recipe, limit=20, picture=picture)["views"]
    assert shown["picture"] == str(picture)
    assert (shown["name"], shown["captions"]) == ("dino", [f"view {i}" for i in range(1, 7)])
    # A row an image; two columns of 24 pixels and four of 16, with gaps; all enlarged.
    with Image.open(picture) as drawn:
        assert drawn.size == (4 * (2 * 24 + 4 * 16 + 5 * 6), 4 * (4 * 24 + 3 * 6))
