"""MaskFeat: targets equal the released histograms, for images and clips."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference import OneView, golden, keys
from ssl_core.errors import UserError
from ssl_core.methods.maskfeat import MaskFeat
from ssl_core.networks.masks import Mask
from ssl_core.networks.vit import PatchTransformer
from ssl_core.views import View


def tiny(sides: tuple[int, ...], patch: tuple[int, ...], **options: object) -> MaskFeat:
    torch.manual_seed(0)
    encoder = PatchTransformer(channels=3, sides=sides, patch=patch, dim=12, depth=2, heads=2)
    return MaskFeat(encoder, OneView(), **{"mask_block": 2, **options})


def target(method: MaskFeat, data: Tensor) -> Tensor:
    tokens = method.encoder.tokenize(data)
    mask = Mask(torch.zeros(tokens.values.shape[:2], dtype=torch.bool), "replace", tokens.grid)
    return method.target(tokens, mask)


def test_targets_equal_the_released_histograms() -> None:
    """facebookresearch/SlowFast, operators.py: HOGLayerC; masked.py: _get_hog_label_2d."""
    arrays = golden("maskfeat/hog")
    method = tiny((48, 48), (16, 16))
    got = target(method, arrays["x"])
    torch.testing.assert_close(got, arrays["label_g0"], atol=2e-5, rtol=0)
    assert method.decoder.out.out_features == 108


def test_brightness_and_contrast_do_not_matter() -> None:
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    method = tiny((48, 48), (16, 16))
    torch.testing.assert_close(target(method, 2 * x + 5), target(method, x), atol=1e-4, rtol=0)
    assert (target(method, torch.zeros(2, 3, 48, 48)) == 0).all()


def test_a_clip_has_the_targets_of_its_first_frames() -> None:
    clips = torch.randn(2, 3, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    method = tiny((4, 16, 24), (2, 8, 8), mask="tubes", mask_block=1)
    got = target(method, clips).reshape(2, 2, 6, 108)
    still = tiny((16, 24), (8, 8))
    for slot in range(2):
        torch.testing.assert_close(got[:, slot], target(still, clips[:, :, 2 * slot]))
    method([View(clips, keys(2))]).total.backward()


def test_the_loss_counts_hidden_patches_only() -> None:
    method = tiny((32, 32), (8, 8))
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prediction = method.encode([View(x, keys(3))])[0]
    assert prediction.mask.hidden.sum(1).tolist() == [6] * 3
    prediction.predicted.retain_grad()
    loss = method.loss([prediction]).total
    error = (prediction.predicted - prediction.target).square().mean(-1)
    torch.testing.assert_close(loss, error[prediction.mask.hidden].mean())
    loss.backward()
    assert (prediction.predicted.grad[~prediction.mask.hidden] == 0).all()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_patches_without_square_cells_are_refused() -> None:
    with pytest.raises(UserError, match="square patches"):
        tiny((32, 32), (8, 4))
    with pytest.raises(UserError, match="square patches"):
        tiny((32,), (4,))
