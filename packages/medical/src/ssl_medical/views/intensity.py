"""What changes between scanners and not between patients: gamma, contrast, noise, blur, bias field.

Functions take float `[B, C, *sides]` with intensities near 0..1 and one parameter a sample; where
it is neutral the sample keeps its bits. They follow MONAI's transforms of the same names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.ops.geometry import check_probability
from ssl_core.rng import Rng


def adjust_gamma(x: Tensor, gamma: Tensor) -> Tensor:
    """x^gamma on each sample's own range, as MONAI's AdjustContrast."""
    flat = x.flatten(1)
    low = flat.amin(1).view(_shape(x))
    span = (flat.amax(1).view(_shape(x)) - low).clamp(min=1e-7)
    power = gamma.view(_shape(x))
    changed = (x - low).div_(span).clamp_(min=0).pow_(power).mul_(span).add_(low)
    return torch.where(power == 1, x, changed)


def scale_contrast(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """(x - mean) * factor + mean + shift, the mean over the sample's channel."""
    mean = x.flatten(2).mean(2).view(*x.shape[:2], *[1] * (x.dim() - 2))
    changed = (x - mean).mul_(factor.view(_shape(x)))
    return changed.add_(mean + shift.view(_shape(x)))


def add_noise(x: Tensor, std: Tensor, rng: Rng) -> Tensor:
    """Normal noise of deviation `std` `[B]`."""
    noise = rng.grain("noise", x[0].numel()).view_as(x).to(x.dtype)
    return noise.mul_(std.view(_shape(x)).to(x.dtype)).add_(x)


def blur(x: Tensor, sigma: Tensor, *, reach: int = 4) -> Tensor:
    """Gaussian blur with `sigma` `[B]` voxels (0: untouched), cut at `reach`, edges repeated.

    Sums of shifted volumes: a convolution would pick its algorithm, and rounding, by the batch.
    """
    axes = x.dim() - 2
    offset = torch.arange(reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (offset / sigma.to(x.dtype).clamp(min=1e-3)[:, None]) ** 2)
    weights = weights / (2 * weights.sum(1, keepdim=True) - 1)  # each but the first stands twice
    out = x
    for axis in range(2, 2 + axes):
        side = x.shape[axis]
        edge = [0, 0] * (axes + 1 - axis) + [reach, reach] + [0, 0] * (axis - 2)
        padded = F.pad(out, edge, mode="replicate")
        out = padded.narrow(axis, reach, side) * weights[:, 0].view(_shape(x))
        for step in range(1, reach + 1):
            both = padded.narrow(axis, reach - step, side) + padded.narrow(axis, reach + step, side)
            out = out.addcmul_(both, weights[:, step].view(_shape(x)))
    return torch.where(sigma.view(_shape(x)) > 0, out, x)


def bias_field(x: Tensor, coefficients: Tensor, *, degree: int = 3) -> Tensor:
    """x * exp(f), f a polynomial with `coefficients` `[B, terms]` of Legendre products on [-1, 1].

    The terms are those of total degree up to `degree` in the order of `exponents`, as in MONAI's
    RandBiasField.
    """
    axes = x.dim() - 2
    # One axis after the other: the full volume is only met by the last `degree` + 1 sums.
    field = x.new_zeros(x.shape[0], *[degree + 1] * axes)
    for term, powers in enumerate(exponents(axes, degree)):
        field[(slice(None), *powers)] = coefficients[:, term].to(x.dtype)
    for axis in reversed(range(axes)):
        at = torch.linspace(-1, 1, x.shape[2 + axis], device=x.device, dtype=x.dtype)
        along = at.view(*[-1 if a == axis else 1 for a in range(axes)])
        terms = field.unbind(1 + axis)
        summed = terms[0].unsqueeze(1 + axis)
        for power in range(1, degree + 1):
            summed = torch.addcmul(
                summed, terms[power].unsqueeze(1 + axis), _legendre(along, power)
            )
        field = summed
    return x * field.exp_().unsqueeze(1)


def exponents(axes: int, degree: int) -> list[tuple[int, ...]]:
    """Degrees along each axis of the field's terms, of total degree at most `degree`."""
    return [
        powers
        for powers in itertools.product(range(degree + 1), repeat=axes)
        if sum(powers) <= degree
    ]


def _legendre(x: Tensor, degree: int) -> Tensor:
    """Legendre's polynomial of a degree, by Bonnet's recursion."""
    before, now = torch.ones_like(x), x
    if degree == 0:
        return before
    for n in range(1, degree):
        before, now = now, ((2 * n + 1) * x * now - n * before) / (n + 1)
    return now


@dataclass(frozen=True)
class Intensity:
    """Each change with a probability of its own, its strength drawn for every sample.

    `gamma`, `contrast`, `noise`, `blur` and `bias` are probabilities; `strength` multiplies how far
    each goes (1: gamma 0.5 to 2, contrast +-25 %, brightness +-0.1, noise 0.1, blur 1.5 voxels,
    bias 0.3).
    """

    gamma: float = 0.5
    contrast: float = 0.5
    noise: float = 0.3
    blur: float = 0.2
    bias: float = 0.3
    strength: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "strength":
                check_probability(field.name, getattr(self, field.name))
        if self.strength < 0:
            raise ValueError(f"strength must not be negative, got {self.strength}")

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """The changed samples; rows do not depend on each other."""
        s = self.strength
        if self.bias:
            terms = len(exponents(x.dim() - 2, 3))
            drawn = rng.uniform("bias", terms, low=-0.3 * s, high=0.3 * s)
            on = rng.bernoulli("has bias", p=self.bias)
            x = _where(on, x, lambda some, rows: bias_field(some, drawn[rows]))
        if self.gamma:
            power = torch.exp2(rng.uniform("gamma", low=-s, high=s))
            on = rng.bernoulli("has gamma", p=self.gamma)
            x = _where(on, x, lambda some, rows: adjust_gamma(some, power[rows]))
        if self.contrast:
            factor = 1 + rng.uniform("contrast", low=-0.25 * s, high=0.25 * s)
            shift = rng.uniform("shift", low=-0.1 * s, high=0.1 * s)
            on = rng.bernoulli("has contrast", p=self.contrast)
            x = _where(on, x, lambda some, rows: scale_contrast(some, factor[rows], shift[rows]))
        if self.blur:
            sigma = rng.uniform("blur", low=0.3, high=0.3 + 1.2 * s)
            on = rng.bernoulli("has blur", p=self.blur)
            x = _where(on, x, lambda some, rows: blur(some, sigma[rows]))
        if self.noise:
            level = rng.uniform("noise level", high=0.1 * s)
            on = rng.bernoulli("has noise", p=self.noise)
            x = _where(on, x, lambda some, rows: add_noise(some, level[rows], rng[rows]))
        return x


def _where(on: Tensor, x: Tensor, change: Callable[[Tensor, Tensor | slice], Tensor]) -> Tensor:
    """`x` with the samples of `on` (bool `[B]`) changed.

    A CPU changes those alone; an accelerator changes all and selects, rather than wait for `on`.
    """
    if x.device.type != "cpu":
        return torch.where(on.view(_shape(x)), change(x, slice(None)), x)
    rows = on.nonzero()[:, 0]
    if len(rows) == len(x):
        return change(x, slice(None))
    return x.index_copy(0, rows, change(x[rows], rows)) if len(rows) else x


NEUTRAL = Intensity(gamma=0, contrast=0, noise=0, blur=0, bias=0)


def _shape(x: Tensor) -> Sequence[int]:
    return (-1, *[1] * (x.dim() - 1))


def bezier(x: Tensor, control: Tensor, inverted: Tensor, *, points: int = 1000) -> Tensor:
    """Models Genesis' intensity map of values in 0..1: a cubic Bezier curve from (0,0) to (1,1).

    `control` `[B, 4]` holds x1, y1, x2, y2 of the inner points; where `inverted` (bool `[B]`) the
    curve falls from 1 to 0. The released code makes the same two maps by sorting the sampled
    curve's x alone (falling) or x and y each (rising).
    """
    t = torch.linspace(0, 1, points, device=x.device, dtype=x.dtype)
    first, second, last = 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    x1, y1, x2, y2 = control.to(x.dtype).unbind(1)
    across = x1[:, None] * first + x2[:, None] * second + last  # [B, points]
    up = y1[:, None] * first + y2[:, None] * second + last
    across = across.sort(1).values
    up = torch.where(inverted[:, None], up.flip(1), up.sort(1).values)
    flat = x.flatten(1).contiguous()
    right = torch.searchsorted(across.contiguous(), flat).clamp(1, points - 1)
    low, high = across.gather(1, right - 1), across.gather(1, right)
    below, above = up.gather(1, right - 1), up.gather(1, right)
    share = ((flat - low) / (high - low).clamp(min=math.ulp(1.0))).clamp(0, 1)
    return (below + share * (above - below)).view_as(x)
