"""Encoders: shapes, transformers' VideoMAE to 1e-5, order-blind and order-aware networks."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ssl_core.encoder import TokenEncoder
from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import mask_from_order
from ssl_core.rng import Rng
from ssl_video.domain import VIDEO
from ssl_video.encoders.create import create_encoder

SPEC = {"channels": 3, "view_size": 32, "view_frames": 8, "window": 16}


def clip(rows: int = 2, frames: int = 8, side: int = 32) -> torch.Tensor:
    return torch.randn(rows, 3, frames, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name",
    ["resnet3d_nano", "vit_nano_patch8", "r3d_18", "r2plus1d_18", "mc3_18", "frames/resnet18"],
)
def test_every_kind_takes_clips(name) -> None:
    encoder = create_encoder(name, SPEC).eval()
    features = encoder(clip())
    assert features.pooled.shape == (2, encoder.embed_dim)
    tokens = features.tokens
    assert tokens.shape == (2, torch.tensor(features.grid).prod(), encoder.embed_dim)
    torch.testing.assert_close(tokens.mean(1), features.pooled, atol=1e-4, rtol=1e-4)
    if hasattr(encoder, "levels"):
        maps = encoder.stages(clip())
        assert [x.shape[1] for x in maps] == list(encoder.levels)


def test_pooling_by_place_keeps_where_and_when_things_are() -> None:
    encoder = create_encoder("resnet3d_nano", SPEC, widths=(4, 8), places=(2, 2, 2)).eval()
    features = encoder(clip())
    assert features.pooled.shape == (2, encoder.embed_dim) == (2, 64)
    tokens = features.tokens.unflatten(1, features.grid)  # [2, t, h, w, 8]
    t, h, w = (n // 2 for n in features.grid)
    want = tokens[:, :t, h:, :w].mean((1, 2, 3))
    torch.testing.assert_close(features.pooled.view(2, 8, 2, 2, 2)[:, :, 0, 1, 0], want)
    with pytest.raises(UserError, match="three positive whole numbers"):
        create_encoder("resnet3d_nano", SPEC, places=(2, 2))


def test_residual_frames_show_nothing_of_what_stands_still() -> None:
    encoder = create_encoder("resnet3d_nano", SPEC, widths=(4, 8), residual_frames=True).eval()
    data = clip()
    still = data[:1, :, :1]
    torch.testing.assert_close(
        encoder(data + still).pooled, encoder(data).pooled, atol=1e-4, rtol=1e-4
    )
    assert encoder(still.expand(-1, -1, 8, -1, -1)).pooled.std() == 0


def test_tubelets_of_differences_are_cut_from_one_frame_fewer() -> None:
    encoder = create_encoder("vit_nano_patch8", SPEC | {"view_frames": 9}, residual_frames=True)
    data = clip(frames=9)
    tokens = encoder.tokenize(data)
    assert encoder.grid == tokens.grid == (4, 4, 4)
    assert torch.equal(
        encoder.assemble(tokens.values, tokens.grid), data[:, :, 1:] - data[:, :, :-1]
    )
    assert encoder(data).tokens.shape == (2, 64, encoder.embed_dim)
    with pytest.raises(UserError, match=r"raise views\.frames"):
        create_encoder("vit_nano_patch8", SPEC | {"view_frames": 2}, residual_frames=True)


def test_large_library_networks_have_the_right_width() -> None:
    spec = SPEC | {"view_size": 64, "view_frames": 16}
    assert create_encoder("swin3d_t", spec).embed_dim == 768
    assert create_encoder("s3d", SPEC | {"view_size": 224, "view_frames": 16}).embed_dim == 1024
    assert create_encoder("mvit_v2_s", spec | {"view_size": 224}).embed_dim == 768
    with pytest.raises(UserError, match="does not take clips of 3 x 16 x 64 x 64"):
        create_encoder("mvit_v2_s", spec)
    with pytest.raises(UserError, match="did you mean 'r2plus1d_18'"):
        create_encoder("r2plus1_18", SPEC)
    assert {"resnet3d_nano", "swin3d_b", "frames/resnet50"} <= set(VIDEO.encoder_names())


def test_an_image_network_pooled_over_time_is_blind_to_order() -> None:
    x = clip()
    frames = create_encoder("frames/resnet18", SPEC).eval()
    torch.testing.assert_close(frames(x).pooled, frames(x.flip(2)).pooled, atol=1e-5, rtol=1e-5)
    space_time = create_encoder("resnet3d_nano", SPEC).eval()
    for module in space_time.modules():  # the last norms start at zero
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.ones_(module.weight)
    gap = space_time(x).pooled - space_time(x.flip(2)).pooled
    assert gap.abs().max() > 1e-3
    with pytest.raises(UserError, match="time must be mean or max"):
        create_encoder("frames/resnet18", SPEC, time="median")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """transformers' VideoMAE with random weights, and its file."""
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=8, tubelet_size=2, hidden_size=96,
        num_hidden_layers=6, num_attention_heads=3, intermediate_size=384,
        use_mean_pooling=False, layer_norm_eps=1e-6,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoMAEModel(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path_factory.mktemp("weights") / "videomae.safetensors"
    save_file({f"videomae.{k}": v.contiguous() for k, v in model.state_dict().items()}, path)
    return model, path


def test_weights_of_transformers_videomae_give_its_features(released) -> None:
    model, path = released
    encoder = create_encoder("vit_nano_patch8", SPEC, weights=path).eval()
    assert encoder.weight_report.share == 1
    x = clip()
    with torch.no_grad():
        want = model(x.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(encoder(x).tokens, want, atol=1e-5, rtol=1e-5)
        # Hidden tokens are dropped, the visible ones keep their order.
        hidden = torch.rand(2, 64, generator=torch.Generator().manual_seed(1)).argsort(1) >= 24
        order = hidden.to(torch.int8).argsort(dim=1, stable=True)
        mask = mask_from_order(order, int((~hidden[0]).sum()), mode="drop", grid=(4, 4, 4))
        mine = encoder.encode(encoder.tokenize(x), mask).tokens
        theirs = model(x.transpose(1, 2), bool_masked_pos=hidden).last_hidden_state
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_other_lengths_and_sizes_interpolate_positions(released) -> None:
    encoder = create_encoder("vit_nano_patch8", SPEC)
    assert isinstance(encoder, TokenEncoder)
    assert encoder.token_dim == 2 * 8 * 8 * 3
    assert encoder(clip(frames=4, side=48)).grid == (2, 6, 6)
    longer = create_encoder("vit_nano_patch8", SPEC | {"view_frames": 16}, weights=released[1])
    assert longer.weight_report.share == 1
    with pytest.raises(UserError, match="positions must be one of videomae"):
        create_encoder("vit_nano_patch8", SPEC, positions="sine")


def test_stochastic_depth_is_keyed_by_sample() -> None:
    encoder = create_encoder("swin3d_t", SPEC).train()  # drops a tenth of the branches
    x, rng = clip(3), Rng.at(0, 0, torch.arange(3))
    with dropout_keys(rng):
        whole = encoder(x).pooled
    with dropout_keys(rng[1:]):
        part = encoder(x[1:]).pooled
    torch.testing.assert_close(whole[1:], part, atol=1e-4, rtol=1e-4)
