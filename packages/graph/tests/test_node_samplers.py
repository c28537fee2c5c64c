"""Neighbourhood sampling on compressed rows: closed forms, independence of the batch, speed."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch

from ssl_core.errors import UserError
from ssl_core.rng import Rng
from ssl_graph.features import Schema
from ssl_graph.graph import GraphBatch, RawGraph
from ssl_graph.nodes.batch import NodeBatch
from ssl_graph.nodes.blocks import block_network
from ssl_graph.nodes.network import Network
from ssl_graph.nodes.partition import grow_parts
from ssl_graph.nodes.push import personalised_pagerank
from ssl_graph.nodes.samplers import SAMPLERS, Sampler, conductance, distinct


def network_of(raw: RawGraph, *, directed: bool = False) -> Network:
    schema = Schema.measure([raw], directed=directed)
    return Network.of(schema.encode(raw), directed=directed)


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of(block_network(300, blocks=3, features=12, seed=2).graph)


def roots(*nodes: int) -> torch.Tensor:
    return torch.tensor(nodes)


def at(nodes: torch.Tensor) -> Rng:
    return Rng.at(3, 5, nodes)


def test_rows_hold_the_edges_and_their_other_direction(network: Network) -> None:
    listed = set(zip(network.neighbours.tolist(), network.targets.tolist(), strict=True))
    assert len(listed) == network.num_edges
    assert {(b, a) for a, b in listed} == listed
    assert torch.equal(network.targets[network.reverse], network.neighbours)
    assert torch.equal(network.neighbours[network.reverse], network.targets)


def test_distinct_numbers_are_uniform_without_repeats() -> None:
    keys = Rng.at(0, 0, torch.arange(30_000))
    chosen, valid = distinct(keys, torch.full((30_000,), 5), 3)
    assert valid.all()
    assert (chosen.sort(1).values.diff(dim=1) > 0).all()
    subsets = torch.bincount((2**chosen).sum(1))
    counts = subsets[subsets > 0]
    assert len(counts) == 10  # 5 choose 3
    assert (counts - 3000).abs().max() < 4 * 3000**0.5
    few, valid = distinct(keys[:1], torch.tensor([2]), 4)
    assert few[0, :2].tolist() == [0, 1]
    assert valid.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_neighbourhood_is_the_same_in_any_batch(network: Network, name: str) -> None:
    nodes = roots(5, 17, 200, 5)
    rng = Rng(torch.tensor([1, 2, 3, 1]))
    whole = SAMPLERS[name](network, nodes, rng)
    alone = SAMPLERS[name](network, nodes[1:3], rng[1:3])
    picked = whole.select([1, 2])
    assert torch.equal(picked.x, alone.x)
    assert picked.origin is not None
    assert alone.origin is not None
    assert torch.equal(picked.origin, alone.origin)
    for a, b in zip(picked.graphs(), alone.graphs(), strict=True):
        assert set(map(tuple, a.edge_index.T.tolist())) == set(map(tuple, b.edge_index.T.tolist()))
    assert whole.origin is not None
    assert torch.equal(whole.origin[whole.roots], nodes)
    assert torch.equal(whole.x, network.x[whole.origin])
    first, last = whole.graphs()[0], whole.graphs()[3]
    assert torch.equal(first.edge_index, last.edge_index)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_edges_are_edges_of_the_network_in_both_directions(network: Network, name: str) -> None:
    graphs = SAMPLERS[name](network, roots(0, 50), at(roots(0, 50)))
    assert graphs.origin is not None
    listed = set(zip(network.neighbours.tolist(), network.targets.tolist(), strict=True))
    own = {tuple(edge) for edge in graphs.origin[graphs.edge_index].T.tolist()}
    assert own <= listed
    local = {tuple(edge) for edge in graphs.edge_index.T.tolist()}
    assert {(b, a) for a, b in local} == local
    assert len(local) == graphs.edge_index.shape[1]
    for g in range(2):
        members = graphs.origin[graphs.ptr[g] : graphs.ptr[g + 1]].tolist()
        assert len(set(members)) == len(members)


def test_khop_without_a_cap_is_the_ego_graph(network: Network) -> None:
    graph = nx.Graph(list(zip(network.neighbours.tolist(), network.targets.tolist(), strict=True)))
    graphs = SAMPLERS["khop"](network, roots(7), at(roots(7)), hops=2, max_nodes=10_000)
    ego = nx.ego_graph(graph, 7, radius=2)
    assert graphs.origin is not None
    assert set(graphs.origin.tolist()) == set(ego.nodes)
    assert graphs.edge_index.shape[1] == 2 * ego.number_of_edges()
    capped = SAMPLERS["khop"](network, roots(7), at(roots(7)), hops=2, max_nodes=9)
    assert capped.origin is not None
    assert capped.num_nodes == 9
    near = set(ego.neighbors(7)) | {7}
    assert near <= set(capped.origin.tolist()) or len(near) > 9


def test_fanout_bounds_every_hop_and_takes_all_where_there_are_few(network: Network) -> None:
    nodes = torch.arange(40)
    graphs = SAMPLERS["neighbours"](network, nodes, at(nodes), fanout=(3, 2))
    assert int(graphs.sizes.max()) <= 1 + 3 + 6
    everyone = SAMPLERS["neighbours"](network, nodes, at(nodes), fanout=(1000,))
    assert torch.equal(everyone.sizes, 1 + network.degree[:40])


def test_isolated_nodes_and_directed_edges() -> None:
    raw = RawGraph(4, np.array([[0, 1], [1, 2], [2, 2], [0, 1]]), np.eye(4, dtype=np.float32))
    network = network_of(raw, directed=True)
    assert network.num_edges == 2  # self-loop and duplicate gone
    for name in SAMPLERS.keys() - {"local"}:  # of undirected networks only
        graphs = SAMPLERS[name](network, roots(3, 2), at(roots(3, 2)))
        assert graphs.origin is not None
        if name != "cluster":
            assert graphs.sizes[0] == 1
            assert set(graphs.select([1]).origin.tolist()) <= {0, 1, 2}
    lonely = network_of(RawGraph(2, np.zeros((0, 2), dtype=np.int64)))
    for name in SAMPLERS:
        assert SAMPLERS[name](lonely, roots(0, 1), at(roots(0, 1))).edge_index.shape == (2, 0)


def test_pagerank_by_pushing_is_close_to_the_exact_vector(network: Network) -> None:
    alpha, eps = 0.2, 1e-6
    group, node, mass = personalised_pagerank(network, roots(3, 9), alpha=alpha, eps=eps)
    count = network.num_nodes
    adjacency = torch.zeros(count, count, dtype=torch.float64)
    adjacency[network.neighbours, network.targets] = 1
    walk = adjacency / adjacency.sum(0).clamp(min=1)
    stuck = network.degree == 0
    walk[stuck, stuck] = 1
    start = torch.zeros(count, 2, dtype=torch.float64)
    start[3, 0] = start[9, 1] = 1
    exact = alpha * torch.linalg.solve(
        torch.eye(count, dtype=torch.float64) - (1 - alpha) * walk, start
    )
    got = torch.zeros(count, 2, dtype=torch.float64)
    got[node, group] = mass
    bound = eps * network.degree.clamp(min=1)[:, None] * count
    assert ((exact - got) >= -1e-12).all()
    assert ((exact - got) <= bound).all()
    assert float((exact - got).abs().max()) < 1e-4
    top = SAMPLERS["ppr"](network, roots(3), at(roots(3)), top=8, eps=eps)
    _, nodes, masses = personalised_pagerank(network, roots(3), eps=eps)
    best = set(nodes[masses.argsort(descending=True)[:8]].tolist())
    assert top.origin is not None
    assert set(top.origin.tolist()) == best | {3}


def test_conductance_of_every_prefix_against_networkx(network: Network) -> None:
    graph = nx.Graph(list(zip(network.neighbours.tolist(), network.targets.tolist(), strict=True)))
    orders = [[5, 17, 3, 80, 81, 200], [9, 8, 7]]
    lists = [(g, v, r) for g, nodes in enumerate(orders) for r, v in enumerate(nodes)]
    group, node, rank = (torch.tensor(column) for column in zip(*sorted(lists), strict=True))
    found = conductance(network, group, node, rank, 2)
    for g, nodes in enumerate(orders):
        want = [nx.conductance(graph, nodes[: i + 1]) for i in range(len(nodes))]
        assert found[g, : len(nodes)].tolist() == pytest.approx(want)


def test_a_local_cluster_ends_where_few_edges_leave() -> None:
    """Two cliques of eight joined by one edge: the cluster of a node is its clique."""
    graph = nx.barbell_graph(8, 0)
    raw = RawGraph(17, np.array(graph.edges, dtype=np.int64))  # node 16 is isolated
    network = network_of(raw)
    nodes = roots(2, 7, 12, 16)
    found = SAMPLERS["local"](network, nodes, at(nodes), min_nodes=4, max_nodes=16)
    members = [set(g.tolist()) for g in found.origin.split(found.sizes.tolist())]  # type: ignore[union-attr]
    assert members == [set(range(8)), set(range(8)), set(range(8, 16)), {16}]
    kept = SAMPLERS["local"](network, nodes, at(nodes), cut=False)
    assert kept.sizes.tolist() == [16, 16, 16, 1]
    few = SAMPLERS["local"](network, nodes, at(nodes), min_nodes=1, max_nodes=5)
    assert int(few.sizes.max()) <= 5
    with pytest.raises(ValueError, match="min_nodes <= max_nodes"):
        SAMPLERS["local"](network, nodes, at(nodes), min_nodes=9, max_nodes=8)
    with pytest.raises(ValueError, match="undirected"):
        SAMPLERS["local"](network_of(raw, directed=True), nodes, at(nodes))


def test_parts_cover_every_node_and_are_balanced(network: Network) -> None:
    part = grow_parts(network.ptr, network.neighbours, parts=6)
    counts = torch.bincount(part)
    assert int(counts.max()) <= 50
    assert (counts > 0).all()
    inside = (part[network.neighbours] == part[network.targets]).double().mean()
    assert inside > 2 / 6  # by chance 1/6


def test_a_network_of_a_million_edges_gives_neighbourhoods_of_their_own_size() -> None:
    """What is cut out does not grow with the network: 1.2 million listed edges."""
    raw = block_network(100_000, degree=12.0, features=6, words=1).graph
    network = network_of(raw)
    assert network.num_edges > 1_000_000
    nodes = torch.arange(0, 100_000, 800)
    network.reverse  # noqa: B018  (built once)
    graphs = SAMPLERS["neighbours"](network, nodes, at(nodes), fanout=(10, 10))
    assert len(graphs) == 125
    assert 5000 < graphs.num_nodes <= 125 * (1 + 10 + 100)


def test_a_sampler_names_what_is_wrong(network: Network) -> None:
    with pytest.raises(UserError, match="did you mean 'neighbours'"):
        Sampler("neighbors")
    with pytest.raises(UserError, match="did you mean 'fanout'"):
        Sampler("neighbours", {"fan_out": [3]})
    batch = NodeBatch(network, roots(1), Sampler("khop", {"hops": 0}))
    with pytest.raises(UserError, match="sampler khop: hops and max_nodes"):
        batch.plain()


def test_batches_move_and_plain_views_repeat(network: Network) -> None:
    batch = NodeBatch(network, roots(4, 8), Sampler("walk"))
    one, two = batch.plain(), batch.to("cpu").plain()
    assert isinstance(one, GraphBatch)
    assert torch.equal(one.x, two.x)
    assert network.to("cpu") is network
    assert len(batch) == 2
