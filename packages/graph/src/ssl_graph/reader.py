"""`GraphReader`: records to graphs, graphs to batches, and the features an encoder must beat."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Record, Source
from ssl_core.data.limits import MAX_BYTES, read_bytes
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import atomic_write
from ssl_core.rng import shuffled
from ssl_graph.features import (
    Schema,
    SchemaOptions,
    check_edges,
    check_encoded,
    oddities,
    usual_layout,
)
from ssl_graph.graph import Graph, GraphBatch, RawGraph
from ssl_graph.sources.convert import from_json
from ssl_graph.sources.files import parse_file
from ssl_graph.sources.jsonl import GraphLine
from ssl_graph.sources.memory import to_raw

_FILE = "graph_reader.json"
_DEGREES = 16
"""Columns of the degree histogram among the raw features; the last one collects the rest."""


def raw_graph(record: Record, *, max_bytes: int = MAX_BYTES) -> RawGraph | Graph:
    """The graph of a record: in memory, a line of JSON, or a file; `CorruptSample` if none."""
    payload = record.payload
    if isinstance(payload, GraphLine):
        return payload.parse()
    if isinstance(payload, Mapping):
        return from_json(dict(payload))
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return parse_file(record.key, read_bytes(record, max_bytes=max_bytes))
    if isinstance(payload, (str, os.PathLike)):
        return parse_file(os.fspath(payload), read_bytes(record, max_bytes=max_bytes))
    return to_raw(payload)


def graph_statistics(batch: GraphBatch) -> Tensor:
    """Simple features per graph, float32 `[G, F + 18]`.

    The mean of the node features, the shares of nodes with degree 0, 1, .. 15+, and the
    logarithms of the numbers of nodes and edges.
    """
    nodes = batch.sizes.to(torch.float32)
    total = batch.x.new_zeros(len(batch), batch.x.shape[1]).index_add_(0, batch.batch, batch.x)
    degree = torch.zeros_like(batch.batch)
    degree.index_add_(0, batch.edge_index[0], torch.ones_like(batch.edge_index[0]))
    cell = batch.batch * _DEGREES + degree.clamp(max=_DEGREES - 1)
    histogram = torch.bincount(cell, minlength=len(batch) * _DEGREES).reshape(-1, _DEGREES)
    edges = torch.bincount(batch.edge_batch, minlength=len(batch))
    size = torch.stack([nodes.log(), edges.to(torch.float32).log1p()], dim=1)
    return torch.cat([total / nodes[:, None], histogram / nodes[:, None], size], dim=1)


class GraphReader:
    """Turns records into `Graph`s by a schema fitted on the training data.

    `spec` holds `node_dim`, `edge_dim`, `directed`, the kind of `features`, typical sizes and how
    many oddities were `met` among the graphs measured (self-loops and repeated edges go);
    `center` and `scale` standardise the raw features, each with one number a column.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        schema: Schema,
        center: Sequence[float],
        scale: Sequence[float],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._spec = dict(spec)
        self.schema = schema
        self.center = torch.tensor(center, dtype=torch.float32)
        self.scale = torch.tensor(scale, dtype=torch.float32)
        self.max_bytes = max_bytes

    @classmethod
    def fit(
        cls,
        source: Source,
        *,
        measure: int = 5000,
        max_bytes: int = MAX_BYTES,
        **options: Unpack[SchemaOptions],
    ) -> GraphReader:
        """Measures up to `measure` records (chosen by key, not by place) of a training source.

        Unreadable records are left to the loader's policy; if none can be read, `UserError`.
        """
        if len(source) == 0:
            raise UserError("data: the source holds no graphs")
        order = shuffled(np.arange(len(source)), len(source), "graph reader")
        graphs: list[RawGraph | Graph] = []
        reason = ""
        for index in order[:measure].tolist():
            try:
                graph = raw_graph(source[index], max_bytes=max_bytes)
                if isinstance(graph, RawGraph):
                    check_edges(graph.edges, graph.num_nodes)
                else:
                    check_encoded(graph)
                graphs.append(graph)
            except CorruptSample as error:
                reason = str(error)
        raws = [graph for graph in graphs if isinstance(graph, RawGraph) and graph.num_nodes]
        raws = usual_layout(raws) if raws else []
        ready = [graph for graph in graphs if isinstance(graph, Graph)]
        if not raws and not ready:
            raise UserError(f"data: not one graph could be read ({reason})")
        schema = Schema("encoded", options.get("directed", False))
        if raws:
            schema = Schema.measure(raws, **options)
        ready += _encoded(schema, raws)
        if not ready:
            raise UserError("data: not one graph fits the others' features")
        statistics = graph_statistics(GraphBatch.of(ready)).double()
        spread = statistics.std(dim=0, unbiased=False)
        # Every column that varies counts once; constant columns stay at zero.
        scale = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
        return cls(
            {**_facts(schema, ready), "met": oddities(raws)},
            schema=schema,
            center=statistics.mean(dim=0).tolist(),
            scale=scale.tolist(),
            max_bytes=max_bytes,
        )

    @property
    def spec(self) -> Mapping[str, Any]:
        return self._spec

    def decode(self, record: Record) -> Graph:
        graph = raw_graph(record, max_bytes=self.max_bytes)
        if isinstance(graph, RawGraph):
            graph = self.schema.encode(graph)
        else:
            check_encoded(graph)
        have = (graph.x.shape[1], 0 if graph.edge_attr is None else graph.edge_attr.shape[1])
        want = (self._spec["node_dim"], self._spec["edge_dim"])
        if have != want:
            raise CorruptSample(f"(node, edge) feature widths {have}, the other graphs have {want}")
        return graph

    def collate(self, samples: Sequence[Graph]) -> GraphBatch:
        schema = self.schema
        return GraphBatch.of(samples, directed=schema.directed, signs=schema.signs)

    def raw(self, data: GraphBatch) -> Tensor:
        """`graph_statistics`, standardised on the training data so that no column dominates."""
        statistics = graph_statistics(data)
        device = statistics.device
        return (statistics - self.center.to(device)) / self.scale.to(device)

    def save(self, folder: Any) -> None:
        """Writes `graph_reader.json`."""
        stored = {
            "spec": self._spec,
            "schema": self.schema.to_json(),
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "max_bytes": self.max_bytes,
        }
        atomic_write(Path(folder, _FILE), json.dumps(stored, indent=1))

    @classmethod
    def load(cls, folder: Path) -> GraphReader:
        """What `save` wrote."""
        path = Path(folder, _FILE)
        if not path.is_file():
            raise UserError(f"run: {str(path)!r} is missing; is this the folder of a graph run?")
        stored = json.loads(path.read_text("utf-8"))
        stored["schema"] = Schema.from_json(stored["schema"])
        return cls(**stored)


def _encoded(schema: Schema, raws: Sequence[RawGraph]) -> list[Graph]:
    """The graphs that fit the schema; the loader reports the others when it meets them."""
    out = []
    for raw in raws:
        try:
            out.append(schema.encode(raw))
        except CorruptSample:
            continue
    return out


def _facts(schema: Schema, graphs: Sequence[Graph]) -> dict[str, Any]:
    """The spec: JSON facts of the data."""
    nodes = np.array([graph.num_nodes for graph in graphs])
    edges = np.array([graph.edge_index.shape[1] for graph in graphs])
    first = graphs[0]
    return {
        "node_dim": first.x.shape[1],
        "edge_dim": 0 if first.edge_attr is None else first.edge_attr.shape[1],
        "directed": schema.directed,
        "features": schema.kind,
        "categories": schema.categories,
        "nodes": {"median": float(np.median(nodes)), "max": int(nodes.max())},
        "edges": {"median": float(np.median(edges)), "max": int(edges.max())},
    }
