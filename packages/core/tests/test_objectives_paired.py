"""Two-tower losses against released code and the definition."""

import math

import pytest
import torch
import torch.nn.functional as F

from reference import assert_gradients, draw, golden
from ssl_core.objectives import clip, paired, siglip


def test_clip_equals_the_release():
    """openai/CLIP's loss with a learned scale."""
    g = golden("clip/loss")
    leaves = [g[name].requires_grad_() for name in ("image", "text", "log_scale")]
    loss = clip(*leaves)
    torch.testing.assert_close(loss, g["loss"], rtol=1e-10, atol=0)
    assert_gradients(loss, leaves, [g["grad_image"], g["grad_text"], g["grad_log_scale"]])


def test_clip_scale_is_capped():
    x, y = draw(4, 3), draw(4, 3, seed=1)
    high = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    loss = clip(x, y, high)
    torch.testing.assert_close(loss, clip(x, y, math.log(100)))
    assert torch.autograd.grad(loss, high)[0] == 0


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_siglip_is_its_definition(rows, monkeypatch):
    chunks = [slice(i, min(i + rows, 5)) for i in range(0, 5, rows)]
    monkeypatch.setattr(paired, "row_chunks", lambda *_: chunks)
    x, y = draw(5, 4), draw(5, 4, seed=1)
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    logits = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T * scale.exp() + bias
    signs = 2 * torch.eye(5, dtype=torch.float64) - 1
    want = -F.logsigmoid(signs * logits).sum() / 5
    got = siglip(x, y, scale, bias)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    leaves = [x, y, scale, bias]
    assert_gradients(got, leaves, list(torch.autograd.grad(want, leaves)))


def test_collapsed_values():
    z = torch.ones(6, 3, dtype=torch.float64)
    assert clip(z, z, 2.0).item() == pytest.approx(math.log(6), rel=1e-12)
    logit = torch.tensor(math.e**0.5 * 1.0 - 3, dtype=torch.float64)
    want = F.softplus(-logit) + 5 * F.softplus(logit)
    assert siglip(z, z, 0.5, -3.0).item() == pytest.approx(want.item(), rel=1e-12)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="siglip"):
        siglip(torch.ones(3, 2), torch.ones(4, 2), 1.0, 0.0)
