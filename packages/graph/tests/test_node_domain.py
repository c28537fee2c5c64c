"""Learning on the nodes of one graph: the contract kit, views, encoders, what a run scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_core.testing import Contract, MethodCase
from ssl_graph.domain import GRAPH, GraphDomain
from ssl_graph.encoders.create import gat, gcn, graph_transformer, mlp, sage
from ssl_graph.graph import GraphBatch, RawGraph
from ssl_graph.nodes.blocks import block_network
from ssl_graph.nodes.files.tables import write_tables
from ssl_graph.nodes.reader import NodeReader
from ssl_graph.nodes.source import NodeSource, NodeTable
from ssl_graph.views.ops import OPS
from ssl_graph.views.policies import grace, graphcl
from ssl_graph.views.selftask import LABELLED, NODE_TASKS, PAIR_TASKS

SMALL = {"dim": 8, "depth": 2}
HEAD = {"hidden": 16, "dim": 8}
FEW = {"fanout": [3, 3]}
MASKED = {"feature_mask": 0.3}
CASES = [
    MethodCase("simclr", "grace", "gcn", HEAD, encoder_options=SMALL),
    MethodCase("byol", "grace", "gat", HEAD, encoder_options=SMALL),
    MethodCase("barlow_twins", "grace", "sage", HEAD, encoder_options=SMALL),
    MethodCase("vicreg", "graphcl", "graph_transformer", HEAD, {"choose": "all"}, SMALL),
    MethodCase("graphmae", "none", "gin", {}, encoder_options=SMALL),
    MethodCase("graphmae2", "none", "gat", {**HEAD, "decoder": "gcn"}, encoder_options=SMALL),
    MethodCase("context_prediction", "context", "gcn", {}, {"hops": 2, "inner": 1}, SMALL),
    MethodCase("dgi", "dgi", "gcn", {}, encoder_options=SMALL),
    MethodCase("mvgrl", "mvgrl", "gcn", {}, encoder_options=SMALL),
    MethodCase("cca_ssg", "grace", "gcn", {}, encoder_options=SMALL),
    MethodCase("dsla", "dsla", "gin", {"hidden": 8}, encoder_options=SMALL),
    MethodCase("scgc", "scgc", "mlp", {"clusters": 3, "reconstruction": 1.0}, MASKED, SMALL),
    *(
        MethodCase("selftask", "selftask", "gcn", {}, {"task": task, "parts": 3}, SMALL)
        for task in (*NODE_TASKS, *PAIR_TASKS)
        if task not in LABELLED
    ),
]
LABELLED_CASES = [
    MethodCase("selftask", "selftask", "gcn", {"supervised": 1.0}, {"task": task, **options}, SMALL)
    for task, options in (
        ("label_distance", {}),
        ("context_label", {"infer": "ensemble"}),
        ("context_label", {"correct": 1.0}),
    )
]


def _name(case: MethodCase) -> str:
    return "-".join([str(case), *map(str, case.view_options.values())])


class NodeDomain(GraphDomain):
    """The graph domain with a network as its sample data."""

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        table = block_network(count, blocks=3, features=12, seed=seed)
        write_tables(folder, table)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    folder = tmp_path_factory.mktemp("network")
    return Contract(NodeDomain(), CASES, folder, count=120, data_options={"sampling": FEW})


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    folder = tmp_path_factory.mktemp("labelled")
    options = {"use_labels": True, "sampling": FEW}
    return Contract(NodeDomain(), LABELLED_CASES, folder, count=120, data_options=options)


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_contract_on_nodes(contract: Contract, case: MethodCase) -> None:
    contract.check(case)


@pytest.mark.parametrize("case", LABELLED_CASES, ids=_name)
def test_contract_on_nodes_with_labels(labelled: Contract, case: MethodCase) -> None:
    labelled.check(case)


@pytest.mark.parametrize("case", CASES[:12], ids=_name)
def test_isolated_nodes_break_no_method(case: MethodCase) -> None:
    """A batch around nodes of which half have no edges or only one to themselves."""
    edges = np.array([[0, 1], [1, 0], [1, 2], [3, 3], [0, 1]])
    table = NodeTable(RawGraph(6, edges, np.eye(6, dtype=np.float32)))
    reader = NodeReader.fit(NodeSource(table), sampling=FEW)
    ids = torch.arange(6)
    nodes = reader.collate([reader.decode(NodeSource(table)[i]) for i in range(6)])
    views = GRAPH.create_views(case.views, reader.spec, case.view_options)
    encoder = GRAPH.create_encoder(case.encoder, reader.spec, case.encoder_options)
    method = GRAPH.methods.build(case.method, encoder, views, options=case.options)
    for step in range(3):
        loss = method(method.views(Batch(nodes, ids, ids), Rng.at(0, step, ids))).total
        loss.backward()
        assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_written_tables_read_back(tmp_path: Path) -> None:
    table = block_network(90, blocks=3, features=12, seed=4)
    write_tables(tmp_path, table)
    source = GRAPH.open(Data(path=str(tmp_path)))
    assert isinstance(source, NodeSource)
    again = source.table
    assert np.array_equal(again.graph.edges, table.graph.edges)
    assert np.array_equal(again.graph.attributes, table.graph.attributes)
    assert table.labels is not None
    assert [source[i].label for i in range(90)] == list(table.labels)
    assert np.array_equal(again.split, table.split)


def neighbourhoods(count: int = 6) -> tuple[Batch, GraphBatch, dict[str, object]]:
    data = Data(path="blocks:200:1")
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    ids = torch.arange(count)
    nodes = reader.collate([reader.decode(source[i * 7]) for i in range(count)])
    return Batch(nodes, ids, ids), nodes.plain(), dict(reader.spec)


def test_a_rooted_graph_is_pooled_to_its_root() -> None:
    _, graphs, spec = neighbourhoods()
    for factory in (gcn, sage, gat, graph_transformer, mlp):
        encoder = factory(spec, **SMALL).eval()
        features = encoder(graphs)
        assert features.tokens is not None
        torch.testing.assert_close(features.pooled, features.tokens[:, 0])
    blind = mlp(spec, **SMALL).eval()
    alone = graphs.keep_edges(torch.zeros(graphs.edge_index.shape[1], dtype=torch.bool))
    torch.testing.assert_close(blind(graphs).pooled, blind(alone).pooled)


def test_two_layers_see_two_hops_as_on_the_whole_graph() -> None:
    """A root's vector from its full neighbourhood is the one from the whole network."""
    data = Data(path="blocks:150:3", options={"sampler": "khop", "sampling": {"hops": 3}})
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    nodes = reader.collate([reader.decode(source[i]) for i in range(150)])
    network = nodes.network
    edges = torch.stack([network.neighbours, network.targets])
    whole = GraphBatch(
        network.x, edges, torch.zeros(150, dtype=torch.int64), torch.tensor([0, 150])
    )
    encoder = gcn(reader.spec, dim=8, depth=2).eval()
    tokens = encoder(whole).tokens
    assert tokens is not None
    torch.testing.assert_close(encoder(nodes.plain()).pooled, tokens[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["node_drop", "subgraph"])
def test_no_view_drops_the_root(name: str) -> None:
    _, graphs, _ = neighbourhoods()
    assert graphs.origin is not None
    for seed in range(5):
        rng = Rng.at(seed, 0, torch.arange(6))
        left = OPS[name].apply(graphs, OPS[name].sample(rng, graphs, 0.8))
        assert left.origin is not None
        assert torch.equal(left.origin[left.roots], graphs.origin[graphs.roots])


def test_shuffled_features_come_from_the_whole_network() -> None:
    _, graphs, _ = neighbourhoods()
    rng = Rng.at(0, 0, torch.arange(6))
    op = OPS["feature_shuffle"]
    params = op.sample(rng, graphs, 1.0)
    assert params.unique().numel() > 0.7 * min(params.numel(), 200) * (1 - np.exp(-1))
    assert graphs.pool is not None
    shuffled = op.apply(graphs, params)
    assert torch.equal(shuffled.x, graphs.pool[params])
    assert torch.equal(shuffled.edge_index, graphs.edge_index)
    assert torch.equal(op.apply(graphs, op.sample(rng, graphs, 0.0)).x, graphs.x)


def test_shuffled_features_of_a_collection_stay_in_their_graph() -> None:
    x = torch.arange(9.0)[:, None]
    edges = torch.zeros(2, 0, dtype=torch.int64)
    graphs = GraphBatch(x, edges, torch.tensor([0] * 5 + [1] * 4), torch.tensor([0, 5, 9]))
    op = OPS["feature_shuffle"]
    moved = op.apply(graphs, op.sample(Rng.at(1, 2, torch.arange(2)), graphs, 1.0)).x[:, 0]
    assert sorted(moved[:5].tolist()) == [0, 1, 2, 3, 4]
    assert sorted(moved[5:].tolist()) == [5, 6, 7, 8]
    assert not torch.equal(moved, x[:, 0])


def test_added_edges_are_new_undirected_and_as_many_as_asked() -> None:
    _, graphs, _ = neighbourhoods()
    op = OPS["edge_add"]
    have = set(map(tuple, graphs.edge_index.T.tolist()))
    counts = []
    for seed in range(40):
        rng = Rng.at(seed, 0, torch.arange(6))
        more = op.apply(graphs, op.sample(rng, graphs, 0.5))
        edges = list(map(tuple, more.edge_index.T.tolist()))
        new = set(edges) - have
        assert have <= set(edges)
        assert len(edges) == len(set(edges)) == len(have) + len(new)
        assert {(b, a) for a, b in new} == new
        assert all(a != b for a, b in new)
        assert (more.batch[more.edge_index[0]] == more.batch[more.edge_index[1]]).all()
        counts.append(len(new) / 2)
    asked = 0.5 * len(have) / 2
    assert 0.6 * asked < np.mean(counts) <= 1.05 * asked  # some pairs are joined already


def test_views_sample_their_own_neighbourhoods() -> None:
    batch, _, spec = neighbourhoods()
    one, two = grace(spec)(batch, Rng.at(0, 0, batch.ids))
    assert one.data.rooted
    assert one.data.origin is not None
    assert not torch.equal(one.data.edge_index[:, :5], two.data.edge_index[:, :5])
    (view, _) = graphcl(spec, choose="all")(batch, Rng.at(0, 0, batch.ids))
    assert view.params["kept"][:, 0].all()
