"""Attribute masking (Hu et al., ICLR 2020): name the category of hidden nodes.

    L = cross-entropy of each hidden node's category, mean over hidden nodes

int(share n + 1) nodes of a graph of n are hidden, so at least one. With several categorical
columns the cross-entropies add up. The release can also hide and predict bond types (off by
default there, and left out here); its 119th atom type is a learned mask vector here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.methods.masked import MaskedModel, Prediction, token_widths
from ssl_core.networks.masks import Mask
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.rng import Rng
from ssl_core.views import ViewPolicy


class AttributeMasking(MaskedModel):
    """A graph encoder in replace mode and one linear layer; needs categorical node features."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, share: float = 0.15) -> None:
        width, _ = token_widths(encoder)
        columns = [tuple(c) for c in getattr(encoder, "categories", [])]
        if not columns:
            raise ValueError(
                "predicts categories, and the nodes of this data have none; use graphmae, or set "
                "data.options.features to 'degree'"
            )
        self.columns = columns
        super().__init__(
            encoder,
            views,
            masker=CountMasker(share),
            decoder=_Head(width, sum(stop - start for start, stop in columns)),
            target=self._categories,
            reconstruction=self._error,
        )

    def _categories(self, tokens: Tokens, mask: Mask) -> Tensor:
        """The place of the one in each one-hot block, int64 `[G, N, C]`; -1 where there is none."""
        found = []
        for start, stop in self.columns:
            block = tokens.values[..., start:stop]
            found.append(torch.where(block.amax(-1) > 0, block.argmax(-1), -1))
        return torch.stack(found, dim=-1)

    def content(self, rep: Prediction, tokens: Tokens) -> Tensor:
        """The likeliest category of each column, features that are no categories left at 0."""
        values = torch.zeros_like(tokens.values)
        sizes = [stop - start for start, stop in self.columns]
        logits = rep.predicted.split(sizes, dim=-1)
        for (start, stop), part in zip(self.columns, logits, strict=True):
            ones = F.one_hot(part.argmax(-1), stop - start)
            values[..., start:stop] = ones.to(values.dtype)
        return values

    def _error(self, predicted: Tensor, target: Tensor, mask: Mask) -> Tensor:
        sizes = [stop - start for start, stop in self.columns]
        return category_error(predicted, target, mask.hidden, sizes)


@full_precision
def category_error(logits: Tensor, target: Tensor, hidden: Tensor, sizes: list[int]) -> Tensor:
    """Sum over columns of the cross-entropy at hidden nodes; `target` -1 is left out.

    `logits` is `[G, N, sum(sizes)]`, `target` int64 `[G, N, C]`. Uniform logits cost
    sum(log size).
    """
    total = logits.new_zeros(())
    for column, part in enumerate(logits.split(sizes, dim=-1)):
        wanted = target[..., column]
        losses = F.cross_entropy(part.movedim(-1, 1), wanted, ignore_index=-1, reduction="none")
        total = total + masked_mean(losses, hidden & (wanted >= 0))
    return total


class CountMasker:
    """Hides int(share n + 1) of a graph's n nodes."""

    mode = "replace"

    def __init__(self, share: float) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"share must lie in [0, 1), got {share}")
        self.share = share

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        if maskable is None:
            maskable = torch.ones(len(rng), count, dtype=torch.bool, device=rng.device)
        drawn = rng.uniform("attribute mask", count).masked_fill(~maskable, 2.0)
        place = drawn.argsort(dim=1, stable=True).argsort(dim=1)
        sizes = maskable.sum(1).double()
        # The small addend: 0.15 * 20 must count as 3.
        wanted = (sizes * self.share + 1 + 1e-6).floor().minimum(sizes)
        return Mask((place < wanted[:, None]) & maskable, "replace", grid)


class _Head(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        assert features.tokens is not None
        out: Tensor = self.linear(features.tokens)
        return out
