"""Graph sources: TU folders, graph files, JSON lines, graphs in memory.

`open_graphs(path, ...)` decides by what is there; each module can be used alone.
"""

from __future__ import annotations
