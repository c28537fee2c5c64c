"""`python -m ssl_graph` and the `ssl-graph` command."""

from __future__ import annotations

from ssl_core.cli import command_line

main = command_line("ssl_graph.domain:GRAPH", name="graph")

if __name__ == "__main__":
    main()
