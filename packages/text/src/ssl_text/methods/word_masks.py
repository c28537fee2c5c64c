"""Masks of whole words and of spans of words, as BERT and SpanBERT choose them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.networks.masks import Mask
from ssl_core.rng import Rng

SPECIALS = 2
"""[CLS] and [SEP], which count towards the budget though they are never chosen."""


@dataclass
class UnitMask(Mask):
    """A mask whose hidden tokens share a fate by unit: `unit` int64 `[B, L]` numbers them."""

    unit: Tensor | None = None


def word_numbers(starts: Tensor, maskable: Tensor) -> Tensor:
    """The word of each token, from 0, int64 `[B, L]`; -1 where nothing may be hidden."""
    first = starts.clone()
    # What follows a special piece begins a word, whatever the tokenizer says.
    first[:, 1:] |= ~maskable[:, :-1]
    number = (first & maskable).cumsum(1) - 1
    return torch.where(maskable, number.clamp(min=0), -1)


def budget_of(maskable: Tensor, ratio: float, most: int | None) -> Tensor:
    """round(ratio x length with specials), at least 1, int64 `[B]`."""
    wanted = ((maskable.sum(1) + SPECIALS) * ratio).round().clamp(min=1, max=most)
    return wanted.to(torch.int64)


@dataclass(frozen=True)
class WholeWords:
    """BERT's whole-word masking: words in random order, those that would exceed the budget skipped.

    Where the first word alone exceeds it, that word is hidden all the same, so that no document
    goes unasked.
    """

    ratio: float = 0.15
    most: int | None = None

    def choose(self, rng: Rng, words: Tensor) -> tuple[Tensor, Tensor]:
        """`hidden` bool and `unit` int64, both `[B, L]`: a token's own place is its unit."""
        maskable = words >= 0
        budget = budget_of(maskable, self.ratio, self.most)
        rows, length = words.shape
        sizes = torch.zeros(rows, length, dtype=torch.int64, device=words.device)
        sizes.scatter_add_(1, words.clamp(min=0), maskable.long())
        noise = rng.uniform("words", length).masked_fill(sizes == 0, 2.0)
        order = noise.argsort(dim=1, stable=True)
        ranked = sizes.gather(1, order)
        total = torch.zeros_like(budget)
        taken = torch.zeros_like(ranked, dtype=torch.bool)
        for place in range(length):
            size = ranked[:, place]
            fits = (size > 0) & ((total + size <= budget) | (place == 0))
            taken[:, place] = fits
            total = total + size * fits
        chosen = torch.zeros_like(taken).scatter(1, order, taken)
        hidden = chosen.gather(1, words.clamp(min=0)) & maskable
        return hidden, torch.arange(length, device=words.device).expand_as(words)


@dataclass(frozen=True)
class WordSpans:
    """SpanBERT's masks (Joshi et al. 2020): runs of whole words until the budget is spent.

    Lengths in words are geometric with `p` up to `longest`, renormalised (mean 3.8); starts are
    uniform words. A run that meets an earlier one, or would exceed the budget, is drawn again, up
    to `tries` times; where none fits, one word is hidden. The tokens of a run share a fate.
    """

    ratio: float = 0.15
    most: int | None = None
    p: float = 0.2
    longest: int = 10
    tries: int = 64

    def choose(self, rng: Rng, words: Tensor) -> tuple[Tensor, Tensor]:
        """`hidden` bool and `unit` int64, both `[B, L]`: the place where the run begins."""
        maskable = words >= 0
        budget = budget_of(maskable, self.ratio, self.most)
        count = words.amax(1) + 1
        lengths = self.lengths(rng.uniform("span length", self.tries, dtype=torch.float64))
        starts = rng.integers("span start", self.tries, high=count.clamp(min=1)[:, None])
        unit = torch.full_like(words, -1)
        total = torch.zeros_like(budget)
        for number in range(self.tries):
            start, stop = starts[:, number], starts[:, number] + lengths[:, number]
            run = (words >= start[:, None]) & (words < stop[:, None])
            size = run.sum(1)
            fits = (stop <= count) & (total + size <= budget) & ~(run & (unit >= 0)).any(1)
            first = run.to(torch.int8).argmax(1, keepdim=True)
            unit = torch.where(run & fits[:, None], first, unit)
            total = total + size * fits
        alone = (total == 0)[:, None] & (words == starts[:, :1]) & maskable
        unit = torch.where(alone, alone.to(torch.int8).argmax(1, keepdim=True), unit)
        return unit >= 0, unit.clamp(min=0)

    def lengths(self, uniform: Tensor) -> Tensor:
        """Truncated geometric lengths by inversion, int64 from 1 to `longest`."""
        k = torch.arange(1, self.longest + 1, dtype=torch.float64, device=uniform.device)
        mass = self.p * (1 - self.p) ** (k - 1)
        return (
            torch.searchsorted((mass / mass.sum()).cumsum(0), uniform).clamp(max=self.longest - 1)
            + 1
        )
