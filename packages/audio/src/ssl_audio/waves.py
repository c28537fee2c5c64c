"""A batch of recordings of different lengths and rates, and cutting segments out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.decode import Wave
from ssl_audio.resampling import resample
from ssl_core.rng import Rng


@dataclass(frozen=True)
class Waves:
    """int16 `[B, T]` padded with zeros, true lengths and rates int64 `[B]`."""

    data: Tensor
    length: Tensor
    rate: Tensor

    @classmethod
    def of(cls, waves: Sequence[Wave]) -> Waves:
        """Decoded recordings side by side."""
        longest = max(len(wave.data) for wave in waves)
        data = torch.stack([F.pad(wave.data, (0, longest - len(wave.data))) for wave in waves])
        return cls(
            data,
            torch.tensor([len(wave.data) for wave in waves]),
            torch.tensor([wave.rate for wave in waves]),
        )

    def __len__(self) -> int:
        return self.length.shape[0]

    def to(self, device: torch.device | str) -> Waves:
        """The same on another device."""
        return Waves(self.data.to(device), self.length.to(device), self.rate.to(device))


@dataclass(frozen=True)
class Segment:
    """Where a view lies in its recording, as a share of the room there is: `[B]` in 0..1.

    A share rather than a sample number, so that a segment is the same whatever the rate. Of a
    recording shorter than the segment, the share says where in the segment it stands.
    """

    count: int
    """Samples of the segment at the target rate."""

    def sample(self, rng: Rng) -> Tensor:
        """Evenly distributed places."""
        return rng.uniform("segment")

    def apply(self, waves: Waves, place: Tensor, rate: int) -> Tensor:
        """float32 `[B, count]` in -1..1 at `rate`; zeros where there is no recording."""
        rates = waves.rate.tolist()
        if all(own == rate for own in rates):
            return _cut(waves, place, self.count)
        out = torch.empty(len(waves), self.count, device=waves.data.device)
        for own in sorted(set(rates)):
            rows = torch.tensor([i for i, other in enumerate(rates) if other == own])
            rows = rows.to(waves.data.device)
            group = Waves(waves.data[rows], waves.length[rows], waves.rate[rows])
            if own == rate:
                out[rows] = _cut(group, place[rows], self.count)
                continue
            # Whole periods of the ratio, one more than needed for the filter's edge.
            count = -(-self.count * own // rate) + 1
            part = resample(_cut(group, place[rows], count), own, rate)
            out[rows] = part[:, : self.count]
        return out


def _cut(waves: Waves, place: Tensor, count: int) -> Tensor:
    """`count` samples from `place` (share of the room) of every recording, float32 in -1..1."""
    room = waves.length - count  # negative where the recording is shorter
    start = (place * room).round().to(torch.int64)
    index = start[:, None] + torch.arange(count, device=start.device)  # [B, count]
    inside = (index >= 0) & (index < waves.length[:, None])
    picked = waves.data.gather(1, index.clamp(0, waves.data.shape[1] - 1))
    return picked.to(torch.float32).mul_(inside).mul_(1 / 32768)
