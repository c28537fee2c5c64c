"""The containers: collating, selecting, padding and dropping are exact inverses or subsets."""

from __future__ import annotations

import pytest
import torch

from ssl_graph.graph import Graph, GraphBatch


def path(n: int, width: int = 3, *, start: float = 0.0, edge_dim: int = 0) -> Graph:
    """A path of n nodes with distinct features."""
    a = torch.arange(n - 1)
    edges = torch.cat([torch.stack([a, a + 1]), torch.stack([a + 1, a])], dim=1)
    order = (edges[0] * n + edges[1]).argsort()
    x = start + torch.arange(n * width, dtype=torch.float32).reshape(n, width)
    attr = None
    if edge_dim:
        attr = torch.arange(2 * (n - 1) * edge_dim, dtype=torch.float32).reshape(-1, edge_dim)
    return Graph(x, edges[:, order], attr)


def same(a: Graph, b: Graph) -> None:
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.edge_index, b.edge_index)
    if a.edge_attr is None or b.edge_attr is None:
        assert a.edge_attr is b.edge_attr
    else:
        assert torch.equal(a.edge_attr, b.edge_attr)


@pytest.mark.parametrize("edge_dim", [0, 2])
def test_collate_and_graphs_are_inverse(edge_dim: int) -> None:
    graphs = [path(n, start=100.0 * n, edge_dim=edge_dim) for n in (3, 1, 5)]
    batch = GraphBatch.of(graphs)
    assert batch.ptr.tolist() == [0, 3, 4, 9]
    assert batch.batch.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert batch.local.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4]
    for given, got in zip(graphs, batch.graphs(), strict=True):
        same(given, got)


def test_select_takes_graphs_in_the_order_asked_for() -> None:
    graphs = [path(n, start=100.0 * n) for n in (3, 1, 5)]
    chosen = GraphBatch.of(graphs).select([2, 0])
    for given, got in zip([graphs[2], graphs[0]], chosen.graphs(), strict=True):
        same(given, got)
    assert len(GraphBatch.of(graphs).select(slice(1, 3))) == 2


def test_dense_and_flat_are_inverse_and_padding_is_zero() -> None:
    batch = GraphBatch.of([path(n, start=1.0) for n in (3, 1, 5)])
    dense, valid = batch.dense()
    assert dense.shape == (3, 5, 3)
    assert valid.sum(1).tolist() == [3, 1, 5]
    assert (dense[~valid] == 0).all()
    assert torch.equal(batch.flat(dense), batch.x)


def test_keep_nodes_induces_the_subgraph() -> None:
    batch = GraphBatch.of([path(4, edge_dim=1), path(3, start=50.0, edge_dim=1)])
    keep = torch.tensor([True, True, False, True, False, True, True])
    kept = batch.keep_nodes(keep)
    assert torch.equal(kept.x, batch.x[keep])
    assert kept.ptr.tolist() == [0, 3, 5]
    # Left are 0-1 of the first path (node 3 is cut off) and 1-2 of the second.
    assert kept.edge_index.tolist() == [[0, 1, 3, 4], [1, 0, 4, 3]]
    assert kept.edge_attr is not None
    assert kept.edge_attr[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_keep_edges_keeps_every_node() -> None:
    batch = GraphBatch.of([path(3), path(2)])
    kept = batch.keep_edges(torch.zeros(6, dtype=torch.bool))
    assert kept.num_nodes == 5
    assert kept.edge_index.shape == (2, 0)
    assert kept.ptr.tolist() == batch.ptr.tolist()


def test_a_graph_is_also_a_pyg_graph() -> None:
    graph = path(4, edge_dim=2)
    data = graph.to_pyg()
    assert data.num_nodes == 4
    assert torch.equal(data.edge_index, graph.edge_index)
    assert torch.equal(data.edge_attr, graph.edge_attr)
