"""LVM-Med's matching: released values, brute force, the gradient through the solver."""

import itertools

import pytest
import torch

from reference import OneView, draw, golden, keys
from ssl_core.errors import UserError
from ssl_core.methods.lvm_med import LVMMed, Messages, local_costs
from ssl_core.methods.vicregl import places
from ssl_core.networks.dropout import dropout_keys
from ssl_core.objectives import graph_matching, neighbours, vicreg
from ssl_core.objectives.graph_matching import _edge_costs, _price, solve
from ssl_core.testing.vectors import MLPEncoder
from ssl_core.views import View


def edges_of(pairs: torch.Tensor, size: int) -> torch.Tensor:
    out = torch.zeros(1, size, size, dtype=torch.bool)
    out[0, pairs[0], pairs[1]] = True
    return out


def random_costs(graphs: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    unary = draw(graphs, size, size, seed=seed).detach()
    x, y = (
        draw(graphs, size, 4, seed=seed + 1).detach(),
        draw(graphs, size, 4, seed=seed + 2).detach(),
    )
    return unary, _edge_costs(x @ y.mT, neighbours(x, 3), neighbours(y, 3), 0.5)


def test_matching_and_gradients_are_those_of_the_release() -> None:
    g = golden("lvm_med/graph_matching")
    x, y = g["nodes_view1"][None].requires_grad_(), g["nodes_view2"][None].requires_grad_()
    edges = [edges_of(g[f"edges_view{v}"].long(), 5) for v in (1, 2)]
    assert torch.equal(neighbours(x, 2), edges[0])
    assert torch.equal(neighbours(y, 2), edges[1])
    pairs = _edge_costs(x @ y.mT, *edges, 0.5)
    (i, j), (k, m) = (g[f"edges_view{v}"].long() for v in (1, 2))
    got = pairs[0, i[:, None], j[:, None], k, m]
    torch.testing.assert_close(got, g["quadratic_cost"], rtol=0, atol=1e-9)
    unary = g["unary_cost"][None]
    assert torch.equal(solve(unary, pairs)[0], g["matching"].argmax(1))
    assert torch.equal(solve(unary, pairs * 0)[0], g["matching_unary_only"].argmax(1))
    for jump in (80.0, 5.0):
        loss = graph_matching(x, y, *edges, jump=jump)
        torch.testing.assert_close(loss, g["hamming"], rtol=0, atol=1e-9)
        for got, want in zip(torch.autograd.grad(loss, [x, y]), (1, 2), strict=True):
            want = g[f"grad_x{want}_lambda{jump:.0f}"]
            torch.testing.assert_close(got[0], want, rtol=0, atol=1e-9)


def test_the_solver_finds_what_brute_force_finds() -> None:
    for size in (4, 7):
        unary, pairs = random_costs(4, size)
        every = torch.tensor(list(itertools.permutations(range(size)))).expand(4, -1, -1)
        least = _price(every, unary, pairs).amin(1)
        found = _price(solve(unary, pairs)[:, None], unary, pairs)[:, 0]
        torch.testing.assert_close(found, least, rtol=0, atol=1e-12)
    unary = random_costs(3, 9)[0]
    from scipy.optimize import linear_sum_assignment

    found = solve(unary, torch.zeros(3, 9, 9, 9, 9, dtype=torch.float64))
    for row in range(3):
        assert found[row].tolist() == linear_sum_assignment(unary[row].numpy())[1].tolist()


def test_right_matchings_cost_nothing_and_wrong_ones_move() -> None:
    far = 5 * torch.eye(8, dtype=torch.float64)[None]
    x = far.clone().requires_grad_()
    edges = neighbours(far, 3)
    for jump in (0.1, 80.0):
        loss = graph_matching(x, far, edges, edges, jump=jump)
        (gradient,) = torch.autograd.grad(loss, [x])
        assert loss == 0
        assert not gradient.any()
    # Two rows exchanged: two wrong rows cost four.
    y = far[:, [1, 0, *range(2, 8)]]
    costs = torch.zeros(1, 8, 8, dtype=torch.float64, requires_grad=True)
    edges = torch.zeros(1, 8, 8, dtype=torch.bool)
    loss = graph_matching(x, y, edges, edges, costs=costs, jump=1000.0)
    assert loss == 4
    (gradient,) = torch.autograd.grad(loss, [costs])
    want = torch.zeros(8, 8, dtype=torch.float64)
    want[:2, :2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    torch.testing.assert_close(gradient[0], want / 1000)
    # Many graphs: the mean, and each one's gradient a share of its own.
    many = [part.expand(4, -1, -1) for part in (x, y)]
    costs = torch.zeros(4, 8, 8, dtype=torch.float64, requires_grad=True)
    loss = graph_matching(
        *many, edges.expand(4, -1, -1), edges.expand(4, -1, -1), costs=costs, jump=1000.0
    )
    (gradient,) = torch.autograd.grad(loss, [costs])
    assert loss == 4
    torch.testing.assert_close(gradient[2], want / 4000)


def test_noise_is_added_before_and_after_the_jump() -> None:
    x = draw(1, 5, 3)
    edges = torch.zeros(1, 5, 5, dtype=torch.bool)
    noise = torch.full((1, 5, 5), 50.0)
    noise[0, range(5), [1, 2, 3, 4, 0]] = 0
    loss = graph_matching(x, x.detach(), edges, edges, noise=noise, jump=1.0)
    assert loss == 10, "the noise decides"
    (gradient,) = torch.autograd.grad(loss, [x])
    assert not gradient.any(), "a jump smaller than the noise changes nothing"
    with pytest.raises(ValueError, match="jump"):
        graph_matching(x, x, edges, edges, jump=0.0)
    with pytest.raises(ValueError, match=r"\[G, n, D\]"):
        graph_matching(x, x[:, :4], edges, edges)


def test_messages_come_from_neighbours() -> None:
    net = Messages(3, dropout=0.0)
    nodes = draw(1, 4, 3).detach().float()
    edges = torch.zeros(1, 4, 4, dtype=torch.bool)
    edges[0, 0, 2] = True
    with dropout_keys(keys(4)):
        assert torch.equal(net(nodes, edges), nodes), "at the start none is heard"
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter)
        before, moved = net(nodes, edges), nodes.clone()
        moved[0, 2] += 1
        change = (net(moved, edges) - before).abs().sum(2)[0]
    assert (change[[1, 3]] == 0).all()
    assert (change[[0, 2]] > 0).all()


def test_places_match_by_position_in_the_scan() -> None:
    centre = torch.tensor([[10.0, 20.0, 30.0]])
    matrix = torch.diag(torch.tensor([2.0, -1.0, 3.0]))[None]
    view = View(torch.zeros(1, 1, 4, 4, 8), keys(1), params={"centre": centre, "matrix": matrix})
    found = places(view, (2, 1, 4))
    assert found.shape == (1, 8, 3)
    assert found[0, 0].tolist() == [10 - 2, 20, 30 - 9]
    assert found[0, -1].tolist() == [10 + 2, 20, 30 + 9]
    a = torch.nn.functional.normalize(draw(3, 6, 4).detach(), dim=-1)
    at = torch.arange(6.0).view(1, 6, 1).expand(3, -1, -1)
    costs = local_costs(a, a, at, at, matches=4)
    assert costs.diagonal().max() < 2e-3, "the same maps"
    assert costs.masked_fill(torch.eye(3, dtype=torch.bool), 9).min() > 0.1


def test_groups_take_every_row() -> None:
    method = LVMMed(
        MLPEncoder({"dim": 4}, width=8), OneView(), dim=8, hidden=8, alpha=1.0, group=4, dropout=0.0
    )
    views = [View(draw(11, 4, seed=seed).detach().float(), keys(11)) for seed in (1, 2)]
    reps = method.encode(views)
    loss = method.loss(reps)
    loss.total.backward()
    assert 0 <= loss.metrics["accuracy"] <= 1
    sizes = [len(c) for c in torch.arange(11).tensor_split(3)]
    assert sizes == [4, 4, 3]
    same = method.encode([views[0], views[0]])
    same.nodes = [5 * torch.eye(11, 8) for _ in range(2)]
    assert method.loss(same).total <= loss.total
    with pytest.raises(ValueError, match="group"):
        LVMMed(MLPEncoder({"dim": 4}, width=8), OneView(), group=1)
    with pytest.raises(UserError, match="matched by position"):
        places(views[0], (2,))


def test_terms_that_hold_nodes_apart_are_added_as_weighted() -> None:
    encoder = MLPEncoder({"dim": 4}, width=8)
    size = {"dim": 8, "hidden": 8, "alpha": 1.0, "group": 4, "dropout": 0.0}
    plain, both = (LVMMed(encoder, OneView(), **size, vicregl=weight) for weight in (0.0, 0.5))
    both.load_state_dict(plain.state_dict())
    views = [View(draw(8, 4, seed=seed).detach().float(), keys(8)) for seed in (1, 2)]
    alone, more = (method.loss(method.encode(views)) for method in (plain, both))
    reps = plain.encode(views)
    added = 0.5 * vicreg(*reps.nodes, covariance=0.5)
    torch.testing.assert_close(more.total - alone.total, added)
    with pytest.raises(ValueError, match="vicregl >= 0"):
        LVMMed(encoder, OneView(), vicregl=-1.0)
