"""Message-passing layers, on PyTorch Geometric's where it has them.

A layer is made as `(width in, width out, edge width)` and called as `layer(x, edge_index)`, with
`edge_attr` where edges have features. Messages go from `edge_index[0]` to `edge_index[1]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_graph.pyg import nn as pyg


def gin_layer(width: int, dim: int, edge_dim: int) -> nn.Module:
    """MLP((1 + eps) x_v + sum of neighbours); edge features join the messages (GINE)."""
    mlp = nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))
    if edge_dim:
        edged: nn.Module = pyg.GINEConv(mlp, train_eps=True, edge_dim=edge_dim)
        return edged
    plain: nn.Module = pyg.GINConv(mlp, train_eps=True)
    return plain


class GCNLayer(nn.Module):
    """PyG's GCN layer; edge features weigh an edge by a learned sigmoid gate.

    With `edge_weight` (a diffusion) the propagation is that matrix itself: nothing is normalised
    and no self-loops are added.
    """

    takes_weights = True

    def __init__(self, width: int, dim: int, edge_dim: int) -> None:
        super().__init__()
        self.conv = pyg.GCNConv(width, dim)
        self.gate = nn.Linear(edge_dim, 1) if edge_dim else None

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        if edge_weight is not None:
            mapped = self.conv.lin(x)
            message = mapped[edge_index[0]] * edge_weight[:, None].to(mapped.dtype)
            total = torch.zeros_like(mapped).index_add(0, edge_index[1], message)
            weighted: Tensor = total + self.conv.bias
            return weighted
        weight = None
        if self.gate is not None and edge_attr is not None:
            weight = self.gate(edge_attr)[:, 0].sigmoid()
        out: Tensor = self.conv(x, edge_index, weight)
        return out


class SAGELayer(nn.Module):
    """W x_v + U mean of neighbours (Hamilton et al. 2017), + V mean of the edges' features."""

    def __init__(self, width: int, dim: int, edge_dim: int) -> None:
        super().__init__()
        self.conv = pyg.SAGEConv(width, dim)
        self.edge = nn.Linear(edge_dim, dim, bias=False) if edge_dim else None

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        out: Tensor = self.conv(x, edge_index)
        if self.edge is None or edge_attr is None:
            return out
        total = edge_attr.new_zeros(len(x), edge_attr.shape[1])
        total = total.index_add(0, edge_index[1], edge_attr)
        count = torch.bincount(edge_index[1], minlength=len(x)).clamp(min=1)
        return out + self.edge(total / count[:, None])


class MLPLayer(nn.Module):
    """W x_v: no message passing, the baseline that shows what the edges add."""

    def __init__(self, width: int, dim: int, edge_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def attention_layer(width: int, dim: int, edge_dim: int, *, heads: int = 1) -> nn.Module:
    """GATv2 (Brody et al., ICLR 2022): attention over neighbours and the node itself."""
    layer: nn.Module = pyg.GATv2Conv(width, dim // heads, heads=heads, edge_dim=edge_dim or None)
    return layer


def transformer_layer(width: int, dim: int, edge_dim: int, *, heads: int) -> nn.Module:
    """Dot-product attention over neighbours with a gated skip (Shi et al., IJCAI 2021)."""
    layer: nn.Module = pyg.TransformerConv(
        width, dim // heads, heads=heads, edge_dim=edge_dim or None, beta=True
    )
    return layer


LAYERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "gin": gin_layer,
    "gcn": GCNLayer,
    "sage": SAGELayer,
    "mlp": MLPLayer,
    "gat": attention_layer,
}
"""Layers by name; the attention layer with one head."""
