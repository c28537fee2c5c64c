"""Encoders against loop references; padding, order of graphs and nodes must not matter."""

from __future__ import annotations

import networkx as nx
import pytest
import torch

from ssl_core.networks.masks import Mask
from ssl_graph.encoders.create import gcn, gin
from ssl_graph.encoders.gnn import GraphEncoder, readout
from ssl_graph.graph import Graph, GraphBatch
from ssl_graph.reader import GraphReader
from ssl_graph.sources.memory import GraphList


def atlas(count: int = 30) -> tuple[GraphBatch, GraphReader]:
    source = GraphList(nx.graph_atlas_g()[100 : 100 + count])
    reader = GraphReader.fit(source)
    return reader.collate([reader.decode(source[i]) for i in range(count)]), reader


def test_gin_layer_is_the_papers_sum() -> None:
    graphs, reader = atlas(5)
    encoder = gin(reader.spec, dim=4, depth=1).double().eval()
    layer = encoder.layers[0]
    with torch.no_grad():
        layer.eps.fill_(0.25)
    x = graphs.x.double()
    total = torch.stack(
        [
            1.25 * x[v] + sum((x[u] for u, w in graphs.edge_index.T.tolist() if w == v), 0 * x[v])
            for v in range(len(x))
        ]
    )
    expected = encoder.norms[0](layer.nn(total)).relu()
    got = encoder(graphs.with_x(x)).tokens
    torch.testing.assert_close(graphs.flat(got), expected, rtol=1e-12, atol=1e-12)


def test_gcn_layer_is_the_papers_normalised_sum() -> None:
    graphs, reader = atlas(5)
    encoder = gcn(reader.spec, dim=4, depth=1).double().eval()
    n = graphs.num_nodes
    adjacency = torch.eye(n, dtype=torch.float64)
    adjacency[graphs.edge_index[1], graphs.edge_index[0]] = 1
    scale = adjacency.sum(1).rsqrt()
    conv = encoder.layers[0].conv
    smooth = scale[:, None] * adjacency * scale
    expected = smooth @ graphs.x.double() @ conv.lin.weight.T + conv.bias
    got = encoder(graphs.with_x(graphs.x.double())).tokens
    expected = encoder.norms[0](expected).relu()
    torch.testing.assert_close(graphs.flat(got), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
def test_readouts(how: str) -> None:
    graphs, _ = atlas(6)
    values = torch.randn(graphs.num_nodes, 3, dtype=torch.float64)
    parts = values.split(graphs.sizes.tolist())
    expected = torch.stack(
        [getattr(p, "a" + how)(0) if how == "max" else getattr(p, how)(0) for p in parts]
    )
    torch.testing.assert_close(readout(values, graphs, how), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [gin, gcn])
@pytest.mark.parametrize("concat", [False, True])
def test_outputs_and_invariance_to_node_order(make: object, concat: bool) -> None:
    graphs, reader = atlas()
    encoder = make(reader.spec, dim=6, depth=3, concat=concat).double().eval()  # type: ignore[operator]
    assert isinstance(encoder, GraphEncoder)
    assert encoder.embed_dim == (18 if concat else 6)
    whole = encoder(graphs.with_x(graphs.x.double()))
    assert whole.pooled.shape == (30, encoder.embed_dim)
    assert whole.tokens.shape == (30, int(graphs.sizes.max()), encoder.embed_dim)
    assert torch.equal(whole.valid.sum(1), graphs.sizes)
    graph = graphs.graphs()[7]
    order = torch.randperm(graph.num_nodes)
    inverse = order.argsort()
    turned = Graph(graph.x[order].double(), inverse[graph.edge_index])
    alone = encoder(GraphBatch.of([turned]))
    torch.testing.assert_close(alone.pooled[0], whole.pooled[7], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(alone.tokens[0][inverse], whole.tokens[7, : graph.num_nodes])


def test_tokenize_then_encode_is_forward() -> None:
    graphs, reader = atlas()
    encoder = gin(reader.spec).eval()
    assert encoder.mask_token is None
    tokens = encoder.tokenize(graphs)
    assert tokens.values.shape[-1] == encoder.token_dim == reader.spec["node_dim"]
    assert torch.equal(encoder.encode(tokens).pooled, encoder(graphs).pooled)


def test_only_replace_mode_and_only_with_a_mask_token() -> None:
    graphs, reader = atlas(3)
    encoder = gin(reader.spec)
    tokens = encoder.tokenize(graphs)
    with pytest.raises(RuntimeError, match="enable_mask_token"):
        encoder.encode(tokens, Mask(tokens.valid, "replace"))
    encoder.enable_mask_token()
    with pytest.raises(ValueError, match="'replace', not 'drop'"):
        encoder.encode(tokens, Mask(tokens.valid, "drop"))
    encoder.eval()
    # All hidden: what is left is the structure, with the (zero) mask vector everywhere.
    hidden = encoder.encode(tokens, Mask(tokens.valid, "replace")).pooled
    blank = encoder(graphs.with_x(torch.zeros_like(graphs.x))).pooled
    assert torch.equal(hidden, blank)


@pytest.mark.parametrize("make", [gin, gcn])
def test_edge_features_matter_where_there_are_any(make: object) -> None:
    graph = nx.cycle_graph(5)
    nx.set_edge_attributes(graph, {e: float(i) for i, e in enumerate(graph.edges)}, "weight")
    source = GraphList([graph, graph])
    reader = GraphReader.fit(source)
    encoder = make(reader.spec, dim=4, depth=2).eval()  # type: ignore[operator]
    batch = reader.collate([reader.decode(source[0])])
    flat = GraphBatch(
        batch.x, batch.edge_index, batch.batch, batch.ptr, torch.zeros_like(batch.edge_attr)
    )
    assert not torch.allclose(encoder(batch).pooled, encoder(flat).pooled)


def test_wrong_options_are_named() -> None:
    _, reader = atlas(3)
    with pytest.raises(ValueError, match="pool must be"):
        gin(reader.spec, pool="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth and dim"):
        gcn(reader.spec, depth=0)
