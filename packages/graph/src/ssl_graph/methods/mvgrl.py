"""MVGRL (Hassani & Khasahmadi, ICML 2020): nodes of one view against the summary of the other.

Two encoders see the graph and its diffusion. On nodes of one network (as DGI):

    L = BCE of (h2, s1), (h1, s2) with label 1 and (h2~, s1), (h1~, s2) with label 0

s are sigmoids of the views' mean node, h~ come from shuffled features. In a collection of graphs
(as InfoGraph) nodes of one view are told from other graphs' vectors of the other view, and no
corruption is needed. People use h1 + h2. The release draws four blocks of 2000 neighbouring
nodes a step; here every node comes with its own neighbourhood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.methods.base import Loss, Method
from ssl_core.objectives.discriminators import bce
from ssl_core.views import View, ViewPolicy
from ssl_graph.encoders.fresh import fresh_copy
from ssl_graph.graph import GraphBatch
from ssl_graph.methods.scores import Bilinear, ResidualMLP, local_global, node_mean, nodes_of
from ssl_graph.views.diffusion import diffused

Reps = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class TwoViewEncoder(nn.Module):
    """The sum of an encoder of the graph and another of its diffusion."""

    def __init__(self, plain: nn.Module, spread: nn.Module, diffusion: Mapping[str, Any]) -> None:
        super().__init__()
        self.plain, self.spread = plain, spread
        self.diffusion = dict(diffusion)
        self.embed_dim = plain.embed_dim

    def forward(self, data: GraphBatch) -> Features:
        one, two = self.plain(data), self.spread(diffused(data, **self.diffusion))
        return Features(one.pooled + two.pooled, one.tokens + two.tokens, valid=one.valid)


class MVGRL(Method):
    """Two GCN encoders; the `mvgrl` views."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy) -> None:
        super().__init__(encoder, views)
        if getattr(views, "diffusion", None) is None:
            raise ValueError("needs the views 'mvgrl', which hold a diffusion")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.spread_encoder = fresh_copy(encoder)
        self.score = Bilinear(width)
        self.local_network = ResidualMLP(width, width)
        self.global_network = ResidualMLP(width, width)
        diffusion: Mapping[str, Any] = views.diffusion  # type: ignore[attr-defined]
        self.both = TwoViewEncoder(encoder, self.spread_encoder, diffusion)
        self.rooted = True

    @property
    def backbone(self) -> nn.Module:
        return self.both

    def encode(self, views: Sequence[View]) -> Reps:
        self.rooted = views[0].data.rooted
        plain = self.features(views[:2], joint=False)
        spread = self.features(views[2:], self.spread_encoder, joint=False)
        h1, valid = nodes_of(plain[0], self.rooted)
        h2, c1, c2 = (nodes_of(f, self.rooted)[0] for f in (spread[0], plain[1], spread[1]))
        return h1, h2, c1, c2, valid, plain[0].pooled, spread[0].pooled

    def loss(self, reps: Reps) -> Loss:
        h1, h2, c1, c2, valid, g1, g2 = reps
        # The unused head still takes part: every replica reduces the same parameters.
        idle = 0 * sum(p.sum() for p in self._idle().parameters())
        if self.rooted:
            s1, s2 = (node_mean(h, valid, rooted=True).sigmoid() for h in (h1, h2))
            true = bce(self.score(h2, s1), self.score(c2, s1))
            other = bce(self.score(h1, s2), self.score(c1, s2))
            return Loss.of({"mvgrl": (true + other) / 2 + idle})
        n1, n2 = self.local_network(h1), self.local_network(h2)
        first = local_global(n1, valid, self.global_network(g2))
        second = local_global(n2, valid, self.global_network(g1))
        return Loss.of({"mvgrl": first + second + idle})

    def _idle(self) -> nn.Module:
        if self.rooted:
            return nn.ModuleList([self.local_network, self.global_network])
        return self.score
