"""Views: same in any batch split, valid, never empty, with the shares that were asked for."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import numpy as np
import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.rng import Rng, generator
from ssl_graph.graph import GraphBatch
from ssl_graph.reader import GraphReader
from ssl_graph.sources.memory import GraphList
from ssl_graph.views.ops import OPS, EdgeDrop, NodeDrop, Subgraph
from ssl_graph.views.policies import GraphViews, grace, graphcl, none

SPEC: dict[str, object] = {}


def random_batch(count: int = 12, *, directed: bool = False) -> GraphBatch:
    """Graphs of 1 to 40 nodes, some with several components."""
    rng = generator("test graphs")
    graphs = []
    for i in range(count):
        n = 1 if i == 0 else int(rng.integers(2, 40))
        graphs.append(nx.gnp_random_graph(n, 2.2 / n, seed=i, directed=directed))
    source = GraphList(graphs)
    reader = GraphReader.fit(source, directed=directed, degree_cap=6)
    return reader.collate([reader.decode(source[i]) for i in range(count)])


def as_batch(graphs: GraphBatch, first_id: int = 0) -> Batch:
    ids = torch.arange(len(graphs)) + first_id
    return Batch(graphs, ids, ids)


POLICIES = {
    "graphcl": graphcl(SPEC, node_drop=0.2, edge_drop=0.3, node_mask=0.2, feature_mask=0.2),
    "graphcl all": graphcl(SPEC, feature_mask=0.3, choose="all"),
    "graphcl plain": graphcl(SPEC, anchor="plain"),
    "grace": grace(SPEC),
    "none": none(SPEC),
}


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("name", [*POLICIES, "with added edges"])
def test_views_do_not_depend_on_the_batch_split(name: str, directed: bool) -> None:
    graphs = random_batch(directed=directed)
    policy = POLICIES.get(name, graphcl(SPEC, choose="all", edge_add=0.3))
    whole = policy(as_batch(graphs), Rng.at(3, 5, torch.arange(12)))
    for rows in (slice(0, 5), slice(5, 12), slice(7, 8)):
        ids = torch.arange(12)[rows]
        part = Batch(graphs.select(rows), ids, ids)
        for big, small in zip(whole, policy(part, Rng.at(3, 5, ids)), strict=True):
            expected = big.data.select(rows)
            assert torch.equal(expected.x, small.data.x)
            in_order = small.data.select(slice(None))  # added edges stand at the end
            assert torch.equal(expected.edge_index, in_order.edge_index)
            assert torch.equal(big.rng.key[rows], small.rng.key)
            for what in ("nodes_dropped", "edges_dropped", "op"):
                assert torch.equal(big.params[what][rows], small.params[what])


@pytest.mark.parametrize("name", POLICIES)
def test_views_are_valid_graphs_with_true_provenance(name: str) -> None:
    graphs = random_batch()
    state = torch.random.get_rng_state()
    for step in range(5):
        for view in POLICIES[name](as_batch(graphs), Rng.at(0, step, torch.arange(12))):
            after: GraphBatch = view.data
            assert len(after) == 12
            assert (after.sizes >= 1).all()
            assert torch.equal(after.batch, torch.arange(12).repeat_interleave(after.sizes))
            edges = after.edge_index
            assert edges.numel() == 0 or 0 <= int(edges.min()) <= int(edges.max()) < len(after.x)
            assert torch.equal(after.batch[edges[0]], after.batch[edges[1]])
            # Undirected graphs stay undirected.
            pairs = set(map(tuple, edges.T.tolist()))
            assert pairs == {(b, a) for a, b in pairs}
            assert torch.equal(view.params["nodes_dropped"], graphs.sizes - after.sizes)
            assert int(view.params["edges_dropped"].sum()) == (
                graphs.edge_index.shape[1] - edges.shape[1]
            )
            kept = graphs.flat(view.params["kept"])
            assert torch.equal(graphs.batch[kept], after.batch)
            # Every edge of the view was an edge of the graph between the kept nodes.
            rows = kept.nonzero()[:, 0]
            before = set(map(tuple, graphs.edge_index.T.tolist()))
            assert {tuple(pair) for pair in rows[edges].T.tolist()} <= before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_two_views_differ_and_one_step_repeats() -> None:
    graphs, policy = random_batch(), POLICIES["graphcl all"]
    first, second = policy(as_batch(graphs), Rng.at(0, 0, torch.arange(12)))
    again, _ = policy(as_batch(graphs), Rng.at(0, 0, torch.arange(12)))
    assert torch.equal(first.data.edge_index, again.data.edge_index)
    assert first.data.x.shape != second.data.x.shape or not torch.equal(first.data.x, second.data.x)
    assert not torch.equal(first.rng.key, second.rng.key)


@pytest.mark.parametrize("name", sorted(OPS))
def test_share_zero_is_the_identity(name: str) -> None:
    graphs, rng = random_batch(), Rng.at(0, 0, torch.arange(12))
    for share in (0.0, torch.zeros(12)):
        op = OPS[name]
        after = op.apply(graphs, op.sample(rng, graphs, share))
        assert torch.equal(after.x, graphs.x)
        assert torch.equal(after.edge_index, graphs.edge_index)
        assert torch.equal(after.ptr, graphs.ptr)


def test_node_drop_takes_the_exact_share() -> None:
    graphs = random_batch()
    for share in (0.1, 0.29, 0.5, 0.99):
        keep = NodeDrop().sample(Rng.at(0, 0, torch.arange(12)), graphs, share)
        kept = torch.zeros(12, dtype=torch.long).index_add_(0, graphs.batch, keep.long())
        for n, got in zip(graphs.sizes.tolist(), kept.tolist(), strict=True):
            assert got == max(1, n - round(np.floor(round(n * share, 9))))


def test_edges_and_nodes_are_dropped_uniformly() -> None:
    # The same 10-node cycle 4000 times, each with its own key.
    source = GraphList([nx.cycle_graph(10)])
    reader = GraphReader.fit(source)
    graphs = GraphBatch.of([reader.decode(source[0])] * 4000)
    rng = Rng.at(0, 0, torch.arange(4000))
    edges = EdgeDrop().sample(rng, graphs, 0.3).reshape(4000, 20)
    share = edges.double().mean(0)
    assert (share - 0.7).abs().max() < 5 * (0.7 * 0.3 / 4000) ** 0.5
    for column, (a, b) in enumerate(graphs.edge_index[:, :20].T.tolist()):
        back = graphs.edge_index[:, :20].T.tolist().index([b, a])
        assert torch.equal(edges[:, column], edges[:, back])
    nodes = NodeDrop().sample(rng, graphs, 0.3).reshape(4000, 10)
    assert (nodes.sum(1) == 7).all()
    assert (nodes.double().mean(0) - 0.7).abs().max() < 5 * (0.7 * 0.3 / 4000) ** 0.5


def grown_one_by_one(graph: nx.Graph, count: int, rng: np.random.Generator) -> frozenset[int]:
    """GraphCL's procedure: start anywhere, add a uniformly drawn neighbour of the part."""
    part = {int(rng.integers(graph.number_of_nodes()))}
    while len(part) < count:
        border = sorted({b for a in part for b in graph[a]} - part)
        if not border:
            break
        part.add(int(rng.choice(border)))
    return frozenset(part)


def test_subgraphs_grow_as_if_one_node_at_a_time() -> None:
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (3, 4), (4, 5), (0, 2)])
    source = GraphList([graph])
    reader = GraphReader.fit(source)
    draws = 20_000
    graphs = GraphBatch.of([reader.decode(source[0])] * draws)
    keep = Subgraph().sample(Rng.at(0, 0, torch.arange(draws)), graphs, 0.5).reshape(draws, 6)
    got = Counter(frozenset(row.nonzero()[:, 0].tolist()) for row in keep)
    assert all(len(part) == 3 and nx.is_connected(graph.subgraph(part)) for part in got)
    rng = generator("one by one")
    expected = Counter(grown_one_by_one(graph, 3, rng) for _ in range(draws))
    assert set(got) == set(expected)
    # Two-sample chi-square; 11 connected triples, so 99.9 % of fair samples stay below 30.
    statistic = sum((got[k] - expected[k]) ** 2 / (got[k] + expected[k]) for k in expected)
    assert statistic < 30


def test_a_small_component_stays_whole() -> None:
    graph = nx.disjoint_union(nx.path_graph(2), nx.path_graph(2))
    source = GraphList([graph])
    reader = GraphReader.fit(source)
    graphs = GraphBatch.of([reader.decode(source[0])] * 50)
    keep = Subgraph().sample(Rng.at(0, 0, torch.arange(50)), graphs, 0.25).reshape(50, 4)
    assert {tuple(row) for row in keep.tolist()} == {
        (True, True, False, False),
        (False, False, True, True),
    }


def test_feature_mask_zeroes_whole_columns_of_a_graph() -> None:
    graphs = random_batch()
    ones = graphs.with_x(torch.ones_like(graphs.x))
    op = OPS["feature_mask"]
    after = op.apply(ones, op.sample(Rng.at(0, 0, torch.arange(12)), ones, 0.5))
    for graph in after.graphs():
        assert ((graph.x == 0).all(0) | (graph.x == 1).all(0)).all()
    assert 0.3 < float(after.x.mean()) < 0.7


def test_choosing_one_operation_gives_each_its_turn() -> None:
    source = GraphList([nx.cycle_graph(10)])
    reader = GraphReader.fit(source)
    graphs = GraphBatch.of([reader.decode(source[0])] * 3000)
    policy = GraphViews([{"node_drop": 0.2, "edge_drop": 0.5, "subgraph": 0.4}], choose="one")
    (view,) = policy(as_batch(graphs), Rng.at(0, 0, torch.arange(3000)))
    op, nodes, edges = (view.params[k] for k in ("op", "nodes_dropped", "edges_dropped"))
    assert nodes[op == 0].unique().tolist() == [2]
    assert nodes[op == 1].unique().tolist() == [0]
    assert nodes[op == 2].unique().tolist() == [4]
    assert float(edges[op == 1].double().mean()) == pytest.approx(10, abs=0.6)
    assert (torch.bincount(op) - 1000).abs().max() < 150


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="edge_drop: share must lie in"):
        graphcl(SPEC, edge_drop=1.0)
    with pytest.raises(ValueError, match="anchor"):
        graphcl(SPEC, anchor="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="edge_drop must be two shares"):
        grace(SPEC, edge_drop=0.2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not an operation"):
        GraphViews([{"rotate": 0.1}])
