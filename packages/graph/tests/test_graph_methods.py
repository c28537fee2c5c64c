"""Contrastive and cluster methods against the authors' released values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import assert_gradients, draw, golden
from ssl_core.objectives import info_nce, nt_xent
from ssl_core.objectives.correlation import cca_ssg
from ssl_core.objectives.discriminators import bce
from ssl_core.rng import Rng
from ssl_graph.encoders.create import gcn
from ssl_graph.encoders.layers import GCNLayer
from ssl_graph.graph import GraphBatch
from ssl_graph.methods.attribute_masking import CountMasker, category_error
from ssl_graph.methods.context_prediction import context_loss
from ssl_graph.methods.dsla import discrimination, edit_ratio, other_margin
from ssl_graph.methods.infograph import InfoGraph
from ssl_graph.methods.mvgrl import MVGRL
from ssl_graph.methods.scores import Bilinear, local_global, node_mean
from ssl_graph.nodes.network import Network
from ssl_graph.views.corrupted import mvgrl
from ssl_graph.views.diffusion import diffused, diffusion_matrix, normalised_adjacency
from ssl_graph.views.policies import none

LOG2 = math.log(2)


def graph_of(adjacency: Tensor) -> GraphBatch:
    """One graph from a symmetric matrix, identity features."""
    count = len(adjacency)
    edges = adjacency.fill_diagonal_(0).nonzero().T.contiguous()
    x = torch.eye(count, dtype=torch.float64)
    return GraphBatch(x, edges, torch.zeros(count, dtype=torch.int64), torch.tensor([0, count]))


def network_of(adjacency: Tensor) -> Network:
    graph = graph_of(adjacency.clone())
    return Network.of(graph.graphs()[0])


# DGI ----------------------------------------------------------------------------------------


def test_dgi_step_is_the_released_one() -> None:
    g = golden("dgi/full_step")
    x, weight = (g[n].clone().requires_grad_() for n in ("x", "gcn_weight"))
    bilinear = g["bilinear"].clone().requires_grad_()
    score = Bilinear(4).double()
    with torch.no_grad():
        # The release keeps W as [1, D, D] and multiplies h W s.
        score.weight.copy_(bilinear[0])
        score.bias.copy_(g["bilinear_bias"].reshape(()))

    def encode(rows: Tensor) -> Tensor:
        out = g["adj_norm"] @ (rows @ weight.T) + g["gcn_bias"]
        return torch.where(out > 0, out, g["prelu"] * out)[None]

    nodes = encode(x)
    corrupted = encode(g["x"][g["permutation"]])
    valid = torch.ones(1, 12, dtype=torch.bool)
    summary = node_mean(nodes, valid, rooted=False).sigmoid()
    true, false = score(nodes, summary), score(corrupted, summary)
    torch.testing.assert_close(torch.cat([true, false], 1), g["logits"], rtol=1e-9, atol=1e-12)
    loss = bce(true, false, positive_weight=valid, negative_weight=valid)
    torch.testing.assert_close(loss, g["loss"], rtol=1e-9, atol=0)
    wants = [g["grad_x"][0], g["grad_gcn_weight"], g["grad_bilinear"][0]]
    assert_gradients(loss, [x, weight, score.weight], wants)


def test_node_means_ignore_padding() -> None:
    nodes = draw(2, 3, 4)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    got = node_mean(nodes, valid, rooted=False)
    torch.testing.assert_close(got[0, 0], nodes[0].mean(0))
    torch.testing.assert_close(got[1, 0], nodes[1, 0])
    torch.testing.assert_close(
        node_mean(nodes[:, :1], valid, rooted=True)[0, 0], nodes[:, 0].mean(0)
    )


# MVGRL --------------------------------------------------------------------------------------


def test_diffusion_is_the_released_one() -> None:
    g = golden("mvgrl/diffusion_loss")
    graphs = graph_of(g["adjacency"].clone())
    adjacency = normalised_adjacency(graphs)
    for alpha, name in ((0.2, "ppr_02"), (0.5, "ppr_05")):
        got = diffusion_matrix(adjacency, alpha=alpha)[0]
        torch.testing.assert_close(got, g[name], rtol=1e-9, atol=1e-12)
    one = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(diffusion_matrix(adjacency, alpha=1.0)[0], one)
    series = sum(
        5.0**k / math.factorial(k) * torch.linalg.matrix_power(adjacency[0] - one, k)
        for k in range(60)
    )
    torch.testing.assert_close(diffusion_matrix(adjacency, kind="heat")[0], series)


def test_mvgrl_loss_is_the_released_one() -> None:
    g = golden("mvgrl/diffusion_loss")
    names = ("h1", "h2", "h1_corrupt", "h2_corrupt")
    h1, h2, c1, c2 = leaves = [g[n].clone().requires_grad_() for n in names]
    score = Bilinear(4).double()
    with torch.no_grad():
        score.weight.copy_(g["bilinear"][0])
        score.bias.zero_()
    valid = torch.ones(1, 7, dtype=torch.bool)
    s1, s2 = (node_mean(h, valid, rooted=False).sigmoid() for h in (h1, h2))
    loss = (bce(score(h2, s1), score(c2, s1)) + bce(score(h1, s2), score(c1, s2))) / 2
    logits = torch.cat([score(h2, s1), score(h1, s2), score(c2, s1), score(c1, s2)], 1)
    torch.testing.assert_close(logits, g["logits"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss, g["loss"], rtol=1e-9, atol=0)
    assert_gradients(loss, leaves, [g[f"grad_{n}"] for n in names])


def test_a_gcn_on_diffused_edges_multiplies_by_the_diffusion() -> None:
    graphs = graph_of(golden("mvgrl/diffusion_loss")["adjacency"].clone())
    spread = diffused(graphs, alpha=0.2, eps=0.0)
    layer = GCNLayer(12, 5, 0).double()
    matrix = diffusion_matrix(normalised_adjacency(graphs), alpha=0.2)[0]
    want = matrix @ layer.conv.lin(graphs.x) + layer.conv.bias
    torch.testing.assert_close(
        layer(spread.x, spread.edge_index, edge_weight=spread.edge_weight), want
    )
    few = diffused(graphs, eps=0.05)
    assert 12 < few.edge_index.shape[1] < spread.edge_index.shape[1]


def test_mvgrl_needs_its_views_and_a_gcn() -> None:
    spec = {"node_dim": 3, "edge_dim": 0}
    with pytest.raises(ValueError, match="needs the views 'mvgrl'"):
        MVGRL(gcn(spec), none(spec))
    method = MVGRL(gcn(spec, dim=4), mvgrl(spec))
    own, other = (dict(e.named_parameters()) for e in (method.encoder, method.spread_encoder))
    assert not torch.equal(own["layers.0.conv.lin.weight"], other["layers.0.conv.lin.weight"])
    assert {id(p) for p in method.both.parameters()} == {
        id(p) for e in (method.encoder, method.spread_encoder) for p in e.parameters()
    }


# InfoGraph ----------------------------------------------------------------------------------


def test_local_global_bound_against_loops() -> None:
    nodes, graphs = draw(3, 4, 5).detach(), draw(3, 5, seed=1).detach()
    valid = torch.arange(4) < torch.tensor([4, 1, 2])[:, None]
    true, false = [], []
    for g in range(3):
        for n in range(int(valid[g].sum())):
            for other in range(3):
                s = float((nodes[g, n] * graphs[other]).sum())
                softplus = math.log1p(math.exp(-abs(s))) + max(s, 0)
                if other == g:
                    true.append(LOG2 - (softplus - s))
                else:
                    false.append(softplus - LOG2)
    want = np.mean(false) - np.mean(true)
    assert float(local_global(nodes, valid, graphs)) == pytest.approx(want, rel=1e-12)


def test_infograph_limits() -> None:
    nodes, valid = torch.zeros(3, 4, 5), torch.ones(3, 4, dtype=torch.bool)
    assert float(local_global(nodes, valid, torch.randn(3, 5))) == pytest.approx(0, abs=1e-6)
    perfect = 50 * (2 * torch.eye(3) - 1)
    apart = perfect[:, None].expand(-1, 4, -1)
    assert float(local_global(apart, valid, torch.eye(3))) == pytest.approx(-2 * LOG2, abs=1e-6)
    spec = {"node_dim": 3, "edge_dim": 0}
    method = InfoGraph(gcn(spec, dim=4), none(spec))
    assert method.local_network(torch.randn(2, 3, 4)).shape == (2, 3, 4)


# CCA-SSG, GRACE, GraphCL ----------------------------------------------------------------------


def test_cca_ssg_is_the_released_loss() -> None:
    g = golden("cca_ssg/loss")
    h1, h2 = (g[n].clone().requires_grad_() for n in ("h1", "h2"))
    loss = cca_ssg(h1, h2, lambd=float(g["lambd"]), eps=0.0)
    # The release divides its terms by nothing; its total is -tr + lambda (dec1 + dec2).
    want = g["loss_inv"] + g["lambd"] * (g["loss_dec1"] + g["loss_dec2"])
    torch.testing.assert_close(loss, g["loss"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss, want, rtol=1e-9, atol=1e-12)
    assert_gradients(loss, [h1, h2], [g["grad_h1"], g["grad_h2"]])


def test_cca_ssg_limits() -> None:
    torch.manual_seed(0)
    z = torch.linalg.qr(torch.randn(40, 5, dtype=torch.float64) - 0.0).Q
    z = torch.linalg.qr(z - z.mean(0)).Q
    small = 5 * (1 / 40) ** 2  # the diagonal of C is (N - 1) / N
    got = float(cca_ssg(z, z, lambd=0.1, eps=0.0))
    assert got == pytest.approx(-5 * 39 / 40 + 0.1 * 2 * small, rel=1e-9)
    a, b = draw(8, 3), draw(8, 3, seed=1)
    torch.testing.assert_close(cca_ssg(a, b), cca_ssg(b, a))
    flat = torch.ones(8, 3)
    assert float(cca_ssg(flat, flat, lambd=0.01)) == pytest.approx(2 * 0.01 * 3)


def test_grace_is_nt_xent_over_two_views() -> None:
    g = golden("grace/node_loss")
    z1, z2 = (g[n].clone().requires_grad_() for n in ("z1", "z2"))

    def project(z: Tensor) -> Tensor:
        hidden = torch.nn.functional.elu(z @ g["fc1_weight"].T + g["fc1_bias"])
        return hidden @ g["fc2_weight"].T + g["fc2_bias"]

    loss = nt_xent(project(z1), project(z2), temperature=0.4)
    torch.testing.assert_close(loss, g["loss"], rtol=1e-9, atol=0)
    assert_gradients(loss, [z1, z2], [g["grad_z1"], g["grad_z2"]])
    plain = nt_xent(z1, z2, temperature=0.4)
    torch.testing.assert_close(plain, g["loss_no_projector"], rtol=1e-9, atol=0)


def test_graphcl_is_one_way_decoupled_info_nce() -> None:
    g = golden("graphcl/graph_loss")
    x, aug = (g[n].clone().requires_grad_() for n in ("x", "x_aug"))
    loss = info_nce(x, aug, temperature=0.2, symmetric=False, decoupled=True)
    torch.testing.assert_close(loss, g["loss"], rtol=1e-9, atol=0)
    assert_gradients(loss, [x, aug], [g["grad_x"], g["grad_x_aug"]])


# Attribute masking, context prediction --------------------------------------------------------


def test_masked_counts_are_the_released_ones() -> None:
    want = golden("attr_context/masking_contextpred")["masked_count_1_to_30"]
    masker = CountMasker(0.15)
    sizes = torch.arange(1, 31)
    valid = torch.arange(30) < sizes[:, None]
    mask = masker(Rng.at(0, 0, sizes), 30, maskable=valid)
    assert torch.equal(mask.hidden.sum(1), want)
    assert not (mask.hidden & ~valid).any()


def test_uniform_category_logits_cost_the_logarithm() -> None:
    logits = torch.zeros(2, 3, 119 + 4)
    target = torch.randint(0, 4, (2, 3, 2), generator=torch.Generator().manual_seed(0))
    hidden = torch.tensor([[True, False, True], [False, True, False]])
    got = float(category_error(logits, target, hidden, [119, 4]))
    assert got == pytest.approx(math.log(119) + math.log(4))
    none_left = category_error(logits, torch.full_like(target, -1), hidden, [119, 4])
    assert float(none_left) == 0


def test_context_loss_is_the_released_one() -> None:
    g = golden("attr_context/masking_contextpred")
    ball, ring = (g[n].clone().requires_grad_() for n in ("substruct", "context"))
    loss = context_loss(
        ball, ring, torch.ones(5, dtype=torch.bool), negatives=int(g["neg_samples"])
    )
    torch.testing.assert_close(loss, g["context_loss"], rtol=1e-9, atol=0)
    assert_gradients(loss, [ball, ring], [g["grad_substruct"], g["grad_context"]])


def test_invalid_contexts_never_serve() -> None:
    ball, ring = draw(5, 4), draw(5, 4, seed=1)
    valid = torch.tensor([True, False, True, True, False])
    got = context_loss(ball, ring, valid, negatives=2)
    want = context_loss(ball[valid], ring[valid], torch.ones(3, dtype=torch.bool), negatives=2)
    torch.testing.assert_close(got, want)
    nothing = context_loss(ball, ring, torch.zeros(5, dtype=torch.bool))
    assert nothing.item() == 0
    one = torch.tensor([True, False, False, False, False])
    assert torch.isfinite(context_loss(ball, ring, one))


# D-SLA ----------------------------------------------------------------------------------------


def test_dsla_terms_in_closed_form() -> None:
    distance = torch.tensor([[0, 1, 2, 3, 9]]).repeat(4, 1)
    scores = torch.zeros(4, 5)
    assert float(discrimination(scores, distance)) == pytest.approx(math.log(5))
    unmoved = distance.clone()
    unmoved[:, 1] = 0  # an unmoved candidate is the original itself
    assert float(discrimination(scores, unmoved)) == pytest.approx(math.log(4))

    direction = torch.nn.functional.normalize(draw(4, 5, 6), dim=-1)
    origin = draw(4, 1, 6, seed=2)
    vectors = (origin + 0.37 * distance[..., None].double() * direction).detach()
    assert float(edit_ratio(vectors, distance)) == pytest.approx(0, abs=1e-20)
    same = origin.detach().expand(-1, 5, -1)
    assert float(edit_ratio(same, distance)) == 0
    moved = distance > 0
    assert float(other_margin(torch.ones(4, 5, 6), moved, margin=5.0)) == pytest.approx(5.0)


def test_dsla_terms_against_loops() -> None:
    vectors = draw(3, 4, 5)
    distance = torch.tensor([[0, 1, 2, 4], [0, 2, 0, 3], [0, 1, 1, 1]])
    ratios, costs = [], []
    for g in range(3):
        near = [(vectors[g, i] - vectors[g, 0]).norm() for i in range(4)]
        used = [i for i in range(1, 4) if distance[g, i] > 0]
        ratios += [
            (near[i] / distance[g, i] - near[j] / distance[g, j]) ** 2
            for i in used
            for j in used
            if i < j
        ]
        for i in used:
            for other in range(3):
                if other != g:
                    far = (vectors[g, 0] - vectors[other, 0]).norm()
                    costs.append(torch.relu(1.5 + near[i] - far))
    torch.testing.assert_close(edit_ratio(vectors, distance), torch.stack(ratios).mean())
    got = other_margin(vectors, distance > 0, margin=1.5)
    torch.testing.assert_close(got, torch.stack(costs).mean())
    (gradient,) = torch.autograd.grad(edit_ratio(vectors * 0, distance), vectors)
    assert torch.isfinite(gradient).all()
