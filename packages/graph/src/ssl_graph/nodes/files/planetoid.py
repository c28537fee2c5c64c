"""Planetoid's raw files of Cora, Citeseer and PubMed (Yang et al., ICML 2016).

`ind.NAME.{x, tx, allx}` are sparse feature matrices, `{y, ty, ally}` one-hot labels, `graph` an
adjacency dictionary and `test.index` the rows of the test nodes, one a line. All but the last are
pickles. They are read by an unpickler that knows a few harmless names and refuses every other.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.errors import UserError
from ssl_graph.graph import RawGraph
from ssl_graph.nodes.source import NodeTable
from ssl_graph.sources.columns import read_columns

_VALIDATION = 500


class _Csr:
    """Receives the state of a pickled scipy `csr_matrix`; holds arrays, runs nothing."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    _shape: tuple[int, int]

    def dense(self) -> np.ndarray:
        """float32 `[rows, columns]`."""
        out = np.zeros(self._shape, dtype=np.float32)
        row = np.repeat(np.arange(self._shape[0]), np.diff(self.indptr))
        np.add.at(out, (row, self.indices), self.data)
        return out


def _new(cls: type, base: type, state: object) -> object:
    """What Python 2 calls to make an object; only `_Csr` comes this way."""
    if cls is not _Csr:
        raise pickle.UnpicklingError(f"will not make a {cls.__name__}")
    return _Csr()


def _bytes(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2's pickles."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"will not encode as {encoding}")
    return text.encode("latin1")


def _known() -> dict[tuple[str, str], Any]:
    multiarray = getattr(np, "_core", None) or np.core
    reconstruct = multiarray.multiarray._reconstruct
    names = {
        ("collections", "defaultdict"): defaultdict,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _bytes,
        ("copy_reg", "_reconstructor"): _new,
        ("copyreg", "_reconstructor"): _new,
        ("scipy.sparse.csr", "csr_matrix"): _Csr,
        ("scipy.sparse._csr", "csr_matrix"): _Csr,
    }
    for module in ("__builtin__", "builtins"):
        names |= {(module, "list"): list, (module, "object"): object}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[(module, "_reconstruct")] = reconstruct
    return names


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _known()
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"refuses to load {module}.{name}")
        return known[module, name]


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"data.path: {str(path)!r} is missing; Planetoid needs eight ind.* files")
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"data.path: {str(path)!r} is not a Planetoid file: {error}") from error


def planetoid_names(folder: Path) -> list[str]:
    """The data sets for which `folder` holds `ind.NAME.graph`."""
    return sorted(p.name.split(".")[1] for p in folder.glob("ind.*.graph"))


def read_planetoid(folder: Path, *, name: str | None = None) -> NodeTable:
    """A table with the public split: `y`'s nodes train, the next 500 validate, `test.index` tests.

    Test rows that `test.index` skips (Citeseer has 15) are isolated nodes without features and
    without a label, as in the released loaders.
    """
    names = planetoid_names(folder)
    if name is None and len(names) != 1:
        raise UserError(f"data.options.name: choose one of {names} in {str(folder)!r}")
    name = names[0] if name is None else name

    def part(what: str) -> Any:
        return _load(folder / f"ind.{name}.{what}")

    index = folder / f"ind.{name}.test.index"
    if not index.is_file():
        raise UserError(f"data.path: {str(index)!r} is missing")
    test = read_columns(index, dtype=np.int64, columns=1)[:, 0]
    allx, tx = part("allx").dense(), part("tx").dense()
    ally, ty = np.asarray(part("ally")), np.asarray(part("ty"))
    if len(test) != len(tx) or len(allx) != len(ally) or len(tx) != len(ty):
        raise UserError(f"data.path: the files of {name!r} have different numbers of rows")
    first, count = len(allx), max(len(allx), int(test.max(initial=-1)) + 1)
    if test.min(initial=first) < first:
        raise UserError(f"data.path: {str(index)!r} names rows below {first}, which are not test")
    x = np.zeros((count, allx.shape[1]), dtype=np.float32)
    y = np.zeros((count, ally.shape[1]))
    x[:first], y[:first] = allx, ally
    x[test], y[test] = tx, ty
    labels = [int(row.argmax()) if row.any() else None for row in y]
    split = np.full(count, -1, dtype=np.int8)
    train = len(part("y"))
    split[:train] = 0
    split[train : min(train + _VALIDATION, first)] = 1
    split[test] = 2
    edges = [(int(a), int(b)) for a, near in part("graph").items() for b in near]
    graph = RawGraph(count, np.array(edges, dtype=np.int64).reshape(-1, 2), x)
    return NodeTable(graph, labels, split, name=name)
