"""Graph encoders by name."""

from __future__ import annotations

ENCODERS = {
    "gin": "ssl_graph.encoders.create:gin",
    "gcn": "ssl_graph.encoders.create:gcn",
    "sage": "ssl_graph.encoders.create:sage",
    "gat": "ssl_graph.encoders.create:gat",
    "graph_transformer": "ssl_graph.encoders.create:graph_transformer",
    "mlp": "ssl_graph.encoders.create:mlp",
}
