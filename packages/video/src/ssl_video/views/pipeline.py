"""One view of a batch of clips: frames chosen, then one image augmentation for all of them.

The parameters are drawn once a clip and repeated for its frames, so nothing moves but what moved in
the video; `ssl_core.ops` does the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.ops.pipeline import Augmentation
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_video.clips import clip_sizes, clips_from, frames_of
from ssl_video.views.temporal import difference


@dataclass(frozen=True)
class ClipAugmentation:
    """Crop, flip, jitter, grey, blur, solarise of clips, the same for every frame of a clip.

    With `per_frame_colour` the colour operations are drawn for every frame alone (Pace: colour must
    not tell neighbouring frames); the crop stays one a clip.
    """

    spatial: Augmentation
    per_frame_colour: bool = False

    def __call__(self, batch: Batch, index: Tensor, rng: Rng, *, order: int = 0) -> View:
        """Frames `index` (int64 `[B, t]`) of each clip, as a view `[B, C, t - order, s, s]`.

        `rng` keys the spatial draws and the view; `order` takes temporal differences at the end.
        """
        frames = index.shape[1]
        sizes = clip_sizes(batch.data)
        drawn = self.spatial.sample(rng, sizes)
        each = _repeated(drawn, frames)
        if self.per_frame_colour:
            place = torch.arange(frames, device=rng.device).repeat(len(rng))
            own = Rng(rng.key.repeat_interleave(frames)).fold("frame", place)
            other = self.spatial.sample(own, sizes.repeat_interleave(frames, 0))
            each = type(each)(**{**_shallow(other), "boxes": each.boxes, "flip": each.flip})
        images = self.spatial.apply(frames_of(batch.data, index), each)
        clips = difference(clips_from(images, frames), order)
        params = {**drawn.provenance(), "frames": index}
        return View(clips, rng, role=self.spatial.role, params=params)


def _shallow(params: Any) -> dict[str, Any]:
    return {f.name: getattr(params, f.name) for f in fields(params)}


def _repeated(params: Any, times: int) -> Any:
    """Every tensor of the parameters, each row `times` times in place."""
    if isinstance(params, Tensor):
        return params.repeat_interleave(times, dim=0)
    assert is_dataclass(params), f"parameters are tensors or dataclasses, not {type(params)}"
    content = {name: _repeated(value, times) for name, value in _shallow(params).items()}
    return type(params)(**content)  # type: ignore[operator]
