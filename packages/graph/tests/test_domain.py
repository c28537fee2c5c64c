"""The domain object, its sample data and its recipes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_core.runs.config import build, recipe_names
from ssl_core.testing import Contract, MethodCase, options_of, paired_cases
from ssl_graph.domain import GRAPH
from ssl_graph.motifs import PATHS, motif, motif_graph
from ssl_graph.reader import GraphReader
from ssl_graph.samples import FAMILIES, HABITS, KINDS, molecule, pairings
from ssl_graph.sources.memory import GraphList

SMALL = {"dim": 8, "depth": 2}
HEAD = {"hidden": 16, "dim": 8}
COMMON = ("simclr", "byol", "barlow_twins", "vicreg")
CASES = [
    MethodCase("simclr", "graphcl", "gin", HEAD, encoder_options=SMALL),
    MethodCase("byol", "grace", "gin", HEAD, encoder_options=SMALL),
    MethodCase("barlow_twins", "graphcl", "gcn", HEAD, encoder_options=SMALL),
    MethodCase("vicreg", "graphcl", "gin", HEAD, {"choose": "all"}, SMALL),
    *paired_cases("graphcl", "gin", encoder_options=SMALL, without=COMMON),
    MethodCase("graphmae", "none", "gin", {}, encoder_options=SMALL),
    MethodCase("graphmae2", "none", "gin", HEAD, encoder_options=SMALL),
    MethodCase("attribute_masking", "none", "gin", {}, encoder_options=SMALL),
    MethodCase("context_prediction", "context", "gin", {"negatives": 2}, encoder_options=SMALL),
    MethodCase("dgi", "dgi", "gin", {}, encoder_options=SMALL),
    MethodCase("infograph", "subgraph", "gin", {}, encoder_options=SMALL),
    MethodCase("mvgrl", "mvgrl", "gcn", {}, {"subgraph": 0.2}, SMALL),
    MethodCase("cca_ssg", "graphcl", "gin", {}, encoder_options=SMALL),
    MethodCase("dsla", "dsla", "gin", {"hidden": 8}, encoder_options=SMALL),
]
NODES_ONLY = {"scgc", "selftask"}
"""Their cases are in `test_node_domain.py`."""


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return Contract(GRAPH, CASES, tmp_path_factory.mktemp("molecules"))


def test_every_declared_method_has_a_case(contract: Contract) -> None:
    assert contract.undeclared() == (NODES_ONLY, set())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(contract: Contract, case: MethodCase) -> None:
    contract.check(case)


@pytest.fixture(scope="module")
def smallest() -> tuple[Batch, dict[str, object]]:
    """One node, no edges, one edge, a self-loop, parts that hang apart."""
    loop = nx.path_graph(3)
    loop.add_edge(1, 1)
    apart = nx.disjoint_union(nx.cycle_graph(4), nx.empty_graph(2))
    graphs = [nx.empty_graph(1), nx.empty_graph(3), nx.path_graph(2), loop, apart]
    source = GraphList([*graphs, nx.complete_graph(6)])
    reader = GraphReader.fit(source)
    ids = torch.arange(6)
    data = reader.collate([reader.decode(source[i]) for i in range(6)])
    return Batch(data, ids, ids, label=ids % 2), dict(reader.spec)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_smallest_graphs_break_no_method(
    smallest: tuple[Batch, dict[str, object]], case: MethodCase
) -> None:
    batch, spec = smallest
    views = GRAPH.create_views(case.views, spec, case.view_options)
    encoder = GRAPH.create_encoder(case.encoder, spec, case.encoder_options)
    options = options_of(GRAPH, case, spec)
    method = GRAPH.methods.build(case.method, encoder, views, options=options)
    for step in range(3):
        loss = method(method.views(batch, Rng.at(0, step, batch.ids))).total
        loss.backward()
        assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_samples_are_a_pure_function_of_the_seed(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        GRAPH.samples(tmp_path / name, count=24, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    with pytest.raises(UserError, match="is not empty"):
        GRAPH.samples(tmp_path / "a", count=24, seed=0)


def test_samples_read_back_as_they_were_made(tmp_path: Path) -> None:
    GRAPH.samples(tmp_path / "m", count=20, seed=5)
    source = GRAPH.open(Data(path=str(tmp_path / "m")))
    assert len(source) == 20
    assert source.classes is not None
    assert len(source.classes) == FAMILIES
    for i in (0, 7, 19):
        made, family = molecule(i, seed=5)
        read = source[i]
        assert read.label == family
        assert read.payload.num_nodes == made.num_nodes
        assert np.array_equal(read.payload.labels, made.labels)
        both = {tuple(edge) for edge in read.payload.edges.tolist()}
        assert both == {p for a, b in made.edges.tolist() for p in ((a, b), (b, a))}


def test_motifs_and_the_network_lie_beside_the_molecules(tmp_path: Path) -> None:
    GRAPH.samples(tmp_path / "m", count=30, seed=2)
    motifs = GRAPH.open(Data(path=str(tmp_path / "m" / "motifs")))
    assert (len(motifs), motifs.classes) == (30, ["0", "1", "2"])
    network = GRAPH.open(Data(path=str(tmp_path / "m" / "network")))
    assert (len(network), len(network.classes or ())) == (30, 6)
    embedded = GRAPH.open(Data(path="motifs:30:2"))
    for i in (0, 1, 29):
        made, kind = motif_graph(i, seed=2)
        for source in (motifs, embedded):
            assert source[i].label == kind
            assert source[i].payload.num_nodes == made.num_nodes
        assert np.array_equal(embedded[i].payload.edges, made.edges)
    for path in ("motifs:x", "motifs:0", "motifs:3:4:5"):
        with pytest.raises(UserError, match="should be motifs:COUNT"):
            GRAPH.open(Data(path=path))


def test_motifs_differ_only_in_how_nodes_hang_together() -> None:
    made = [nx.Graph(motif(paths).tolist()) for paths in PATHS]
    assert {(g.number_of_nodes(), g.number_of_edges()) for g in made} == {(6, 7)}
    assert {tuple(sorted(d for _, d in g.degree)) for g in made} == {(2, 2, 2, 2, 3, 3)}
    for graph in made:
        nx.set_node_attributes(graph, 0, "kind")
    hashes = {nx.weisfeiler_lehman_graph_hash(g, node_attr="kind", iterations=3) for g in made}
    assert len(hashes) == len(PATHS)  # and message passing can tell them apart
    for index in range(9):
        graph, kind = motif_graph(index, seed=0)
        whole = nx.Graph(graph.edges.tolist())
        assert nx.is_connected(whole)
        assert whole.number_of_nodes() == graph.num_nodes
        match = nx.algorithms.isomorphism.GraphMatcher(whole, made[kind])
        assert match.subgraph_is_monomorphic()


def test_families_are_different_pairings_of_all_kinds() -> None:
    assert len(pairings(tuple(range(KINDS)))) == 15
    assert len({tuple(sorted(h.items())) for h in HABITS}) == FAMILIES
    for habit in HABITS:
        assert sorted(habit) == list(range(KINDS))
        assert all(habit[habit[k]] == k != habit[k] for k in habit)


def taught(name: str) -> list[str]:
    """What the user of a method with a teacher says."""
    return ["method.teacher=RUN"] if name in ("seed", "feature_distillation") else []


def test_every_recipe_is_valid() -> None:
    names = recipe_names(GRAPH)
    assert {"default", "graphcl", "graphmae", "byol", "barlow_twins", "vicreg"} <= set(names)
    for name in names:
        assert build(GRAPH, name, assignments=taught(name)).domain == "graph"
    for method in GRAPH.methods:
        recipe = build(GRAPH, flags={"method": method}, assignments=taught(method))
        assert recipe.method.name == method
        assert recipe.views.name in GRAPH.views


def test_unknown_options_are_named(tmp_path: Path) -> None:
    GRAPH.samples(tmp_path / "m", count=16, seed=0)
    with pytest.raises(UserError, match="'degre_cap' is not known; did you mean 'degree_cap'"):
        GRAPH.open(Data(path=str(tmp_path / "m"), options={"degre_cap": 3}))
    with pytest.raises(UserError, match="did you mean 'gin'"):
        GRAPH.create_encoder("gini", {}, {})
    data = Data(path=str(tmp_path / "m"), options={"features": "given+degree", "degree_cap": 3})
    assert GRAPH.fit_reader(GRAPH.open(data), data).spec["node_dim"] == KINDS + 4


def test_the_package_and_its_help_import_no_torch() -> None:
    code = (
        "import sys, ssl_graph, ssl_graph.domain\n"
        "assert 'torch_geometric' not in sys.modules\n"
        "assert 'networkx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, ssl_graph, ssl_graph.__main__\nassert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)
