"""Every method the medical domain declares, against the contract kit."""

import pytest

from ssl_core.testing import CHECKS, Contract, MethodCase, paired_cases
from ssl_medical.domain import MEDICAL

RESNET = {"encoder": "resnet_nano", "encoder_options": {"widths": (4, 8)}}
UNET = {"encoder": "unet_nano", "encoder_options": {"widths": (4, 8), "dim": 4}}
VIT = {"encoder": "vit_nano_patch8", "encoder_options": {"depth": 1, "dim": 48}}
CSWIN = {
    "encoder": "cswin_unet_nano",
    "encoder_options": {"dim": 6, "depths": (1, 1), "heads": (3, 3), "stripes": (1, 0)},
}
SMALL = {"view_options": {"size": 16}}
HEAD = {"hidden": 16, "dim": 8}
LOCAL = {"local_hidden": 8, "local_dim": 8, "matches": 4}
TILES = {"axes": 3, "cells": 2, "dim": 8, "hidden": 16, "permutations": 10}
ALICE = {"hidden": 16, "bottleneck": 8, "prototypes": 12, "place_prototypes": 12} | {
    "align_heads": 2, "align_hidden": 16, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip
PROTOTYPES = {"hidden": 16, "bottleneck": 8, "prototypes": 24}
CROPS = {"view_options": {"size": 24, "local_size": 16, "local_views": 1}}
DATA2VEC = {"masks": 2, "mask_block": 1, "decoder_dim": 16, "decoder_depth": 1, "decoder_groups": 4}
JEPA = {"blocks": [{"targets": 2}], "predictor_dim": 48, "predictor_depth": 1, "predictor_heads": 2}
TILES_3 = {"axes": 3, "dim": 8, "hidden": 16}
HOLE = {"axes": 3, "channels": 1, "hole": 8, "overlap": 1, "decoder_dim": 8, "adversarial": 0.01}
DECODER = {"decoder_dim": 48, "decoder_depth": 1, "decoder_heads": 2}

CASES = [
    *paired_cases(
        "pairs", "resnet_nano", view_options={"size": 16}, encoder_options={"widths": (4, 8)}
    ),
    MethodCase("ibot", "dino", options=PROTOTYPES | {"mask": "random"}, **CROPS, **VIT),
    MethodCase("dinov2", "dino", options=PROTOTYPES | {"mask": "random"}, **CROPS, **VIT),
    MethodCase("msn", "dino", options=HEAD | {"prototypes": 12}, **CROPS, **VIT),
    MethodCase("data2vec", "mae", options=DATA2VEC, **SMALL, **VIT),
    MethodCase("ijepa", "mae", options=JEPA, view_options={"size": 32}, **VIT),
    MethodCase("relative_patch", "mae", options=TILES_3, view_options={"size": 24}, **RESNET),
    MethodCase("inpainting", "mae", options=HOLE, **SMALL, **RESNET),
    MethodCase(
        "dino",
        "dino",
        options=PROTOTYPES,
        view_options={"size": 16, "local_size": 8, "local_views": 1},
        **RESNET,
    ),
    MethodCase("mae", "mae", options={**DECODER, "mask_ratio": 0.5}, **SMALL, **VIT),
    MethodCase("simmim", "mae", options={"mask_unit": 1}, **SMALL, **VIT),
    MethodCase("spark", "mae", options={"decoder_dim": 8}, **SMALL, **RESNET),
    MethodCase("rotation", "mae", **SMALL, **RESNET),
    MethodCase("lvm_med", "pairs", options=HEAD | LOCAL | {"group": 4}, **SMALL, **RESNET),
    MethodCase("jigsaw", "mae", options=TILES, **SMALL, **RESNET),
    MethodCase("alice", "mae", options=ALICE, **SMALL, **VIT),
    MethodCase("unet_inpainting", "dropped", **SMALL, **UNET),
    MethodCase("cswin_unet", "cutouts", options={"dim": 8, "decoder_dim": 4}, **SMALL, **CSWIN),
    MethodCase("models_genesis", "restore", **SMALL, **UNET),
    MethodCase(
        "global_local",
        "slices",
        options={"hidden": 16, "dim": 8, "local_dim": 4},
        view_options={"size": 16},
        encoder="unet_nano",
        encoder_options={"widths": (4, 8), "dim": 4, "axes": 2},
    ),
    MethodCase(
        "relative_position",
        "pairs",
        options={"contrast": 0.5, "hidden": 16, "projection": 8},
        **SMALL,
        **UNET,
    ),
    MethodCase("voco", "voco", options=HEAD, view_options={"size": 8, "grid": (2, 2, 1)}, **RESNET),
    MethodCase("swin_unetr", "cutouts", options={"dim": 8}, **SMALL, **UNET),
]


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    folder = tmp_path_factory.mktemp("medical") / "samples"
    return Contract(MEDICAL, CASES, folder, count=16, data_options={"crop": False})


def test_every_declared_method_has_a_case(contract):
    assert contract.undeclared() == (set(), set())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(contract, case, check):
    contract.check(case, [check])
