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
        clips = difference(clips_from(self._pixels(batch.data, index, each), frames), order)
        params = {**drawn.provenance(), "frames": index}
        return View(clips, rng, role=self.spatial.role, params=params)

    def _pixels(self, data: Tensor | Ragged, index: Tensor, each: ViewParams) -> Tensor:
        """The augmented frames, float32 `[B t, C, s, s]`; `each` holds one row a frame."""
        if data[0].device.type != "cpu":
            return self.spatial.apply(frames_of(data, index), each)
        # On the CPU a clip is cropped at once: one call of torch's kernel for all its frames.
        frames, size = index.shape[1], self.spatial.size
        out = torch.empty(index.numel(), data[0].shape[-1], size, size)
        codes: list[int] = each.jitter.codes().tolist()
        boxes, flips = each.boxes[::frames].tolist(), each.flip[::frames].tolist()
        for row, numbers in enumerate(index.tolist()):
            here = slice(row * frames, (row + 1) * frames)
            clip = cropped(data[row], numbers, boxes[row], size, self.spatial.interpolation)
            pixels = out[here].copy_(clip.flip(-1) if flips[row] else clip).mul_(1 / 255)
            rows = torch.arange(here.start, here.stop)
            out[here] = self.spatial.coloured(pixels, each, rows, codes[here])
        return out


def cropped(
    clip: Tensor, numbers: list[int], box: list[int], size: int, interpolation: Interpolation
) -> Tensor:
    """Frames `numbers` of a clip uint8 `[T, H, W, C]`, cut to a box and resized: `[t, C, s, s]`.

    Evenly spaced frames are not copied first.
    """
    top, left, height, width = box
    cut = clip[:, top : top + height, left : left + width]
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    even = step > 0 and all(b - a == step for a, b in pairwise(numbers))
    taken = cut[numbers[0] : numbers[-1] + 1 : step] if even else cut[numbers]
    taken = taken.permute(0, 3, 1, 2)
    if (height, width) == (size, size):
        return taken
    return F.interpolate(taken, size=(size, size), mode=interpolation, antialias=True)


def _shallow(params: Any) -> dict[str, Any]:
    return {f.name: getattr(params, f.name) for f in fields(params)}


def _repeated(params: Any, times: int) -> Any:
    """Every tensor of the parameters, each row `times` times in place."""
    if isinstance(params, Tensor):
        return params.repeat_interleave(times, dim=0)
    assert is_dataclass(params), f"parameters are tensors or dataclasses, not {type(params)}"
    content = {name: _repeated(value, times) for name, value in _shallow(params).items()}
    return type(params)(**content)  # type: ignore[operator]
