"""GraphMAE (Hou et al., KDD 2022): hide node features, predict them through a GNN decoder.

    L = mean over hidden nodes of (1 - cos(x_v, g(f(A, x~), A)_v))^alpha

Hidden nodes show a learned vector, a share of them another node's features; their codes are set
to zero before the decoder ("re-masking"), which must then rebuild them from their neighbours.
The released code treats a batch as one graph: it hides a share of all its nodes and takes
replacements from anywhere in it. Here both happen within each graph, so that a sample does not
depend on its batch, and a hidden node is replaced with a probability, not as one of a fixed
count, which would round to none in small graphs.
"""

from __future__ import annotations

from dataclasses import replace as copy_with
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.masked import MaskedModel, Prediction, token_widths
from ssl_core.networks.masks import Mask, RandomMasker, rows_at
from ssl_core.objectives import scaled_cosine
from ssl_core.rng import Rng
from ssl_core.views import ViewPolicy
from ssl_graph.encoders.decoder import RemaskDecoder


class GraphMAE(MaskedModel):
    """A graph encoder in replace mode and a one-layer GNN decoder.

    `mask_ratio` is the share of nodes hidden in each graph (at least one); `replace` the
    probability that a hidden node shows another node's features; `alpha` >= 1 sharpens the error.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.5,
        replace: float = 0.1,
        alpha: float = 3.0,
        decoder: Literal["gin", "gcn", "sage", "gat"] = "gin",
    ) -> None:
        if not 0 <= replace < 1:
            raise ValueError(f"replace must lie in [0, 1), got {replace}")
        if alpha < 1:
            raise ValueError(f"alpha must be at least 1, got {alpha}")
        width, features = token_widths(encoder)
        super().__init__(
            encoder,
            views,
            masker=RandomMasker(mask_ratio, mode="replace"),
            decoder=RemaskDecoder(width, features, layer=decoder, edge_dim=_edge_dim(encoder)),
            target=_content,
            reconstruction=partial(_error, alpha=alpha),
            corrupt=partial(swap_some, share=replace) if replace else None,
        )

    def content(self, rep: Prediction, tokens: Tokens) -> Tensor:
        """Only directions are learned; no feature of a drawn node is negative."""
        return rep.predicted.clamp(min=0)


def swap_some(tokens: Tokens, mask: Mask, rng: Rng, *, share: float) -> Tokens:
    """Gives each hidden node, with probability `share`, the features of a node of its graph.

    Sets `mask.replaced` to the hidden nodes that still show the mask vector. The source node is
    any node of the graph, hidden ones and itself included, as in the released code.
    """
    assert tokens.valid is not None
    count = tokens.values.shape[1]
    swapped = mask.hidden & rng.bernoulli("swap", count, p=share)
    sizes = tokens.valid.sum(1)
    source = rng.integers("swap source", count, high=sizes[:, None])
    mask.replaced = mask.hidden & ~swapped
    return copy_with(tokens, values=with_rows_of(tokens.values, swapped, source))


def with_rows_of(values: Tensor, where: Tensor, source: Tensor) -> Tensor:
    """`values` `[G, N, F]` with row i replaced by row `source[i]` where `where` is True."""
    others = rows_at(values, source)
    return torch.where(where[..., None], others, values)


def _content(tokens: Tokens, mask: Mask) -> Tensor:
    return tokens.values


def _error(predicted: Tensor, target: Tensor, mask: Mask, *, alpha: float) -> Tensor:
    return scaled_cosine(predicted, target, alpha=alpha, weight=mask.hidden)


def _edge_dim(encoder: nn.Module) -> int:
    return int(getattr(encoder, "edge_dim", 0))
