"""Boxes of stored images, resized with antialias to one float tensor in 0..1.

Three ways to the same numbers. On the CPU each box goes through torch's own antialias kernel, in
the stored type: it is what torchvision calls, and fastest on bytes stored channels last. Where
numba is installed compiled loops do the same with fewer passes. On other devices, where one launch
per image would dominate, the same weights are written as two batched matrix products (rows, then
columns), which also takes images of unequal sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_core.ops.fused import fused
from ssl_core.ops.sending import sent

# The operators behind `F.interpolate(..., antialias=True)`: at small sizes its checks cost as much.
_AA_KERNELS = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
}
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Half the width of a kernel, in pixels of the larger."""
_FUSED = (torch.uint8, torch.uint16, torch.int16, torch.float32)  # pixels that `fused` takes
Ragged = list[Tensor]
Interpolation = Literal["bilinear", "bicubic"]


def image_sizes(data: Tensor | Ragged) -> Tensor:
    """Height and width of every image, int64 `[B, 2]` on the images' device."""
    if isinstance(data, Tensor):
        return sent(data.shape[2:], data.device).expand(len(data), 2)
    return sent([image.shape[1:] for image in data], data[0].device)


def crop_resize(
    data: Tensor | Ragged,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    value_range: tuple[float, float],
    interpolation: Interpolation = "bilinear",
    flip: Tensor | None = None,
    rows: list[int] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Boxes of images as float32 `[N, C, *size]`, `value_range` mapped to 0..1.

    `data` is `[B, C, H, W]` or a list of B tensors `[C, H, W]`; `boxes` (int64 `[V B, 4]`) holds
    top, left, height, width in stored pixels, row r of image r modulo B; `flip` (bool `[V B]`)
    mirrors left-right. `rows` picks the N boxes wanted, in this order (None: all); `out` takes
    the result. Bytes are rounded to bytes after resizing, as torchvision and Pillow do.
    Raises `ValueError` on the CPU where a box leaves its image; elsewhere the device is not asked.
    """
    picked = range(len(boxes)) if rows is None else rows
    kernels = fused(data[0].device)
    if kernels is not None and data[0].dtype in _FUSED:
        if out is None:
            out = torch.empty(len(picked), data[0].shape[0], *size, device=data[0].device)
        turned = boxes.new_zeros(len(boxes), dtype=torch.bool) if flip is None else flip
        kernels.crop(data, boxes, turned, list(picked), value_range, interpolation, out)
        return out
    if data[0].device.type == "cpu":
        pixels = _each(data, boxes, size, interpolation, flip, picked, out)
    else:
        pixels = _batched(data, boxes, size, interpolation, flip, list(picked))
        pixels = pixels if out is None else out.copy_(pixels)
    low, high = value_range
    return pixels.sub_(low).mul_(1 / (high - low)) if low else pixels.mul_(1 / high)


def outside(box: list[int], image: Tensor) -> ValueError:
    """What is wrong with a box (top, left, height, width) of an image `[..., H, W]`."""
    height, width = image.shape[-2:]
    return ValueError(
        f"box {box} (top, left, height, width) is not inside an image of {height} x {width}"
    )


def _each(
    data: Tensor | Ragged,
    boxes: Tensor,
    size: tuple[int, int],
    interpolation: Interpolation,
    flip: Tensor | None,
    picked: Any,
    out: Tensor | None,
) -> Tensor:
    edges: list[list[int]] = boxes.tolist()
    kernel = _AA_KERNELS[interpolation]
    parts = []
    for i in picked:
        top, left, height, width = edges[i]
        at = i % len(data)
        image = data[at : at + 1] if isinstance(data, Tensor) else data[at][None]
        tall, wide = image.shape[2:]
        if min(top, left, height - 1, width - 1, tall - top - height, wide - left - width) < 0:
            raise outside(edges[i], image)
        box = image[:, :, top : top + height, left : left + width]
        if box.dtype != torch.uint8:
            box = box.to(torch.float32)
        parts.append(box if (height, width) == size else kernel(box, size, False))
    turned = [] if flip is None else flip[list(picked)].nonzero()[:, 0].tolist()
    if len(parts) == 1 and turned:
        parts, turned = [parts[0].flip(-1)], []
    # Bytes become floats once for all: for small images a conversion each costs as much as a crop.
    made = parts[0] if len(parts) == 1 else torch.cat(parts)
    out = torch.empty(made.shape) if out is None else out
    out.copy_(made)
    if turned:
        out[turned] = out[turned].flip(-1)
    return out


def _batched(
    data: Tensor | Ragged,
    boxes: Tensor,
    size: tuple[int, int],
    interpolation: Interpolation,
    flip: Tensor | None,
    picked: list[int],
) -> Tensor:
    if picked != list(range(len(data))):
        index = sent(picked, boxes.device)
        boxes, flip = boxes[index], None if flip is None else flip[index]
        shown = [i % len(data) for i in picked]
        data = data[shown] if isinstance(data, Tensor) else [data[i] for i in shown]
    pixels = padded(data)  # [N, C, H, W]
    rows = antialias_weights(boxes[:, 0], boxes[:, 2], size[0], pixels.shape[2], interpolation)
    columns = antialias_weights(boxes[:, 1], boxes[:, 3], size[1], pixels.shape[3], interpolation)
    if flip is not None:
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    x = pixels.to(torch.float32) @ columns[:, None].mT  # [N, C, H, w]
    # Torch's kernel for bytes stores bytes between its two passes as well.
    if pixels.dtype == torch.uint8:
        x = x.round_().clamp_(0, 255)
    x = rows[:, None] @ x  # [N, C, h, w]
    return x.round_().clamp_(0, 255) if pixels.dtype == torch.uint8 else x


def padded(data: Tensor | Ragged) -> Tensor:
    """Images of unequal sizes in the top-left corners of one tensor; boxes never reach outside."""
    if isinstance(data, Tensor):
        return data
    height, width = (max(image.shape[axis] for image in data) for axis in (1, 2))
    out = data[0].new_zeros(len(data), data[0].shape[0], height, width)
    for place, image in zip(out, data, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return out


def antialias_weights(
    start: Tensor, length: Tensor, out: int, total: int, interpolation: Interpolation
) -> Tensor:
    """Resize weights of an interval of each row of pixels: float32 `[N, out, total]`.

    Output i is centred on start + (i + 0.5) * length / out; the kernel is widened by the scale
    when shrinking, cut at the interval's ends and normalised, as torch's antialias kernels do.
    """
    position = torch.arange(total, device=start.device, dtype=torch.float32)
    target = torch.arange(out, device=start.device, dtype=torch.float32)
    scale = (length.to(torch.float32) / out)[:, None, None]
    offset = position - start[:, None]  # [N, total], pixels counted from the interval's start
    centre = (target[:, None] + 0.5) * scale  # [N, out, 1]
    distance = ((offset[:, None, :] + 0.5 - centre) / scale.clamp(min=1)).abs()
    weights = _KERNELS[interpolation](distance)
    inside = (offset >= 0) & (offset < length[:, None])
    weights = weights * inside[:, None, :]
    return weights / weights.sum(-1, keepdim=True)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _keys(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic (1981) with a = -1/2, which torch uses when antialiasing."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_KERNELS = {"bilinear": _triangle, "bicubic": _keys}


def centre_boxes(sizes: Tensor, fraction: float = 1.0) -> Tensor:
    """The centre square of each image, `fraction` of its shorter side: int64 `[B, 4]`."""
    side = (sizes.amin(1) * fraction).round().to(torch.int64).clamp(min=1)
    corner = torch.div(sizes - side[:, None], 2, rounding_mode="floor")
    return torch.cat([corner, side[:, None], side[:, None]], dim=1)


def resize(
    data: Tensor | Ragged,
    size: int,
    spec: Mapping[str, Any],
    *,
    fraction: float = 1.0,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """The centre square of each image at `size`, float32 `[B, C, size, size]` in 0..1."""
    boxes = centre_boxes(image_sizes(data), fraction)
    low, high = spec["range"]
    return crop_resize(
        data, boxes, (size, size), value_range=(low, high), interpolation=interpolation
    )
