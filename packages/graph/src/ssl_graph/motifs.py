"""Graphs without features whose class is a small ring structure hidden in a random tree.

Every class has the same hubs: two nodes joined by three paths, 7 edges and 6 nodes in all. Only
how the edges are shared out differs (1, 2 and 4; 1, 3 and 3; 2, 2 and 3), so that numbers of
nodes, edges and degrees say next to nothing, and one must look around each node.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator
from ssl_graph.graph import RawGraph

NAME = "MOTIFS"
PATHS = ((1, 2, 4), (1, 3, 3), (2, 2, 3))
"""Edges of the three paths between the hubs, one triple a class."""
COUNT = 900

_SIZES = (10, 20)
_COPIES = 3


def motif(paths: tuple[int, ...]) -> np.ndarray:
    """The edges `[sum(paths), 2]` of hubs 0 and 1 joined by paths of these lengths."""
    edges, free = [], 2
    for length in paths:
        row = [0, *range(free, free + length - 1), 1]
        free += length - 1
        edges += pairwise(row)
    return np.array(edges, dtype=np.int64)


def motif_graph(index: int, *, seed: int) -> tuple[RawGraph, int]:
    """One graph and its class; a pure function of its number and the seed.

    A random tree of 10 to 20 nodes, three copies of the class's motif hung on it by an edge from
    any of their nodes, and one more edge anywhere.
    """
    import networkx as nx  # type: ignore[import-untyped]

    rng = generator("motif graph", seed, index)
    kind = index % len(PATHS)
    count = int(rng.integers(_SIZES[0], _SIZES[1] + 1))
    edges = [np.array(nx.random_labeled_tree(count, seed=rng).edges, dtype=np.int64)]
    tree = count
    for _ in range(_COPIES):
        own = motif(PATHS[kind])
        hung = [[count + rng.integers(own.max() + 1), rng.integers(tree)]]
        edges += [own + count, np.array(hung, dtype=np.int64)]
        count += int(own.max()) + 1
    edges.append(rng.choice(count, size=(1, 2), replace=False))
    pairs = np.unique(np.sort(np.concatenate(edges), axis=1), axis=0)
    order = rng.permutation(count)
    return RawGraph(count, order[pairs]), kind


def parse_motifs(path: str) -> list[tuple[RawGraph, int]]:
    """The graphs a path like "motifs:900" or "motifs:900:7" (number, seed) asks for."""
    parts = path.split(":")[1:]
    try:
        count, seed = int(parts[0] or COUNT) if parts else COUNT, int(parts[1]) if parts[1:] else 0
    except ValueError as error:
        raise UserError(
            f"data.path: {path!r} should be motifs:COUNT or motifs:COUNT:SEED"
        ) from error
    if count < 1 or parts[2:]:
        raise UserError(f"data.path: {path!r} should be motifs:COUNT:SEED with at least one graph")
    return [motif_graph(index, seed=seed) for index in range(count)]
