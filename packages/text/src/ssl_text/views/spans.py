"""Random operations on documents of token ids, keyed by document and position.

Each has `sample(rng, data) -> params` and `apply(data, params) -> TokenBatch`. The first and last
token of a document ([CLS], [SEP]) always stay; whatever the padding of a batch, a document gets
the same draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.rng import Rng
from ssl_text.tokens import TokenBatch


@dataclass(frozen=True)
class SpanCrop:
    """A random run of tokens: length uniform in `share` of the document, then place uniform.

    Documents are not cut below `least` tokens (shorter ones are kept whole).
    """

    share: tuple[float, float] = (0.3, 0.8)
    least: int = 4

    def __post_init__(self) -> None:
        low, high = self.share
        if not 0 < low <= high <= 1 or self.least < 1:
            raise ValueError(f"crop must be two shares 0 < low <= high <= 1, got {self.share}")

    def sample(self, rng: Rng, data: TokenBatch) -> dict[str, Tensor]:
        """`crop_start` and `crop_length` int64 `[B]`, counted in tokens after [CLS]."""
        inner = data.lengths - 2
        share = rng.uniform("crop share", low=self.share[0], high=self.share[1])
        length = (inner * share).round().to(torch.int64)
        length = torch.minimum(length.clamp(min=self.least), inner)
        start = rng.integers("crop start", high=inner - length + 1)
        return {"crop_start": start, "crop_length": length}

    def apply(self, data: TokenBatch, params: dict[str, Tensor]) -> TokenBatch:
        """The span between its document's [CLS] and [SEP], padded to the longest possible."""
        place = torch.arange(data.ids.shape[1] - 2, device=data.ids.device)
        start = params["crop_start"].unsqueeze(1)
        inside = (place >= start) & (place < start + params["crop_length"].unsqueeze(1))
        widest = max(self.least, round(self.share[1] * len(place) + 0.5))
        return _compact(data, inside, width=min(widest, len(place)))


@dataclass(frozen=True)
class TokenDeletion:
    """Drops every token with probability `p` (Wei & Zou 2019); one that stays is certain."""

    p: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"delete must lie in [0, 1), got {self.p}")

    def sample(self, rng: Rng, data: TokenBatch) -> dict[str, Tensor]:
        """`kept`, bool `[B, L]`: which tokens stay."""
        noise = rng.uniform("delete", data.ids.shape[1] - 2)
        own = data.valid[:, 2:]  # [B, L - 2], as many as there are tokens between the specials
        luckiest = noise.masked_fill(~own, -1.0).argmax(1, keepdim=True)
        kept = (noise >= self.p).scatter(1, luckiest, True) & own
        return {"kept": torch.nn.functional.pad(kept, (1, 1), value=False)}

    def apply(self, data: TokenBatch, params: dict[str, Tensor]) -> TokenBatch:
        """What was kept, moved together."""
        return _compact(data, params["kept"][:, 1:-1], width=data.ids.shape[1] - 2)


def _compact(data: TokenBatch, kept: Tensor, *, width: int) -> TokenBatch:
    """[CLS], the kept tokens in order, [SEP], padding.

    `kept` is bool `[B, L - 2]` over the tokens after [CLS]; at most `width` are kept in any row.
    """
    kept = kept & data.valid[:, 2:]
    order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    inner = data.ids[:, 1:-1].gather(1, order)  # [B, width]
    count = kept.sum(1, keepdim=True)
    place = torch.arange(width + 2, device=data.ids.device)
    last = data.ids.gather(1, data.lengths.unsqueeze(1) - 1)  # each document's [SEP]
    ids = torch.cat([data.ids[:, :1], inner, inner[:, :1]], dim=1)  # the last column is overwritten
    ids = torch.where(place == count + 1, last, ids)
    valid = place < count + 2
    return TokenBatch(ids.masked_fill(~valid, data.pad_id), valid, data.pad_id)
