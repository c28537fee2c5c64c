"""GraphMAE's decoder (Hou et al., KDD 2022): hidden nodes are rebuilt from their neighbours.

GraphMAE2 (WWW 2023) re-masks nodes of its choice, with a learned vector instead of zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_graph.encoders.gnn import edge_inputs
from ssl_graph.encoders.layers import LAYERS
from ssl_graph.graph import GraphBatch


class RemaskDecoder(nn.Module):
    """Linear map without bias, hidden codes to zero (or `token`), one message-passing layer."""

    def __init__(
        self, width: int, features: int, *, layer: str, edge_dim: int = 0, token: bool = False
    ) -> None:
        super().__init__()
        known = sorted(set(LAYERS) - {"mlp"})  # a hidden node's own code is zero
        if layer not in known:
            raise ValueError(f"decoder must be one of {known}, got {layer!r}")
        self.project = nn.Linear(width, width, bias=False)
        self.layer = LAYERS[layer](width, features, edge_dim)
        self.token = nn.Parameter(torch.zeros(width)) if token else None

    def forward(
        self, features: Features, mask: Mask, tokens: Tokens, *, remasked: Tensor | None = None
    ) -> Tensor:
        """Node features `[G, Nmax, F]` from codes `[G, Nmax, D]`.

        `remasked` (bool `[G, Nmax]`, default the hidden nodes) says whose codes are replaced.
        """
        assert features.tokens is not None
        graphs: GraphBatch = tokens.context
        codes = self.project(features.tokens)
        fill = torch.zeros_like(codes[0, 0]) if self.token is None else self.token.to(codes.dtype)
        where = mask.hidden if remasked is None else remasked
        codes = torch.where(where[..., None], fill, codes)
        return graphs.dense(self.layer(graphs.flat(codes), *edge_inputs(graphs)))[0]
