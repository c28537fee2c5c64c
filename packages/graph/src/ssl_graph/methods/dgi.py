"""Deep Graph Infomax (Velickovic et al., ICLR 2019): true nodes fit the summary, shuffled do not.

    L = BCE over 2N logits of h_i' W s (label 1) and h~_i' W s (label 0),  s = sigmoid(mean_i h_i)

h~ are nodes of the graph with its feature rows shuffled. On neighbourhoods of one big network the
nodes are the roots of the batch and s is their mean over all replicas (the paper's own way for
Reddit); in a collection every graph has its own summary. The release keeps the epoch of lowest
training loss; here the last step counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.objectives.discriminators import bce
from ssl_core.views import View, ViewPolicy
from ssl_graph.methods.scores import Bilinear, node_mean, nodes_of

Reps = tuple[Tensor, Tensor, Tensor]


class DGI(Method):
    """An encoder and a bilinear score; views are the graph and its corruption."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.score = Bilinear(width)
        self.rooted = False

    def encode(self, views: Sequence[View]) -> Reps:
        self.rooted = views[0].data.rooted
        true, false = self.features(views, joint=False)
        nodes, valid = nodes_of(true, self.rooted)
        return nodes, nodes_of(false, self.rooted)[0], valid

    def loss(self, reps: Reps) -> Loss:
        nodes, corrupted, valid = reps
        summary = node_mean(nodes, valid, rooted=self.rooted).sigmoid()
        loss = bce(
            self.score(nodes, summary),
            self.score(corrupted, summary),
            positive_weight=valid,
            negative_weight=valid,
        )
        return Loss.of({"dgi": loss})
