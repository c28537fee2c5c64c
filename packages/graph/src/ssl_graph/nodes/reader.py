"""`NodeReader`: nodes to `NodeBatch`, with features by a schema fitted on the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Unpack

import torch
from torch import Tensor

from ssl_core.batch import Record, Source
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import atomic_write
from ssl_graph.features import Schema, SchemaOptions, oddities
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.batch import NodeBatch, NodeRef
from ssl_graph.nodes.network import Network
from ssl_graph.nodes.samplers import Sampler
from ssl_graph.nodes.source import NodeTable, RawNode, training_labels

FILE = "node_reader.json"


class NodeReader:
    """Turns the nodes of a graph into batches of neighbourhoods.

    The graph is encoded once, whole; a decoded sample is a reference into it. `raw` is a node's
    own features and the logarithm of its degree. With `row_normalize` the features of a node add
    up to 1 (the bags of words of citation graphs).
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        schema: Schema,
        sampler: Sampler,
        row_normalize: bool = False,
        use_labels: bool = False,
    ) -> None:
        self._spec = dict(spec)
        self.schema = schema
        self.sampler = sampler
        self.row_normalize = row_normalize
        self.use_labels = use_labels
        self._lock = Lock()
        self._encoded: tuple[NodeTable, Network] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_encoded": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    @classmethod
    def fit(
        cls,
        source: Source,
        *,
        row_normalize: bool = False,
        sampler: str = "neighbours",
        sampling: Mapping[str, Any] | None = None,
        use_labels: bool = False,
        **options: Unpack[SchemaOptions],
    ) -> NodeReader:
        """Measures the whole graph of a node source; labels are not looked at.

        With `use_labels` the labels of the public split's training nodes travel with the network,
        for label-aware tasks (`selftask`). `sampler` is one of `ssl_graph.nodes.samplers.SAMPLERS`,
        `sampling` its options. Raises `UserError` for edges out of range and features that are not
        finite: a graph is one record, there is nothing to replace it with.
        """
        if len(source) == 0:
            raise UserError("data: the source holds no nodes")
        table = source[0].payload.table
        raw = table.graph
        try:
            if row_normalize:
                options["standardize"] = False
            schema = Schema.measure([raw], **options)
            chosen = Sampler(sampler, dict(sampling or {}))
            reader = cls(
                {},
                schema=schema,
                sampler=chosen,
                row_normalize=row_normalize,
                use_labels=use_labels,
            )
            network = reader.network(table)
        except (ValueError, CorruptSample) as error:
            raise UserError(f"data: {table.name!r}: {error}") from error
        degree = network.degree.double()
        reader._spec = {
            "level": "node",
            "node_dim": network.x.shape[1],
            "edge_dim": 0 if network.edge_attr is None else network.edge_attr.shape[1],
            "directed": schema.directed,
            "features": schema.kind,
            "categories": schema.categories,
            "nodes": network.num_nodes,
            "edges": network.num_edges,
            "classes": network.num_classes,
            "degree": {"mean": float(degree.mean()), "max": int(degree.max())},
            "met": oddities([raw]),
        }
        return reader

    @property
    def spec(self) -> Mapping[str, Any]:
        return self._spec

    def network(self, table: NodeTable) -> Network:
        """The encoded graph of a table; the last one is kept."""
        with self._lock:
            if self._encoded is None or self._encoded[0] is not table:
                graph = self.schema.encode(table.graph)
                if self.row_normalize:
                    if bool((graph.x < 0).any()):
                        raise UserError(
                            "data.options.row_normalize: some features are negative; it is meant "
                            "for bags of words"
                        )
                    total = graph.x.sum(1, keepdim=True)
                    scaled = graph.x / torch.where(total == 0, torch.ones_like(total), total)
                    graph = replace(graph, x=scaled)
                known = torch.from_numpy(training_labels(table)) if self.use_labels else None
                network = Network.of(graph, directed=self.schema.directed, known=known)
                self._encoded = (table, network)
            return self._encoded[1]

    def decode(self, record: Record) -> NodeRef:
        if not isinstance(record.payload, RawNode):
            raise CorruptSample(
                "not the node of a graph; this run was trained on nodes, give it a node data set"
            )
        network = self.network(record.payload.table)
        have = (network.x.shape[1], 0 if network.edge_attr is None else network.edge_attr.shape[1])
        want = (self._spec["node_dim"], self._spec["edge_dim"])
        if have != want:
            raise CorruptSample(f"(node, edge) feature widths {have}, trained on {want}")
        return NodeRef(network, record.payload.node)

    def collate(self, samples: Sequence[NodeRef]) -> NodeBatch:
        roots = torch.tensor([sample.node for sample in samples])
        return NodeBatch(samples[0].network, roots, self.sampler)

    def raw(self, data: NodeBatch | GraphBatch) -> Tensor:
        """Own features and log(1 + degree) of each root, float32 `[B, F + 1]`."""
        if isinstance(data, NodeBatch):
            x, degree = data.network.x[data.roots], data.network.degree[data.roots]
        else:
            x = data.x[data.roots]
            degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)[data.roots]
        return torch.cat([x, degree[:, None].to(x.dtype).log1p()], dim=1)

    def save(self, folder: Any) -> None:
        """Writes `node_reader.json`."""
        stored = {
            "spec": self._spec,
            "schema": self.schema.to_json(),
            "sampler": {"name": self.sampler.name, "options": dict(self.sampler.options)},
            "row_normalize": self.row_normalize,
            "use_labels": self.use_labels,
        }
        atomic_write(Path(folder, FILE), json.dumps(stored, indent=1))

    @classmethod
    def load(cls, folder: Path) -> NodeReader:
        """What `save` wrote."""
        stored = json.loads(Path(folder, FILE).read_text("utf-8"))
        return cls(
            stored["spec"],
            schema=Schema.from_json(stored["schema"]),
            sampler=Sampler(**stored["sampler"]),
            row_normalize=stored["row_normalize"],
            use_labels=stored["use_labels"],
        )
