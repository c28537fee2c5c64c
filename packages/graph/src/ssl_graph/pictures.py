"""Graphs as small pictures for the report."""

from __future__ import annotations

import numpy as np

from ssl_graph.graph import Graph, GraphBatch
from ssl_graph.layout import layout

SIDE = 112
"""Height and width of a picture."""
_FINE = 2
"""Pixels drawn for one that is shown, along each axis."""
_MOST = 80
"""Nodes drawn of a larger graph: those nearest to its first (root) or busiest node."""
_PAPER, _EDGE, _HIDDEN, _RING, _FIRST = range(5)
"""What a pixel of the drawing is; from `_FIRST` on, kinds of nodes."""
_COLOURS = np.array(
    [
        (252, 252, 250), (150, 158, 166), (205, 209, 213), (0, 0, 0),
        (37, 99, 201), (217, 130, 43), (47, 158, 110), (199, 62, 84), (125, 85, 199),
        (138, 109, 59), (194, 86, 159), (106, 115, 125), (163, 165, 31), (31, 159, 181),
    ],
    dtype=np.uint8,
)  # fmt: skip


def draw(batch: GraphBatch) -> list[np.ndarray]:
    """One uint8 picture `[112, 112, 3]` a graph.

    A node's colour is the largest of its features, where these are shares or kinds; nodes whose
    features a method hides (zero or NaN) are pale. Of graphs over 80 nodes a part is drawn.
    """
    return [_picture(graph, rooted=batch.rooted) for graph in batch.graphs()]


def sizes(batch: GraphBatch) -> list[str]:
    """How many nodes and edges each graph has, and how many of them are drawn."""
    out = []
    for graph in batch.graphs():
        edges = graph.edge_index.shape[1] // (1 if batch.directed else 2)
        words = f"{graph.num_nodes} nodes, {edges} edges"
        out.append(words + (f", {_MOST} nodes drawn" if graph.num_nodes > _MOST else ""))
    return out


def _picture(graph: Graph, *, rooted: bool) -> np.ndarray:
    edges = graph.edge_index.numpy()
    kept = _kept(graph.num_nodes, edges, rooted=rooted)
    row = np.full(graph.num_nodes, -1)
    row[kept] = np.arange(len(kept))
    edges = row[edges]
    edges = edges[:, (edges >= 0).all(0)]
    size = SIDE * _FINE
    canvas = np.full((size, size), _PAPER, np.uint8)
    radius = 4.2 * _FINE if len(kept) <= 40 else 2.6 * _FINE
    room = radius + 2 * _FINE
    places = room + layout(len(kept), edges) * (size - 1 - 2 * room)
    _lines(canvas, places, edges)
    kinds = _kinds(np.asarray(graph.x.numpy()[kept], dtype=np.float64))
    for number, (place, kind) in enumerate(zip(places, kinds, strict=True)):
        if rooted and number == 0:
            _disc(canvas, place, radius + 2 * _FINE, _RING)
        _disc(canvas, place, radius, kind)
    fine = _COLOURS[canvas].astype(np.uint16)
    total = fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]
    out: np.ndarray = (total // _FINE**2).astype(np.uint8)
    return out


def _kept(count: int, edges: np.ndarray, *, rooted: bool) -> np.ndarray:
    """Rows of the nodes to draw, in order: all, or the ones first reached from the middle."""
    if count <= _MOST:
        return np.arange(count)
    middle = 0 if rooted else int(np.bincount(edges[0], minlength=count).argmax())
    found, seen = [middle], {middle}
    for node in found:
        if len(found) >= _MOST:
            break
        for other in edges[1, edges[0] == node].tolist():
            if other not in seen and len(found) < _MOST:
                seen.add(other)
                found.append(other)
    return np.sort(np.array(found))


def _kinds(features: np.ndarray) -> np.ndarray:
    """Kinds `[N]`: the largest feature where no feature is negative, else one for all."""
    known = np.nan_to_num(features)
    kinds = np.zeros(len(features), dtype=np.int64)
    if features.shape[1] > 1 and known.min() >= 0:
        kinds = known.argmax(1)
    return np.where(known.any(1), _FIRST + kinds % (len(_COLOURS) - _FIRST), _HIDDEN)


def _lines(canvas: np.ndarray, places: np.ndarray, edges: np.ndarray) -> None:
    """Every edge as a row of dots dense enough to be a line, two pixels wide."""
    share = np.linspace(0, 1, len(canvas))[:, None, None]
    dots = places[edges[0]] * (1 - share) + places[edges[1]] * share
    x, y = np.round(dots).astype(int).reshape(-1, 2).T
    canvas[y, x] = canvas[y + 1, x] = canvas[y, x + 1] = _EDGE


def _disc(canvas: np.ndarray, place: np.ndarray, radius: float, kind: int) -> None:
    low = np.maximum(np.floor(place - radius), 0).astype(int)
    high = np.minimum(np.ceil(place + radius) + 1, len(canvas)).astype(int)
    y, x = np.ogrid[low[1] : high[1], low[0] : high[0]]
    inside = (x - place[0]) ** 2 + (y - place[1]) ** 2 <= radius**2
    canvas[low[1] : high[1], low[0] : high[0]][inside] = kind
