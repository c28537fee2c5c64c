"""Cross-shaped windows: what a layer sees, plain attention as a limit, three axes; the tasks."""

import math

import pytest
import torch
import torch.nn.functional as F

from reference import draw
from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.networks.transformer import Attention
from ssl_core.rng import Rng
from ssl_medical.blocks import Blocks
from ssl_medical.encoders.create import create_encoder
from ssl_medical.encoders.cswin import StripeAttention, _bars, _whole
from ssl_medical.methods.swin_unetr import SwinUNETRPretext, cswin_unet
from ssl_medical.views import pretexts

SPEC = {"channels": 2, "axes": 3, "block": [16, 16, 8], "view_sides": [16, 16, 8],
        "spacing": [1.0, 1.0, 2.0], "mean": [0.4, 0.4], "std": [0.3, 0.3]}  # fmt: skip


@pytest.mark.parametrize(("grid", "window"), [((4, 6), (2, 6)), ((4, 6, 2), (2, 3, 2))])
def test_bars_and_back(grid, window) -> None:
    x = draw(3, *grid, 5).detach()
    bars = _bars(x, window)
    assert bars.shape == (3 * math.prod(grid) // math.prod(window), *window, 5)
    assert torch.equal(bars[0], x[(0, *(slice(w) for w in window))])
    assert torch.equal(_whole(bars, window, grid), x)


def test_as_wide_as_the_grid_it_is_plain_attention() -> None:
    for grid in ((4, 3), (2, 3, 4)):
        axes = len(grid)
        stripe = StripeAttention(12, 6, axes=axes, stripe=0, lepe=False).double()
        plain = Attention(12, 6).double()
        weights = stripe.state_dict()
        # Channels stand by axis inside q, k and v alike, which is the plain order of heads.
        plain.load_state_dict(weights)
        x = draw(2, *grid, 12).detach()
        torch.testing.assert_close(stripe(x), plain(x.flatten(1, -2)).view_as(x))


def test_a_layer_sees_a_cross() -> None:
    torch.manual_seed(0)
    for grid in ((5, 4), (4, 3, 5)):
        axes = len(grid)
        for lepe in (False, True):
            layer = StripeAttention(6 * axes, axes, axes=axes, stripe=1, lepe=lepe)
            x = draw(1, *grid, 6 * axes).detach().float()
            place = tuple(1 for _ in grid)
            moved = x.clone()
            moved[(0, *place)] += 1
            change = (layer(moved) - layer(x)).abs().amax(-1)[0] > 1e-6
            for index in torch.cartesian_prod(*[torch.arange(n) for n in grid]).tolist():
                off = sum(i != p for i, p in zip(index, place, strict=True))
                assert bool(change[tuple(index)]) == (off <= 1), index


def test_the_values_convolution_adds_to_the_attention() -> None:
    layer = StripeAttention(4, 2, axes=2, stripe=1).double()
    plain = StripeAttention(4, 2, axes=2, stripe=1, lepe=False).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = draw(1, 4, 4, 4).detach()
    for conv in layer.lepe:
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    torch.testing.assert_close(layer(x), plain(x))
    for conv in layer.lepe:
        torch.nn.init.ones_(conv.bias)
    torch.testing.assert_close(
        layer(x), plain(x) + F.linear(torch.ones(4).double(), layer.proj.weight)
    )
    assert layer.window((6, 8), 0) == (6, 1)
    assert StripeAttention(4, 2, axes=2, stripe=7).window((14, 9), 1) == (7, 9)


@pytest.mark.parametrize("window", [(1, 5, 1), (2, 1, 4), (2, 3, 2), (1, 1, 1)])
def test_what_is_left_out_of_the_values_convolution_is_padding(window) -> None:
    layer = StripeAttention(12, 3, axes=3, stripe=1)
    values = draw(7, *window, 4).detach().float()
    plain = layer.lepe[1](values.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(layer._beside(values, 1), plain)


def test_the_way_up_meets_every_map_of_the_way_down() -> None:
    spec = SPEC | {"channels": 1}
    torch.manual_seed(0)
    encoder = create_encoder("cswin_unet_nano", spec, stripes=(0, 0, 0), stem_stride=1).eval()
    assert [name for name in encoder.up if name.startswith("rise")] == ["rise1", "rise0"]
    for step in (encoder.up["rise0"], encoder.up["rise1"]):
        assert step.block.attn.axes == 3
    data = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    features, dense = encoder.dense(data)
    assert dense.shape == (1, 16, 8, 8, 8)
    torch.testing.assert_close(features.pooled, encoder(data).pooled)
    dense.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("name", ["cswin_nano", "cswin_tiny"])
def test_widths_fit_heads_on_two_and_three_axes(name) -> None:
    small = {"cswin_tiny": {"depths": (1, 1), "heads": (2, 4), "stripes": (1, 0)}}.get(name, {})
    for axes in (2, 3):
        spec = SPEC | {"axes": axes, "view_sides": [16, 16, 8][:axes]}
        encoder = create_encoder(name, spec, **small).eval()
        maps = encoder.stages(torch.zeros(1, 2, *spec["view_sides"]))
        assert [m.shape[1] for m in maps] == list(encoder.levels)
        assert [16 // m.shape[2] for m in maps] == list(encoder.strides)
    with pytest.raises(UserError, match="multiples of"):
        encoder(torch.zeros(1, 2, 17, 16, 8))
    with pytest.raises(UserError, match="one entry a stage"):
        create_encoder("cswin_nano", SPEC, heads=(3,))


def test_tasks_are_weighed_by_what_is_learned() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 32767, (8, 2, 16, 16, 8), generator=generator, dtype=torch.int16)
    zeros, ids = torch.zeros(8, 3, dtype=torch.int64), torch.arange(8)
    batch = Batch(Blocks(data, zeros, zeros + 16), ids, ids)
    policy = pretexts.cutouts(SPEC, size=[16, 16, 8])
    views = policy(batch, Rng.at(0, 0, ids))
    torch.manual_seed(0)
    encoder = create_encoder("cswin_nano", SPEC, dim=6, depths=(1, 1), heads=(3, 3), stripes=(1, 0))
    learned = cswin_unet(encoder, policy, dim=8, decoder_dim=4)
    fixed = SwinUNETRPretext(encoder, policy, dim=8, decoder_dim=4)
    fixed.load_state_dict(learned.state_dict(), strict=False)
    loss, plain = learned(views), fixed(views)
    torch.testing.assert_close(loss.total, plain.total / 2 + 3 * math.log(2))
    assert abs(plain.parts["rotation"] - math.log(4)) < 0.3, "blind guesses"
    assert abs(plain.parts["contrast"] - math.log(15)) < 1.5
    loss.total.backward()
    assert (learned.balance.scale.grad != 0).all()
