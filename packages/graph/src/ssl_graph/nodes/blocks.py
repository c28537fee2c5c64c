"""Artificial networks whose answers are known: stochastic blocks with noisy features."""

from __future__ import annotations

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator
from ssl_graph.graph import RawGraph
from ssl_graph.nodes.source import NodeTable


def block_network(
    nodes: int = 2000,
    *,
    blocks: int = 6,
    degree: float = 6.0,
    mixing: float = 0.35,
    features: int = 64,
    words: int = 8,
    purity: float = 0.3,
    seed: int = 0,
) -> NodeTable:
    """A network of communities, in which a node alone says little about its community.

    Every node has `degree` edges on average; an edge leaves its block with probability `mixing`.
    A node's features are a bag of `words` words: with probability `purity` a word comes from the
    block's own part of the vocabulary, else from anywhere. Averaging over neighbours therefore
    helps, which is what a graph encoder can learn and a k-NN on raw features cannot. The split
    has 20 training nodes a block, then a quarter for validation, the rest for testing.
    """
    if not 2 <= blocks <= min(nodes, features):
        raise UserError(f"blocks: must lie in 2..{min(nodes, features)}, got {blocks}")
    rng = generator("blocks", seed, nodes, blocks)
    block = rng.permutation(np.arange(nodes) % blocks)
    members = [np.flatnonzero(block == b) for b in range(blocks)]
    count = int(nodes * degree / 2)
    source = rng.integers(nodes, size=count)
    inside = rng.random(count) >= mixing
    sizes = np.array([len(m) for m in members])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    listed = np.concatenate(members)
    pick = (rng.random(count) * sizes[block[source]]).astype(np.int64)
    target = np.where(inside, listed[starts[block[source]] + pick], rng.integers(nodes, size=count))
    own = rng.random((nodes, words)) < purity
    width = features // blocks
    word = np.where(
        own,
        block[:, None] * width + rng.integers(width, size=(nodes, words)),
        rng.integers(features, size=(nodes, words)),
    )
    x = np.zeros((nodes, features), dtype=np.float32)
    np.add.at(x, (np.arange(nodes)[:, None], word), 1.0)
    order = rng.permutation(nodes)
    split = np.full(nodes, 2, dtype=np.int8)
    rank = np.empty(nodes, dtype=np.int64)
    for b in range(blocks):
        within = order[block[order] == b]
        rank[within] = np.arange(len(within))
    split[rank < 20] = 0
    rest = np.flatnonzero(split == 2)
    split[rest[: len(rest) // 4]] = 1
    graph = RawGraph(nodes, np.stack([source, target], axis=1), x)
    return NodeTable(graph, block.tolist(), split, name="blocks")


def parse_blocks(path: str) -> NodeTable:
    """The network a path like "blocks:2000" or "blocks:2000:7" (nodes, seed) asks for."""
    parts = path.split(":")[1:]
    try:
        nodes, seed = int(parts[0] or 2000) if parts else 2000, int(parts[1]) if parts[1:] else 0
    except ValueError as error:
        raise UserError(
            f"data.path: {path!r} should be blocks:NODES or blocks:NODES:SEED"
        ) from error
    if nodes < 12 or parts[2:]:
        raise UserError(f"data.path: {path!r} should be blocks:NODES:SEED with at least 12 nodes")
    return block_network(nodes, seed=seed)
