"""The stack of message-passing layers that every graph encoder is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_graph.graph import GraphBatch

Readout = Literal["sum", "mean", "max", "root"]
Activation = Literal["relu", "prelu", "elu"]
Norm = Literal["batch", "layer", "none"]


def readout(values: Tensor, graphs: GraphBatch, how: Readout) -> Tensor:
    """Node vectors `[N, D]` to graph vectors `[G, D]`; every graph has at least one node.

    "root" is the first node's vector. Neighbourhoods (`graphs.rooted`) are about their root, and
    give its vector whatever `how` says.
    """
    if graphs.rooted or how == "root":
        return values[graphs.roots]
    if how == "max":
        index = graphs.batch[:, None].expand_as(values)
        low = values.new_full((len(graphs), values.shape[1]), -torch.inf)
        return low.scatter_reduce(0, index, values, "amax")
    total = values.new_zeros(len(graphs), values.shape[1]).index_add(0, graphs.batch, values)
    return total if how == "sum" else total / graphs.sizes[:, None]


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": nn.Identity,
}
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
}


class GraphEncoder(nn.Module):
    """A stack of message-passing layers, each followed by a norm and an activation, and a readout.

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
        norm: Norm = "batch",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        for what, given, known in (
            ("pool", pool, ("sum", "mean", "max", "root")),
            ("norm", norm, tuple(_NORMS)),
            ("activation", activation, tuple(_ACTIVATIONS)),
        ):
            if given not in known:
                raise ValueError(f"{what} must be one of {known}, got {given!r}")
        if depth < 1 or dim < 1:
            raise ValueError(f"depth and dim must be at least 1, got {depth} and {dim}")
        self.token_dim: int = spec["node_dim"]
        self.edge_dim: int = spec["edge_dim"]
        self.categories: list[list[int]] = spec.get("categories", [])
        self.layers = nn.ModuleList(
            layer(self.token_dim if i == 0 else dim, dim, self.edge_dim) for i in range(depth)
        )
        self.norms = nn.ModuleList(_NORMS[norm](dim) for _ in range(depth))
        self.activations = nn.ModuleList(_ACTIVATIONS[activation]() for _ in range(depth))
        self.mask_token: nn.Parameter | None = None
        self.pool = pool
        self.concat = concat
        self.embed_dim = dim * depth if concat else dim

    def enable_mask_token(self) -> None:
        """Adds what hidden nodes show, zero at first (GraphMAE), if it is not there yet."""
        if self.mask_token is None:
            like = next(self.layers.parameters())
            zeros = torch.zeros(self.token_dim, dtype=like.dtype, device=like.device)
            self.mask_token = nn.Parameter(zeros)

    def tokenize(self, data: GraphBatch) -> Tokens:
        """Node features padded to `[G, Nmax, F]`; the edges travel as `context`."""
        values, valid = data.dense()
        return Tokens(values, valid=valid, context=data)

    def rebuild(self, tokens: Tokens, values: Tensor) -> GraphBatch:
        """The graphs of the tokens with other node features, `[G, Nmax, F]`."""
        graphs: GraphBatch = tokens.context
        return replace(graphs, x=graphs.flat(values))

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
        weighted = {} if graphs.edge_weight is None else {"edge_weight": graphs.edge_weight}
        if weighted and not getattr(self.layers[0], "takes_weights", False):
            raise ValueError("weighted edges (diffusion views) need a GCN encoder")
        out = []
        for layer, norm, act in zip(self.layers, self.norms, self.activations, strict=True):
            x = act(norm(layer(x, *edges, **weighted)))
            out.append(x)
        return torch.cat(out, dim=1) if self.concat else x


def edge_inputs(graphs: GraphBatch) -> tuple[Tensor, ...]:
    """What a layer takes after the nodes: `edge_index`, and `edge_attr` where there is one."""
    attr = graphs.edge_attr
    return (graphs.edge_index,) if attr is None else (graphs.edge_index, attr)
