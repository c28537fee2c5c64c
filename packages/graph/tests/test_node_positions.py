"""Encodings of a node's place: against PyG's transforms, in closed form, signs and limits."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.errors import CorruptSample, UserError
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_graph.domain import GRAPH
from ssl_graph.features import Schema
from ssl_graph.graph import Graph
from ssl_graph.positions import laplacian_positions, return_probabilities
from ssl_graph.pyg import data as pyg_data
from ssl_graph.reader import GraphReader
from ssl_graph.sources.memory import GraphList
from ssl_graph.views.policies import none


def both_ways(graph: nx.Graph) -> np.ndarray:
    return np.array([*graph.edges, *((b, a) for a, b in graph.edges)]).T


def connected(seed: int, nodes: int = 24) -> nx.Graph:
    graph = nx.gnp_random_graph(nodes, 0.2, seed=seed)
    graph.add_edges_from(nx.path_graph(nodes).edges)
    return graph


def test_return_probabilities_are_pygs() -> None:
    from torch_geometric import transforms

    edges = both_ways(connected(0))
    given = pyg_data.Data(edge_index=torch.from_numpy(edges), num_nodes=24)
    want = transforms.AddRandomWalkPE(6)(given).random_walk_pe
    got = return_probabilities(edges, 24, steps=6)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-7)


def test_return_probabilities_one_counts() -> None:
    star = return_probabilities(both_ways(nx.star_graph(4)), 7, steps=4)
    assert star[0].tolist() == [0, 1, 0, 1]
    assert star[1].tolist() == [0, 0.25, 0, 0.25]
    assert (star[5:] == 0).all()  # isolated nodes
    one_way = return_probabilities(np.array([[0, 1, 2], [1, 2, 0]]), 3, steps=3)
    assert one_way.tolist() == [[0, 0, 1]] * 3
    with pytest.raises(CorruptSample, match="take too long"):
        return_probabilities(np.zeros((2, 10**6), dtype=np.int64), 10**6, steps=8)


def test_eigenvectors_are_pygs_up_to_sign_and_scale() -> None:
    from torch_geometric import transforms

    edges = both_ways(connected(1))
    given = pyg_data.Data(edge_index=torch.from_numpy(edges), num_nodes=24)
    want = transforms.AddLaplacianEigenvectorPE(5)(given).laplacian_eigenvector_pe.numpy()
    got = laplacian_positions(edges, 24, width=5) / np.sqrt(24)
    np.testing.assert_allclose(np.abs((got * want).sum(0)), np.ones(5), rtol=1e-5)
    assert (got[np.abs(got).argmax(0), np.arange(5)] > 0).all()


def test_large_graphs_take_the_sparse_way_to_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined = nx.disjoint_union(connected(2, 60), nx.cycle_graph(9))
    joined.add_node(69)
    edges = both_ways(joined)
    returns = return_probabilities(edges, 70, steps=5)
    dense = laplacian_positions(edges, 70, width=4)
    monkeypatch.setattr("ssl_graph.positions._SMALL", 0)
    np.testing.assert_allclose(return_probabilities(edges, 70, steps=5), returns, atol=1e-6)
    np.testing.assert_allclose(laplacian_positions(edges, 70, width=4)[:60], dense[:60], atol=1e-5)
    monkeypatch.setattr("ssl_graph.positions._DENSE", 10)
    np.testing.assert_allclose(laplacian_positions(edges, 70, width=4)[:60], dense[:60], atol=1e-4)


def test_every_component_has_encodings_of_its_own() -> None:
    path = laplacian_positions(both_ways(nx.path_graph(4)), 4, width=5)
    joined = nx.disjoint_union(nx.path_graph(4), nx.cycle_graph(5))
    joined.add_node(9)
    found = laplacian_positions(both_ways(joined), 10, width=5)
    np.testing.assert_allclose(found[:4], path, atol=1e-6)
    assert (path[:, 3:] == 0).all()  # four nodes have three vectors beside the constant one
    assert (found[9] == 0).all()
    np.testing.assert_allclose((found[4:9, :4] ** 2).mean(0), 1, rtol=1e-5)


def test_parts_stand_in_their_order_and_are_saved() -> None:
    graph = connected(3)
    for node in graph:
        graph.nodes[node]["kind"] = "ab"[node % 2]
        graph.nodes[node]["mass"] = float(node)
    source = GraphList([graph, graph])
    asked = {"features": "laplacian+given+random_walk+degree", "positions": 3, "degree_cap": 4}
    reader = GraphReader.fit(source, **asked)  # type: ignore[arg-type]
    schema = reader.schema
    assert schema.widths == {"given": 3, "degree": 5, "random_walk": 3, "laplacian": 3}
    assert schema.categories == [[1, 3], [3, 8]]
    assert schema.signs == (11, 14)
    assert Schema.from_json(schema.to_json()) == schema
    x = reader.decode(source[0]).x
    edges = both_ways(graph)
    assert x[:, 1:3].argmax(1).tolist() == [node % 2 for node in range(24)]
    assert x[:, 3:8].sum(1).tolist() == [1.0] * 24
    assert np.array_equal(x[:, 8:11], return_probabilities(edges, 24, steps=3))
    assert np.array_equal(x[:, 11:], laplacian_positions(edges, 24, width=3))
    with pytest.raises(UserError, match="did you mean 'laplacian'"):
        GraphReader.fit(source, features="given+laplacien")
    with pytest.raises(UserError, match=r"data.options.positions: must be at least 1"):
        GraphReader.fit(source, features="laplacian", positions=0)


def test_training_views_of_a_collection_turn_signs_and_nothing_else() -> None:
    source = GraphList([connected(seed) for seed in range(12)])
    reader = GraphReader.fit(source, features="random_walk+laplacian", positions=4)
    graphs = reader.collate([reader.decode(source[i]) for i in range(12)])
    ids = torch.arange(12)
    policy = none(reader.spec)
    (view,) = policy(Batch(graphs, ids, ids), Rng.at(0, 0, ids))
    assert torch.equal(view.data.x[:, :4], graphs.x[:, :4])
    ratio = graphs.dense(view.data.x[:, 4:] / graphs.x[:, 4:])[0]
    assert ((ratio == 1).all(1) | (ratio == -1).all(1)).all()  # one sign a graph and column
    assert 10 < (ratio[:, 0] == -1).sum() < 38
    assert policy.plain(Batch(graphs, ids, ids)) is graphs
    some = graphs.select([3, 7])
    (alone,) = policy(Batch(some, ids[[3, 7]], ids[:2]), Rng.at(0, 0, ids[[3, 7]]))
    assert torch.equal(alone.data.x, view.data.select([3, 7]).x)


def test_one_big_network_keeps_its_signs() -> None:
    data = Data(path="blocks:120:1", options={"features": "given+laplacian", "positions": 3})
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    ids = torch.arange(20)
    nodes = reader.collate([reader.decode(source[i]) for i in range(20)])
    (view,) = none(reader.spec)(Batch(nodes, ids, ids), Rng.at(0, 0, ids))
    assert torch.equal(view.data.x, nodes.network.x[view.data.origin])
    again = Data(path="blocks:120:1", options={"features": "laplacian", "row_normalize": True})
    with pytest.raises(UserError, match="row_normalize: some features are negative"):
        GRAPH.fit_reader(GRAPH.open(again), again)


def test_graphs_that_come_as_tensors_are_checked() -> None:
    edges = torch.tensor([[0, 1], [1, 0]])
    good = Graph(torch.ones(2, 3), edges)
    reader = GraphReader.fit(GraphList([good, good]))
    assert reader.spec["features"] == "encoded"
    assert reader.spec["categories"] == []
    broken = {
        "node ids must lie in 0..1": Graph(torch.ones(2, 3), edges + 1),
        "not all values are finite": Graph(torch.full((2, 3), torch.nan), edges),
        "must be int64": Graph(torch.ones(2, 3), edges.int()),
        "without nodes": Graph(torch.ones(0, 3), edges[:, :0]),
    }
    for message, graph in broken.items():
        with pytest.raises(CorruptSample, match=message):
            reader.decode(GraphList([graph])[0])
    with pytest.raises(CorruptSample, match="not encoded"):
        reader.decode(GraphList([nx.path_graph(3)])[0])
