"""PyTorch Geometric's data sets on disk: `processed/data.pt`, or a saved `Data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.errors import UserError
from ssl_graph.sources.memory import GraphList

FILE = Path("processed", "data.pt")


@dataclass(frozen=True)
class Stored:
    """What a file holds: graphs joined into one `Data`, and where each of them ends."""

    data: Any
    slices: Mapping[str, Any] | None
    name: str

    @property
    def count(self) -> int:
        """Number of graphs."""
        return 1 if self.slices is None else len(self.slices["edge_index"]) - 1

    def graph(self, index: int) -> Any:
        """One graph as `torch_geometric.data.Data`."""
        from torch_geometric.data.separate import separate  # type: ignore[import-untyped]

        if self.slices is None:
            return self.data
        return separate(type(self.data), self.data, index, self.slices, decrement=False)


def load_pyg(path: Path) -> Stored:
    """Reads a file, or a data set's folder, with torch's weights-only unpickler.

    That unpickler runs no code from the file. Raises `UserError` for anything else than graphs.
    """
    import torch

    from ssl_graph.pyg import data as pyg_data

    path = path / FILE if path.is_dir() else path
    allowed: list[Any] = [pyg_data.Data, pyg_data.storage.GlobalStorage]
    from torch_geometric.data import data as module

    allowed += [
        getattr(module, n) for n in ("DataEdgeAttr", "DataTensorAttr") if hasattr(module, n)
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch reports broken, foreign and refused files with different exceptions.
        raise UserError(f"data.path: {str(path)!r} is not a PyG data set: {error}") from error
    data, slices = (*stored[:2], None)[:2] if isinstance(stored, tuple) else (stored, None)
    if isinstance(data, dict):
        data = pyg_data.Data.from_dict({k: v for k, v in data.items() if v is not None})
    if getattr(data, "edge_index", None) is None:
        raise UserError(f"data.path: {str(path)!r} holds no edge_index")
    name = path.parent.parent.name if path.parent.name == FILE.parent.name else path.stem
    return Stored(data, slices or None, name)


def read_pyg_collection(path: Path) -> GraphList:
    """The graphs of a data set as a source, with whole numbers in `y` as labels."""
    stored = load_pyg(path)
    count = stored.count
    graphs = [stored.graph(index) for index in range(count)]
    return GraphList(graphs, keys=[f"{stored.name}/{i}" for i in range(count)])
