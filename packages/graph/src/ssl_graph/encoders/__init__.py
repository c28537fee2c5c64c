"""Graph encoders by name."""

from __future__ import annotations

ENCODERS = {
    "gin": "ssl_graph.encoders.gnn:gin",
    "gcn": "ssl_graph.encoders.gnn:gcn",
}
