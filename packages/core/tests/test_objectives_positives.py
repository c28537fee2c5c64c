"""Contrastive loss with many positives against loops and released code."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference import assert_gradients, draw, golden
from ssl_core.objectives import nt_xent, sup_con


def slow(views: list[Tensor], weights: Tensor, temperature: float) -> Tensor:
    """The definition, one anchor at a time."""
    z = [F.normalize(v, dim=1) for v in views]
    names = [(v, i) for v in range(len(z)) for i in range(len(z[0]))]
    losses = []
    for v, i in names:
        s = {(w, j): z[v][i] @ z[w][j] / temperature for w, j in names if (w, j) != (v, i)}
        mass = sum(weights[i, j] for _, j in s)
        log_sum = torch.stack(list(s.values())).logsumexp(0)
        agreement = sum(weights[i, j] * x for (_, j), x in s.items())
        losses.append(log_sum - agreement / mass if mass > 0 else 0 * log_sum)
    return torch.stack(losses).mean()


def tangent(z: Tensor, grad: Tensor) -> Tensor:
    """A gradient at unit rows, seen through their normalisation."""
    return grad - (grad * z).sum(-1, keepdim=True) * z


@pytest.mark.parametrize("views", [1, 2, 3])
def test_weights_are_the_definition(views):
    z = [draw(5, 4, seed=s) for s in range(views)]
    weights = draw(5, 5, seed=9).detach().relu()
    weights[3] = 0
    want = slow(z, weights, 0.3)
    got = sup_con(*z, positives=weights, temperature=0.3)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, z, list(torch.autograd.grad(want, z)))


def test_labels_are_a_mask():
    z, labels = [draw(6, 4, seed=s) for s in range(2)], torch.tensor([3, 1, 3, 7, 1, 3])
    mask = labels.unsqueeze(0) == labels.unsqueeze(1)
    by_mask = sup_con(*z, positives=mask)
    by_label = sup_con(*z, labels=labels)
    torch.testing.assert_close(by_label, by_mask, rtol=1e-12, atol=0)
    assert_gradients(by_label, z, list(torch.autograd.grad(by_mask, z)))


def test_unique_labels_are_nt_xent():
    z = [draw(6, 4, seed=s) for s in range(3)]
    want = nt_xent(*z, temperature=0.2)
    for how in ({}, {"labels": torch.arange(6)}, {"positives": torch.eye(6)}):
        torch.testing.assert_close(sup_con(*z, temperature=0.2, **how), want)


@pytest.mark.parametrize(
    ("case", "how"),
    [
        ("no_labels_tau01", {"temperature": 0.1}),
        ("labels_tau007", {}),
        ("labels_tau01_base007", {"temperature": 0.1, "base_temperature": 0.07}),
        ("labels_one_anchor", {"anchors": "first"}),
        ("asymmetric_mask", {"temperature": 0.2}),
        ("single_view_empty_positives", {}),
    ],
)
def test_equals_the_release(case, how):
    """HobbitLong/SupContrast SupConLoss; its inputs are unit vectors."""
    g = golden(f"supcon/{case}")
    z = g["in_z"].requires_grad_()
    labels = g.get("in_label")
    loss = sup_con(*z.unbind(1), labels=labels, positives=g.get("in_mask"), **how)
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [z], [tangent(z.detach(), g["grad_z"])])


def test_collapsed_value():
    z = torch.ones(4, 3, dtype=torch.float64)
    loss = sup_con(z, z, labels=torch.tensor([0, 0, 1, 2]))
    assert loss.item() == pytest.approx(math.log(7), rel=1e-12)


def test_wrong_arguments_are_named():
    z = torch.ones(4, 3)
    with pytest.raises(ValueError, match="not both"):
        sup_con(z, labels=torch.zeros(4, dtype=torch.long), positives=torch.eye(4))
    with pytest.raises(ValueError, match=r"labels must be \[4\]"):
        sup_con(z, labels=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="positives must be"):
        sup_con(z, positives=torch.eye(3))
    with pytest.raises(ValueError, match="one shape"):
        sup_con(z, torch.ones(4, 2))
