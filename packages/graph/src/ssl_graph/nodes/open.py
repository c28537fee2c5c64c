"""The node source behind a path: what is there decides which format reads it."""

from __future__ import annotations

from pathlib import Path

from ssl_core.batch import Source
from ssl_core.data.subset import limited
from ssl_core.errors import UserError
from ssl_graph.nodes.blocks import parse_blocks
from ssl_graph.nodes.files.ogb import is_ogb, read_ogb
from ssl_graph.nodes.files.planetoid import planetoid_names, read_planetoid
from ssl_graph.nodes.files.single import read_graph_file, read_pyg, table_of
from ssl_graph.nodes.files.tables import read_tables, table_paths
from ssl_graph.nodes.link_split import split_links
from ssl_graph.nodes.source import NodeSource, NodeTable
from ssl_graph.sources.pyg_file import FILE

FORMATS = ("planetoid", "ogb", "node_tables", "pyg")
"""Formats that hold one big graph."""

KARATE = "networkx:karate"


def guess(path: str) -> str | None:
    """One of `FORMATS`, "blocks" or "karate" where `path` is plainly one big graph, else None."""
    if path == KARATE:
        return "karate"
    if path.split(":")[0] == "blocks":
        return "blocks"
    place = Path(path).expanduser()
    if place.is_file():
        return "pyg" if place.suffix == ".pt" else None
    if not place.is_dir():
        return None
    if planetoid_names(place) or planetoid_names(place / "raw"):
        return "planetoid"
    if is_ogb(place):
        return "ogb"
    if all(table_paths(place)):
        return "node_tables"
    return "pyg" if (place / FILE).is_file() else None


def open_nodes(
    path: str,
    *,
    format: str = "auto",
    limit: int | None = None,
    name: str | None = None,
    split: str | None = None,
    target: str | None = None,
    hide_links: float | None = None,
) -> Source:
    """The nodes of one graph as records.

    Arguments:
        path: a folder of Planetoid's raw files, an OGB folder, a folder with `nodes` and `edges`
            tables, a PyG data set on disk, a file with one graph, "blocks:NODES:SEED", or
            "networkx:karate" (34 people in two clubs; Zachary 1977).
        format: one of `FORMATS`, or "auto".
        name: which Planetoid data set, where a folder holds several.
        split: which of OGB's split schemes.
        target: the node attribute that is the label, in files with one graph.
        hide_links: a share of the edges to leave out, for link prediction (`split_links`, seed 0).

    Raises `UserError` naming what is missing or does not fit.
    """
    kind = guess(path) if format == "auto" else format
    place = Path(path).expanduser()
    if kind not in ("blocks", "karate") and not place.exists():
        raise UserError(f"data.path: {path!r} does not exist")
    table = _read(kind, path, place, name, split, target)
    if hide_links is not None:
        table = split_links(table, share=hide_links).table
    return limited(NodeSource(table), limit)


def _read(
    kind: str | None,
    path: str,
    place: Path,
    name: str | None,
    split: str | None,
    target: str | None,
) -> NodeTable:
    if kind == "blocks":
        return parse_blocks(path)
    if kind == "karate":
        import networkx as nx  # type: ignore[import-untyped]

        return table_of(nx.karate_club_graph(), name="karate", target="club")
    if kind == "planetoid":
        folder = place if planetoid_names(place) else place / "raw"
        return read_planetoid(folder, name=name)
    if kind == "ogb":
        return read_ogb(place, split=split)
    if kind == "node_tables":
        return read_tables(place)
    if kind == "pyg":
        return read_pyg(place)
    if place.is_file():
        return read_graph_file(place, target=target)
    raise UserError(
        f"data.path: {path!r} is no folder with one big graph; expected Planetoid's ind.* files, "
        "an OGB folder, nodes and edges tables, or processed/data.pt"
    )
