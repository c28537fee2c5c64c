"""One view of a batch of clips: frames chosen, then one image augmentation for all of them.

The parameters are drawn once a clip and repeated for its frames, so nothing moves but what moved in
the video; `ssl_core.ops` does the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.ops.pipeline import Augmentation, ViewParams
from ssl_core.ops.pixels import Interpolation, Ragged
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_video.clips import clip_sizes, clips_from, frames_of
from ssl_video.views.temporal import difference

_GROUP_NUMBERS = 600_000
"""Numbers of a group of clips on the CPU: sixteen RGB frames at 112, twenty such clips at 24."""


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
        clips = difference(self._pixels(batch.data, index, each), order)
        params = {**drawn.provenance(), "frames": index}
        return View(clips, rng, role=self.spatial.role, params=params)

    def _pixels(self, data: Tensor | Ragged, index: Tensor, each: ViewParams) -> Tensor:
        """The augmented clips, float32 `[B, C, t, s, s]`; `each` holds one row a frame."""
        frames, size, resample = index.shape[1], self.spatial.size, self.spatial.interpolation
        if data[0].device.type != "cpu":
            return clips_from(self.spatial.apply(frames_of(data, index), each), frames)
        # On the CPU a clip is cropped at once, by one call of torch's kernel for all its frames.
        # Colours go group by group in one place that stays in the cache, and only the finished
        # clip is written to fresh memory, in the layout that convolutions take.
        channels = data[0].shape[-1]
        colour = self.spatial.colouring(each)
        boxes, flips = each.boxes[::frames].tolist(), each.flip[::frames].tolist()
        numbers: list[list[int]] = index.tolist()
        order = [row // frames for row in colour.order if row % frames == 0]
        length = max(1, _GROUP_NUMBERS // (frames * channels * size**2))
        work = torch.empty(min(length, len(order)), frames, channels, size, size)
        place = torch.empty(max(clip[0].numel() for clip in data) * frames, dtype=data[0].dtype)
        out = torch.empty(len(order), channels, frames, size, size)
        for start in range(0, len(order), length):
            rows = order[start : start + length]
            for row, pixels in zip(rows, work, strict=False):
                clip = cropped(data[row], numbers[row], boxes[row], size, resample, place)
                pixels.copy_(clip.flip(-1) if flips[row] else clip)
            which = [row * frames + n for row in rows for n in range(frames)]
            made = colour(work[: len(rows)].flatten(0, 1).mul_(1 / 255), which)
            for clip, row in zip(made.unflatten(0, (-1, frames)), rows, strict=True):
                out[row] = clip.transpose(0, 1)
        return out


def cropped(
    clip: Tensor,
    numbers: list[int],
    box: list[int],
    size: int,
    interpolation: Interpolation,
    place: Tensor,
) -> Tensor:
    """Frames `numbers` of a clip uint8 `[T, H, W, C]`, cut to a box and resized: `[t, C, s, s]`.

    `place` is memory for the box of all frames, flat and of the clip's type: torch's kernel wants
    it in one piece, and one place reused for every clip is mapped into memory once.
    """
    top, left, height, width = box
    cut = clip[:, top : top + height, left : left + width]
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    even = step > 0 and all(b - a == step for a, b in pairwise(numbers))
    # Evenly spaced frames are not copied twice.
    taken = cut[numbers[0] : numbers[-1] + 1 : step] if even else cut[numbers]
    if (height, width) == (size, size):
        return taken.permute(0, 3, 1, 2)
    together = place[: taken.numel()].view(taken.shape).copy_(taken).permute(0, 3, 1, 2)
    return F.interpolate(together, size=(size, size), mode=interpolation, antialias=True)


def _shallow(params: Any) -> dict[str, Any]:
    return {f.name: getattr(params, f.name) for f in fields(params)}


def _repeated(params: Any, times: int) -> Any:
    """Every tensor of the parameters, each row `times` times in place."""
    if isinstance(params, Tensor):
        return params.repeat_interleave(times, dim=0)
    assert is_dataclass(params), f"parameters are tensors or dataclasses, not {type(params)}"
    content = {name: _repeated(value, times) for name, value in _shallow(params).items()}
    return type(params)(**content)  # type: ignore[operator]
