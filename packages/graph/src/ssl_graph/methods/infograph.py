"""InfoGraph (Sun et al., ICLR 2020): nodes agree with their own graph and with no other.

    L = E_neg - E_pos,  E_pos = mean(log 2 - softplus(-s)) over (node, own graph),
                        E_neg = mean(softplus(s) - log 2) over (node, other graph)

s is the dot product of a local and a global network's outputs. The optional prior matching of the
release (weight 0.1, off by default there) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.views import View, ViewPolicy
from ssl_graph.methods.scores import ResidualMLP, local_global

Reps = tuple[Tensor, Tensor, Tensor]


class InfoGraph(Method):
    """An encoder whose nodes and pooled vectors meet in two small networks; one view."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, dim: int | None = None) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.local_network = ResidualMLP(width, width if dim is None else dim)
        self.global_network = ResidualMLP(width, width if dim is None else dim)

    def encode(self, views: Sequence[View]) -> Reps:
        (features,) = self.features(views[:1])
        assert features.tokens is not None
        assert features.valid is not None
        nodes = self.local_network(features.tokens)
        return nodes, features.valid, self.global_network(features.pooled)

    def loss(self, reps: Reps) -> Loss:
        return Loss.of({"infograph": local_global(*reps)})
