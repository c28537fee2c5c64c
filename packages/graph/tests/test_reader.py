"""The reader: schema, raw features, saving, and what happens to graphs that do not fit."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from ssl_core.errors import CorruptSample, UserError
from ssl_graph.graph import RawGraph
from ssl_graph.reader import GraphReader, graph_statistics
from ssl_graph.sources.memory import GraphList

EDGES = np.array([[0, 1], [1, 2]])


def with_labels(*labels: object) -> RawGraph:
    table = np.array(labels, dtype=object)[:, None]
    return RawGraph(len(labels), EDGES[: len(labels) - 1], labels=table)


def test_statistics_of_a_star_and_a_path() -> None:
    source = GraphList([nx.star_graph(3), nx.path_graph(3)])
    reader = GraphReader.fit(source)
    batch = reader.collate([reader.decode(source[i]) for i in range(2)])
    got = graph_statistics(batch)
    assert got.shape == (2, 4 + 18)
    assert got[0, :4].tolist() == [0, 0.75, 0, 0.25]  # one-hot degrees: leaves 1, centre 3
    assert got[1, :4].tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert got[0, 4:20].tolist() == [0, 0.75, 0, 0.25] + [0] * 12
    assert got[0, 20:].tolist() == pytest.approx([np.log(4), np.log(7)])


def test_raw_features_are_standardised_on_the_training_data() -> None:
    source = GraphList(nx.graph_atlas_g()[20:80])
    reader = GraphReader.fit(source)
    raw = reader.raw(reader.collate([reader.decode(source[i]) for i in range(60)])).double()
    assert raw.mean(0).abs().max() < 1e-5
    spread = raw.std(0, unbiased=False)
    assert (((spread - 1).abs() < 1e-4) | (spread < 1e-5)).all()


def test_attributes_are_standardised_over_nodes() -> None:
    values = np.array([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]], dtype=np.float32)
    source = GraphList([RawGraph(3, EDGES, values)] * 2)
    reader = GraphReader.fit(source)
    x = reader.decode(source[0]).x
    root = float(np.sqrt(1.5))
    assert x[:, 0].tolist() == pytest.approx([-root, 0, root])
    assert x[:, 1].tolist() == [0, 0, 0]  # a constant column is centred, not divided by zero


def test_degree_beside_given_features() -> None:
    source = GraphList([with_labels("a", "b", "a")])
    reader = GraphReader.fit(source, features="given+degree", degree_cap=1)
    assert reader.decode(source[0]).x.tolist() == [[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1]]
    with pytest.raises(UserError, match="'given', but the nodes have no attributes"):
        GraphReader.fit(GraphList([nx.path_graph(3)]), features="given")


def test_a_category_that_training_never_saw_is_a_zero_row() -> None:
    reader = GraphReader.fit(GraphList([with_labels("a", "b", "a")]))
    unseen = GraphList([with_labels("b", "new", "a")])
    assert reader.decode(unseen[0]).x.tolist() == [[0, 1], [0, 0], [1, 0]]


def test_graphs_with_other_columns_are_corrupt_and_do_not_stop_the_fit() -> None:
    odd = RawGraph(3, EDGES, np.zeros((3, 4), dtype=np.float32))
    source = GraphList([with_labels("a", "b", "a"), odd, with_labels("b", "b", "a")])
    reader = GraphReader.fit(source)
    with pytest.raises(CorruptSample, match="4 node attributes, the other graphs have 0"):
        reader.decode(source[1])
    named = RawGraph(3, EDGES, labels=source[0].payload.labels, label_names=("kind",))
    with pytest.raises(CorruptSample, match=r"node attributes \['kind'\]"):
        reader.decode(GraphList([named])[0])


def test_graphs_that_cannot_be_samples() -> None:
    values = np.array([[0.0], [np.nan], [1.0]], dtype=np.float32)
    good = RawGraph(3, EDGES, np.ones((3, 1), dtype=np.float32))
    reader = GraphReader.fit(GraphList([good, good]))
    with pytest.raises(CorruptSample, match="not all finite"):
        reader.decode(GraphList([RawGraph(3, EDGES, values)])[0])
    with pytest.raises(CorruptSample, match="without nodes"):
        reader.decode(GraphList([RawGraph(0, EDGES[:0])])[0])
    with pytest.raises(UserError, match="not one graph could be read"):
        GraphReader.fit(GraphList([RawGraph(0, EDGES[:0])]))
    with pytest.raises(UserError, match="holds no graphs"):
        GraphReader.fit(GraphList([]))


def test_saved_reader_decodes_the_same(tmp_path: Path) -> None:
    graphs = [with_labels("a", "b", "a"), with_labels("b", "b", "c")]
    source = GraphList(graphs)
    reader = GraphReader.fit(source, features="given+degree")
    reader.save(tmp_path)
    again = GraphReader.load(tmp_path)
    assert again.spec == reader.spec
    for i in range(2):
        assert torch.equal(again.decode(source[i]).x, reader.decode(source[i]).x)
    batch = reader.collate([reader.decode(source[i]) for i in range(2)])
    assert torch.equal(again.raw(batch), reader.raw(batch))
    with pytest.raises(UserError, match="is missing"):
        GraphReader.load(tmp_path / "other")


def test_pyg_data_goes_in_and_out() -> None:
    from ssl_graph.pyg import data as pyg

    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    item = pyg.Data(x=torch.eye(3), edge_index=edges, y=torch.tensor([1]))
    source = GraphList([item, item])
    reader = GraphReader.fit(source, standardize=False)
    graph = reader.decode(source[0])
    assert source[0].label == 0
    assert source.classes == ["1"]
    assert torch.equal(graph.x, item.x)
    assert torch.equal(graph.edge_index, edges)
    assert torch.equal(graph.to_pyg().edge_index, edges)


def test_a_graph_without_edges_fits_among_graphs_with_edge_attributes() -> None:
    weights = np.ones((2, 1), dtype=np.float32)
    full = RawGraph(3, EDGES, edge_attributes=weights)
    wide = RawGraph(3, EDGES, edge_attributes=np.ones((2, 3), dtype=np.float32))
    source = GraphList([full, RawGraph(2, EDGES[:0]), wide, full])
    reader = GraphReader.fit(source)
    assert reader.spec["edge_dim"] == 1
    batch = reader.collate([reader.decode(source[i]) for i in (0, 1, 3)])
    assert batch.edge_attr is not None
    assert batch.edge_attr.shape == (8, 1)
    with pytest.raises(CorruptSample, match="3 edge attributes, the other graphs have 1"):
        reader.decode(source[2])


def test_single_inputs_may_be_graphs_of_any_library() -> None:
    from ssl_core.batch import Record

    reader = GraphReader.fit(GraphList([nx.path_graph(4), nx.star_graph(3)]))
    star = reader.decode(Record("0", nx.star_graph(3)))
    listed = reader.decode(Record("1", {"edges": [[0, 1], [0, 2], [0, 3]]}))
    file = reader.decode(Record("2.edges", b"0 1\n0 2\n0 3\n"))
    for other in (listed, file):
        assert torch.equal(star.x, other.x)
        assert torch.equal(star.edge_index, other.edge_index)
