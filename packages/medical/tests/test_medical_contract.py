"""Every method the medical domain declares, against the contract kit."""

import pytest

from ssl_core.testing import CHECKS, Contract, MethodCase
from ssl_medical.domain import MEDICAL

RESNET = {"encoder": "resnet_nano", "encoder_options": {"widths": (4, 8)}}
UNET = {"encoder": "unet_nano", "encoder_options": {"widths": (4, 8), "dim": 4}}
VIT = {"encoder": "vit_nano_patch8", "encoder_options": {"depth": 1, "dim": 48}}
CSWIN = {
    "encoder": "cswin_nano",
    "encoder_options": {"dim": 6, "depths": (1, 1), "heads": (3, 3), "stripes": (1, 0)},
}
SMALL = {"view_options": {"size": 16}}
HEAD = {"hidden": 16, "dim": 8}
LOCAL = {"local_hidden": 8, "local_dim": 8, "matches": 4}
TILES = {"axes": 3, "cells": 2, "dim": 8, "hidden": 16, "permutations": 10}
ALICE = {"hidden": 16, "bottleneck": 8, "prototypes": 12, "place_prototypes": 12} | {
    "align_heads": 2, "align_hidden": 16, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip
DECODER = {"decoder_dim": 48, "decoder_depth": 1, "decoder_heads": 2}

CASES = [
    MethodCase("simclr", "pairs", options=HEAD, **SMALL, **RESNET),
    MethodCase("byol", "pairs", options=HEAD, **SMALL, **RESNET),
    MethodCase("barlow_twins", "pairs", options=HEAD, **SMALL, **RESNET),
    MethodCase("vicreg", "pairs", options=HEAD, **SMALL, **RESNET),
    MethodCase(
        "dino",
        "dino",
        options={"hidden": 16, "bottleneck": 8, "prototypes": 24},
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
