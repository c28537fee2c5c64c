"""Every method the video domain declares, against the contract kit."""

import pytest

from ssl_core.testing import CHECKS, Contract, MethodCase
from ssl_video.domain import VIDEO

RESNET = {"encoder": "resnet3d_nano", "encoder_options": {"widths": (6, 12)}}
VIT = {"encoder": "vit_nano_patch8", "encoder_options": {"depth": 2}}
CLIP = {"size": 16, "frames": 4, "stride": 2}
JEPA = {"predictor_dim": 16, "predictor_depth": 1, "predictor_heads": 2}
SIDE = {"size": 16}
GAP = {**CLIP, "stride": 1, "gap": 1}
SHORT = {**CLIP, "stride": 1}
SMALL = {"view_options": CLIP}
CROPS = {"view_options": {**CLIP, "size": 24, "local_size": 16, "local_views": 2}}
HEAD = {"hidden": 16, "dim": 8}
PROTOTYPES = {"hidden": 16, "bottleneck": 8, "prototypes": 24}
DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
VIDEOMAE = {"mask": "tubes", "mask_ratio": 0.5, "norm_pixels": "channel"}

CASES = [
    MethodCase("simclr", "clips", options=HEAD, **SMALL, **RESNET),
    MethodCase("moco", "clips", options=HEAD | {"queue": 20}, **SMALL, **RESNET),
    MethodCase("simsiam", "clips", options=HEAD | {"predictor_hidden": 4}, **SMALL, **RESNET),
    MethodCase("swav", "clips", options=HEAD | {"prototypes": 12, "queue": 6}, **SMALL, **RESNET),
    MethodCase("byol", "clips", options=HEAD, **SMALL, **RESNET),
    MethodCase("barlow_twins", "clips", options=HEAD, **SMALL, **RESNET),
    MethodCase("vicreg", "clips", options=HEAD, **SMALL, **RESNET),
    MethodCase("dino", "dino", options=PROTOTYPES, **CROPS, **VIT),
    MethodCase(
        "mae",
        "mae",
        options={**DECODER, **VIDEOMAE},
        **SMALL,
        **VIT,
    ),
    MethodCase("ijepa", "mae", options=JEPA, view_options={**CLIP, "size": 32}, **VIT),
    MethodCase("clip_order", "order", options={"hidden": 16}, view_options=GAP, **RESNET),
    MethodCase("pace", "pace", view_options={**SIDE, "frames": 4}, **RESNET),
    MethodCase("vididi", "derivatives", options={"host": "vicreg", **HEAD}, **SMALL, **RESNET),
    MethodCase("hdc", "decoupled", options=HEAD, **SMALL, **RESNET),
    MethodCase(
        "ultrasound", "geometry", options={"hidden": 16}, view_options={"size": 16}, **RESNET
    ),
    MethodCase("tov_vicreg", "triplet", options=HEAD, view_options=SHORT, **RESNET),
    MethodCase("rspnet", "speeds", options=HEAD | {"queue": 20}, **SMALL, **RESNET),
]


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    return Contract(VIDEO, CASES, tmp_path_factory.mktemp("video") / "samples", count=20)


def test_every_declared_method_has_a_case(contract):
    assert contract.undeclared() == (set(), set())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(contract, case, check):
    contract.check(case, [check])
