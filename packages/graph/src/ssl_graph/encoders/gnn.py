"""Message-passing encoders on PyTorch Geometric's layers: GIN and GCN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_graph.graph import GraphBatch
from ssl_graph.pyg import nn as pyg

Readout = Literal["sum", "mean", "max"]


def readout(values: Tensor, graphs: GraphBatch, how: Readout) -> Tensor:
    """Node vectors `[N, D]` to graph vectors `[G, D]`; every graph has at least one node."""
    if how == "max":
        index = graphs.batch[:, None].expand_as(values)
        low = values.new_full((len(graphs), values.shape[1]), -torch.inf)
        return low.scatter_reduce(0, index, values, "amax")
    total = values.new_zeros(len(graphs), values.shape[1]).index_add(0, graphs.batch, values)
    return total if how == "sum" else total / graphs.sizes[:, None]


class GraphEncoder(nn.Module):
    """A stack of message-passing layers, each followed by batch norm and ReLU, and a readout.

    With `concat` the outputs of all layers stand side by side in tokens and pooled vectors
    (`embed_dim = depth * dim`; GraphCL, InfoGraph), else only the last counts. As a token
    encoder its tokens are nodes: values are node features and a hidden node shows `mask_token`,
    which exists only after `enable_mask_token` (methods in replace mode call it).
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        layer: Callable[[int, int, int], nn.Module],
        *,
        dim: int,
        depth: int,
        pool: Readout,
        concat: bool,
    ) -> None:
        super().__init__()
        if pool not in ("sum", "mean", "max"):
            raise ValueError(f"pool must be 'sum', 'mean' or 'max', got {pool!r}")
        if depth < 1 or dim < 1:
            raise ValueError(f"depth and dim must be at least 1, got {depth} and {dim}")
        self.token_dim: int = spec["node_dim"]
        self.edge_dim: int = spec["edge_dim"]
        self.layers = nn.ModuleList(
            layer(self.token_dim if i == 0 else dim, dim, self.edge_dim) for i in range(depth)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(depth))
        self.mask_token: nn.Parameter | None = None
        self.pool = pool
        self.concat = concat
        self.embed_dim = dim * depth if concat else dim

    def enable_mask_token(self) -> None:
        """Adds what hidden nodes show, zero at first (GraphMAE), if it is not there yet."""
        if self.mask_token is None:
            like = next(self.norms.parameters())
            zeros = torch.zeros(self.token_dim, dtype=like.dtype, device=like.device)
            self.mask_token = nn.Parameter(zeros)

    def tokenize(self, data: GraphBatch) -> Tokens:
        """Node features padded to `[G, Nmax, F]`; the edges travel as `context`."""
        values, valid = data.dense()
        return Tokens(values, valid=valid, context=data)

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """Nodes in `tokens.values`, hidden ones replaced; tokens `[G, Nmax, embed_dim]`."""
        graphs: GraphBatch = tokens.context
        values = tokens.values
        if mask is not None:
            if mask.mode != "replace":
                raise ValueError(
                    f"graphs keep their hidden nodes: mode 'replace', not {mask.mode!r}"
                )
            if self.mask_token is None:
                raise RuntimeError(
                    "replace mode needs a mask token: call enable_mask_token() first"
                )
            values = torch.where(mask.at_mask_token[..., None], self.mask_token, values)
        return self._features(graphs, graphs.flat(values))

    def forward(self, data: GraphBatch) -> Features:
        return self._features(data, data.x)

    def _features(self, graphs: GraphBatch, x: Tensor) -> Features:
        nodes = self._nodes(graphs, x)
        tokens, valid = graphs.dense(nodes)
        return Features(readout(nodes, graphs, self.pool), tokens, valid=valid)

    def _nodes(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        """Node vectors `[N, embed_dim]`."""
        edges = edge_inputs(graphs)
        out = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x, *edges)).relu()
            out.append(x)
        return torch.cat(out, dim=1) if self.concat else x


def edge_inputs(graphs: GraphBatch) -> tuple[Tensor, ...]:
    """What a layer takes after the nodes: `edge_index`, and `edge_attr` where there is one."""
    attr = graphs.edge_attr
    return (graphs.edge_index,) if attr is None else (graphs.edge_index, attr)


def gin_layer(width: int, dim: int, edge_dim: int) -> nn.Module:
    """MLP((1 + eps) x_v + sum of neighbours); edge features join the messages (GINE)."""
    mlp = nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))
    if edge_dim:
        edged: nn.Module = pyg.GINEConv(mlp, train_eps=True, edge_dim=edge_dim)
        return edged
    plain: nn.Module = pyg.GINConv(mlp, train_eps=True)
    return plain


class _GCNLayer(nn.Module):
    """PyG's GCN layer; edge features weigh an edge by a learned sigmoid gate."""

    def __init__(self, width: int, dim: int, edge_dim: int) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(width, dim)
        self.gate = nn.Linear(edge_dim, 1) if edge_dim else None

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        weight = None
        if self.gate is not None and edge_attr is not None:
            weight = self.gate(edge_attr)[:, 0].sigmoid()
        out: Tensor = self.conv(x, edge_index, weight)
        return out


LAYERS: dict[str, Callable[[int, int, int], nn.Module]] = {"gin": gin_layer, "gcn": _GCNLayer}
"""`(width in, width out, edge width) -> layer(x, edge_index[, edge_attr])`."""


def gin(
    spec: Mapping[str, Any],
    *,
    dim: int = 32,
    depth: int = 3,
    pool: Readout = "sum",
    concat: bool = True,
) -> GraphEncoder:
    """GIN (Xu et al., ICLR 2019) with learned eps, as GraphCL and InfoGraph use it."""
    return GraphEncoder(spec, gin_layer, dim=dim, depth=depth, pool=pool, concat=concat)


def gcn(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depth: int = 2,
    pool: Readout = "mean",
    concat: bool = False,
) -> GraphEncoder:
    """GCN (Kipf & Welling, ICLR 2017)."""
    return GraphEncoder(spec, _GCNLayer, dim=dim, depth=depth, pool=pool, concat=concat)
