"""Maskers by name, for methods whose recipe says what is hidden."""

from __future__ import annotations

from typing import Literal

from ssl_core.networks.grid_masks import BlockMasker, SquareMasker, TubeMasker
from ssl_core.networks.masks import Masker, Mode, RandomMasker
from ssl_core.networks.span_masks import SpanMasker

MaskKind = Literal["random", "squares", "visible_squares", "rectangles", "spans", "tubes", "frames"]


def make_masker(
    kind: MaskKind, ratio: float, *, mode: Mode, block: int = 1, adjust: float = 0.0
) -> Masker:
    """A masker that hides a share `ratio` of the tokens.

    | kind | hides | `block` is |
    |---|---|---|
    | random | tokens one by one | the side of units hidden together |
    | squares, visible_squares | squares, or all but squares (data2vec 2.0) | their side |
    | rectangles | rectangles of many sizes (BEiT) | the least area |
    | spans | spans of one axis (wav2vec 2.0), replace mode | their length |
    | tubes | cells of the other axes at every index of the first (VideoMAE) | a unit's side |
    | frames | whole slices of the last axis (spectrogram frames) | how many together |

    `adjust` is that of squares.
    """
    if kind == "random":
        return RandomMasker(ratio, mode=mode, unit=block)
    if kind in ("squares", "visible_squares"):
        return SquareMasker(
            ratio, block, adjust=adjust, inverse=kind == "visible_squares", mode=mode
        )
    if kind == "rectangles":
        return BlockMasker(ratio, least=block, mode=mode)
    if kind == "spans":
        return SpanMasker(ratio, block, mode=mode)
    if kind == "tubes":
        return TubeMasker(RandomMasker(ratio, mode=mode, unit=block, count_rule="floor"))
    if kind == "frames":
        units = RandomMasker(ratio, mode=mode, unit=block)
        return TubeMasker(units, along=(0,))
    allowed = ", ".join(MaskKind.__args__)  # type: ignore[attr-defined]
    raise ValueError(f"mask must be one of {allowed}, got {kind!r}")
