"""Images with captions: manifests, folders, views, and both towers found again after a run."""

from __future__ import annotations

import json

import pytest
import torch

import ssl_vision
from ssl_core.batch import Batch
from ssl_core.data.captions import CaptionReader
from ssl_core.errors import UserError
from ssl_core.files import read_json
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_core.rng import Rng
from ssl_vision.domain import VISION
from ssl_vision.reader import ImageReader

OPTIONS = {"captions": "caption", "caption_length": 8, "vocab_size": 300}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("captioned") / "samples"
    VISION.samples(place, count=40, seed=0)
    return place


def test_folders_and_json_lines_give_the_same_captions(folder):
    data = Data(path=str(folder), options=OPTIONS)
    source = VISION.open(data)
    assert len(source) == 40
    record = source[3]
    assert record.meta["caption"].startswith("a ")
    assert record.label == int(record.key.split("/")[1])
    lines = [
        {"path": head.key, "caption": [head.meta["caption"], "a digit"], "label": head.label}
        for head in (source[i] for i in range(40))
    ]
    other = folder / "list.jsonl"
    other.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    again = VISION.open(Data(path=str(other), options=OPTIONS))
    assert [again[i].key for i in range(40)] == [source[i].key for i in range(40)]
    assert again[3].meta["caption"] == [record.meta["caption"], "a digit"]
    other.write_text('{"path": "a.png"}\n[1]\n')
    with pytest.raises(UserError, match="line 2"):
        VISION.open(Data(path=str(other)))
    other.unlink()


def test_without_captions_images_are_read_as_ever(folder, tmp_path):
    reader = VISION.fit_reader(VISION.open(Data(path=str(folder))), Data(path=str(folder)))
    assert isinstance(reader, ImageReader)
    bare = tmp_path / "bare"
    VISION.samples(bare, count=20, seed=0)
    (bare / "captions.csv").unlink()
    data = Data(path=str(bare), options=OPTIONS)
    with pytest.raises(UserError, match=r"data\.options\.captions"):
        VISION.fit_reader(VISION.open(data), data)
    with pytest.raises(UserError, match="captions"):
        VISION.create_views("captioned", reader.spec, {})


def test_views_are_the_image_policys_and_the_caption(folder):
    data = Data(path=str(folder), options=OPTIONS)
    source = VISION.open(data)
    reader = VISION.fit_reader(source, data)
    assert isinstance(reader, CaptionReader)
    collated = reader.collate([reader.decode(source[i]) for i in range(4)])
    ids = torch.arange(4)
    batch = Batch(collated, ids, ids)
    policy = VISION.create_views("captioned", reader.spec, {"size": 24, "views": 2})
    first, second, caption = policy(batch, Rng.at(0, 0, ids))
    assert first.data.shape == second.data.shape == (4, 3, 24, 24)
    assert (caption.role, caption.data.shape) == ("caption", (4, 8))
    assert torch.equal(caption.data, collated.ids)
    plain = Registry("views", {"none": VISION.views["none"]}).build(
        "none", reader.spec, options={"size": 24}
    )
    images = Batch(collated.samples, ids, ids)
    assert torch.equal(policy.plain(batch), plain.plain(images))
    assert VISION.draw(caption.data, reader.spec) == []


def test_a_run_measures_both_towers_and_embeds_images_without_captions(folder, tmp_path):
    small = ["train.steps=2", "train.batch_size=8", "encoder.widths=[4,8]", "data.workers=0"]
    run = ssl_vision.pretrain(
        data=folder, method="clip", out=tmp_path / "run", settings=small, progress=False
    )
    more = read_json(run.path / "summary.json")["more"]["caption_retrieval"]
    assert more["images"] == 8
    assert 0 <= more["image_to_caption"]["R@1"] <= more["image_to_caption"]["R@5"] <= 1
    model = ssl_vision.load(run.path)
    (folder / "captions.csv").rename(tmp_path / "captions.csv")
    try:
        found = model.embed(str(folder))
    finally:
        (tmp_path / "captions.csv").rename(folder / "captions.csv")
    assert len(found) == 40
    with pytest.raises(UserError, match="tower"):
        ssl_vision.build_recipe(method="clip", settings=["method.tower={name: texts}"])
