"""Links, node classification and all measures of one encoder; nothing is chosen on test parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

import ssl_graph
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model
from ssl_graph.__main__ import main
from ssl_graph.domain import GRAPH
from ssl_graph.encoders.create import gcn
from ssl_graph.evaluation.links import link_prediction, rank_links
from ssl_graph.evaluation.measure import measure
from ssl_graph.evaluation.nodes import node_classification, random_split
from ssl_graph.nodes.blocks import block_network
from ssl_graph.nodes.files.single import table_of
from ssl_graph.nodes.link_split import split_links
from ssl_graph.nodes.source import NodeSource
from ssl_graph.sources.memory import GraphList
from ssl_graph.views.policies import none


def test_ranks_in_closed_form() -> None:
    found = rank_links(np.array([3.0, 1.0, 0.5]), np.array([2.0, 1.0, 0.0, -1.0]), ks=(1, 2, 9))
    assert found.auc == pytest.approx((4 + 2.5 + 2) / 12)  # a tie counts half
    assert found.mrr == pytest.approx((1 + 1 / 2.5 + 1 / 3) / 3)
    assert found.hits == {1: pytest.approx(1 / 3), 2: pytest.approx(1 / 3), 9: 1.0}


def test_held_out_links_are_hidden_and_false_ones_are_no_edges() -> None:
    table = block_network(200, blocks=4, features=12, seed=1)
    split = split_links(table, share=0.2, seed=3)
    whole = {tuple(sorted(e)) for e in table.graph.edges.tolist() if e[0] != e[1]}
    test, train = (set(map(tuple, part.tolist())) for part in (split.test, split.train))
    assert test | train == whole
    assert not test & train
    assert {tuple(e) for e in split.table.graph.edges.tolist()} == train
    false = [tuple(e) for part in (split.test_false, split.train_false) for e in part.tolist()]
    assert len(set(false)) == len(false) == len(whole)
    assert not set(false) & whole
    assert len(split.test) == len(split.test_false) == round(0.2 * len(whole))
    again = split_links(table, share=0.2, seed=3)
    assert np.array_equal(split.test_false, again.test_false)
    with pytest.raises(UserError, match="leave no pairs"):
        split_links(table_of(nx.complete_graph(6)))


@pytest.mark.parametrize("score", ["cosine", "dot", "logistic"])
def test_features_that_know_the_blocks_predict_links(score: str) -> None:
    table = block_network(300, blocks=3, features=12, mixing=0.05, degree=10, seed=1)
    split = split_links(table)
    blocks = torch.nn.functional.one_hot(torch.tensor(table.labels), 3).float()
    found = link_prediction(blocks, split, score=score)  # type: ignore[arg-type]
    assert 0.75 < found.auc < 0.9  # a third of false pairs share a block, too
    noise = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    assert abs(link_prediction(noise, split, score=score).auc - 0.5) < 0.15  # type: ignore[arg-type]


def test_random_splits_are_stratified_and_disjoint() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [-1] * 10)
    split = random_split(labels, seed=4)
    joined = np.concatenate(list(split.values()))
    assert np.array_equal(np.sort(joined), np.arange(80))
    assert [(labels[p] == 0).sum().item() for p in split.values()] == [5, 5, 40]
    assert not np.array_equal(split["train"], random_split(labels, seed=5)["train"])
    with pytest.raises(UserError, match="leave nothing to test"):
        random_split(labels, train=0.6, val=0.4)


def test_the_penalty_is_chosen_on_validation_nodes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    features = torch.nn.functional.one_hot(labels, 3) + 0.6 * torch.randn(
        300, 3, generator=generator
    )
    split = random_split(labels)
    found = node_classification(features, labels, split, grid=(1e-3, 1.0, 100.0))
    each = [node_classification(features, labels, split, grid=(c,)) for c in (1e-3, 1.0, 100.0)]
    best = max(each, key=lambda s: s.validation)
    assert found == best
    assert found.test > 0.6
    other = features.clone()
    other[split["test"]] = 0  # what is tested cannot change what is chosen
    assert node_classification(other, labels, split, grid=(1e-3, 1.0, 100.0)).c == found.c
    with pytest.raises(UserError, match="no labelled node in the val part"):
        node_classification(features, labels, {**split, "val": np.zeros(0, dtype=np.int64)})


def test_measuring_nodes_and_graphs() -> None:
    data = Data(path="blocks:240:1", options={"sampling": {"fanout": [5, 5]}})
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    torch.manual_seed(0)
    encoder = gcn(reader.spec, dim=16).eval()
    cpu = torch.device("cpu")
    model = Model(GRAPH, None, reader, none(reader.spec), encoder, cpu)  # type: ignore[arg-type]
    found = measure(model, source, seeds=(0, 1))
    assert set(found) == {"clusters", "public", "random", "links"}
    assert found["public"]["test"] > 0.3  # six blocks
    assert found["links"]["auc"]["mean"] > 0.55
    again = measure(model, source, seeds=(0, 1))
    assert again == found

    graphs = [nx.gnp_random_graph(8, 0.2 + 0.5 * (i % 2), seed=i) for i in range(40)]
    collection = GraphList(graphs, labels=[i % 2 for i in range(40)])
    reader = GRAPH.fit_reader(collection, Data())
    encoder = gcn(reader.spec, dim=8).eval()
    model = replace(model, reader=reader, encoder=encoder, views=none(reader.spec))
    scored = measure(model, collection, seeds=(0,), folds=5)
    assert scored["svm"]["mean"] > 0.9
    assert scored["logistic"]["mean"] > 0.9


TINY = {
    "train.steps": 2, "train.batch_size": 32, "encoder.dim": 8, "data.workers": 0,
    "data.options.sampling": {"fanout": [4]}, "method.hidden": 8, "method.dim": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network without a tenth of its links."""
    return ssl_graph.pretrain(
        "grace",
        data="blocks:180:1",
        settings={**TINY, "data.options.hide_links": 0.1},
        out=tmp_path_factory.mktemp("runs") / "nodes",
        progress=False,
    )


def test_questions_about_nodes_from_the_command(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [word for name in ("nodes", "clusters", "links") for word in ("--more", name)]
    options = ["--set", "nodes.splits=2", "--set", "clusters.seeds=1"]
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(run.path), "--no-probe", "--json", *asked, *options])
    assert end.value.code == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])["more"]
    assert set(found) == {"nodes", "clusters", "links"}
    for rival in ("raw", "untrained", "trained"):
        assert 0 < found["nodes"][rival]["public"]["test"] <= 1
        assert found["nodes"][rival]["random"]["test"]["std"] >= 0
        assert set(found["clusters"][rival]) == {"accuracy", "nmi", "ari", "f1"}
        assert {"auc", "average_precision", "mrr", "hits@10", "hits@50"} == set(
            found["links"][rival]
        )
    assert "public split" in found["nodes"]["words"]
    assert found["clusters"]["words"].startswith("6 clusters (x 100): accuracy ")
    assert "never seen in training" in found["links"]["words"]
    assert found["nodes"]["words"] in shown.err + shown.out
    assert json.loads(run.facts_file.read_text())["sample_kind"] == "nodes"


def test_hidden_links_are_not_in_what_is_trained_on(run: Run) -> None:
    whole = GRAPH.open(Data(path="blocks:180:1"))
    left = GRAPH.open(run.recipe.data)
    assert isinstance(whole, NodeSource)
    assert isinstance(left, NodeSource)
    split = split_links(whole.table, share=0.1)
    edges = {tuple(edge) for edge in left.table.graph.edges.tolist()}
    assert not edges & {tuple(edge) for edge in split.test.tolist()}
    assert len(edges) == len(split.train)


def test_questions_that_do_not_fit_the_data_are_refused(run: Run) -> None:
    for name, options, message in (
        ("graphs", {}, "for one big graph use 'nodes'"),
        ("nodes", {"folds": 3}, "'folds' is not known"),
        ("clusters", {"count": 1000}, "1000 clusters of 180 samples"),
        ("links", {"splits": 0}, "links.splits must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            ssl_graph.evaluate(run, probe=False, more={name: options})


def test_questions_about_a_collection(tmp_path: Path) -> None:
    run = ssl_graph.pretrain(
        data="motifs:60:1",
        settings={"train.steps": 2, "train.batch_size": 32, "encoder.dim": 8, "data.workers": 0},
        out=tmp_path / "graphs",
        progress=False,
    )
    asked = {"graphs": {"folds": 3}, "clusters": {"seeds": 1}}
    found = ssl_graph.evaluate(run, "motifs:60:2", probe=False, more=asked)["more"]
    assert set(found["graphs"]["trained"]) == {"svm", "logistic"}
    assert "Graph classification, 3 folds (x 100): svm" in found["graphs"]["words"]
    with pytest.raises(UserError, match="for collections use 'graphs'"):
        ssl_graph.evaluate(run, probe=False, more={"nodes": {}})
