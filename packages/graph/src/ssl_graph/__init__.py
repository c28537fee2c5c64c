"""Self-supervised learning on graphs: readers, on-device views, encoders, the command.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_graph
    run = ssl_graph.pretrain(data="tu/MUTAG", method="simclr", out="runs/mutag")
    vectors = ssl_graph.load(run).embed("tu/MUTAG")
"""

from __future__ import annotations

from ssl_core.surface import surface

__version__ = "0.1.0"

__getattr__, __all__ = surface(
    __name__,
    "ssl_graph.domain:GRAPH",
    {
        "Graph": "ssl_graph.graph:Graph",
        "GraphBatch": "ssl_graph.graph:GraphBatch",
        "GraphList": "ssl_graph.sources.memory:GraphList",
        "measure": "ssl_graph.evaluation.measure:measure",
        "NodeSource": "ssl_graph.nodes.source:NodeSource",
        "node_table": "ssl_graph.nodes.files.single:table_of",
        "split_links": "ssl_graph.nodes.link_split:split_links",
        "GraphMAE": "ssl_graph.methods.graphmae:GraphMAE",
        "write_samples": "ssl_graph.samples:write_samples",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
