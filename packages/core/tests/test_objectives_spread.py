"""What spreads embeddings: KoLeo, me-max, spectrum, whitening, TiCo, SIGReg."""

import math

import pytest
import torch
import torch.nn.functional as F

from reference import assert_gradients, draw, golden
from ssl_core.objectives import (
    RunningCovariance,
    koleo,
    lejepa,
    me_max,
    sigreg,
    spectrum_flatness,
    tico,
    w_mse,
    whiten,
)


def test_koleo_equals_dinov2():
    """facebookresearch/dinov2 KoLeoLoss."""
    g = golden("dinov2/koleo")
    x = g["in_x"].requires_grad_()
    loss = koleo(x)
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [x], [g["grad_x"]])
    g = golden("dinov2/koleo_with_duplicate")
    torch.testing.assert_close(koleo(g["in_x"]), g["out_loss"].reshape(()), rtol=1e-6, atol=0)


def test_koleo_limits():
    eye = torch.eye(4, dtype=torch.float64)
    assert koleo(3 * eye).item() == pytest.approx(-math.log(2) / 2, abs=1e-7)
    assert koleo(torch.cat([eye[:1], -eye[:1]])).item() == pytest.approx(-math.log(2), abs=1e-7)
    same = koleo(torch.ones(3, 9, dtype=torch.float64))
    assert same.item() == pytest.approx(8 * math.log(10) - math.log(1 + 3), rel=1e-6)


def test_me_max_and_spectrum_limits():
    eye = torch.eye(5, dtype=torch.float64)
    assert me_max(eye).item() == pytest.approx(0, abs=1e-12)
    assert me_max(eye[:1].expand(7, 5)).item() == pytest.approx(math.log(5))
    tight = torch.cat([eye, eye, -eye])
    assert spectrum_flatness(tight).item() == pytest.approx(0, abs=1e-12)
    assert spectrum_flatness(tight[:1].expand(7, 5)).item() == pytest.approx(1 - 1 / 5)
    for shape in ((9, 4), (4, 9)):  # both forms
        z = draw(*shape)
        unit = F.normalize(z, dim=1)
        c = unit.T @ unit / shape[0] - torch.eye(shape[1]) / shape[1]
        torch.testing.assert_close(spectrum_flatness(z), c.square().sum())


def test_whitened_covariance_is_the_identity():
    z = draw(3, 40, 6)
    white = whiten(z @ draw(6, 6, seed=1))
    covariance = white.mT @ white / 39
    torch.testing.assert_close(covariance, torch.eye(6).double().expand(3, 6, 6))
    with pytest.raises(ValueError, match="more rows than dimensions"):
        whiten(z[:, :6])


@pytest.mark.parametrize("scale", [1e-5, 1e3])
def test_whitening_cannot_be_escaped_by_shrinking(scale):
    """A fixed shrinkage outweighs small embeddings, which are then whitened no more."""
    z = draw(40, 6)
    torch.testing.assert_close(whiten(scale * z, eps=1e-3), whiten(z, eps=1e-3))
    leaf = z.requires_grad_()
    (slope,) = torch.autograd.grad(w_mse(leaf, draw(40, 6, seed=1), eps=1e-3), leaf)
    centred = leaf - leaf.mean(0)
    assert abs((slope * centred).sum().item()) < 1e-12, "the scale has no gradient"


@pytest.mark.parametrize("dim", [64, 512])
def test_fewer_rows_than_dimensions_are_whitened_in_float32(dim):
    z = draw(16, dim).float()
    assert torch.isfinite(whiten(z, eps=1e-5)).all()
    assert torch.isfinite(w_mse(1e-4 * z, z)).all()


def test_w_mse_is_its_definition():
    z0, z1, z2 = (draw(24, 4, seed=s) for s in range(3))
    order = torch.stack(
        [torch.randperm(24, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    )
    terms = []
    for permutation in order:
        for part in permutation.chunk(2):
            white = [F.normalize(whiten(z[part]), dim=1) for z in (z0, z1, z2)]
            for a, b in ((0, 1), (0, 2), (1, 2)):
                terms.append((2 - 2 * (white[a] * white[b]).sum(1)).mean())
    want = torch.stack(terms).mean()
    got = w_mse(z0, z1, z2, size=12, order=order, eps=0.0)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=0)
    leaves = [z0, z1, z2]
    assert_gradients(got, leaves, list(torch.autograd.grad(want, leaves)))


def test_w_mse_limits():
    z = draw(12, 3)
    assert w_mse(z, z).item() == pytest.approx(0, abs=1e-12)
    flat = torch.ones(12, 3, dtype=torch.float64)
    assert w_mse(flat, flat).item() == pytest.approx(2)
    with pytest.raises(ValueError, match="divide the 12 rows"):
        w_mse(z, z, size=5)
    with pytest.raises(ValueError, match="two views"):
        w_mse(z)


def test_tico_over_steps():
    running, stored = RunningCovariance(4).double(), torch.zeros(4, 4, dtype=torch.float64)
    for step in range(3):
        a, b = draw(6, 4, seed=step), draw(6, 4, seed=10 + step)
        x, y = F.normalize(a, dim=1), F.normalize(b, dim=1).detach()
        stored = 0.9 * stored + 0.1 * (x.T @ x / 6).detach()
        terms = [1 - x[i] @ y[i] + 8 * x[i] @ stored @ x[i] for i in range(6)]
        want = torch.stack(terms).mean()
        new = running.blended(a)
        got = tico(a, b, new)
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
        assert_gradients(got, [a], list(torch.autograd.grad(want, [a])))
        assert (
            not got.requires_grad
            or torch.autograd.grad(tico(a, b, new), b, allow_unused=True)[0] is None
        )
        running.update(new, finite=torch.tensor(step < 2))
    assert not torch.equal(running.covariance, stored)  # the third step was skipped


def test_tico_limits():
    running = RunningCovariance(5).double()
    flat, spread = torch.ones(4, 5, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    assert tico(flat, flat, running.blended(flat)).item() == pytest.approx(8 * 0.1)
    assert tico(spread, spread, running.blended(spread)).item() == pytest.approx(8 * 0.1 / 5)
    with pytest.raises(ValueError, match="covariance"):
        tico(flat, flat, torch.zeros(4, 4))
    with pytest.raises(ValueError, match="momentum"):
        RunningCovariance(3, momentum=2)


@pytest.mark.parametrize("case", ["sliced_one_view", "sliced_three_views"])
def test_sigreg_equals_the_release(case):
    """rbalestr-lab/lejepa SlicingUnivariateTest with EppsPulley."""
    g = golden(f"lejepa/{case}")
    x = g["in_x"].requires_grad_()
    loss = sigreg(x, g["in_directions"])
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-6, atol=0)
    got, want = torch.autograd.grad(loss, x)[0], g["grad_x"]
    assert (got - want).abs().max() <= 1e-6 * want.abs().max()


def test_sigreg_is_the_statistic_of_each_direction():
    g = golden("lejepa/epps_pulley")
    x = g["in_x"].requires_grad_()
    loss = sigreg(x, torch.eye(4, dtype=torch.float64))  # directions that pick one column each
    torch.testing.assert_close(loss, g["out_stat"].mean(), rtol=1e-6, atol=0)
    want = g["grad_x"] / 4
    assert (torch.autograd.grad(loss, x)[0] - want).abs().max() <= 1e-6 * want.abs().max()


def test_sigreg_rotations_are_cosines():
    z, directions = draw(2, 7, 5), draw(5, 6, seed=1).detach()
    x = z @ F.normalize(directions, dim=0)
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    phi = torch.exp(1j * t.view(-1, 1, 1, 1) * x).mean(2)  # [T, V, K]
    bell = (-t.square() / 2).exp()
    error = (phi - bell.view(-1, 1, 1)).abs().square() * bell.view(-1, 1, 1)
    want = 7 * 2 * torch.trapezoid(error, t, dim=0).mean()
    got = sigreg(z, directions)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=0)
    assert_gradients(got, [z], list(torch.autograd.grad(want, [z])))


def test_lejepa_equals_lightly():
    """lightly 1.6.0 LeJEPALoss with given directions."""
    g = golden("lejepa/lightly_full_loss")
    leaves = [g["in_global_proj"].requires_grad_(), g["in_local_proj"].requires_grad_()]
    views = [*leaves[0].unbind(), *leaves[1].unbind()]
    loss = lejepa(views, g["in_directions"], global_views=2, lambd=g["in_lambd"].item())
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-6, atol=0)
    grads = torch.autograd.grad(loss, leaves)
    for got, want in zip(grads, (g["grad_global_proj"], g["grad_local_proj"]), strict=True):
        assert (got - want).abs().max() <= 1e-6 * want.abs().max()


def test_sigreg_shows_collapse():
    directions = draw(16, 64, seed=3).detach()
    normal = draw(512, 16).detach()
    assert sigreg(normal, directions).item() == pytest.approx(1.06, abs=0.25)
    assert sigreg(normal / 2, directions).item() == pytest.approx(78, rel=0.05)
    zeros = torch.zeros(512, 16, dtype=torch.float64)
    assert sigreg(zeros, directions).item() == pytest.approx(0.402 * 512, rel=1e-2)
    with pytest.raises(ValueError, match="directions"):
        sigreg(normal, directions.T)
