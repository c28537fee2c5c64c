"""Where a node stands in its graph, as numbers: for nodes without features, or beside them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped]

from ssl_core.errors import CorruptSample

_BLOCK = 256
_MOST_WORK = 1e11
_SMALL, _DENSE = 256, 1024
"""Nodes up to which a graph is one dense matrix, and a component's eigenvectors are dense ones."""


def return_probabilities(edges: np.ndarray, count: int, *, steps: int) -> np.ndarray:
    """Probability that a random walk is back where it began after 1 .. `steps` steps.

    `edges` int64 `[2, E]`, listed in the directions a walk may take; returns float32 `[N, steps]`
    (random-walk encodings; Dwivedi et al., ICLR 2022). The first column is 0, since there are no
    self-loops, and so are isolated nodes. Exact, in time `N E steps`; raises `CorruptSample`
    where that is out of reach.
    """
    if count * edges.shape[1] * steps > _MOST_WORK:
        raise CorruptSample(
            f"features 'random_walk': {steps} steps on {count} nodes and {edges.shape[1]} edges "
            "take too long; use fewer positions, 'laplacian' or 'degree'"
        )
    out = np.zeros((count, steps))
    if count <= _SMALL:
        once = _dense(edges, count)
        once /= np.maximum(once.sum(axis=1, keepdims=True), 1)
        power = once
        for step in range(steps):
            out[:, step] = power.diagonal()
            power = power @ once
        return out.astype(np.float32)
    walk = _adjacency(edges, count)
    degree = np.diff(walk.indptr)
    walk = sp.diags_array(1.0 / np.maximum(degree, 1)) @ walk
    for start in range(0, count, _BLOCK):
        own = np.arange(start, min(start + _BLOCK, count))
        reached = np.zeros((count, len(own)))
        reached[own, own - start] = 1.0
        for step in range(steps):
            reached = walk @ reached
            out[own, step] = reached[own, own - start]
    return out.astype(np.float32)


def laplacian_positions(edges: np.ndarray, count: int, *, width: int) -> np.ndarray:
    """Eigenvectors of I - D^-1/2 A D^-1/2 by growing eigenvalue, without each component's first.

    `edges` int64 `[2, E]`, directions are ignored; returns float32 `[N, width]` (Dwivedi et al.
    2020). Components are taken one by one, because over several of them vectors of one eigenvalue
    mix at will; columns that a component has no vector for are 0. Columns have mean square 1
    within a component. Signs are arbitrary: here the largest entry (the first of equals) is
    positive, and training views of collections flip them at random. Vectors of a repeated
    eigenvalue, which symmetric graphs have, are one basis of many.
    """
    both = np.concatenate([edges, edges[::-1]], axis=1)
    adjacency = _dense(both, count) if count <= _SMALL else _adjacency(both, count)
    if count > _SMALL:
        adjacency.data[:] = 1.0  # edges listed in both directions were added up
    part = _components(adjacency)
    order = np.argsort(part, kind="stable")
    out = np.zeros((count, width), dtype=np.float32)
    for nodes in np.split(order, np.cumsum(np.bincount(part))[:-1]):
        if len(nodes) > 1:
            vectors = _eigenvectors(adjacency[nodes][:, nodes], width)
            out[nodes, : vectors.shape[1]] = vectors
    return out


def _eigenvectors(adjacency: np.ndarray | sp.csr_array, width: int) -> np.ndarray:
    """Of one connected component with n > 1 nodes, `[n, min(width, n - 1)]`."""
    size = adjacency.shape[0]
    wanted = min(width, size - 1)
    if size <= _DENSE:
        block = adjacency if isinstance(adjacency, np.ndarray) else adjacency.toarray()
        scale = 1.0 / np.sqrt(block.sum(axis=1))
        vectors = np.linalg.eigh(-scale[:, None] * block * scale)[1][:, 1 : wanted + 1]
    else:
        vectors = _largest(adjacency, wanted + 1)[:, 1:]
    height = np.abs(vectors)
    pivot = (height > (1 - 1e-6) * height.max(axis=0)).argmax(axis=0)
    sign: np.ndarray = np.sign(vectors[pivot, np.arange(wanted)])
    return vectors * sign * np.sqrt(size)


def _largest(adjacency: sp.csr_array, count: int) -> np.ndarray:
    """Eigenvectors of D^-1/2 A D^-1/2 by falling eigenvalue, without a dense matrix."""
    scale = sp.diags_array(1.0 / np.sqrt(adjacency.sum(axis=1)))
    # A start of our own: the library's is random.
    start = np.cos(np.arange(adjacency.shape[0], dtype=np.float64))
    try:
        values, found = sp.linalg.eigsh(scale @ adjacency @ scale, count, which="LA", v0=start)
    except sp.linalg.ArpackNoConvergence as error:
        raise CorruptSample(
            "features 'laplacian': the eigenvectors of this graph do not converge; use fewer "
            "positions, 'random_walk' or 'degree'"
        ) from error
    ordered: np.ndarray = found[:, np.argsort(-values, kind="stable")]
    return ordered


def _components(adjacency: np.ndarray | sp.csr_array) -> np.ndarray:
    """The component of each node, numbered from 0 without gaps."""
    if not isinstance(adjacency, np.ndarray):
        part: np.ndarray = sp.csgraph.connected_components(adjacency, directed=False)[1]
        return part
    reached = adjacency + np.eye(len(adjacency)) > 0
    while True:
        further = reached.astype(np.float32) @ reached > 0
        if (further == reached).all():
            # Nodes of a component reach the same first node.
            return np.unique(reached.argmax(axis=1), return_inverse=True)[1]
        reached = further


def _dense(edges: np.ndarray, count: int) -> np.ndarray:
    """Ones in rows of sources, float64 `[N, N]`."""
    out = np.zeros((count, count))
    out[edges[0], edges[1]] = 1.0
    return out


def _adjacency(edges: np.ndarray, count: int) -> sp.csr_array:
    """Compressed rows of sources, float64 `[N, N]`."""
    ones = np.ones(edges.shape[1])
    return sp.csr_array(sp.coo_array((ones, (edges[0], edges[1])), shape=(count, count)))
