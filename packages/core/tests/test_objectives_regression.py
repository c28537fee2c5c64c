"""Cosine and distance losses against closed forms and released code."""

from __future__ import annotations

import pytest
import torch

from reference import assert_gradients, draw, golden
from ssl_core.objectives import byol, mse, negative_cosine, scaled_cosine, smooth_l1


@pytest.mark.parametrize("case", ["htdt_symmetric", "solo_symmetric"])
def test_byol_equals_released_ports(case):
    """htdt/self-supervised norm_mse_loss; vturrisi/solo-learn byol_loss_func."""
    g = golden(f"byol/{case}")
    p0, p1 = g["in_p1"].requires_grad_(), g["in_p2"].requires_grad_()
    loss = byol(p0, p1, g["in_t1"], g["in_t2"])
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [p0, p1], [g["grad_p1"], g["grad_p2"]])


def test_simsiam_equals_lightly_and_the_release():
    """lightly 1.6.0 NegativeCosineSimilarity; facebookresearch/simsiam SimSiam.forward."""
    g = golden("simsiam/lightly_negative_cosine")
    p = [g["in_p1"].requires_grad_(), g["in_p2"].requires_grad_()]
    loss = (negative_cosine(p[0], g["in_z2"]) + negative_cosine(p[1], g["in_z1"])) / 2
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, p, [g["grad_p1"], g["grad_p2"]])

    g = golden("simsiam/official_linear_networks")
    encoder, predictor = g["in_W_encoder"].requires_grad_(), g["in_W_predictor"].requires_grad_()
    z = [g["in_x1"] @ encoder.T, g["in_x2"] @ encoder.T]
    p = [x @ predictor.T for x in z]
    loss = (negative_cosine(p[0], z[1]) + negative_cosine(p[1], z[0])) / 2
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [encoder, predictor], [g["grad_W_encoder"], g["grad_W_predictor"]])


@pytest.mark.parametrize("alpha", [1, 2, 3])
def test_scaled_cosine_equals_graphmae(alpha):
    """THUDM/GraphMAE sce_loss."""
    g = golden("graphmae/sce_mask")
    predicted = g["prediction"].requires_grad_()
    loss = scaled_cosine(predicted, g["target"], alpha=alpha)
    torch.testing.assert_close(loss, g[f"loss_alpha{alpha}"].reshape(()), rtol=1e-9, atol=0)
    assert_gradients(loss, [predicted], [g[f"grad_alpha{alpha}"]])


def test_scaled_cosine_of_hidden_rows_only():
    x, y = draw(2, 5, 3, seed=1), draw(2, 5, 3, seed=2)
    hidden = torch.tensor([[True, False, True, False, False], [False, True, True, True, False]])
    want = scaled_cosine(x[hidden], y[hidden], alpha=2)
    got = scaled_cosine(x, y, alpha=2, weight=hidden)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    (grad,) = torch.autograd.grad(got, x)
    assert (grad[~hidden] == 0).all()


def test_closed_forms():
    x = draw(4, 3).detach()
    assert negative_cosine(x, 5 * x).item() == pytest.approx(-1)
    assert negative_cosine(x, -x).item() == pytest.approx(1)
    assert byol(x, x, x, x).item() == pytest.approx(0, abs=1e-14)
    assert byol(x, x, -x, -x).item() == pytest.approx(8)
    assert scaled_cosine(x, 2 * x).item() == pytest.approx(0, abs=1e-14)
    assert scaled_cosine(x, -x, alpha=2).item() == pytest.approx(4)
    right = torch.stack([-x[:, 1], x[:, 0], torch.zeros(4)], dim=1)
    flat = x.clone()
    flat[:, 2] = 0
    assert scaled_cosine(flat, right).item() == pytest.approx(1)
    assert mse(x, x + 3).item() == pytest.approx(9)
    assert smooth_l1(x, x + 3).item() == pytest.approx(2.5)
    assert smooth_l1(x, x + 0.5, beta=2.0).item() == pytest.approx(0.25 / 4)


def test_rounding_past_one_keeps_fractional_powers_finite():
    x = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = scaled_cosine(x, 3 * x.detach(), alpha=1.5)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


@pytest.mark.parametrize("objective", [negative_cosine, mse, smooth_l1, scaled_cosine])
def test_targets_get_no_gradient(objective):
    x, y = draw(3, 4, seed=1), draw(3, 4, seed=2)
    objective(x, y).backward()
    assert y.grad is None
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_byol_stops_both_targets():
    p0, p1, t0, t1 = (draw(3, 4, seed=s) for s in range(4))
    byol(p0, p1, t0, t1).backward()
    assert t0.grad is None
    assert t1.grad is None
    want = 2 + 2 * negative_cosine(p0.detach(), t1) + 2 + 2 * negative_cosine(p1.detach(), t0)
    torch.testing.assert_close(byol(p0, p1, t0, t1), want)


def test_alpha_below_one_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        scaled_cosine(torch.ones(2, 2), torch.ones(2, 2), alpha=0.5)
