"""TERA's alterations of spectrograms along time, frequency and magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.networks.grid_masks import spread
from ssl_core.rng import Rng

ZERO, SWAP, KEEP = 0, 1, 2


@dataclass(frozen=True)
class Altered:
    """What is altered: frames `[B, T]` and what happens to them `[B]`, bands `[B, F]`, noise.

    `source` (`[B, T]`) is the frame that replaces each one under `SWAP`; `noise` `[B, F, T]` is 0
    where the magnitude is left alone.
    """

    frames: Tensor
    action: Tensor
    source: Tensor
    bands: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Alteration:
    """Each axis is a switch: a share or probability of 0 leaves it out.

    `time` of the frames in spans of `span` are zeroed (in 80 % of recordings), replaced by other
    frames (10 %) or kept (10 %); a band of up to `frequency` of the bins is zeroed; with
    probability `magnitude` normal noise of deviation `noise` is added everywhere.
    """

    time: float = 0.15
    span: int = 7
    frequency: float = 0.2
    magnitude: float = 0.15
    noise: float = 0.2

    def sample(self, rng: Rng, bands: int, frames: int) -> Altered:
        """For spectrograms of `bands` x `frames`."""
        device = rng.device
        span = min(self.span, frames)
        count = round(self.time * frames / span) if self.time else 0
        starts = torch.zeros(len(rng), frames, dtype=torch.bool, device=device)
        if count:
            # Every frame may be altered; the released code never reaches the last one.
            places = rng.integers("tera starts", count, high=frames - span + 1)
            starts = starts.scatter(1, places, True)
        die = rng.uniform("tera die")
        shift = rng.integers("tera source", high=max(1, frames - 2 * span)) + span
        index = torch.arange(frames, device=device)
        width = rng.integers("tera width", high=int(self.frequency * bands) + 1)
        low = rng.integers("tera low", high=bands - width + 1)
        bins = torch.arange(bands, device=device)
        used = rng.bernoulli("tera magnitude", p=self.magnitude)
        noise = torch.zeros(len(rng), bands, frames, device=device)
        if self.magnitude:
            noise = rng.normal("tera noise", bands, frames) * (self.noise * used[:, None, None])
        return Altered(
            spread(starts, 1, before=0, after=span - 1) if count else starts,
            (die >= 0.8).long() + (die >= 0.9).long(),
            (index + shift[:, None]) % frames,
            (bins >= low[:, None]) & (bins < (low + width)[:, None]),
            noise,
        )

    def apply(self, x: Tensor, altered: Altered) -> tuple[Tensor, Tensor]:
        """(altered spectrogram, which cells are scored), both `[B, F, T]`.

        Kept frames are scored too. Where noise is the only alteration, everything is scored.
        """
        action = altered.action[:, None, None]
        frames = altered.frames[:, None, :]
        moved = x.gather(2, altered.source[:, None, :].expand_as(x))
        out = torch.where(frames & (action == ZERO), 0.0, x)
        out = torch.where(frames & (action == SWAP), moved, out)
        out = out.masked_fill(altered.bands[:, :, None], 0.0) + altered.noise
        scored = (frames | altered.bands[:, :, None]).expand_as(x)
        nothing = ~scored.flatten(1).any(1) & altered.noise.flatten(1).any(1)
        return out, scored | nothing[:, None, None]
