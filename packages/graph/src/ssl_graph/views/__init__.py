"""Graph views: operations on batches of graphs, and the policies that methods name."""

from __future__ import annotations

VIEWS = {
    "graphcl": "ssl_graph.views.policies:graphcl",
    "grace": "ssl_graph.views.policies:grace",
    "subgraph": "ssl_graph.views.policies:subgraph",
    "none": "ssl_graph.views.policies:none",
    "dgi": "ssl_graph.views.corrupted:dgi",
    "mvgrl": "ssl_graph.views.corrupted:mvgrl",
    "context": "ssl_graph.views.context:context",
    "dsla": "ssl_graph.views.discrepancy:dsla",
    "scgc": "ssl_graph.views.affinity:scgc",
    "selftask": "ssl_graph.views.selftask:Questions",
}
