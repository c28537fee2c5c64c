"""Every method the audio domain declares, against the contract kit."""

import pytest

from ssl_audio.domain import AUDIO
from ssl_core.testing import CHECKS, Contract, MethodCase, paired_cases
from ssl_core.testing.contract import FRESH

CNN = {"encoder": "audio_cnn", "encoder_options": {"width": 4, "dim": 16, "first_stride": 2}}
SMALL = {"dim": 16, "depth": 2, "heads": 2}
VIT = {"encoder": "spec_vit_nano_patch16", "encoder_options": SMALL}
ROWS = {**VIT, "encoder_options": {**SMALL, "pool": "rows"}}
HEAD = {"hidden": 16, "dim": 8}
PROTOTYPES = {"hidden": 16, "bottleneck": 8, "prototypes": 24}
DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
FRAMES = {"encoder": "spec_vit_nano_frame4", "encoder_options": SMALL}
WAVE = {
    "encoder": "wave_nano",
    "encoder_options": {"width": 8, "dim": 16, "depth": 2, "heads": 2, "positions": 4},
}
GRU = {"encoder": "gru_nano", "encoder_options": {"dim": 16}}
CPC = {"encoder": "cpc_nano", "encoder_options": {"width": 8, "dim": 16}}
CODES = {"dim": 8, "codes": 6, "negatives": 5}
EAT = {"masks": 2, "mask_block": 1, "decoder_dim": 16, "decoder_depth": 1, "decoder_groups": 4}
TOKENIZER = {
    "teacher": FRESH,
    "codes": 12,
    "code_dim": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}
JEPA = {"blocks": [{"targets": 2}], "predictor_dim": 16, "predictor_depth": 1, "predictor_heads": 2}
CROPS = {"view_options": {"local_views": 1}}
COMMON = ("simclr", "byol", "barlow_twins", "vicreg")
SHORT = {"view_options": {"seconds": 0.64}}

CASES = [
    MethodCase("simclr", "simclr", options=HEAD, **SHORT, **CNN),
    MethodCase("byol", "byol", options=HEAD, **SHORT, **CNN),
    MethodCase("barlow_twins", "simclr", options=HEAD, **SHORT, **CNN),
    MethodCase("vicreg", "byol", options=HEAD, **SHORT, **CNN),
    *paired_cases(
        "simclr",
        "audio_cnn",
        view_options={"seconds": 0.64},
        encoder_options=CNN["encoder_options"],
        without=COMMON,
    ),
    MethodCase("ibot", "dino", options=PROTOTYPES, view_options={"local_views": 1}, **VIT),
    MethodCase("dinov2", "dino", options=PROTOTYPES, view_options={"local_views": 1}, **VIT),
    MethodCase("msn", "dino", options=HEAD | {"prototypes": 12}, **CROPS, **VIT),
    MethodCase("maskfeat", "mae", options={"mask_block": 2}, **VIT),
    MethodCase("ijepa", "mae", options=JEPA, **VIT),
    MethodCase("dino", "dino", options=PROTOTYPES, view_options={"local_views": 1}, **VIT),
    MethodCase("mae", "mae", options=DECODER, **ROWS),
    MethodCase("simmim", "mae", options={"mask_unit": 1}, **VIT),
    MethodCase("data2vec", "mae", options=EAT, **VIT),
    MethodCase("beit", "mae", options={"mask": "random", "mask_block": 1, "levels": (4, 4)}, **VIT),
    MethodCase("ssast", "mae", options={"mask_ratio": 0.5, "sides": (2,)}, **ROWS),
    MethodCase("tera", "mae", **FRAMES),
    MethodCase("apc", "mae", **GRU),
    MethodCase("cpc", "wave", options={"steps": 2, "negatives": 4}, **CPC),
    MethodCase("wav2vec2", "wave", options=CODES, **WAVE),
    MethodCase("hubert", "wave", options={"clusters": (6, 8), "dim": 8, "layer": 1}, **WAVE),
    MethodCase("atst_frame", "frames", options=HEAD, **FRAMES),
    MethodCase("beats_tokenizer", "mae", options=TOKENIZER, **VIT),
    MethodCase("beats", "mae", options={"codes": 32, **DECODER}, **ROWS),
]


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio") / "samples"
    return Contract(AUDIO, CASES, folder, count=20)


def test_every_declared_method_has_a_case(contract):
    assert contract.undeclared() == (set(), set())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(contract, case, check):
    contract.check(case, [check])
