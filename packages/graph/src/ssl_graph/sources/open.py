"""The source behind a path: what is there decides which format reads it."""

from __future__ import annotations

from pathlib import Path

from ssl_core.batch import Source
from ssl_core.data import open_source
from ssl_core.data.open import FORMATS as CORE_FORMATS
from ssl_core.data.subset import limited
from ssl_core.errors import CorruptSample, UserError, unknown
from ssl_graph.motifs import parse_motifs
from ssl_graph.sources.files import PARSERS, parse_graphml
from ssl_graph.sources.jsonl import GraphLines
from ssl_graph.sources.memory import GraphList
from ssl_graph.sources.pyg_file import FILE, read_pyg_collection
from ssl_graph.sources.tu import TUFolder, tu_names

FORMATS = ("tu", "jsonl", "graphml", "edges", "pyg")
"""What this package adds to the core's formats."""

SUFFIXES = (".graphml", ".gml", ".json", ".edges", ".edgelist")
"""Files that are one graph wherever they are met; `.txt`, `.csv`, `.tsv` only as "edges"."""

TABLES = (".txt", ".csv", ".tsv", ".parquet")
"""Files that list other files unless one says otherwise."""

ATLAS = "networkx:atlas"
MOTIFS = "motifs"


def open_graphs(
    path: str,
    *,
    format: str = "auto",
    limit: int | None = None,
    name: str | None = None,
    directed: bool = False,
) -> Source:
    """A source of the graphs at `path`, at most `limit` of them.

    Arguments:
        path: a TU folder; a `.jsonl` file; a PyG data set of many graphs on disk; a folder of graph
            files (classes by sub-folder), a manifest or tar shards of them; one GraphML file with
            many graphs; "networkx:atlas", the 1252 non-empty graphs with up to seven nodes (Read &
            Wilson); or "motifs:COUNT:SEED" (`ssl_graph.motifs`).
        format: "tu", "jsonl", "graphml", "pyg" or "edges" (edge lists, also `.txt`, `.csv`,
            `.tsv`), or one of the core's; "auto" decides by what is there.
        name: which TU collection, where a folder holds several.
        directed: keep edge directions; undirected graphs get both.

    Raises `UserError` naming what is missing or does not fit.
    """
    if path == ATLAS:
        return limited(_atlas(), limit)
    if path.split(":")[0] == MOTIFS:
        return limited(_motifs(path), limit)
    if format not in (*FORMATS, *CORE_FORMATS):
        raise unknown("data.format", format, (*FORMATS, *CORE_FORMATS))
    place = Path(path).expanduser()
    chosen = _guess(place) if format == "auto" else format
    if chosen in FORMATS and not place.exists():
        raise UserError(f"data.path: {path!r} does not exist")
    if chosen == "tu":
        return limited(TUFolder(place, name=name, directed=directed), limit)
    if name is not None:
        raise UserError(f"data.options.name: {name!r} is only for TU folders, {path!r} is none")
    if chosen == "jsonl":
        return limited(GraphLines(place, directed=directed), limit)
    if chosen == "pyg":
        return limited(read_pyg_collection(place), limit)
    if chosen == "graphml" and place.is_file():
        return limited(_graphml_file(place), limit)
    if chosen in ("graphml", "edges"):
        suffixes = (".graphml",) if chosen == "graphml" else tuple(PARSERS)
        inner = "folder" if place.is_dir() else "file"
        return open_source(place, suffixes=suffixes, format=inner, limit=limit)
    try:
        return open_source(path, suffixes=SUFFIXES, format=chosen, limit=limit)
    except UserError as error:
        if place.suffix.lower() not in TABLES or not place.is_file():
            raise
        raise UserError(
            f"{error}; or, where it lists the edges of one big graph, set data.options.level to "
            "node"
        ) from error


def _guess(place: Path) -> str:
    """One of `FORMATS`, or "auto" for the core to decide."""
    if place.is_dir():
        if tu_names(place):
            return "tu"
        return "pyg" if (place / FILE).is_file() else "auto"
    by_suffix = {".jsonl": "jsonl", ".ndjson": "jsonl", ".graphml": "graphml", ".pt": "pyg"}
    guessed = by_suffix.get(place.suffix.lower(), "auto")
    return guessed if place.is_file() else "auto"


def _graphml_file(place: Path) -> GraphList:
    """Every graph of one GraphML file."""
    try:
        graphs = parse_graphml(place.read_bytes())
    except CorruptSample as error:
        raise UserError(f"data.path: {str(place)!r}: {error}") from error
    return GraphList(graphs, keys=[f"{place.stem}/{i}" for i in range(len(graphs))])


def _motifs(path: str) -> GraphList:
    graphs, labels = zip(*parse_motifs(path), strict=True)
    return GraphList(graphs, labels=labels, keys=[f"{MOTIFS}/{i}" for i in range(len(graphs))])


def _atlas() -> GraphList:
    import networkx as nx  # type: ignore[import-untyped]

    graphs = nx.graph_atlas_g()[1:]
    return GraphList(graphs, keys=[f"atlas/{i}" for i in range(1, len(graphs) + 1)])
