"""ssl_graph."""
