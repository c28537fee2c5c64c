"""ssl_graph: self-supervised learning on graphs.

`GRAPH` is the domain object; `GraphList` and the other sources live in `ssl_graph.sources`.
Importing this package imports nothing heavy: names are resolved when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "GRAPH": "ssl_graph.domain",
    "Graph": "ssl_graph.graph",
    "GraphBatch": "ssl_graph.graph",
    "GraphList": "ssl_graph.sources.memory",
    "GraphMAE": "ssl_graph.methods.graphmae",
}
_API = ("pretrain", "resume", "evaluate", "finetune", "load")

__all__ = [*_WHERE, *_API]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _API:
        import functools

        function = getattr(importlib.import_module("ssl_core.api"), name)
        if name != "pretrain":
            return function
        from ssl_graph.domain import GRAPH

        return functools.partial(function, GRAPH)
    raise AttributeError(f"module 'ssl_graph' has no attribute {name!r}")
