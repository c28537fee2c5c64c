"""Graph encoders by name, as the registry calls them: `factory(spec, **options)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ssl_graph.encoders.gnn import Activation, GraphEncoder, Norm, Readout
from ssl_graph.encoders.layers import LAYERS, attention_layer, transformer_layer


def gin(
    spec: Mapping[str, Any],
    *,
    dim: int = 32,
    depth: int = 3,
    pool: Readout = "sum",
    concat: bool = True,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> GraphEncoder:
    """GIN (Xu et al., ICLR 2019) with learned eps, as GraphCL and InfoGraph use it."""
    return _stack(spec, LAYERS["gin"], dim, depth, pool, concat, norm, activation)


def gcn(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depth: int = 2,
    pool: Readout = "mean",
    concat: bool = False,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> GraphEncoder:
    """GCN (Kipf & Welling, ICLR 2017)."""
    return _stack(spec, LAYERS["gcn"], dim, depth, pool, concat, norm, activation)


def sage(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depth: int = 2,
    pool: Readout = "mean",
    concat: bool = False,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> GraphEncoder:
    """GraphSAGE with the mean aggregator (Hamilton et al., NeurIPS 2017)."""
    return _stack(spec, LAYERS["sage"], dim, depth, pool, concat, norm, activation)


def mlp(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depth: int = 2,
    pool: Readout = "mean",
    concat: bool = False,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> GraphEncoder:
    """An MLP on each node's own features, blind to edges (SCGC's encoder; a rival to the rest)."""
    return _stack(spec, LAYERS["mlp"], dim, depth, pool, concat, norm, activation)


def gat(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depth: int = 2,
    heads: int = 4,
    pool: Readout = "mean",
    concat: bool = False,
    norm: Norm = "batch",
    activation: Activation = "elu",
) -> GraphEncoder:
    """GATv2 (Brody et al., ICLR 2022); `heads` must divide `dim`."""
    layer = partial(attention_layer, heads=_divides(heads, dim))
    return _stack(spec, layer, dim, depth, pool, concat, norm, activation)


def graph_transformer(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depth: int = 2,
    heads: int = 4,
    pool: Readout = "mean",
    concat: bool = False,
    norm: Norm = "layer",
    activation: Activation = "relu",
) -> GraphEncoder:
    """Attention along edges with gated skips (Shi et al., IJCAI 2021); `heads` divides `dim`."""
    layer = partial(transformer_layer, heads=_divides(heads, dim))
    return _stack(spec, layer, dim, depth, pool, concat, norm, activation)


def _divides(heads: int, dim: int) -> int:
    if heads < 1 or dim % heads:
        raise ValueError(f"heads must divide dim={dim}, got {heads}")
    return heads


def _stack(
    spec: Mapping[str, Any],
    layer: Callable[[int, int, int], nn.Module],
    dim: int,
    depth: int,
    pool: Readout,
    concat: bool,
    norm: Norm,
    activation: Activation,
) -> GraphEncoder:
    return GraphEncoder(
        spec,
        layer,
        dim=dim,
        depth=depth,
        pool=pool,
        concat=concat,
        norm=norm,
        activation=activation,
    )
