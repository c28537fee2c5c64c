"""The colour chain of `ssl_core.ops.pipeline` as compiled loops, image by image on the CPU.

The same operations on the same parameters as in `ssl_core.ops.colour` and `ssl_core.ops.blur`,
where their formulas are explained; results differ by rounding alone. Here every operation of the
chain meets a piece of the image while that lies in the innermost cache, and a jitter's order costs
nothing, so that the chain takes a sixth of the time at 224 pixels and a twentieth at 32. Only the
mean of contrast and the blur's neighbours need a pass of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from torch import Tensor

from ssl_core.compiling import kept
from ssl_core.ops.colour import BRIGHTNESS, CONTRAST, HUE, LUMA, SATURATION

if TYPE_CHECKING:
    from ssl_core.ops.pipeline import Augmentation, ViewParams

_PIECE = 2048
"""Pixels of a piece: three planes of floats are 24 KiB."""
_f = np.float32  # a Python number would make a whole loop float64
_RED, _GREEN, _BLUE = (_f(weight) for weight in LUMA)
_NONE = -1


class Chain:
    """Everything of an augmentation after crop and flip, with the parameters of `params`."""

    def __init__(self, augmentation: Augmentation, params: ViewParams) -> None:
        jitter, blur, normalise = augmentation.jitter, augmentation.blur, augmentation.normalise
        self.order = list(range(len(params.flip)))
        self._blur = blur
        steps = params.jitter.order.numpy().copy()
        steps[~params.jitter.applied.numpy()] = _NONE
        for op, span in enumerate(jitter.spans):
            if not span:
                steps[steps == op] = _NONE
        self._steps = steps
        self._factors = params.jitter.factors.numpy()
        self._grey = params.grey.numpy()
        self._sigma = params.sigma.double().numpy()
        self._solarise = params.solarise.numpy()
        self._threshold = _f(augmentation.solarise.threshold)
        self._mean, self._std = normalise.mean, normalise.std

    def __call__(self, x: Tensor, rows: list[int]) -> Tensor:
        """In place: `[N, C, H, W]` in 0..1, contiguous, which are `rows` of the parameters."""
        index = np.array(rows, np.int64)
        mean, std = np.empty((2, x.shape[1]), np.float32)
        mean[:], std[:] = self._mean, self._std
        _images(
            x.numpy(),
            self._steps[index],
            self._factors[index],
            self._grey[index],
            self._sigma[index],
            self._blur.most(min(x.shape[2:])),
            self._solarise[index],
            self._threshold,
            mean,
            std,
        )
        return x


@njit(inline="always")
def _cut(value):
    value = value if value > _f(0) else _f(0)
    return value if value < _f(1) else _f(1)


@njit
def _affine(x, scale, shift):
    for i in range(x.size):
        x[i] = _cut(x[i] * scale + shift)


@njit(inline="always")
def _luma(red, green, blue):
    return red * _RED + green * _GREEN + blue * _BLUE


@njit
def _saturate(red, green, blue, factor):
    rest = _f(1) - factor
    for i in range(red.size):
        grey = _luma(red[i], green[i], blue[i]) * rest
        red[i] = _cut(red[i] * factor + grey)
        green[i] = _cut(green[i] * factor + grey)
        blue[i] = _cut(blue[i] * factor + grey)


@njit(error_model="numpy")  # no check for zero, which would keep the loop from being vectorised
def _turn_hue(red, green, blue, turns):
    shift = _f(6) * turns
    for i in range(red.size):
        r, g, b = red[i], green[i], blue[i]
        high = r if r > g else g
        high = high if high > b else b
        low = r if r < g else g
        low = low if low < b else b
        chroma = high - low
        per_chroma = _f(1) / (chroma if chroma > _f(1e-20) else _f(1e-20))
        hue = (r - g) * per_chroma + _f(4)
        hue = (b - r) * per_chroma + _f(2) if g == high else hue
        hue = (g - b) * per_chroma if r == high else hue
        hue += shift
        hue -= np.floor(hue * _f(1 / 6)) * _f(6)
        red[i] = low + chroma * _cut(abs(hue - _f(3)) - _f(1))
        green[i] = low + chroma * _cut(_f(2) - abs(hue - _f(2)))
        blue[i] = low + chroma * _cut(_f(2) - abs(hue - _f(4)))


@njit
def _set_grey(red, green, blue):
    for i in range(red.size):
        grey = _luma(red[i], green[i], blue[i])
        red[i], green[i], blue[i] = grey, grey, grey


@njit(fastmath={"reassoc"})  # sums of a piece in lanes: of a fixed length, so in a fixed order
def _total(image, start, stop):
    total = _f(0)
    if len(image) == 3:
        red, green, blue = image[0, start:stop], image[1, start:stop], image[2, start:stop]
        for i in range(red.size):
            total += _luma(red[i], green[i], blue[i])
    else:
        for c in range(len(image)):
            plane = image[c, start:stop]
            for i in range(plane.size):
                total += plane[i] / _f(len(image))
    return total


@njit
def _adjust(image, start, stop, op, factor, mean):
    """One operation of the jitter on pixels of an image; `mean` is contrast's grey."""
    # One plane at a time: only then does the compiler know that its numbers are neighbours.
    if op in (BRIGHTNESS, CONTRAST):
        shift = mean * (_f(1) - factor) if op == CONTRAST else _f(0)
        for c in range(len(image)):
            _affine(image[c, start:stop], factor, shift)
    elif len(image) == 3:
        red, green, blue = image[0, start:stop], image[1, start:stop], image[2, start:stop]
        if op == SATURATION:
            _saturate(red, green, blue, factor)
        elif op == HUE:
            _turn_hue(red, green, blue, factor)


@njit
def _mean_before(image, steps, factors, count):
    """The mean grey of an image after the first `count` steps, which are taken."""
    total = 0.0
    pixels = image.shape[1]
    for start in range(0, pixels, _PIECE):
        stop = min(pixels, start + _PIECE)
        for k in range(count):
            if steps[k] >= 0:
                _adjust(image, start, stop, steps[k], factors[steps[k]], _f(0))
        total += _total(image, start, stop)
    return _f(total / pixels)


@njit(error_model="numpy")
def _finish(plane, solarise, threshold, mean, std):
    if solarise:
        for i in range(plane.size):
            value = plane[i]
            value = _f(1) - value if value >= threshold else value
            plane[i] = (value - mean) / std
    else:
        for i in range(plane.size):
            plane[i] = (plane[i] - mean) / std


@njit
def _gaussian(sigma, weights):
    """Weights of offsets 0, 1, ...; each but the first is used on both sides."""
    total = 0.0
    for k in range(len(weights)):
        weights[k] = np.exp(-0.5 * (k / sigma) ** 2)
        total += weights[k] if k == 0 else 2 * weights[k]
    for k in range(len(weights)):
        weights[k] /= total


@njit
def _blurred(plane, weights, before, wide):
    """Separable and symmetric with reflected borders; `before` and `wide` are scratch memory."""
    height, width = plane.shape
    radius = len(weights) - 1
    before[:] = plane
    row = wide[radius : radius + width]
    for y in range(height):
        for i in range(width):
            row[i] = before[y, i] * weights[0]
        for k in range(1, radius + 1):
            above = before[abs(y - k)]
            below = before[y + k if y + k < height else 2 * (height - 1) - y - k]
            for i in range(width):
                row[i] += (above[i] + below[i]) * weights[k]
        for k in range(1, radius + 1):
            wide[radius - k] = row[k]
            wide[radius + width - 1 + k] = row[width - 1 - k]
        out = plane[y]
        for i in range(width):
            out[i] = row[i] * weights[0]
        for k in range(1, radius + 1):
            left, right = wide[radius - k :], wide[radius + k :]
            for i in range(width):
                out[i] += (left[i] + right[i]) * weights[k]


@kept()
def _images(x, steps, factors, grey, sigma, most, solarise, threshold, mean, std):
    """`[N, C, H, W]` in place; steps are operations in their order, factors go by operation."""
    count, channels, height, width = x.shape
    pixels = height * width
    before = np.empty((height, width), np.float32)
    wide = np.empty(width + 2 * most, np.float32)
    for n in range(count):
        image = x[n].reshape(channels, pixels)
        first, contrast_mean = 0, _f(0)
        for k in range(4):
            if steps[n, k] == CONTRAST:
                first, contrast_mean = k, _mean_before(image, steps[n], factors[n], k)
        for start in range(0, pixels, _PIECE):
            stop = min(pixels, start + _PIECE)
            for k in range(first, 4):
                op = steps[n, k]
                if op >= 0:
                    _adjust(image, start, stop, op, factors[n, op], contrast_mean)
            if grey[n] and channels == 3:
                _set_grey(image[0, start:stop], image[1, start:stop], image[2, start:stop])
            if not sigma[n]:
                for c in range(channels):
                    _finish(image[c, start:stop], solarise[n], threshold, mean[c], std[c])
        if sigma[n]:
            weights = np.empty(min(most, int(np.ceil(4 * sigma[n]))) + 1, np.float32)
            _gaussian(sigma[n], weights)
            for c in range(channels):
                _blurred(x[n, c], weights, before, wide)
                _finish(image[c], solarise[n], threshold, mean[c], std[c])
