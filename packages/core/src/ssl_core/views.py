"""Views: what a method looks at, with how each was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ssl_core.batch import Batch
from ssl_core.rng import Rng


@dataclass(frozen=True)
class View:
    """One view of every sample of a batch.

    `data` is what encoders take (`[B, C, H, W]` images, a graph batch, token ids). `rng` is the
    view's own key per sample: masks and dropout inside a method draw from it. `role` tells
    multi-crop methods "global" from "local". `params` is the provenance: crop boxes, angles, kept
    ids, edit distances, each with leading dimension B.
    """

    data: Any
    rng: Rng
    role: str = "global"
    owner: tuple[str, ...] = ()
    """Which members of joint methods the view is for, outermost first."""
    params: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rng)


class ViewPolicy(Protocol):
    """Makes views on the batch's device; a pure function of the batch and the keys.

    A policy may also have `plains(batch) -> Sequence`: several deterministic views of each sample
    (clips of a video, crops of a recording), whose features evaluation averages.
    """

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        """The random views of one training step."""

    def plain(self, batch: Batch) -> Any:
        """The data of one deterministic view (resize, normalise): what evaluation embeds."""
