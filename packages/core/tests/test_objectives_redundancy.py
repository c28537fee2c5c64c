"""Barlow Twins and VICReg against loops, closed forms and released code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference import assert_gradients, draw, golden
from ssl_core.objectives import barlow_twins, cross_product, vicreg, vicreg_parts


def assert_golden(loss: Tensor, g: dict[str, Tensor], z: list[Tensor]) -> None:
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    wants = [g["grad_z1"], g["grad_z2"]]
    assert_gradients(loss, z, wants)


def leaves(g: dict[str, Tensor]) -> list[Tensor]:
    return [g["in_z1"].requires_grad_(), g["in_z2"].requires_grad_()]


@pytest.mark.parametrize("case", ["official_B16_D8", "official_B32_D8", "official_B8_D16"])
def test_barlow_twins_equals_the_release(case):
    """facebookresearch/barlowtwins BarlowTwins.forward; both the D x D and the Gram form."""
    g = golden(f"barlow_twins/{case}")
    z = leaves(g)
    assert_golden(barlow_twins(*z, lambd=g["in_lambd"].item()), g, z)


def test_barlow_twins_scaled_equals_solo_learn():
    """vturrisi/solo-learn barlow_loss_func."""
    g = golden("barlow_twins/solo_scaled")
    z = leaves(g)
    loss = barlow_twins(*z, lambd=g["in_lambd"].item(), scale=g["in_scale"].item())
    assert_golden(loss, g, z)


@pytest.mark.parametrize("case", ["official_B16_D8", "official_B8_D16", "lightly_B8_D16"])
def test_vicreg_equals_the_release(case):
    """facebookresearch/vicreg VICReg.forward; lightly 1.6.0 VICRegLoss."""
    g = golden(f"vicreg/{case}")
    z = leaves(g)
    assert_golden(vicreg(*z), g, z)
    if "out_inv" in g:
        parts = vicreg_parts(*z, invariance=1, variance=1, covariance=1)
        for name, key in (("invariance", "inv"), ("variance", "var"), ("covariance", "cov")):
            torch.testing.assert_close(parts[name], g[f"out_{key}"].reshape(()), rtol=1e-10, atol=0)


def test_vicreg_of_solo_learn_has_twice_the_variance_weight():
    """vturrisi/solo-learn vicreg_loss_func adds the two variance terms without halving."""
    g = golden("vicreg/solo_B8_D16")
    z = leaves(g)
    assert_golden(vicreg(*z, variance=50.0), g, z)


def slow_barlow(z0: Tensor, z1: Tensor, lambd: float) -> Tensor:
    a = (z0 - z0.mean(0)) / (z0.var(0, correction=0) + 1e-5).sqrt()
    b = (z1 - z1.mean(0)) / (z1.var(0, correction=0) + 1e-5).sqrt()
    total = z0.new_zeros(())
    for i in range(z0.shape[1]):
        for j in range(z0.shape[1]):
            c = (a[:, i] * b[:, j]).mean()
            total = total + ((1 - c) ** 2 if i == j else lambd * c**2)
    return total


@pytest.fixture
def _narrow_blocks(monkeypatch):
    """16 columns are worked on together, as in a batch of thousands."""
    monkeypatch.setattr(cross_product, "_BLOCK_BYTES", 1)


# The last is cut into blocks of columns, and its Gram matrices into strips of rows.
SHAPES = [(5, 3), (3, 5), (4, 4), (65, 70)]


@pytest.mark.usefixtures("_narrow_blocks")
@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_barlow_twins_is_its_definition(batch, dim):
    z = [draw(batch, dim, seed=1), draw(batch, dim, seed=2)]
    want, got = slow_barlow(*z, lambd=0.3), barlow_twins(*z, lambd=0.3)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(got, z), torch.autograd.grad(want, z), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("_narrow_blocks")
@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_vicreg_is_its_definition(batch, dim):
    z = [draw(batch, dim, seed=1), (0.3 * draw(batch, dim, seed=2)).detach().requires_grad_()]
    want = 25 * ((z[0] - z[1]) ** 2).mean()
    for x in z:
        covariance = torch.cov(x.T)
        std = (covariance.diagonal() + 1e-4).sqrt()
        want = want + 12.5 * torch.relu(1 - std).mean()
        off = covariance - torch.diag(covariance.diagonal())
        want = want + off.square().sum() / dim
    got = vicreg(*z)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(got, z), torch.autograd.grad(want, z), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(sum(vicreg_parts(*z).values()), got)


def test_collapsed_values():
    z = torch.full((6, 5), 0.7, dtype=torch.float64)
    assert barlow_twins(z, z).item() == pytest.approx(5)
    assert barlow_twins(z, z, scale=0.1).item() == pytest.approx(0.5)
    assert vicreg(z, z).item() == pytest.approx(24.75, rel=1e-12)


def test_whitened_identical_views_cost_nothing():
    q, _ = torch.linalg.qr(draw(8, 4).detach() - draw(8, 4).detach().mean(0))
    white = q - q.mean(0)
    white, _ = torch.linalg.qr(white)
    unit = white * 7**0.5  # unbiased covariance = identity
    assert vicreg(unit, unit).item() < 1e-12
    assert barlow_twins(unit, unit).item() < 1e-8  # up to eps in the variance


def test_a_duplicated_feature_costs_lambda_per_ordered_pair():
    base = torch.linalg.qr(draw(16, 3).detach() - draw(16, 3).detach().mean(0))[0]
    base = base - base.mean(0)
    base = torch.linalg.qr(base)[0]
    doubled = torch.cat([base, base[:, :1], base[:, :1]], dim=1)  # k = 3 copies of feature 0
    loss = barlow_twins(doubled, doubled, lambd=0.5, eps=0.0)
    assert loss.item() == pytest.approx(0.5 * 3 * 2, rel=1e-10)


def test_barlow_twins_ignores_scale_shift_and_order():
    z = [draw(6, 4, seed=1).detach(), draw(6, 4, seed=2).detach()]
    want = barlow_twins(*z, eps=0.0)
    moved = barlow_twins(z[0] * 3 + 1, z[1] * torch.tensor([1.0, 2, 3, 4]) - 2, eps=0.0)
    torch.testing.assert_close(moved, want)
    torch.testing.assert_close(barlow_twins(z[1], z[0], eps=0.0), want)


def test_gram_form_in_float32_agrees_with_float64():
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(32, 256, generator=generator) for _ in range(2)]
    for objective in (barlow_twins, vicreg):
        single = [x.clone().requires_grad_() for x in z]
        double = [x.double().requires_grad_() for x in z]
        got, want = objective(*single), objective(*double)
        torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
        for a, b in zip(
            torch.autograd.grad(got, single), torch.autograd.grad(want, double), strict=True
        ):
            assert (a - b).abs().max() < 1e-5 * b.abs().max()


@pytest.mark.parametrize("objective", [barlow_twins, vicreg])
def test_wrong_shapes_are_named(objective):
    with pytest.raises(ValueError, match="one shape"):
        objective(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="at least 2 samples"):
        objective(torch.ones(1, 2), torch.ones(1, 2))
