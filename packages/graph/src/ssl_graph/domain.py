"""The graph domain: what `ssl-graph`, the contract tests and experiments walk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_core.batch import Reader, Source
from ssl_core.domain import Domain
from ssl_core.errors import UserError, unknown
from ssl_core.methods import PAIRED, pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_graph.encoders import ENCODERS
from ssl_graph.methods import METHODS
from ssl_graph.views import VIEWS

_FEATURES = ("features", "directed", "degree_cap", "positions", "standardize")
_GRAPHS = {"open": ("name", "directed"), "fit": (*_FEATURES, "measure", "max_bytes")}
_NODES = {
    "open": ("name", "split", "target", "hide_links"),
    "fit": (*_FEATURES, "row_normalize", "sampler", "sampling", "use_labels"),
}

QUESTIONS = ("nodes", "graphs", "clusters", "links")
"""What `evaluate --more` knows besides (`ssl_graph.evaluation.ask`)."""


class GraphDomain(Domain):
    """Collections of graphs (a record is a graph), or one big graph (a record is a node).

    `data.options.level` says which, "graph" or "node"; without it the path decides. What else
    `data.options` takes is what `open_graphs` and `GraphReader.fit` take, or `open_nodes` and
    `NodeReader.fit`.
    """

    name = "graph"
    package = "ssl_graph"
    sample_kind = "graphs"
    libraries = ("torch-geometric", "networkx")
    measures = Registry(
        "evaluation.more",
        {name: f"ssl_graph.evaluation.ask:{name}" for name in QUESTIONS},
    )
    views = Registry("views", VIEWS)
    encoders = Registry("encoder", ENCODERS)
    methods = Registry("method", {**pick(*PAIRED), **METHODS})

    def open(self, data: Data) -> Source:
        assert data.path is not None, "the embedded data is written before it is opened"
        source: Source
        if _is_node_level(data):
            from ssl_graph.nodes.open import open_nodes

            take = _options(data, _NODES)["open"]
            source = open_nodes(data.path, format=data.format, limit=data.limit, **take)
        else:
            from ssl_graph.sources.open import open_graphs

            take = _options(data, _GRAPHS)["open"]
            source = open_graphs(data.path, format=data.format, limit=data.limit, **take)
        return source

    def fit_reader(self, source: Source, data: Data) -> Reader:
        from ssl_graph.nodes.reader import NodeReader
        from ssl_graph.nodes.source import RawNode
        from ssl_graph.reader import GraphReader

        if len(source) and isinstance(source[0].payload, RawNode):
            nodes: Reader = NodeReader.fit(source, **_options(data, _NODES)["fit"])
            return nodes
        graphs: Reader = GraphReader.fit(source, **_options(data, _GRAPHS)["fit"])
        return graphs

    def load_reader(self, folder: Path) -> Reader:
        from ssl_graph.nodes.reader import FILE, NodeReader
        from ssl_graph.reader import GraphReader

        return NodeReader.load(folder) if (folder / FILE).is_file() else GraphReader.load(folder)

    def called(self, spec: Mapping[str, Any]) -> str:
        return "nodes" if spec.get("level") == "node" else self.sample_kind

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        from ssl_graph.samples import write_samples

        write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        from ssl_graph.samples import COUNT

        return COUNT

    def draw(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        """Nodes and edges in the plane; neighbourhoods with their root in a ring."""
        from ssl_graph.graph import GraphBatch
        from ssl_graph.pictures import draw

        return draw(data) if isinstance(data, GraphBatch) else []

    def words(self, data: Any, reader: Reader) -> list[str]:
        """How many nodes and edges each graph has."""
        from ssl_graph.graph import GraphBatch
        from ssl_graph.pictures import sizes

        return sizes(data) if isinstance(data, GraphBatch) else []


def _is_node_level(data: Data) -> bool:
    """Whether records are the nodes of one graph."""
    from ssl_graph.nodes.open import FORMATS, guess

    level = data.options.get("level")
    if level not in (None, "graph", "node"):
        raise UserError(f"data.options.level: must be 'graph' or 'node', got {level!r}")
    if level is not None:
        return bool(level == "node")
    if data.format != "auto":
        return data.format in FORMATS
    return guess(str(data.path)) is not None


def _options(data: Data, taken: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, Any]]:
    """`data.options` by who takes them; one that nobody takes is an error."""
    known = {"level", *taken["open"], *taken["fit"]}
    for name in data.options:
        if name not in known:
            raise unknown("data.options", name, known)
    return {
        who: {name: value for name, value in data.options.items() if name in names}
        for who, names in taken.items()
    }


GRAPH = GraphDomain()
