"""Encoders: equality with timm, every family at small sizes and any channels, stems, weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_core.encoder import Features, TokenEncoder
from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import RandomMasker
from ssl_core.registry import Registry
from ssl_core.rng import Rng
from ssl_vision.encoders import ENCODERS, create_encoder, encoder_names

SMALL: dict[str, dict[str, Any]] = {
    "resnet_nano": {},
    "vit_nano_patch4": {},
    "resnet18": {},
    "timm/resnet26d": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"depth": 2},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "efficientnet_b0": {},
    "ghostnet_050": {},
    "mobilenetv3_small_050": {},
    "mixer_s32_224": {},
    "levit_128s": {},
    "mambaout_femto": {},
    "torchvision/resnet18": {},
    "torchvision/regnet_y_400mf": {},
    "torchvision/mobilenet_v3_small": {},
    "torchvision/shufflenet_v2_x0_5": {},
    "torchvision/mnasnet0_5": {},
    "torchvision/squeezenet1_1": {},
}
"""A small member of each family, with the options that make it cheap."""


def keys(rows: int) -> Rng:
    return Rng.at(0, 0, torch.arange(rows))


def images(channels: int = 3, side: int = 32, rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, channels, side, side, generator=generator)


@pytest.mark.parametrize(("side", "channels"), [(32, 1), (64, 5)])
@pytest.mark.parametrize("name", SMALL)
def test_every_family_takes_small_images_of_any_channels(
    name: str, side: int, channels: int
) -> None:
    encoder = create_encoder(name, {"channels": channels, "size": side}, **SMALL[name])
    state = torch.get_rng_state()
    with dropout_keys(keys(2)):
        features: Features = encoder.train()(images(channels, side))
    assert torch.equal(torch.get_rng_state(), state), "global random state was used"
    assert features.pooled.shape == (2, encoder.embed_dim)
    assert features.tokens is not None
    assert features.tokens.shape[:2] == (2, torch.Size(features.grid).numel())
    features.pooled.square().sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["efficientnet_b0", "torchvision/efficientnet_b0"])
def test_stochastic_depth_follows_the_samples_key(name: str) -> None:
    options = {"drop_path_rate": 0.5} if "/" not in name else {"stochastic_depth_prob": 0.5}
    encoder = create_encoder(name, {"channels": 3, "size": 32}, **options)
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # so that rows do not depend on each other
    x = images(rows=4)
    with dropout_keys(keys(4)):
        whole = encoder(x).pooled
    with dropout_keys(keys(4)[1:3]):
        part = encoder(x[1:3]).pooled
    torch.testing.assert_close(part, whole[1:3], atol=0, rtol=1e-3)
    assert not torch.allclose(encoder.eval()(x).pooled, whole, atol=0)


def test_own_vit_interchanges_with_timm_both_ways() -> None:
    import timm

    spec = {"channels": 3, "size": 64}
    own = create_encoder("vit_tiny_patch16", spec).eval()
    other = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    assert own.state_dict().keys() == other.state_dict().keys()
    x = images(side=64)
    own.load_state_dict(other.state_dict())
    with torch.no_grad():
        features, expected = own(x), other.forward_features(x)
    torch.testing.assert_close(features.tokens, expected[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, expected[:, 0], atol=1e-5, rtol=1e-5)
    for parameter in own.parameters():
        nn.init.normal_(parameter, std=0.05)
    other.load_state_dict(own.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(own(x).pooled, other(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"depth": 2}),
        ("vit_small_patch14_reg4_dinov2", {"depth": 2}),
        ("vit_base_patch16_clip_224", {"depth": 2, "embed_dim": 192, "num_heads": 3}),
        ("deit3_small_patch16_224", {"depth": 2}),
        ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg", "class_token": False}),
    ],
)
def test_timm_vits_as_token_encoders_equal_timm(name: str, options: dict[str, Any]) -> None:
    side = 56 if "patch14" in name else 64
    encoder = create_encoder(name, {"channels": 3, "size": side}, **options).eval()
    assert isinstance(encoder, TokenEncoder)
    for size in (side, 2 * side):  # native positions, then interpolated ones
        x = images(side=size)
        with torch.no_grad():
            features, expected = encoder(x), encoder.model(x)
            tokens = encoder.model.forward_features(x)
        torch.testing.assert_close(features.pooled, expected, atol=1e-5, rtol=1e-5)
        count = 0 if features.prefix is None else features.prefix.shape[1]
        torch.testing.assert_close(features.tokens, tokens[:, count:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["drop", "replace"])
@pytest.mark.parametrize("name", ["vit_nano_patch4", "vit_tiny_patch16_224"])
def test_hidden_pixels_never_reach_the_encoder(name: str, mode: str) -> None:
    options = {"depth": 2} | ({"patch_size": 4} if name.endswith("224") else {})
    encoder = create_encoder(name, {"channels": 3, "size": 16}, **options)
    encoder.enable_mask_token()
    x = images(side=16)
    tokens = encoder.tokenize(x)
    mask = RandomMasker(0.5, mode=mode)(keys(2), 16, grid=tokens.grid)
    first = encoder.encode(tokens, mask)
    tokens.values = torch.where(mask.hidden[..., None], -tokens.values, tokens.values)
    again = encoder.encode(tokens, mask)
    assert torch.equal(first.pooled, again.pooled)
    assert torch.equal(first.tokens, again.tokens)
    assert first.tokens.shape[1] == (8 if mode == "drop" else 16)


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18", "resnet26d"])
def test_resnet_stems(name: str) -> None:
    grids = {
        (stem, side): create_encoder(name, {"channels": 3, "size": side}, stem=stem)
        .eval()(images(side=side))
        .grid
        for stem, side in [("auto", 32), ("auto", 96), ("imagenet", 32), ("cifar", 96)]
    }
    assert grids == {
        ("auto", 32): (4, 4),
        ("auto", 96): (3, 3),
        ("imagenet", 32): (1, 1),
        ("cifar", 96): (12, 12),
    }


def test_stems_of_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="cifar is for ResNets, not ConvNeXt"):
        create_encoder("convnext_atto", {"channels": 3, "size": 32}, stem="cifar")
    with pytest.raises(UserError, match="'big'; choose auto, cifar or imagenet"):
        create_encoder("resnet18", {"channels": 3, "size": 32}, stem="big")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_nan", "'resnet_nan' is not known; did you mean 'resnet_nano'"),
        ("vit_smal_patch16_224", "did you mean 'vit_small_patch16_224'"),
        ("torchvision/resnet19", "did you mean 'torchvision/resnet1"),
        ("torchvision/inception_v3", "is not known"),
        ("keras/resnet18", "is not known"),
    ],
)
def test_unknown_names_get_the_nearest_one(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_encoder(name, {"channels": 3, "size": 32})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_nano_patch4", {"deepth": 3}, "did you mean 'depth'"),
        ("resnet_nano", {"pool": "max"}, "'pool' is not known"),
        ("resnet18", {"deepth": 3}, "deepth"),
        ("resnet18", {"pretrained": True}, "give weights=FILE.safetensors"),
        ("torchvision/resnet18", {"deepth": 3}, "deepth"),
        ("coatnet_nano_rw_224", {}, "3 x 40 x 40"),
    ],
)
def test_impossible_options_and_sizes_are_user_errors(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        create_encoder(name, {"channels": 3, "size": 40}, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_nano_patch4", {}),
        ("resnet_nano", {}),
        ("vit_tiny_patch16_224", {"depth": 2, "patch_size": 4}),
        ("torchvision/resnet18", {}),
    ],
)
def test_weights_come_from_safetensors_with_a_report(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    spec = {"channels": 3, "size": 32}
    first = create_encoder(name, spec, **options).eval()
    path = tmp_path / "model.safetensors"
    save_file(first.state_dict(), path)
    second = create_encoder(name, spec, weights=path, **options).eval()
    assert second.weight_report.missing == []
    assert torch.equal(first(images()).pooled, second(images()).pooled)
    inner = getattr(first, "model", first)
    save_file(inner.state_dict(), path)  # as the library itself would name them
    third = create_encoder(name, spec, weights=path, **options).eval()
    assert torch.equal(first(images()).pooled, third(images()).pooled)
    other = "resnet18" if "vit" in name or name == "resnet_nano" else "vit_nano_patch4"
    with pytest.raises(UserError, match=r"At least 90% must match"):
        create_encoder(other, spec, weights=path)


@pytest.mark.parametrize("name", ["vit_nano_patch4", "vit_tiny_patch16_224"])
def test_weights_of_another_resolution_bring_their_positions(name: str, tmp_path: Path) -> None:
    options = {"depth": 2} | ({"patch_size": 4} if name.endswith("224") else {})
    small = create_encoder(name, {"channels": 3, "size": 32}, **options).eval()
    path = tmp_path / "model.safetensors"
    save_file(small.state_dict(), path)
    large = create_encoder(name, {"channels": 3, "size": 48}, weights=path, **options).eval()
    assert large.weight_report.share == 1
    x = images(side=48)
    torch.testing.assert_close(large(x).pooled, small(x).pooled)


def test_loading_a_masked_model_brings_its_mask_token() -> None:
    spec = {"channels": 3, "size": 32}
    source, target = (create_encoder("vit_nano_patch4", spec) for _ in range(2))
    source.enable_mask_token()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.mask_token, source.mask_token)


def test_resnet_nano_keeps_channels_last_and_its_size() -> None:
    encoder = create_encoder("resnet_nano", {"channels": 3, "size": 32})
    assert 100_000 < sum(p.numel() for p in encoder.parameters()) < 350_000
    encoder = encoder.to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last)
    tokens = encoder(x).tokens
    assert tokens.is_contiguous()  # [B, N, D] without a copy


def test_names_are_listed_and_every_own_factory_exists() -> None:
    names = encoder_names()
    assert len(names) == len(set(names)) > 1000
    assert {"resnet_nano", "vit_small_patch16", "resnet50", "torchvision/resnet18"} <= set(names)
    registry = Registry("encoder", ENCODERS)
    assert all(callable(registry.load(name)) for name in ENCODERS)


def test_own_encoders_import_neither_timm_nor_torchvision() -> None:
    code = (
        "import sys; from ssl_vision.encoders import create_encoder\n"
        "create_encoder('vit_nano_patch4', {'channels': 3, 'size': 32})\n"
        "create_encoder('resnet_nano', {'channels': 3, 'size': 32})\n"
        "assert not {'timm', 'torchvision'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
