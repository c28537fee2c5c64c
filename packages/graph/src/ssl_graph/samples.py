"""Sample data: artificial molecules in eight families, in TU format, and two sets beside them.

A molecule is a random tree with some rings closed. Its six kinds of atom occur in proportions of
its own, whatever the family (only one kind is somewhat commoner in each). What makes a family is
a bonding habit: the kinds are paired up, differently in each family, and neighbours are partners
more often than chance. Counting atoms therefore says little, and one must look at who is bound to
whom: a graph encoder's business. Sizes and shapes carry no information.

`motifs/` holds graphs without features, also in TU format (`ssl_graph.motifs`); `network/` one big
network of communities as tables of nodes and edges (`ssl_graph.nodes.blocks`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.files import atomic_write
from ssl_core.rng import generator
from ssl_graph import motifs
from ssl_graph.graph import RawGraph
from ssl_graph.motifs import motif_graph
from ssl_graph.nodes.blocks import block_network
from ssl_graph.nodes.files.tables import write_tables

NAME = "MOLECULES"
KINDS = 6
FAMILIES = 8
COUNT = 2000

_HABIT = 0.4
"""Probability that a new atom is the partner of the one it is bound to."""
_TILT = 1.0
"""Extra weight of the family's commoner kind of atom."""
_EVENNESS = 2.0
"""Larger: the proportions of the kinds vary less from molecule to molecule."""
_SIZES = (15, 40)
_RINGS = 0.25
"""Closed rings per atom."""


def pairings(kinds: tuple[int, ...]) -> list[dict[int, int]]:
    """Every way to pair up an even number of kinds, as partner tables (15 for six kinds)."""
    if not kinds:
        return [{}]
    first, *others = kinds
    return [
        {first: other, other: first, **rest}
        for other in others
        for rest in pairings(tuple(k for k in others if k != other))
    ]


HABITS = pairings(tuple(range(KINDS)))[::2][:FAMILIES]
"""The partner of each kind of atom, one table a family."""


def molecule(index: int, *, seed: int) -> tuple[RawGraph, int]:
    """One molecule and its family; a pure function of its number and the seed."""
    import networkx as nx  # type: ignore[import-untyped]

    rng = generator("molecule", seed, index)
    family = index % FAMILIES
    partner = HABITS[family]
    atoms = int(rng.integers(_SIZES[0], _SIZES[1] + 1))
    tree = nx.random_labeled_tree(atoms, seed=rng)
    weights = np.ones(KINDS)
    weights[family % KINDS] += _TILT
    shares = rng.dirichlet(weights * _EVENNESS)
    kinds = np.empty(atoms, dtype=np.int64)
    kinds[0] = rng.choice(KINDS, p=shares)
    for bound, new in nx.bfs_edges(tree, 0):
        follows = rng.random() < _HABIT
        kinds[new] = partner[int(kinds[bound])] if follows else rng.choice(KINDS, p=shares)
    bonds = [(min(a, b), max(a, b)) for a, b in tree.edges]
    bonds += _rings(rng, kinds, partner, set(bonds))
    edges = np.array(sorted(bonds), dtype=np.int64).reshape(-1, 2)
    return RawGraph(atoms, edges, labels=kinds[:, None]), family


def _rings(
    rng: np.random.Generator,
    kinds: np.ndarray,
    partner: dict[int, int],
    taken: set[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Further bonds, which keep the family's habit."""
    closed: list[tuple[int, int]] = []
    wanted = int(_RINGS * len(kinds))
    for _ in range(20 * len(kinds)):
        if len(closed) == wanted:
            break
        a, b = sorted(rng.integers(len(kinds), size=2).tolist())
        if a == b or (a, b) in taken:
            continue
        if partner[int(kinds[a])] == kinds[b] or rng.random() < (1 - _HABIT) / 3:
            closed.append((a, b))
            taken.add((a, b))
    return closed


def write_samples(folder: Path, *, count: int = COUNT, seed: int = 0) -> None:
    """Fills an empty or new folder: `count` molecules as a TU collection `MOLECULES`, and folders
    `motifs` and `network` with at most as many graphs and nodes."""
    if count < 1:
        raise UserError(f"count: must be at least 1, got {count}")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"samples: {str(folder)!r} is not empty; give a new folder")
    write_tu(folder, NAME, [molecule(index, seed=seed) for index in range(count)])
    others = [motif_graph(index, seed=seed) for index in range(min(count, motifs.COUNT))]
    write_tu(folder / "motifs", motifs.NAME, others)
    write_tables(folder / "network", block_network(max(12, min(count, 2000)), seed=seed))
    atomic_write(folder / "README.txt", f"{__doc__}\n{count} molecules, seed {seed}.\n")


def write_tu(folder: Path, name: str, graphs: list[tuple[RawGraph, int]]) -> None:
    """Writes graphs, with a column of integer node labels where they have one, in TU format.

    Ids start at 1 and both directions of an edge are listed, as the format asks; graph labels are
    written as given.
    """
    edges: list[str] = []
    indicator: list[str] = []
    labels: list[str] = []
    start = 1
    for number, (graph, _) in enumerate(graphs, 1):
        for a, b in graph.edges.tolist():
            edges += [f"{start + a}, {start + b}", f"{start + b}, {start + a}"]
        indicator += [str(number)] * graph.num_nodes
        if graph.labels is not None:
            labels += [str(label) for label in graph.labels[:, 0].tolist()]
        start += graph.num_nodes
    folder.mkdir(exist_ok=True)
    files = {
        "A": edges,
        "graph_indicator": indicator,
        "graph_labels": [str(label) for _, label in graphs],
        "node_labels": labels,
    }
    for what, lines in files.items():
        if lines:
            atomic_write(folder / f"{name}_{what}.txt", "\n".join(lines) + "\n")
