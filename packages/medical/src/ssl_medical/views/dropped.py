"""Views with blocks of voxels dropped out: what an inpainting network fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_medical.views import paint
from ssl_medical.views.policies import Range, Spec, VolumePolicy, frame, placement
from ssl_medical.views.space import RandomPlacement


@dataclass(frozen=True)
class Dropped(VolumePolicy):
    """One crop with holes filled with the data's mean.

    `params` hold `target`, the crop before, and `hidden`, where holes are (bool `[B, 1, *sides]`).
    """

    place: RandomPlacement = RandomPlacement()  # noqa: RUF009  frozen
    share: float = 0.3
    block: tuple[float, float] = (0.05, 0.25)

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        rng, own = rng.fold("view", 0), self.frame
        place = self.place.sample(rng, own.block, own.sides, own.spec["spacing"])
        x = own.normalised(own.seen(batch.data, place))
        hidden = paint.cut_out(rng, own.sides, share=self.share, block=self.block)
        params = {**place.told(batch.data, own.spec["spacing"]), "target": x, "hidden": hidden}
        return [View(torch.where(hidden, 0.0, x), rng, params=params)]


def dropped(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    scale: Range = (0.6, 1.0),
    angle: float = 0.0,
    flip: float | Sequence[float] = 0.0,
    turns: float = 0.0,
    share: float = 0.3,
    block: Range = (0.05, 0.25),
) -> Dropped:
    """Drop-out for an inpainting U-Net: boxes of `block` of each side, up to `share` in all."""
    if len(block) != 2 or not 0 < block[0] <= block[1] <= 1 or not 0 < share < 1:
        raise ValueError(
            f"need 0 < share < 1 and an increasing pair block in (0, 1], got {share} and {block!r}"
        )
    low, high = float(block[0]), float(block[1])
    where = placement(scale, angle, flip, turns)
    return Dropped(frame(spec, size), (), None, where, share, (low, high))
