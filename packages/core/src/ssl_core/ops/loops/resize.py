"""Boxes of stored images resized with antialias as compiled loops, image by image on the CPU.

The same numbers as from torch's kernels, which `ssl_core.ops.pixels` calls elsewhere. Bytes go by
their arithmetic in whole numbers (columns first, rounded to bytes between the two passes), so that
every bit is equal. What is saved are the calls, which at small sizes cost more than the pixels,
and the passes that mirror, convert, scale and put the planes apart: all that happens on the way.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload
from torch import Tensor

from ssl_core.compiling import kept
from ssl_core.ops.pixels import SUPPORT, outside

_f = np.float32


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

    Raises `ValueError` where a box leaves its image or images differ in channels.
    """
    edges, turned, made = boxes.numpy(), flip.numpy(), out.numpy()
    index = np.array(rows, np.int64)
    low, high = value_range
    how = (SUPPORT[interpolation], _f(low), _f(1 / (high - low)))
    # Images of one size go in one call, others one by one.
    if isinstance(data, Tensor):
        runs = [(data, slice(None))]
    else:
        runs = [(data[row % len(data)][None], slice(n, n + 1)) for n, row in enumerate(rows)]
    for images, which in runs:
        if images.shape[1] != out.shape[1]:
            counts = f"{images.shape[1]} and of {out.shape[1]}"
            raise ValueError(f"images of {counts} channels in one batch")
        bad = _boxes(*_memory(images, out), edges, turned, index[which], *how, made[which])
        if bad >= 0:
            raise outside(edges[index[which][bad]].tolist(), images)


def _memory(images: Tensor, out: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Images as `[B, H, W C]`, and room for one of them between the passes."""
    pixels = images.permute(0, 2, 3, 1).flatten(2).contiguous().numpy()
    kind = np.uint8 if images.dtype == torch.uint8 else np.float32
    return pixels, np.empty((out.shape[1], pixels.shape[1], out.shape[3]), kind)


@njit
def _kernel(x, support):
    x = abs(x)
    if support == 1.0:
        return 1 - x if x < 1 else 0.0
    if x < 1:  # Keys' cubic (1981) with a = -1/2
        return (1.5 * x - 2.5) * x * x + 1
    return ((2.5 - 0.5 * x) * x - 4) * x + 2 if x < 2 else 0.0


@njit
def _taps(length, size, half):
    """Of each of `size` outputs of an interval its first pixel, and the weights of it and the next.

    All have as many weights, some of them 0: loops of one length need no guess of the processor's.
    """
    scale = length / size
    wide = max(scale, 1.0)
    support = half * wide
    most = min(int(np.ceil(support)) * 2 + 1, length)
    first, weights = np.empty(size, np.uint64), np.zeros((size, most))
    for i in range(size):
        centre = scale * (i + 0.5)
        start = max(int(centre - support + 0.5), 0)
        stop = min(min(int(centre + support + 0.5), length), start + most)
        begin = min(start, length - most)
        first[i] = begin
        for k in range(start - begin, stop - begin):
            weights[i, k] = _kernel((k + begin - centre + 0.5) / wide, half)
        weights[i] /= weights[i].sum()
    return first, weights


@njit
def _bits(weights):
    """So many binary places that the largest weight still fits 16 bits, as torch chooses them."""
    largest = weights.max()
    for bits in range(22):
        if int(0.5 + largest * (1 << (bits + 1))) >= 1 << 15:
            return bits
    return 22


def _arithmetic(pixels, weights):
    """Weights as they meet such pixels, their binary places, and what a sum starts from."""


@overload(_arithmetic)
def _(pixels, weights):
    if pixels.dtype != types.uint8:
        return lambda pixels, weights: (weights.astype(np.float32), 0, _f(0))

    def whole(pixels, weights):
        bits = _bits(weights)
        fixed = np.floor(weights * (1 << bits) + 0.5).astype(np.int32)
        return fixed, bits, np.int32(1 << (bits - 1))  # a half, so that cutting off rounds

    return whole


def _stored(total, bits):
    """A sum as it is stored: of bytes a byte."""


@overload(_stored, inline="always")
def _(total, bits):
    if isinstance(total, types.Integer):
        return lambda total, bits: min(max(total >> bits, 0), 255)
    return lambda total, bits: total


@njit
def _columns(rows, left, taps, mirrored, out):
    """Rows `[H, W C]` from pixel `left` on, resized and put apart into planes `[C, H, w]`."""
    first, real = taps
    weights, bits, none = _arithmetic(rows, real)
    channels, _, size = out.shape
    # Unsigned numbers, since none counts from the end: it need not be asked.
    taken, step = np.uint64(weights.shape[1]), np.uint64(channels)
    starts = (first + np.uint64(left)) * step
    for y in range(len(rows)):
        row = rows[y]
        for i in range(size):
            at = size - 1 - i if mirrored else i
            if channels == 3:
                place = starts[i]
                red, green, blue = none, none, none
                for k in range(taken):
                    weight = weights[i, k]
                    red += row[place] * weight
                    green += row[place + np.uint64(1)] * weight
                    blue += row[place + np.uint64(2)] * weight
                    place += np.uint64(3)
                out[0, y, at] = _stored(red, bits)
                out[1, y, at] = _stored(green, bits)
                out[2, y, at] = _stored(blue, bits)
            else:
                for c in range(channels):
                    total = none
                    for k in range(taken):
                        total += row[starts[i] + k * step + np.uint64(c)] * weights[i, k]
                    out[c, y, at] = _stored(total, bits)


@njit
def _rows(planes, taps, low, factor, out):
    """Columns of planes `[C, H, w]`, resized: `[C, h, w]`, with `low` as 0 and scaled."""
    first, real = taps
    weights, bits, none = _arithmetic(planes, real)
    width = planes.shape[2]
    totals, taken = np.empty(width, weights.dtype), np.uint64(weights.shape[1])
    for c in range(len(planes)):
        plane = planes[c]
        for y in range(len(first)):
            totals[:] = none
            for k in range(taken):
                row, weight = plane[first[y] + k], weights[y, k]
                for i in range(width):
                    totals[i] += row[i] * weight
            made = out[c, y]
            for i in range(width):
                made[i] = (_f(_stored(totals[i], bits)) - low) * factor


@kept()
def _boxes(images, between, boxes, flip, rows, half, low, factor, out):
    """`images` is `[B, H, W C]`; row r of `boxes` lies in image r modulo B.

    The first place whose box is not inside its image, or -1: nothing here would stop at the edge.
    """
    channels, tall, wide = out.shape[1:]
    for n in range(len(rows)):
        if rows[n] < 0 or rows[n] >= min(len(boxes), len(flip)):
            return n
        top, left, height, width = boxes[rows[n]]
        if min(top, left) < 0 or min(height, width) < 1 or top + height > images.shape[1]:
            return n
        if (left + width) * channels > images.shape[2]:
            return n
        image = images[rows[n] % len(images)]
        across, down = _taps(width, wide, half), _taps(height, tall, half)
        _columns(image[top : top + height], left, across, flip[rows[n]], between)
        _rows(between, down, low, factor, out[n])
    return -1
