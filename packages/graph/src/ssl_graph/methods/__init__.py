"""Methods that only graphs have."""

from __future__ import annotations

METHODS = {"graphmae": "ssl_graph.methods.graphmae:GraphMAE"}
