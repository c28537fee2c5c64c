"""Every method that a domain declares, against the contract kit, in every domain."""

import pytest

from ssl_core.testing import CHECKS, Contract, MethodCase

HEADS = {
    "simclr": {"hidden": 16, "dim": 8},
    "byol": {"hidden": 16, "dim": 8},
    "dino": {"hidden": 16, "bottleneck": 8, "prototypes": 24},
    "barlow_twins": {"hidden": 16, "dim": 8},
    "vicreg": {"hidden": 16, "dim": 8},
}
DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}


def cases(views, encoder, encoder_options, view_options=None):
    """One case for every method of HEADS; `views` maps a method to its policy."""
    return [
        MethodCase(name, views[name], encoder, options, view_options or {}, encoder_options)
        for name, options in HEADS.items()
        if name in views
    ]


def vision():
    from ssl_vision.domain import VISION

    small = {"size": 32}
    vit = {"encoder": "vit_nano_patch8", "encoder_options": {}}
    views = {"simclr": "simclr", "byol": "byol", "barlow_twins": "byol", "vicreg": "byol"}
    resnet = cases(views, "resnet_nano", {"widths": (8, 16)}, small)
    masked = [
        MethodCase("mae", "mae", options=DECODER, view_options=small, **vit),
        MethodCase("simmim", "mae", options={"mask_unit": 1}, view_options=small, **vit),
    ]
    crops = {"size": 32, "local_size": 16, "local_views": 2}
    dino = MethodCase("dino", "dino", options=HEADS["dino"], view_options=crops, **vit)
    return VISION, [*resnet, dino, *masked]


DOMAINS = {"vision": vision}


@pytest.fixture(scope="module", params=DOMAINS)
def contract(request, tmp_path_factory):
    domain, method_cases = DOMAINS[request.param]()
    return Contract(domain, method_cases, tmp_path_factory.mktemp(request.param) / "samples")


def test_every_declared_method_is_checked(contract):
    assert contract.undeclared() == (set(), set())


@pytest.mark.parametrize("check", CHECKS)
def test_contract(contract, check):
    for case in contract.cases:
        try:
            contract.check(case, [check])
        except AssertionError as error:
            raise AssertionError(f"{contract.domain.name} {case}: {error}") from error
