"""What every encoder takes and returns, so that methods know no architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ssl_core.networks.masks import Mask


@dataclass
class Features:
    """An encoder's output.

    `pooled` is `[B, D]`; `tokens`, where the architecture has them, `[B, N, D]` on `grid` (the
    axis lengths whose product is N, or () for sets). In drop mode N counts the kept tokens, in
    the order of `Mask.ids_keep`. `valid` (bool `[B, N]`) marks real tokens of padded inputs.
    `prefix` (`[B, R, D]`) holds class and register tokens, for decoders that attend to them.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    grid: tuple[int, ...] = ()
    valid: Tensor | None = None
    prefix: Tensor | None = None


@dataclass
class Tokens:
    """An input cut into units, before any learned layer touches it.

    `values` is the content: patch pixels `[B, N, P]`, token ids `[B, N]`, node features
    `[B, N, F]`. Embedding happens in `encode`, so that hidden tokens are never embedded in drop
    mode and a corruption can act on content. `coords` (`[B, N, axes]` or None) places tokens;
    `valid` (bool `[B, N]`) is False on padding; `maskable` (bool `[B, N]`) is False on special
    tokens that no masker may hide (None: all valid ones may be hidden); `context` carries what
    else the encoder needs (edges, attention masks).
    """

    values: Tensor
    grid: tuple[int, ...] = ()
    coords: Tensor | None = None
    valid: Tensor | None = None
    maskable: Tensor | None = None
    context: Any = None

    def repeated(self, times: int) -> Tokens:
        """Every sample `times` times, its copies one after another."""
        if self.context is not None:
            raise ValueError("tokens with a context of their own (edges) cannot be repeated")

        def rows(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.repeat_interleave(times, dim=0)

        values = self.values.repeat_interleave(times, dim=0)
        return Tokens(values, self.grid, rows(self.coords), rows(self.valid), rows(self.maskable))


@runtime_checkable
class Encoder(Protocol):
    """`forward(data) -> Features`; `embed_dim` is the width of `pooled`, and of `tokens` too where
    the encoder has no `token_width` of its own."""

    embed_dim: int

    def __call__(self, data: Any) -> Features: ...


@runtime_checkable
class TokenEncoder(Encoder, Protocol):
    """An encoder whose work splits at the tokens, which is what masked methods need."""

    token_dim: int
    """Numbers a token holds (patch pixels x channels, node features; 1 for ids)."""

    def tokenize(self, data: Any) -> Tokens:
        """Cuts the input; holds no parameters."""

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """Embeds and encodes; `mask.mode` says whether hidden tokens are dropped or replaced."""


def token_width(encoder: Any) -> int:
    """The width of an encoder's tokens; only some that pool by rows have another for `pooled`."""
    return int(getattr(encoder, "token_width", encoder.embed_dim))
