"""Edges held out of a network, and pairs without an edge to tell them from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator
from ssl_graph.features import simple_edges
from ssl_graph.nodes.source import NodeTable


@dataclass(frozen=True)
class LinkSplit:
    """A table without its held-out edges, and the pairs to tell apart, each int64 `[P, 2]`."""

    table: NodeTable
    """What an encoder may see, in training and in embedding."""
    train: np.ndarray
    """Edges left in the table."""
    train_false: np.ndarray
    """As many pairs without an edge, for a classifier to learn from."""
    test: np.ndarray
    """Held-out edges."""
    test_false: np.ndarray
    """As many pairs without an edge, none of them among the above."""


def split_links(table: NodeTable, *, share: float = 0.1, seed: int = 0) -> LinkSplit:
    """Holds out a `share` of the undirected edges, chosen by the seed.

    False pairs are uniform over pairs that the whole graph does not join. Raises `UserError` where
    the graph is too small or too dense to give them.
    """
    if not 0 < share < 1:
        raise UserError(f"links: share must lie in (0, 1), got {share}")
    raw = table.graph
    both, origin = simple_edges(raw, directed=False)
    once = both[0] < both[1]
    edges, origin = both[:, once].T, origin[once]
    count = raw.num_nodes
    held = round(len(edges) * share)
    free = count * (count - 1) // 2 - len(edges)
    if held < 1 or free < 2 * len(edges):
        raise UserError(
            f"links: {len(edges)} edges among {count} nodes leave no pairs to tell apart"
        )
    rng = generator("links", seed, count, len(edges))
    order = rng.permutation(len(edges))
    test, train = order[:held], order[held:]
    taken = set((edges[:, 0] * count + edges[:, 1]).tolist())
    false: list[tuple[int, int]] = []
    while len(false) < len(edges):
        for a, b in rng.integers(count, size=(len(edges), 2)).tolist():
            low, high = min(a, b), max(a, b)
            if low == high or low * count + high in taken:
                continue
            taken.add(low * count + high)
            false.append((low, high))
    pairs = np.array(false[: len(edges)], dtype=np.int64)
    kept = origin[np.sort(train)]

    def rows(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[kept]

    left = replace(
        raw,
        edges=edges[np.sort(train)],
        edge_attributes=rows(raw.edge_attributes),
        edge_labels=rows(raw.edge_labels),
        directed=False,
    )
    return LinkSplit(
        replace(table, graph=left), edges[train], pairs[held:], edges[test], pairs[:held]
    )
