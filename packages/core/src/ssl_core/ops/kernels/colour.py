"""The colour chain of `ssl_core.ops.pipeline` as four Triton kernels on whole batches.

The same operations on the same parameters as in `ssl_core.ops.colour` and `ssl_core.ops.blur`,
where their formulas are explained; results differ by rounding alone. One kernel takes the mean of
images that change their contrast, one does everything up to the blur (and beyond, where there is
none), two blur. For RGB nothing waits for the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from ssl_core.ops.colour import CONTRAST, HUE, LUMA, SATURATION
from ssl_core.ops.sending import sent

if TYPE_CHECKING:
    from ssl_core.ops.pipeline import Augmentation, ViewParams

_PIXELS = 1024
"""Pixels of a program."""
_NONE = -1
_RED, _GREEN, _BLUE = (tl.constexpr(weight) for weight in LUMA)
_CONTRAST, _SATURATION, _HUE = (tl.constexpr(op) for op in (CONTRAST, SATURATION, HUE))


class Chain:
    """Everything of an augmentation after crop and flip, with the parameters of `params`."""

    def __init__(self, augmentation: Augmentation, params: ViewParams) -> None:
        self.order = list(range(len(params.flip)))
        self._augmentation, self._params = augmentation, params

    def __call__(self, x: Tensor, rows: list[int]) -> Tensor:
        """In place: `[N, C, H, W]` in 0..1, contiguous, which are `rows` of the parameters."""
        chain, params = self._augmentation, self._params
        if x.shape[1] != 3:
            # Of other images there are two colour operations: torch's calls are few enough.
            from ssl_core.ops.pipeline import Stages

            return Stages(chain, params)(x, rows)
        steps = params.jitter.order.masked_fill(~params.jitter.applied[:, None], _NONE)
        for op, span in enumerate(chain.jitter.spans):
            if not span:
                steps.masked_fill_(steps == op, _NONE)
        given = [steps, params.jitter.factors, params.grey, params.sigma, params.solarise]
        if rows != self.order:
            index = sent(rows, x.device)
            given = [values[index] for values in given]
        steps, factors, grey, sigma, solarise = (values.contiguous() for values in given)
        count, _, height, width = x.shape
        pixels = height * width
        means = x.new_zeros(count)
        if chain.jitter.p and chain.jitter.contrast:
            _means[(count,)](x, steps, factors, means, pixels, PIXELS=_PIXELS)
        statistics = (*chain.normalise.mean, *chain.normalise.std)
        finish = (solarise.to(torch.uint8), chain.solarise.threshold, *statistics)
        blocks = triton.cdiv(pixels, _PIXELS)
        drawn = (steps, factors, means, grey.to(torch.uint8), sigma)
        _colour[(count * blocks,)](x, *drawn, *finish, pixels, blocks, PIXELS=_PIXELS)
        if chain.blur.p:
            between = torch.empty_like(x)
            form = (chain.blur.most(min(height, width)), height, width)
            grid, block = (count * 3 * height,), triton.next_power_of_2(width)
            _blur_columns[grid](x, between, sigma, *form, BLOCK=block)
            _blur_rows[grid](between, x, sigma, *finish, *form, BLOCK=block)
        return x


@triton.jit
def _cut(value):
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@triton.jit
def _luma(red, green, blue):
    return red * _RED + green * _GREEN + blue * _BLUE


@triton.jit
def _adjusted(red, green, blue, op, factor, mean):
    """One operation of the jitter on pixels of an image; `mean` is contrast's grey."""
    if op == _SATURATION:
        grey = _luma(red, green, blue) * (1 - factor)
        red = _cut(red * factor + grey)
        green = _cut(green * factor + grey)
        blue = _cut(blue * factor + grey)
    elif op == _HUE:
        high = tl.maximum(tl.maximum(red, green), blue)
        low = tl.minimum(tl.minimum(red, green), blue)
        chroma = high - low
        per_chroma = 1 / tl.maximum(chroma, 1e-20)
        hue = (red - green) * per_chroma + 4
        hue = tl.where(green == high, (blue - red) * per_chroma + 2, hue)
        hue = tl.where(red == high, (green - blue) * per_chroma, hue)
        hue += 6 * factor
        hue -= tl.floor(hue * (1 / 6)) * 6
        red = low + chroma * _cut(tl.abs(hue - 3) - 1)
        green = low + chroma * _cut(2 - tl.abs(hue - 2))
        blue = low + chroma * _cut(2 - tl.abs(hue - 4))
    elif op >= 0:
        shift = tl.where(op == _CONTRAST, mean * (1 - factor), 0.0)
        red = _cut(red * factor + shift)
        green = _cut(green * factor + shift)
        blue = _cut(blue * factor + shift)
    return red, green, blue


@triton.jit
def _means(x, steps, factors, means, pixels, PIXELS: tl.constexpr):
    """The mean grey of each image whose contrast changes, after the operations before that."""
    n = tl.program_id(0)
    before = 4
    for k in tl.static_range(4):
        before = tl.where(tl.load(steps + 4 * n + k) == _CONTRAST, k, before)
    if before < 4:
        image = x + n.to(tl.int64) * 3 * pixels
        total = tl.zeros([PIXELS], dtype=tl.float32)
        for start in range(0, pixels, PIXELS):
            at = start + tl.arange(0, PIXELS)
            inside = at < pixels
            red = tl.load(image + at, mask=inside, other=0.0)
            green = tl.load(image + pixels + at, mask=inside, other=0.0)
            blue = tl.load(image + 2 * pixels + at, mask=inside, other=0.0)
            for k in tl.static_range(3):
                op = tl.load(steps + 4 * n + k)
                op = tl.where(k < before, op, -1)
                factor = tl.load(factors + 4 * n + tl.maximum(op, 0))
                red, green, blue = _adjusted(red, green, blue, op, factor, 0.0)
            total += tl.where(inside, _luma(red, green, blue), 0.0)
        tl.store(means + n, tl.sum(total, 0) / pixels)


@triton.jit
def _finished(value, turned, threshold, mean, std):
    """Solarised where `turned`, normalised."""
    value = tl.where((turned != 0) & (value >= threshold), 1 - value, value)
    return (value - mean) / std


@triton.jit
def _colour(
    x,
    steps,
    factors,
    means,
    grey,
    sigma,
    solarise,
    threshold,
    mean_0,
    mean_1,
    mean_2,
    std_0,
    std_1,
    std_2,
    pixels,
    blocks,
    PIXELS: tl.constexpr,
):
    program = tl.program_id(0)
    n = program // blocks
    at = program % blocks * PIXELS + tl.arange(0, PIXELS)
    inside = at < pixels
    image = x + n.to(tl.int64) * 3 * pixels
    red = tl.load(image + at, mask=inside, other=0.0)
    green = tl.load(image + pixels + at, mask=inside, other=0.0)
    blue = tl.load(image + 2 * pixels + at, mask=inside, other=0.0)
    mean = tl.load(means + n)
    for k in tl.static_range(4):
        op = tl.load(steps + 4 * n + k)
        factor = tl.load(factors + 4 * n + tl.maximum(op, 0))
        red, green, blue = _adjusted(red, green, blue, op, factor, mean)
    if tl.load(grey + n) != 0:
        red = _luma(red, green, blue)
        green = red
        blue = red
    if tl.load(sigma + n) == 0:
        turned = tl.load(solarise + n)
        red = _finished(red, turned, threshold, mean_0, std_0)
        green = _finished(green, turned, threshold, mean_1, std_1)
        blue = _finished(blue, turned, threshold, mean_2, std_2)
    tl.store(image + at, red, mask=inside)
    tl.store(image + pixels + at, green, mask=inside)
    tl.store(image + 2 * pixels + at, blue, mask=inside)


@triton.jit
def _weight(k, width):
    return tl.exp(-0.5 * (k / width) * (k / width))


@triton.jit
def _reach(width, most):
    """Pixels on either side that a blur takes, and the sum of all its weights."""
    reach = tl.minimum(tl.ceil(4 * width).to(tl.int32), most)
    total = 1.0
    for k in range(1, reach + 1):
        total += 2 * _weight(k, width)
    return reach, total


@triton.jit
def _blur_columns(x, out, sigma, most, height, width, BLOCK: tl.constexpr):
    """One row of a plane from the rows around it, mirrored at the edges."""
    program = tl.program_id(0).to(tl.int64)
    y = program % height
    wide = tl.load(sigma + program // (3 * height))
    if wide > 0:
        at = tl.arange(0, BLOCK)
        inside = at < width
        plane = x + (program - y) * width + at
        reach, total = _reach(wide, most)
        made = tl.load(plane + y * width, mask=inside, other=0.0)
        for k in range(1, reach + 1):
            above = tl.abs(y - k)
            below = tl.minimum(y + k, 2 * (height - 1) - y - k)
            pair = tl.load(plane + above * width, mask=inside, other=0.0)
            pair += tl.load(plane + below * width, mask=inside, other=0.0)
            made += pair * _weight(k, wide)
        tl.store(out + program * width + at, made / total, mask=inside)


@triton.jit
def _blur_rows(
    x,
    out,
    sigma,
    solarise,
    threshold,
    mean_0,
    mean_1,
    mean_2,
    std_0,
    std_1,
    std_2,
    most,
    height,
    width,
    BLOCK: tl.constexpr,
):
    """One row of a plane from the pixels beside each, mirrored at the edges, and finished."""
    program = tl.program_id(0).to(tl.int64)
    n, channel = program // (3 * height), program // height % 3
    wide = tl.load(sigma + n)
    if wide > 0:
        at = tl.arange(0, BLOCK)
        inside = at < width
        row = x + program * width
        reach, total = _reach(wide, most)
        made = tl.load(row + at, mask=inside, other=0.0)
        for k in range(1, reach + 1):
            left = tl.abs(at - k)
            right = tl.minimum(at + k, 2 * (width - 1) - at - k)
            pair = tl.load(row + left, mask=inside, other=0.0)
            pair += tl.load(row + right, mask=inside, other=0.0)
            made += pair * _weight(k, wide)
        mean = tl.where(channel == 0, mean_0, tl.where(channel == 1, mean_1, mean_2))
        std = tl.where(channel == 0, std_0, tl.where(channel == 1, std_1, std_2))
        made = _finished(made / total, tl.load(solarise + n), threshold, mean, std)
        tl.store(out + program * width + at, made, mask=inside)
