"""Encoders: shapes, dense maps, and MONAI's own networks around the same weights."""

import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet, SwinUNETR, resnet10

from ssl_core.errors import UserError
from ssl_medical.encoders.create import create_encoder
from ssl_medical.encoders.unet_nano import DenseHead

SPEC = {"channels": 2, "axes": 3, "block": [32, 32, 32], "view_sides": [32, 32, 32]}
SMALL = {
    "resnet_nano": {"widths": (4, 8)},
    "unet_nano": {"widths": (4, 8), "dim": 4},
    "cswin_nano": {"dim": 6, "depths": (1, 1), "heads": (3, 3), "stripes": (1, 0)},
    "cswin_unet_nano": {"dim": 6, "depths": (1, 1), "heads": (3, 3), "stripes": (1, 0)},
    "vit_nano_patch16": {"depth": 1},
    "monai_segresnet": {"init_filters": 8, "blocks_down": (1, 1, 1)},
    "monai_dynunet": {"filters": (4, 8, 8)},
    "monai_swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)},
    "monai_resnet": {"depth": 10, "width": 0.125, "stem_kernel": 3},
    "monai_vit": {"hidden_size": 24, "mlp_dim": 24, "num_layers": 1, "num_heads": 2},
}


@pytest.mark.parametrize("name", SMALL)
def test_every_encoder_gives_pooled_tokens_and_dense_features(name) -> None:
    encoder = create_encoder(name, SPEC, **SMALL[name])
    data = torch.randn(2, 2, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    features, dense = DenseHead(encoder, dim=3)(encoder, data)
    again = encoder(data)
    assert features.pooled.shape == (2, encoder.embed_dim)
    assert features.tokens.shape == (2, torch.tensor(features.grid).prod(), encoder.embed_dim)
    assert dense.shape[0] == 2
    assert dense.shape[2:] == (32, 32, 32)
    assert again.pooled.shape == features.pooled.shape
    again.pooled.square().sum().backward()
    unused = [n for n, p in encoder.named_parameters() if p.grad is None and "up." not in n]
    assert not unused, "only the U-Nets' way up is outside the pooled features"


def test_one_coarse_map_grows_step_by_step() -> None:
    encoder = create_encoder("vit_nano_patch16", SPEC, depth=1)
    up = DenseHead(encoder, dim=8).up
    widths = [step[0].weight.shape[:2] for step in (*up.steps, up.last)]
    assert widths == [(48, 96), (24, 48), (12, 24), (8, 12)]
    assert up([torch.randn(2, 96, 2, 2, 2)], (32, 32, 32)).shape == (2, 8, 32, 32, 32)
    monai = create_encoder("monai_vit", SPEC, **SMALL["monai_vit"])
    assert len(DenseHead(monai, dim=8).up.steps) == 3, "patches of 16 in MONAI's network too"


@pytest.mark.parametrize(
    "name", ["resnet_nano", "unet_nano", "cswin_nano", "cswin_unet_nano", "vit_nano_patch8"]
)
def test_slices_take_the_same_encoders(name) -> None:
    spec = {"channels": 1, "axes": 2, "block": [16, 16, 1], "view_sides": [16, 16]}
    features = create_encoder(name, spec)(torch.randn(2, 1, 16, 16))
    assert len(features.grid) == 2


def test_weights_load_into_monais_own_networks() -> None:
    data = torch.randn(1, 2, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    options = SMALL["monai_segresnet"]
    ours = create_encoder("monai_segresnet", SPEC, **options).eval()
    theirs = SegResNet(
        spatial_dims=3, in_channels=2, init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1)
    ).eval()
    report = theirs.load_state_dict(ours.model.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert torch.equal(theirs.encode(data)[1][-1], ours.stages(data)[-1])

    ours = create_encoder("monai_swin_unetr", SPEC, **SMALL["monai_swin_unetr"]).eval()
    theirs = SwinUNETR(
        in_channels=2, out_channels=5, feature_size=12, depths=(1,) * 4, num_heads=(1,) * 4
    ).eval()
    assert not theirs.load_state_dict(ours.model.state_dict(), strict=False).unexpected_keys
    assert torch.equal(theirs.swinViT(data, theirs.normalize)[-1], ours.stages(data)[-1])

    ours = create_encoder("monai_dynunet", SPEC, **SMALL["monai_dynunet"]).eval()
    theirs = DynUNet(
        spatial_dims=3, in_channels=2, out_channels=3, kernel_size=[3] * 3, strides=[1, 2, 2],
        upsample_kernel_size=[2, 2], filters=[4, 8, 8],
    ).eval()  # fmt: skip
    assert not theirs.load_state_dict(ours.model.state_dict(), strict=False).unexpected_keys
    x = theirs.input_block(data)
    for layer in [*theirs.downsamples, theirs.bottleneck]:
        x = layer(x)
    assert torch.equal(x, ours.stages(data)[-1])


def test_the_residual_network_is_monais() -> None:
    data = torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(1))
    spec = SPEC | {"axes": 2, "block": [32, 32, 1], "view_sides": [32, 32]}
    ours = create_encoder("monai_resnet", spec, **SMALL["monai_resnet"]).eval()
    theirs = resnet10(
        spatial_dims=2, n_input_channels=2, widen_factor=0.125, conv1_t_size=3, conv1_t_stride=2,
        feed_forward=False,
    ).eval()  # fmt: skip
    theirs.load_state_dict(ours.model.state_dict())
    torch.testing.assert_close(theirs(data), ours(data).pooled)
    assert [x.shape[2] for x in ours.stages(data)] == [16, 8, 4, 2, 1]
    with pytest.raises(UserError, match="depth must be one of 10"):
        create_encoder("monai_resnet", spec, depth=20)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="multiples of 32"):
        create_encoder("monai_swin_unetr", SPEC | {"view_sides": [24, 24, 24]})
