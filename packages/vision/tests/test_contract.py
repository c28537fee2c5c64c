"""Every method the vision domain declares, against the contract kit."""

import pytest

from ssl_core.networks.text_tower import TextTower
from ssl_core.testing import CHECKS, Contract, MethodCase
from ssl_vision.domain import VISION
from ssl_vision.encoders.resnet_nano import ResNetNano

RESNET = {"encoder": "resnet_nano", "encoder_options": {"widths": (8, 16)}}
VIT = {"encoder": "vit_nano_patch8"}
CLASSLESS = {**VIT, "encoder_options": {"class_token": False, "pool": "mean"}}
SMALL = {"view_options": {"size": 32}}
CROPS = {"view_options": {"size": 32, "local_size": 16, "local_views": 2}}
HEAD = {"hidden": 16, "dim": 8}
NEAREST = HEAD | {"predictor_hidden": 16, "queue": 20}
LOCAL = {"local_hidden": 16, "local_dim": 8, "matches": (4, 2)}
PROTOTYPES = {"hidden": 16, "bottleneck": 8, "prototypes": 24}
DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
DATA2VEC = {"masks": 2, "mask_block": 2, "decoder_dim": 16, "decoder_depth": 2, "decoder_groups": 4}
JEPA = {"blocks": [{"targets": 2}], "predictor_dim": 16, "predictor_depth": 1, "predictor_heads": 2}
TILES = {"dim": 8, "hidden": 16}
PUZZLE = {"bank": 40, "dim": 8, "cells": 2, "negatives": 12}
HOLE = {"hole": 16, "overlap": 2, "decoder_dim": 16, "adversarial": 0.01}

TEACHER = ResNetNano(channels=3, widths=(4, 8), blocks=1, stem_stride=1)
TAUGHT = {"teacher": TEACHER, "hidden": 16}

CASES = [
    MethodCase("simclr", "simclr", options=HEAD, **SMALL, **RESNET),
    MethodCase("byol", "byol", options=HEAD, **SMALL, **RESNET),
    MethodCase("barlow_twins", "byol", options=HEAD, **SMALL, **RESNET),
    MethodCase("vicreg", "byol", options=HEAD, **SMALL, **RESNET),
    MethodCase("dino", "dino", options=PROTOTYPES, **CROPS, **VIT),
    MethodCase("moco", "simclr", options=HEAD | {"queue": 20}, **SMALL, **RESNET),
    MethodCase("moco_v3", "byol", options=HEAD, **SMALL, **RESNET),
    MethodCase("nnclr", "simclr", options=NEAREST, **SMALL, **RESNET),
    MethodCase("pirl", "pirl", options=PUZZLE, **SMALL, **RESNET),
    MethodCase("sup_con", "simclr", options=HEAD, **SMALL, **RESNET),
    MethodCase("simsiam", "simclr", options=HEAD | {"predictor_hidden": 4}, **SMALL, **RESNET),
    MethodCase("ressl", "ressl", options=HEAD | {"queue": 20}, **SMALL, **RESNET),
    MethodCase("swav", "dino", options=HEAD | {"prototypes": 12, "queue": 6}, **CROPS, **RESNET),
    MethodCase("vicregl", "dino", options=HEAD | LOCAL, **CROPS, **RESNET),
    MethodCase("ibot", "dino", options=PROTOTYPES, **CROPS, **VIT),
    MethodCase("dinov2", "dino", options=PROTOTYPES, **CROPS, **VIT),
    MethodCase("msn", "dino", options=HEAD | {"prototypes": 12}, **CROPS, **VIT),
    MethodCase("tico", "byol", options=HEAD, **SMALL, **RESNET),
    MethodCase("w_mse", "simclr", options=HEAD, **SMALL, **RESNET),
    MethodCase("lejepa", "dino", options=HEAD | {"directions": 16}, **CROPS, **RESNET),
    MethodCase("seed", "simclr", options=TAUGHT | {"queue": 20}, **SMALL, **RESNET),
    MethodCase("feature_distillation", "simclr", options=TAUGHT, **SMALL, **RESNET),
    MethodCase("mae", "mae", options=DECODER, **SMALL, **VIT),
    MethodCase("simmim", "mae", options={"mask_unit": 1}, **SMALL, **VIT),
    MethodCase("data2vec", "mae", options=DATA2VEC, **SMALL, **VIT),
    MethodCase("ijepa", "mae", options=JEPA, **SMALL, **VIT),
    MethodCase("spark", "mae", options={"decoder_dim": 16}, **SMALL, **RESNET),
    MethodCase("rotation", "mae", **SMALL, **RESNET),
    MethodCase("jigsaw", "mae", options=TILES | {"permutations": 10}, **SMALL, **RESNET),
    MethodCase("relative_patch", "mae", options=TILES, **SMALL, **RESNET),
    MethodCase("exemplar", "simclr", options={"dim": 8}, **SMALL, **RESNET),
    MethodCase("inpainting", "mae", options=HOLE, **SMALL, **RESNET),
    MethodCase("colourisation", "mae", **SMALL, **RESNET),
    MethodCase("maskfeat", "mae", options={"mask_block": 2}, **SMALL, **VIT),
    MethodCase("beit", "mae", options={"mask_block": 2, "levels": [4, 3, 3]}, **SMALL, **VIT),
    MethodCase("mixmim", "mae", options=DECODER | {"mask_unit": 1}, **SMALL, **CLASSLESS),
]

TOWER = TextTower(vocab_size=300, length=8, pad_id=0, dim=16, depth=1, heads=2)
CAPTIONED = [
    MethodCase("clip", "captioned", options={"tower": TOWER, "dim": 8}, **SMALL, **RESNET),
]
CAPTIONS = {"captions": "caption", "caption_length": 8, "vocab_size": 300}


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    return Contract(VISION, CASES + CAPTIONED, tmp_path_factory.mktemp("vision") / "samples")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions") / "samples"
    return Contract(VISION, CAPTIONED, folder, data_options=CAPTIONS)


def test_every_declared_method_has_a_case(contract):
    assert contract.undeclared() == (set(), set())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(contract, case, check):
    contract.check(case, [check])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CAPTIONED, ids=str)
def test_captioned_contract(captioned, case, check):
    captioned.check(case, [check])
