"""The graph domain: what `ssl-graph`, the contract tests and experiments walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_core.batch import Reader, Source
from ssl_core.domain import Domain
from ssl_core.errors import unknown
from ssl_core.methods import pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_graph.encoders import ENCODERS
from ssl_graph.methods import METHODS
from ssl_graph.views import VIEWS

_OPENING = ("name", "directed")
_READING = ("features", "directed", "degree_cap", "standardize", "measure", "max_bytes")


class GraphDomain(Domain):
    """Collections of graphs: TU folders, GraphML, JSON lines, edge lists.

    `data.options` may hold `name` (which TU collection), `directed`, and what `GraphReader.fit`
    takes: `features`, `degree_cap`, `standardize`, `measure`, `max_bytes`.
    """

    name = "graph"
    package = "ssl_graph"
    sample_kind = "graphs"
    views = Registry("views", VIEWS)
    encoders = Registry("encoder", ENCODERS)
    methods = Registry("method", {**pick("simclr", "byol", "barlow_twins", "vicreg"), **METHODS})

    def open(self, data: Data) -> Source:
        from ssl_graph.sources.open import open_graphs

        assert data.path is not None, "the embedded data is written before it is opened"
        source: Source = _called(
            open_graphs, data, _OPENING, data.path, format=data.format, limit=data.limit
        )
        return source

    def fit_reader(self, source: Source, data: Data) -> Reader:
        from ssl_graph.reader import GraphReader

        reader: Reader = _called(GraphReader.fit, data, _READING, source)
        return reader

    def load_reader(self, folder: Path) -> Reader:
        from ssl_graph.reader import GraphReader

        return GraphReader.load(folder)

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        from ssl_graph.samples import write_samples

        write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        from ssl_graph.samples import COUNT

        return COUNT


def _called(
    function: Callable[..., Any], data: Data, taken: tuple[str, ...], *args: Any, **given: Any
) -> Any:
    """`function` with those of `data.options` that it takes; unknown options are errors."""
    options: Mapping[str, Any] = data.options
    known = {*_OPENING, *_READING}
    for name in options:
        if name not in known:
            raise unknown("data.options", name, known)
    return function(*args, **given, **{k: v for k, v in options.items() if k in taken})


GRAPH = GraphDomain()
