"""Boxes of stored images resized with antialias in one Triton kernel.

The numbers of torch's own kernels: bytes go by whole numbers, columns first and rounded to bytes
before the rows, so that every bit is equal. Each program makes one row of one channel, and takes as
many pixels for each output as the scale of its box asks for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from ssl_core.ops.pixels import SUPPORT, padded
from ssl_core.ops.sending import sent


def crop(
    data: Tensor | list[Tensor],
    boxes: Tensor,
    flip: Tensor,
    rows: list[int],
    value_range: tuple[float, float],
    interpolation: str,
    out: Tensor,
) -> None:
    """Fills `out` (float32 `[N, C, h, w]`) with boxes `rows`, as `ssl_core.ops.pixels` has them.

    The device is not asked whether a box leaves its image; where one does, the edge is repeated.
    """
    images = padded(data)
    if rows != list(range(len(boxes))):
        index = sent(rows, boxes.device)
        boxes, flip = boxes[index], flip[index]
        shown = index % len(images)
    else:
        shown = torch.arange(len(rows), device=boxes.device) % len(images)
    count, channels, height, width = out.shape
    half = SUPPORT[interpolation]
    whole = images.dtype == torch.uint8
    down = _taps(boxes[:, 2], height, images.shape[2], half, whole)
    across = _taps(boxes[:, 3], width, images.shape[3], half, whole)
    low, high = value_range
    _box_rows[(count * channels * height,)](
        images,
        out,
        shown,
        boxes.contiguous(),
        flip.to(torch.uint8),
        *down,
        *across,
        *images.stride(),
        images.shape[2],
        images.shape[3],
        channels,
        height,
        width,
        down.weights.shape[1],
        across.weights.shape[1],
        low,
        1 / (high - low),
        WHOLE=whole,
        BLOCK=triton.next_power_of_2(width),
    )


class _Taps(NamedTuple):
    """Of each box and output: where its pixels begin `[N, out]`, their weights `[N, T, out]` (whole
    numbers for bytes); and of each box how many an output takes at most and the weights' binary
    places, `[N]`."""

    first: Tensor
    weights: Tensor
    taken: Tensor
    bits: Tensor


def _taps(length: Tensor, size: int, total: int, half: float, whole: bool) -> _Taps:
    """Of an interval of `length` pixels (`[N]`) of `total`, as torch's kernels compute them."""
    scale = length.to(torch.float64) / size  # [N]
    wide = scale.clamp(min=1)
    support = half * wide
    most = 2 * math.ceil(half * max(1.0, total / size)) + 1
    taken = torch.minimum(2 * support.ceil().to(torch.int64) + 1, length)
    place = torch.arange(size, device=length.device, dtype=torch.float64) + 0.5
    centre = scale[:, None] * place  # [N, out]
    first = (centre - support[:, None] + 0.5).to(torch.int64).clamp(min=0)
    last = (centre + support[:, None] + 0.5).to(torch.int64)
    last = torch.minimum(torch.minimum(last, length[:, None]), first + taken[:, None])
    pixel = first[:, None] + torch.arange(most, device=length.device)[:, None]  # [N, T, out]
    distance = ((pixel - centre[:, None] + 0.5) / wide[:, None, None]).abs()
    weights = _kernel(distance, half) * (pixel < last[:, None])
    weights = weights / weights.sum(1, keepdim=True)
    bits = torch.zeros_like(length)
    if whole:
        # So many binary places that the largest weight still fits 16 bits.
        places = torch.arange(1, 23, device=length.device)
        scaled = weights.amax((1, 2))[:, None] * 2.0**places + 0.5
        bits = (scaled.to(torch.int64) < 1 << 15).sum(1)
        weights = (weights * 2.0 ** bits[:, None, None] + 0.5).floor()
    kind = torch.int32 if whole else torch.float32
    return _Taps(first, weights.to(kind), taken, bits)


def _kernel(x: Tensor, half: float) -> Tensor:
    """The triangle, or Keys' cubic (1981) with a = -1/2."""
    if half == 1:
        return (1 - x).clamp(min=0)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


@triton.jit
def _stored(total, bits, WHOLE: tl.constexpr):
    """A sum as it is stored: of bytes a byte."""
    if WHOLE:
        # Half of the last place, so that cutting off rounds.
        total = (total + (1 << (bits - 1))) >> bits
        total = tl.minimum(tl.maximum(total, 0), 255)
    return total


@triton.jit
def _box_rows(
    images,
    out,
    shown,
    boxes,
    flip,
    down_first,
    down_weights,
    down_taken,
    down_bits,
    across_first,
    across_weights,
    across_taken,
    across_bits,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    tall,
    wide,
    channels,
    height,
    width,
    down_most,
    across_most,
    low,
    factor,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    y = program % height
    channel = program // height % channels
    n = program // (height * channels)
    x = tl.arange(0, BLOCK)
    inside = x < width
    plane = images + tl.load(shown + n) * image_stride + channel * channel_stride
    top, left = tl.load(boxes + 4 * n), tl.load(boxes + 4 * n + 1)
    bits_down = tl.load(down_bits + n).to(tl.int32)
    bits_across = tl.load(across_bits + n).to(tl.int32)
    start = left + tl.load(across_first + n * width + x, mask=inside, other=0)
    begin = top + tl.load(down_first + n * height + y)
    total = tl.zeros([BLOCK], dtype=tl.int32 if WHOLE else tl.float32)
    for j in range(tl.load(down_taken + n)):
        row = tl.minimum(tl.maximum(begin + j, 0), tall - 1)
        part = tl.zeros([BLOCK], dtype=tl.int32 if WHOLE else tl.float32)
        for i in range(tl.load(across_taken + n)):
            column = tl.minimum(tl.maximum(start + i, 0), wide - 1)
            value = tl.load(plane + row * row_stride + column * column_stride, mask=inside, other=0)
            weights = across_weights + (n * across_most + i) * width
            part += value.to(part.dtype) * tl.load(weights + x, mask=inside, other=0)
        part = _stored(part, bits_across, WHOLE)
        part *= tl.load(down_weights + (n * down_most + j) * height + y)
        total += part
    made = (_stored(total, bits_down, WHOLE).to(tl.float32) - low) * factor
    turned = tl.load(flip + n) != 0
    at = tl.where(turned, width - 1 - x, x)
    tl.store(out + program * width + at, made, mask=inside)
