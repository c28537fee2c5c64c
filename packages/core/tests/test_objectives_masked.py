"""Masked losses against closed forms and released code."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference import GOLDEN, draw
from ssl_core.networks.masks import Mask
from ssl_core.objectives import (
    masked_l1,
    masked_mean,
    masked_pixels,
    masked_smooth_l1,
    masked_token_cross_entropy,
    normalise_patches,
)

HIDDEN = torch.tensor([[True, False, True, True], [False, False, True, False]])


def golden(case: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def mask_of(hidden: Tensor) -> Mask:
    return Mask(hidden, "replace")


def test_mae_loss_equals_the_release():
    """facebookresearch/mae MaskedAutoencoderViT.forward_loss, with and without norm_pix_loss."""
    g = golden("mae/tiny_forward")
    mask, predicted = mask_of(g["mask"].bool()), g["pred"].requires_grad_()
    target = normalise_patches(g["patches"])
    torch.testing.assert_close(target, g["target_norm"], rtol=1e-10, atol=1e-12)
    loss = masked_pixels(predicted, target, mask)
    torch.testing.assert_close(loss, g["loss"].reshape(()), rtol=1e-10, atol=0)
    (grad,) = torch.autograd.grad(loss, predicted)
    assert (grad - g["grad_pred"]).abs().max() <= 1e-10 * grad.abs().max()
    raw = masked_pixels(predicted, g["patches"], mask)
    torch.testing.assert_close(raw, g["loss_raw_pixels"].reshape(()), rtol=1e-10, atol=0)
    zero = masked_pixels(torch.zeros_like(predicted), target, mask)
    torch.testing.assert_close(zero, g["loss_zero_prediction"].reshape(()), rtol=1e-10, atol=0)


def test_simmim_loss_equals_the_release():
    """microsoft/SimMIM SimMIM.forward; the release adds 1e-5 to the pixel count."""
    g = golden("simmim/tiny_vit")

    def patches(image: Tensor) -> Tensor:
        return F.unfold(image, 4, stride=4).transpose(1, 2)

    hidden = g["mask"].flatten(1).bool()
    loss = masked_l1(patches(g["x_rec"]), patches(g["x"]), mask_of(hidden))
    pixels = hidden.sum().item() * 16
    want = g["loss"].reshape(()) * (pixels + 1e-5) / pixels
    torch.testing.assert_close(loss, want, rtol=1e-10, atol=0)


def test_zero_prediction_of_normalised_patches():
    """The line of no learning: (P - 1)/P, because the variance is unbiased."""
    patches = normalise_patches(draw(2, 4, 48).detach() * 100)
    loss = masked_pixels(torch.zeros_like(patches), patches, mask_of(HIDDEN))
    assert loss.item() == pytest.approx(47 / 48, rel=1e-9)
    constant = normalise_patches(torch.full((1, 1, 48), 0.3))
    assert constant.abs().max() < 1e-3


@pytest.mark.parametrize("objective", [masked_pixels, masked_l1, masked_smooth_l1])
def test_only_hidden_tokens_count(objective):
    predicted, target = draw(2, 4, 5, seed=1), draw(2, 4, 5, seed=2)
    loss = objective(predicted, target, mask_of(HIDDEN))
    plain = {
        masked_pixels: F.mse_loss,
        masked_l1: F.l1_loss,
        masked_smooth_l1: F.smooth_l1_loss,
    }[objective]
    torch.testing.assert_close(loss, plain(predicted[HIDDEN], target[HIDDEN].detach()))
    (grad,) = torch.autograd.grad(loss, predicted)
    assert (grad[~HIDDEN] == 0).all()
    assert (grad[HIDDEN] != 0).all()
    assert target.grad is None
    spoiled = predicted.detach().clone()
    spoiled[~HIDDEN] = torch.nan
    torch.testing.assert_close(objective(spoiled, target, mask_of(HIDDEN)), loss.detach())


def test_masked_mean():
    values = draw(2, 4)
    torch.testing.assert_close(masked_mean(values, HIDDEN), values[HIDDEN].mean())
    weight = torch.rand(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
    want = (values * weight).sum() / weight.sum()
    torch.testing.assert_close(masked_mean(values, weight), want)
    assert masked_mean(values, torch.zeros(2, 4, dtype=torch.bool)).item() == 0


def test_token_cross_entropy():
    logits, ids = draw(2, 4, 7), torch.arange(8).reshape(2, 4) % 7
    loss = masked_token_cross_entropy(logits, ids, mask_of(HIDDEN))
    torch.testing.assert_close(loss, F.cross_entropy(logits[HIDDEN], ids[HIDDEN]))
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad[~HIDDEN] == 0).all()
    gathered = masked_token_cross_entropy(logits[HIDDEN], ids, mask_of(HIDDEN))
    torch.testing.assert_close(gathered, loss.detach())
    flat = masked_token_cross_entropy(torch.zeros(2, 4, 7), ids, mask_of(HIDDEN))
    assert flat.item() == pytest.approx(math.log(7), rel=1e-6)
    with pytest.raises(ValueError, match="3 rows of logits for 4 hidden"):
        masked_token_cross_entropy(logits[HIDDEN][:3], ids, mask_of(HIDDEN))
    nothing = mask_of(torch.zeros_like(HIDDEN))
    assert masked_token_cross_entropy(logits, ids, nothing).item() == 0


def test_any_object_with_hidden_will_do():
    @dataclass
    class Own:
        hidden: Tensor

    x = draw(2, 4, 3)
    torch.testing.assert_close(
        masked_pixels(x, x.detach() + 1, Own(HIDDEN)).item(), 1.0, rtol=1e-12, atol=0
    )
