"""Graph encoders by name, as the registry calls them: `factory(spec, **options)`.

All are one stack of layers (`GraphEncoder`) and take the same options; each has its own defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ssl_graph.encoders.gnn import Activation, GraphEncoder, Norm, Readout
from ssl_graph.encoders.layers import LAYERS, attention_layer, transformer_layer


def _stack(
    layer: Callable[[int, int, int], nn.Module],
    spec: Mapping[str, Any],
    /,
    *,
    dim: int = 64,
    depth: int = 2,
    pool: Readout = "mean",
    concat: bool = False,
    norm: Norm = "batch",
    activation: Activation = "relu",
) -> GraphEncoder:
    """`depth` layers of width `dim`; `pool` and `concat` as in `GraphEncoder`."""
    return GraphEncoder(
        *(spec, layer),
        dim=dim,
        depth=depth,
        pool=pool,
        concat=concat,
        norm=norm,
        activation=activation,
    )


def _attentive(
    layer: Callable[..., nn.Module],
    spec: Mapping[str, Any],
    /,
    *,
    dim: int = 64,
    depth: int = 2,
    heads: int = 4,
    pool: Readout = "mean",
    concat: bool = False,
    norm: Norm = "batch",
    activation: Activation = "elu",
) -> GraphEncoder:
    """The same of layers with attention heads, whose number must divide `dim`."""
    if heads < 1 or dim % heads:
        raise ValueError(f"heads must divide dim={dim}, got {heads}")
    return _stack(
        *(partial(layer, heads=heads), spec),
        dim=dim,
        depth=depth,
        pool=pool,
        concat=concat,
        norm=norm,
        activation=activation,
    )


gin = partial(_stack, LAYERS["gin"], dim=32, depth=3, pool="sum", concat=True)
"""GIN (Xu et al., ICLR 2019) with learned eps, as GraphCL and InfoGraph use it."""

gcn = partial(_stack, LAYERS["gcn"])
"""GCN (Kipf & Welling, ICLR 2017)."""

sage = partial(_stack, LAYERS["sage"])
"""GraphSAGE with the mean aggregator (Hamilton et al., NeurIPS 2017)."""

mlp = partial(_stack, LAYERS["mlp"])
"""An MLP on each node's own features, blind to edges (SCGC's encoder; a rival to the rest)."""

gat = partial(_attentive, attention_layer)
"""GATv2 (Brody et al., ICLR 2022)."""

graph_transformer = partial(_attentive, transformer_layer, norm="layer", activation="relu")
"""Attention along edges with gated skips (Shi et al., IJCAI 2021)."""
