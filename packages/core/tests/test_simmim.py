"""SimMIM against the released code and the statements of its paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import GOLDEN, OneView, keys
from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.methods.simmim import SimMIM
from ssl_core.networks.decoders import PixelShuffleHead
from ssl_core.networks.masks import Mask
from ssl_core.networks.patch_embed import patchify
from ssl_core.networks.vit import PatchTransformer
from ssl_core.networks.weights import load_weights
from ssl_core.views import View


def tiny(positions: str = "learned") -> SimMIM:
    encoder = PatchTransformer(
        channels=3,
        sides=(16, 16),
        patch=(4, 4),
        dim=16,
        depth=2,
        heads=2,
        mlp_ratio=2,
        positions=positions,
        layer_scale=0.1,
    )
    return SimMIM(encoder, OneView())


@pytest.fixture
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "simmim" / "tiny_vit.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def pixel_shuffle_rows() -> Tensor:
    """Row of the released 1x1 convolution (channel, row, column) for each of our numbers."""
    return torch.arange(48).reshape(3, 4, 4).permute(1, 2, 0).flatten()


@pytest.fixture
def released(golden: dict[str, Tensor]) -> SimMIM:
    """Our modules with the released weights and mask."""
    method = tiny("relative").double()
    weights = {}
    for name, value in golden.items():
        if name.startswith("w.encoder.") and "bias_" not in name.replace("bias_table", ""):
            name = name.removeprefix("w.encoder.")
            name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
            weights[name] = value
    for block in range(2):
        q, v = (weights.pop(f"blocks.{block}.attn.{x}_bias") for x in "qv")
        weights[f"blocks.{block}.attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    assert load_weights(method.encoder, weights, minimum=1.0).missing == []
    rows = pixel_shuffle_rows()
    head = {
        "out.weight": golden["w.decoder.0.weight"].flatten(1)[rows],
        "out.bias": golden["w.decoder.0.bias"][rows],
    }
    assert load_weights(method.decoder, head, minimum=1.0).missing == []
    hidden = golden["mask"].flatten(1).bool()
    method.masker = lambda rng, count, *, grid, maskable: Mask(hidden, "replace", grid)
    return method


def test_forward_and_gradients_equal_the_released_code(
    released: SimMIM, golden: dict[str, Tensor]
) -> None:
    """microsoft/SimMIM, models/simmim.py: VisionTransformerForSimMIM, SimMIM."""
    prediction = released.encode([View(golden["x"], keys(2))])[0]
    rebuilt = patchify(golden["x_rec"], (4, 4))
    torch.testing.assert_close(prediction.predicted, rebuilt, atol=1e-9, rtol=0)
    prediction.predicted.retain_grad()
    # The released divisor is the number of hidden pixels + 1e-5; ours has no constant.
    pixels = 16 * int(prediction.mask.hidden.sum())
    loss = released.loss([prediction]).total * (pixels / (pixels + 1e-5))
    torch.testing.assert_close(loss, golden["loss"], atol=1e-12, rtol=0)
    loss.backward()
    torch.testing.assert_close(
        prediction.predicted.grad, patchify(golden["grad_x_rec"], (4, 4)), atol=1e-12, rtol=0
    )
    encoder = released.encoder
    rows = pixel_shuffle_rows()
    for expected, parameter in [
        (golden["g.encoder.mask_token"], encoder.mask_token),
        (golden["g.encoder.patch_embed.proj.weight"], encoder.patch_embed.proj.weight),
        (
            golden["g.encoder.rel_pos_bias.relative_position_bias_table"],
            encoder.rel_pos_bias.relative_position_bias_table,
        ),
        (golden["g.decoder.0.weight"].flatten(1)[rows], released.decoder.out.weight),
    ]:
        torch.testing.assert_close(parameter.grad, expected, atol=1e-10, rtol=0)


def test_a_zero_prediction_costs_the_mean_absolute_pixel_on_the_mask(
    golden: dict[str, Tensor],
) -> None:
    method = tiny()
    tokens = Tokens(patchify(golden["x"], (4, 4)), (4, 4))
    mask = Mask(golden["mask"].flatten(1).bool(), "replace", (4, 4))
    zero = torch.zeros_like(tokens.values)
    loss = method.reconstruction(zero, method.target(tokens, mask), mask)
    torch.testing.assert_close(loss, tokens.values[mask.hidden].abs().mean())
    torch.testing.assert_close(loss, golden["loss_zero_prediction"], atol=1e-6, rtol=0)


def test_visible_predictions_get_no_gradient_and_every_parameter_does() -> None:
    method = tiny("relative")
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    prediction = method.encode([View(images, keys(4))])[0]
    prediction.predicted.retain_grad()
    method.loss([prediction]).total.backward()
    grad = prediction.predicted.grad
    assert grad is not None
    assert (grad[~prediction.mask.hidden] == 0).all()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []
    assert prediction.mask.hidden.sum(1).tolist() == [12] * 4  # ceil(4 x 0.6) units of 2 x 2


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_head_of_a_hierarchical_encoder_is_pixel_shuffle(axes: int) -> None:
    head = PixelShuffleHead(6, 5, reduction=2, axes=axes)
    coarse = (2, 3, 2)[:axes]
    fine = tuple(2 * side for side in coarse)
    cells, tokens = torch.Size(coarse).numel(), torch.Size(fine).numel()
    x = torch.randn(2, cells, 6, generator=torch.Generator().manual_seed(0))
    mask = Mask(torch.zeros(2, tokens, dtype=torch.bool), "replace", fine)
    out = head(Features(x.mean(1), x, coarse), mask, Tokens(torch.zeros(2, tokens, 5), fine))
    flat = head.out(x).reshape(2, *coarse, *[2] * axes, 5)
    out = out.reshape(2, *fine, 5)
    for place in torch.cartesian_prod(*[torch.arange(side) for side in fine]).reshape(-1, axes):
        index = (slice(None), *(place // 2).tolist(), *(place % 2).tolist())
        assert torch.equal(out[(slice(None), *place.tolist())], flat[index])


def test_a_grid_too_small_for_the_unit_is_refused() -> None:
    encoder = PatchTransformer(channels=3, sides=(8, 8), patch=(4, 4), dim=8, depth=1, heads=2)
    with pytest.raises(UserError, match="hides 1 of 1 units"):
        SimMIM(encoder, OneView())([View(torch.zeros(2, 3, 8, 8), keys(2))])


def test_normalised_targets_forget_each_patch_level_and_scale() -> None:
    torch.manual_seed(0)
    encoder = PatchTransformer(channels=1, sides=(8, 8), patch=(4, 4), dim=8, depth=1, heads=2)
    method = SimMIM(encoder, OneView(), mask_unit=1, norm_pixels=True)
    x = torch.randn(3, 1, 8, 8)
    (rep,) = method.encode([View(x, keys(3))])
    patches = patchify(x, (4, 4))
    want = (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True)
    torch.testing.assert_close(rep.target, want, atol=1e-4, rtol=1e-4)
    hidden = rep.mask.hidden
    torch.testing.assert_close(
        method.loss([rep]).total, (rep.predicted - rep.target)[hidden].abs().mean()
    )
    (other,) = method.encode([View(x * 3 + 2, keys(3))])
    torch.testing.assert_close(other.target, rep.target, atol=1e-4, rtol=1e-4)
    shown = method.content(rep, encoder.tokenize(x))
    torch.testing.assert_close(
        shown, rep.predicted * patches.std(-1, keepdim=True) + patches.mean(-1, keepdim=True)
    )
