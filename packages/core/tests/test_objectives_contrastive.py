"""Contrastive losses against loops, closed forms and released code."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference import assert_gradients, draw, golden
from ssl_core.objectives import info_nce, nt_xent
from ssl_core.objectives import partition as partition_module
from ssl_core.objectives.partition import log_partition


def assert_matches(loss: Tensor, leaves: list[Tensor], value: Tensor, grads: list[Tensor]) -> None:
    """Loss and gradients to 1e-10 of the largest entry."""
    torch.testing.assert_close(loss, value.to(loss.dtype).reshape(()), rtol=1e-10, atol=1e-12)
    assert_gradients(loss, leaves, grads)


def slow_nt_xent(
    *views: Tensor, temperature: float, decoupled: bool = False, positives: str = "mean"
) -> Tensor:
    """The definition, one anchor at a time."""
    z = [F.normalize(view, dim=1) for view in views]
    count, batch = len(z), len(z[0])
    losses = []
    for v in range(count):
        for i in range(batch):
            s = {
                (w, j): z[v][i] @ z[w][j] / temperature
                for w in range(count)
                for j in range(batch)
                if (w, j) != (v, i)
            }
            good = torch.stack([s[w, i] for w in range(count) if w != v])
            below = [x for (_, j), x in s.items() if not (decoupled and j == i)]
            agreement = good.mean() if positives == "mean" else good.logsumexp(0)
            losses.append(torch.stack(below).logsumexp(0) - agreement)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("positives", ["mean", "sum"])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_nt_xent_is_its_definition(views, decoupled, positives, temperature):
    z = [draw(5, 4, seed=s) for s in range(views)]
    options = {"temperature": temperature, "decoupled": decoupled, "positives": positives}
    want = slow_nt_xent(*z, **options)
    assert_matches(nt_xent(*z, **options), z, want.detach(), list(torch.autograd.grad(want, z)))


@pytest.mark.parametrize(
    "case",
    [
        "simclr/lightly_ntxent_tau01",
        "simclr/lightly_ntxent_tau05",
        "simclr/htdt_contrastive_tau05",
    ],
)
def test_nt_xent_equals_released_ports(case):
    """lightly 1.6.0 NTXentLoss; htdt/self-supervised contrastive_loss."""
    g = golden(case)
    z = [g["in_z1"].requires_grad_(), g["in_z2"].requires_grad_()]
    loss = nt_xent(*z, temperature=g["in_tau"].item())
    assert_matches(loss, z, g["out_loss"], [g["grad_z1"], g["grad_z2"]])


@pytest.mark.parametrize("case", ["two_views_tau01", "two_views_tau05", "three_views_tau02"])
def test_nt_xent_equals_solo_learn(case):
    """vturrisi/solo-learn simclr_loss_func: the log of the sum over positives."""
    g = golden(f"simclr/solo_{case}")
    z = g["in_z"].requires_grad_()
    views = z.chunk(3 if "three" in case else 2)
    loss = nt_xent(*views, temperature=g["in_tau"].item(), positives="sum")
    assert_matches(loss, [z], g["out_loss"], [g["grad_z"]])


def test_nt_xent_equals_supcon_without_labels():
    """HobbitLong/SupContrast SupConLoss; its inputs are unit, so gradients agree on the tangent."""
    g = golden("supcon/no_labels_tau01")
    z = g["in_z"].requires_grad_()
    loss = nt_xent(*z.unbind(1), temperature=0.1)
    grad = g["grad_z"]
    tangent = grad - (grad * z).sum(-1, keepdim=True) * z
    assert_matches(loss, [z], g["out_loss"], [tangent.detach()])


def test_grace_is_nt_xent():
    """CRIPAC-DIG/GRACE Model.loss: inter- and intra-view negatives."""
    g = golden("grace/node_loss")
    z = [g["z1"].requires_grad_(), g["z2"].requires_grad_()]
    torch.testing.assert_close(
        nt_xent(*z, temperature=0.4), g["loss_no_projector"], rtol=1e-9, atol=0
    )

    def project(x: Tensor) -> Tensor:
        return F.linear(
            F.elu(F.linear(x, g["fc1_weight"], g["fc1_bias"])), g["fc2_weight"], g["fc2_bias"]
        )

    loss = nt_xent(project(z[0]), project(z[1]), temperature=0.4)
    assert_matches(loss, z, g["loss"], [g["grad_z1"], g["grad_z2"]])


def test_graphcl_is_decoupled_one_way_info_nce():
    """Shen-Lab/GraphCL simclr.loss_cal, T = 0.2."""
    g = golden("graphcl/graph_loss")
    z = [g["x"].requires_grad_(), g["x_aug"].requires_grad_()]
    loss = info_nce(*z, temperature=0.2, symmetric=False, decoupled=True)
    assert_matches(loss, z, g["loss"], [g["grad_x"], g["grad_x_aug"]])


def test_simcse_is_one_way_info_nce():
    """princeton-nlp/SimCSE cl_forward, two passes, temperature 0.05."""
    g = golden("simcse/losses")
    hidden, weight = g["hidden2"].requires_grad_(), g["mlp_weight"].requires_grad_()
    z = torch.tanh(hidden[:, 0] @ weight)
    loss = info_nce(z[0::2], z[1::2], temperature=0.05, symmetric=False)
    assert_matches(loss, [hidden, weight], g["loss2"], [g["grad_hidden2"], g["grad_mlp2"]])


@pytest.mark.parametrize("case", ["tau007", "tau020"])
def test_moco_is_info_nce_against_a_queue(case):
    """vturrisi/solo-learn mocov2plus_loss_func; its gradient is in the ambient space."""
    g = golden(f"moco_v2/solo_infonce_queue_{case}")
    q = g["in_q"].requires_grad_()
    loss = info_nce(
        q,
        g["in_k"],
        temperature=g["in_tau"].item(),
        symmetric=False,
        negatives=g["in_queue"].T,
        in_batch=False,
    )
    grad = g["grad_q"]
    tangent = grad - (grad * q).sum(1, keepdim=True) * q
    assert_matches(loss, [q], g["out_loss"], [tangent.detach()])


@pytest.mark.parametrize(("case", "sigma"), [("lightly_dcl", None), ("lightly_dclw", 0.5)])
def test_dcl_equals_lightly(case, sigma):
    """lightly 1.6.0 DCLLoss and DCLWLoss (weights detached)."""
    g = golden(f"dcl/{case}")
    z = [g["in_z1"].requires_grad_(), g["in_z2"].requires_grad_()]
    loss = nt_xent(*z, temperature=0.1, decoupled=True, weight_sigma=sigma)
    assert_matches(loss, z, g["out_loss"], [g["grad_z1"], g["grad_z2"]])


@pytest.mark.parametrize(("case", "sigma"), [("reference_dcl", None), ("reference_dclw", 0.5)])
def test_dcl_is_half_of_the_reference(case, sigma):
    """raminnakhli/Decoupled-Contrastive-Learning sums the directions; gradient through w."""
    g = golden(f"dcl/{case}")
    z = [g["in_z1"].requires_grad_(), g["in_z2"].requires_grad_()]
    loss = nt_xent(*z, temperature=0.1, decoupled=True, weight_sigma=sigma, weight_gradient=True)
    grads = []
    for x, grad in zip(z, (g["grad_z1"], g["grad_z2"]), strict=True):
        tangent = grad - (grad * x).sum(1, keepdim=True) * x
        grads.append((tangent / 2).detach())
    assert_matches(loss, z, g["out_loss"] / 2, grads)


def test_nt_xent_is_softplus_of_the_decoupled_loss():
    """Per anchor, hence exactly for a batch made of one anchor pair repeated by symmetry."""
    z = F.normalize(draw(6, 5).detach(), dim=1)
    s = z @ z.T / 0.3
    own = torch.eye(6, dtype=torch.bool)
    partner = own.roll(3, dims=1)
    positive = s[partner]
    coupled = s.masked_fill(own, -torch.inf).logsumexp(1) - positive
    alone = s.masked_fill(own | partner, -torch.inf).logsumexp(1) - positive
    torch.testing.assert_close(coupled, F.softplus(alone), rtol=1e-12, atol=0)
    views = z.chunk(2)
    torch.testing.assert_close(nt_xent(*views, temperature=0.3), coupled.mean())
    torch.testing.assert_close(nt_xent(*views, temperature=0.3, decoupled=True), alone.mean())


def test_collapsed_values():
    z = torch.ones(7, 3, dtype=torch.float64)
    assert nt_xent(z, z).item() == pytest.approx(math.log(13), rel=1e-12)
    assert nt_xent(z, z, z).item() == pytest.approx(math.log(20), rel=1e-12)
    assert nt_xent(z, z, decoupled=True).item() == pytest.approx(math.log(12), rel=1e-12)
    weighted = nt_xent(z, z, decoupled=True, weight_sigma=0.5)
    assert weighted.item() == pytest.approx(math.log(12), rel=1e-12)
    assert info_nce(z, z).item() == pytest.approx(math.log(7), rel=1e-12)
    alone = info_nce(z, z, symmetric=False, decoupled=True)
    assert alone.item() == pytest.approx(math.log(6), rel=1e-12)
    queue = torch.ones(11, 3, dtype=torch.float64)
    moco = info_nce(z, z, symmetric=False, negatives=queue, in_batch=False)
    assert moco.item() == pytest.approx(math.log(12), rel=1e-12)
    both = info_nce(z, z, symmetric=False, negatives=queue)
    assert both.item() == pytest.approx(math.log(18), rel=1e-12)


def test_symmetric_info_nce_is_cross_entropy_of_rows_and_columns():
    q, k, temperature = draw(6, 4, seed=1), draw(6, 4, seed=2), draw(1, seed=3).exp()
    temperature = temperature.detach().requires_grad_()
    leaves = [q, k, temperature]
    logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / temperature
    diagonal = torch.arange(6)
    want = (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
    got = info_nce(q, k, temperature=temperature)
    assert_matches(got, leaves, want.detach(), list(torch.autograd.grad(want, leaves)))


def test_two_directions_make_the_symmetric_loss():
    z0, z1 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    one, two = (info_nce(a, b, symmetric=False) for a, b in ((z0, z1), (z1, z0)))
    torch.testing.assert_close((one + two) / 2, info_nce(z0, z1), rtol=1e-12, atol=0)


def test_gradient_is_tangent_and_scale_free():
    z = [draw(5, 4, seed=1), draw(5, 4, seed=2)]
    grads = torch.autograd.grad(nt_xent(*z), z)
    for x, grad in zip(z, grads, strict=True):
        assert (x * grad).sum(1).abs().max() < 1e-12
    scaled = nt_xent(3 * z[0], 0.1 * z[1])
    torch.testing.assert_close(scaled, nt_xent(*z), rtol=1e-12, atol=0)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_chunks_do_not_change_the_result(rows, monkeypatch):
    """Row chunks with the gradient formed on the way equal plain autograd to 1e-10."""
    monkeypatch.setattr(
        partition_module,
        "row_chunks",
        lambda n, _m, _d: [slice(i, min(i + rows, n)) for i in range(0, n, rows)],
    )
    a, c, extra = draw(7, 4, seed=1), draw(9, 4, seed=2), draw(7, 2, seed=3)
    weights = torch.rand(7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    excluded = torch.arange(14).reshape(7, 2) % 9
    logits = (a @ c.T).scatter(1, excluded, -torch.inf)
    want = (weights * torch.cat([logits, extra], 1).logsumexp(1)).sum()
    got = log_partition(a, c, weights=weights, excluded=excluded, extra=extra)
    leaves = [a, c, extra]
    assert_matches(got, leaves, want.detach(), list(torch.autograd.grad(want, leaves)))


def test_partition_frees_what_nobody_needs():
    a, c = draw(4, 3).detach(), draw(5, 3).detach()
    weights = torch.ones(4, dtype=torch.float64)
    assert not log_partition(a, c, weights=weights).requires_grad
    only = c.clone().requires_grad_()
    (grad,) = torch.autograd.grad(log_partition(a, only, weights=weights), [only])
    torch.testing.assert_close(grad, (a @ c.T).softmax(1).T @ a)


def test_large_batch_in_float32_agrees_with_float64():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1024, 16, generator=generator)
    z = [base + 0.3 * torch.randn(1024, 16, generator=generator) for _ in range(2)]
    single = [x.clone().requires_grad_() for x in z]
    double = [x.double().requires_grad_() for x in z]
    torch.testing.assert_close(nt_xent(*single).double(), nt_xent(*double), rtol=1e-6, atol=0)
    for got, want in zip(
        torch.autograd.grad(nt_xent(*single), single),
        torch.autograd.grad(nt_xent(*double), double),
        strict=True,
    ):
        assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: nt_xent(z), "at least two views"),
        (lambda z: nt_xent(z, z[:2]), "one shape"),
        (lambda z: nt_xent(z, z, temperature=0.0), "temperature must be positive"),
        (lambda z: nt_xent(z, z, z, weight_sigma=0.5), "two views"),
        (lambda z: nt_xent(z[:1], z[:1], decoupled=True), "no negatives"),
        (lambda z: info_nce(z, z, negatives=z), "symmetric=False"),
        (lambda z: info_nce(z, z, symmetric=False, in_batch=False), "needs negatives"),
        (lambda z: info_nce(z, z[:2]), "one shape"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(3, 2))
