"""GraphMAE's decoder (Hou et al., KDD 2022): hidden nodes are rebuilt from their neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_graph.encoders.gnn import edge_inputs
from ssl_graph.encoders.layers import LAYERS
from ssl_graph.graph import GraphBatch


class RemaskDecoder(nn.Module):
    """Linear map without bias, hidden codes to zero, one message-passing layer."""

    def __init__(self, width: int, features: int, *, layer: str, edge_dim: int = 0) -> None:
        super().__init__()
        known = sorted(set(LAYERS) - {"mlp"})  # a hidden node's own code is zero
        if layer not in known:
            raise ValueError(f"decoder must be one of {known}, got {layer!r}")
        self.project = nn.Linear(width, width, bias=False)
        self.layer = LAYERS[layer](width, features, edge_dim)

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        """Node features `[G, Nmax, F]` from codes `[G, Nmax, D]`."""
        assert features.tokens is not None
        graphs: GraphBatch = tokens.context
        codes = self.project(features.tokens).masked_fill(mask.hidden[..., None], 0)
        return graphs.dense(self.layer(graphs.flat(codes), *edge_inputs(graphs)))[0]
