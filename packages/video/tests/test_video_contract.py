"""Every method the video domain declares, against the contract kit."""

import pytest

from ssl_core.testing import CHECKS, Contract, MethodCase, paired_cases
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
DATA2VEC = {"masks": 2, "mask_block": 1, "decoder_dim": 16, "decoder_depth": 1, "decoder_groups": 4}
VIDEOMAE = {"mask": "tubes", "mask_ratio": 0.5, "norm_pixels": "channel"}

CASES = [
    *paired_cases("clips", "resnet3d_nano", view_options=CLIP, encoder_options={"widths": (6, 12)}),
    MethodCase("ibot", "dino", options=PROTOTYPES | {"mask": "random"}, **CROPS, **VIT),
    MethodCase("dinov2", "dino", options=PROTOTYPES | {"mask": "random"}, **CROPS, **VIT),
    MethodCase("msn", "dino", options=HEAD | {"prototypes": 12}, **CROPS, **VIT),
    MethodCase("simmim", "mae", options={"mask_unit": 1}, **SMALL, **VIT),
    MethodCase("maskfeat", "mae", options={"mask": "random", "mask_block": 1}, **SMALL, **VIT),
    MethodCase("data2vec", "mae", options=DATA2VEC, **SMALL, **VIT),
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
