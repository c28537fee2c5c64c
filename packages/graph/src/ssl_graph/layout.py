"""Where to draw the nodes of a small graph: distances on paper like distances in the graph.

Stress majorisation (Gansner, Koren, North 2004) from classical scaling, with weights 1 / d^2:
no random start, so that a graph looks the same in every report.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 30


def distances(count: int, edges: np.ndarray) -> np.ndarray:
    """Fewest edges between nodes, `[N, N]`, of undirected `edges` `[2, E]`.

    Nodes without a way between them lie one further apart than any with one.
    """
    reached = np.full((count, count), np.inf)
    np.fill_diagonal(reached, 0.0)
    joined = np.zeros((count, count), dtype=bool)
    joined[edges[0], edges[1]] = joined[edges[1], edges[0]] = True
    front, step = np.eye(count, dtype=bool), 0
    while front.any():
        step += 1
        front = (front.astype(np.float32) @ joined.astype(np.float32) > 0) & np.isinf(reached)
        reached[front] = step
    finite = reached[np.isfinite(reached)]
    reached[np.isinf(reached)] = finite.max() + 1
    return reached


def layout(count: int, edges: np.ndarray) -> np.ndarray:
    """Places `[N, 2]` within the unit square, of nodes joined by `edges` `[2, E]`."""
    if count == 1:
        return np.full((1, 2), 0.5)
    want = distances(count, edges)
    places = _scaling(want)
    weight = np.zeros_like(want)
    apart = want > 0
    weight[apart] = want[apart] ** -2.0
    pull = np.diag(weight.sum(1)) - weight
    inverse = np.linalg.pinv(pull)
    for _ in range(_ROUNDS):
        have = np.linalg.norm(places[:, None] - places[None], axis=2)
        ratio = np.divide(weight * want, have, out=np.zeros_like(have), where=have > 1e-9)
        places = inverse @ ((np.diag(ratio.sum(1)) - ratio) @ places)
    places = places - (places.max(0) + places.min(0)) / 2
    return places / max(float(np.ptp(places, axis=0).max()), 1e-9) + 0.5


def _scaling(want: np.ndarray) -> np.ndarray:
    """Classical scaling to two axes, with a little of a spiral: equal nodes would never part."""
    square = want**2
    inner = -0.5 * (square - square.mean(0) - square.mean(1)[:, None] + square.mean())
    values, vectors = np.linalg.eigh(inner)
    values, vectors = values[::-1][:2], vectors[:, ::-1][:, :2]
    # Signs and the basis of equal axes are the library's choice; fix what can be fixed.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(vectors.shape[1])])
    angle = 2.4 * np.arange(len(want))
    spiral = 0.05 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    places: np.ndarray = vectors * np.sqrt(values.clip(0)) + spiral
    return places
