"""Ranking losses against released code, loops and limits."""

import pytest
import torch
import torch.nn.functional as F

from reference import assert_gradients, draw, golden
from ssl_core.objectives import margin_contrastive, triplet

MEDIAN = {"margin": 100.0, "positive_weight": 2.0, "distance": "cosine"}


@pytest.mark.parametrize("batch", [15, 16])
@pytest.mark.parametrize(("rule", "select"), [("hard_band_2_10", "band"), ("median", "median")])
def test_median_triplet_equals_the_release(batch, rule, select):
    """wanggrun/triplet TripletLossHead, as released (band) and with its median line."""
    g = golden(f"median_triplet/{rule}_B{batch}")
    p = [g["in_p1"].requires_grad_(), g["in_p2"].requires_grad_()]
    forth = triplet(p[0], g["in_t2"], select=select, **MEDIAN)
    back = triplet(p[1], g["in_t1"], select=select, **MEDIAN)
    torch.testing.assert_close(forth, g["out_loss_12"].reshape(()), rtol=1e-10, atol=0)
    torch.testing.assert_close(forth + back, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(forth + back, p, [g["grad_p1"], g["grad_p2"]])


def test_median_triplet_is_linear_and_its_limits_hold():
    a, p = draw(9, 5), draw(9, 5, seed=1)
    s = F.normalize(a, dim=1) @ F.normalize(p, dim=1).T
    off = s[~torch.eye(9, dtype=torch.bool)].reshape(9, 8)
    lower = (-2 * off).median(1).values / -2
    want = (100 + 2 * lower - 4 * s.diagonal()).mean()
    torch.testing.assert_close(triplet(a, p, select="median", **MEDIAN), want)
    flat = torch.ones(4, 3, dtype=torch.float64)
    for select in ("hardest", "semi_hard", "median", "all"):
        assert triplet(flat, flat, select=select, **MEDIAN).item() == pytest.approx(98)
        assert triplet(flat, flat, select=select, margin=0.3).item() == pytest.approx(0.3)
    eye = torch.eye(4, dtype=torch.float64)
    assert triplet(eye, eye, select="median", **MEDIAN).item() == pytest.approx(96)
    two = draw(2, 3), draw(2, 3, seed=1)
    only = triplet(*two, select="median", **MEDIAN)
    torch.testing.assert_close(only, triplet(*two, select="hardest", **MEDIAN))


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 0, 2, 2, 3])])
@pytest.mark.parametrize("select", ["hardest", "semi_hard", "median", "all", "band"])
def test_selection_is_its_definition(select, labels):
    a, p = draw(6, 3), draw(6, 3, seed=1)
    x, y = F.normalize(a, dim=1), F.normalize(p, dim=1)
    losses = []
    for i in range(6):
        near = (x[i] - y[i]).norm()
        others = [j for j in range(6) if j != i and (labels is None or labels[i] != labels[j])]
        d = torch.stack([(x[i] - y[j]).norm() for j in others]).sort().values
        beyond = d[d > near]
        far = {
            "hardest": d[:1],
            "semi_hard": beyond[:1] if len(beyond) else d[-1:],
            "median": d[(len(d) - 1) // 2].reshape(1),
            "all": d,
            "band": d[1:3].mean().reshape(1),
        }[select]
        losses.append(torch.relu(0.4 + near - far).mean())
    want = torch.stack(losses).mean()
    got = triplet(a, p, margin=0.4, select=select, band=(1, 3), labels=labels)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)
    assert_gradients(got, [a, p], list(torch.autograd.grad(want, [a, p])))


def test_margin_contrastive_is_its_definition():
    a, p = draw(5, 3), draw(5, 3, seed=1)
    d = torch.cdist(F.normalize(a, dim=1), F.normalize(p, dim=1))
    off = ~torch.eye(5, dtype=torch.bool)
    want = d.diagonal().square().mean() + torch.relu(1 - d[off]).square().mean()
    torch.testing.assert_close(margin_contrastive(a, p), want)
    flat = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    loss = margin_contrastive(flat, flat, margin=0.7)
    assert loss.item() == pytest.approx(0.49)
    assert torch.autograd.grad(loss, flat)[0].isfinite().all()


def test_wrong_arguments_are_named():
    z = torch.eye(4)
    with pytest.raises(ValueError, match="10 negatives"):
        triplet(z, z, select="band")
    with pytest.raises(ValueError, match="unknown select"):
        triplet(z, z, select="easy")
    with pytest.raises(ValueError, match="triplet"):
        triplet(z, z[:3])
    with pytest.raises(ValueError, match="margin_contrastive"):
        margin_contrastive(z, z[:3])
