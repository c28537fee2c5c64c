"""Graph views: operations on batches of graphs, and the policies that methods name."""

from __future__ import annotations

VIEWS = {
    "graphcl": "ssl_graph.views.policies:graphcl",
    "grace": "ssl_graph.views.policies:grace",
    "none": "ssl_graph.views.policies:none",
}
