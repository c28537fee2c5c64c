"""SIGReg: embeddings should look like a standard normal along every direction (LeJEPA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_core.distributed import all_sum, world_size
from ssl_core.objectives.partition import row_chunks
from ssl_core.objectives.precision import full_precision


@full_precision
def sigreg(z: Tensor, directions: Tensor, *, knots: int = 17, limit: float = 3.0) -> Tensor:
    """Mean over directions a of N * integral |phi_a(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt.

    The Epps-Pulley test of normality with phi_a(t) = mean_n exp(i t a.z_n) over all replicas' rows
    (LeJEPA: Balestriero & LeCun 2025), by the trapezoid rule on `knots` points of [0, limit],
    doubled by symmetry. `z` is `[..., N, D]` (leading dimensions, such as views, are averaged),
    `directions` `[D, K]` standard normal draws, new each step and equal on replicas; columns are
    scaled to unit length here, `z` is not normalised. A standard normal gives about 1.06
    whatever N, constant zeros (collapsed) .402 N. Memory O(N K): powers of exp(i t x) by rotation,
    recomputed in the backward pass.
    """
    if z.dim() < 2 or directions.dim() != 2 or z.shape[-1] != directions.shape[0]:
        raise ValueError(
            f"sigreg: rows [..., N, D] and directions [D, K] are needed, "
            f"got {tuple(z.shape)} and {tuple(directions.shape)}"
        )
    unit = F.normalize(directions.detach().to(z.dtype), dim=0)
    x = (z @ unit).reshape(-1, z.shape[-2], unit.shape[1])  # [V, N, K]
    rows, step = x.shape[1] * world_size(), limit / (knots - 1)
    t = step * torch.arange(knots, dtype=x.dtype, device=x.device).view(-1, 1, 1)
    bell = (-t.square() / 2).exp()
    weight = 2 * step * bell  # doubled by symmetry, halved again at the ends
    weight[[0, -1]] /= 2
    cosines, sines = (all_sum(part) / rows for part in _Rotations.apply(x, step, knots))
    error = (cosines - bell).square() + sines.square()  # [T, V, K]
    return rows * (weight * error).sum(0).mean()


class _Rotations(torch.autograd.Function):
    """Sums over rows of cos(t x) and sin(t x) at t = 0, step, 2 step, ...: `[T, V, K]` each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, knots: int) -> tuple[Tensor, Tensor]:
        views, _, columns = x.shape
        cosines, sines = x.new_zeros(2, knots, views, columns)
        for rows in row_chunks(x.shape[1], 8 * views * columns, x.device.type):
            part = x[:, rows] * step
            c1, s1 = part.cos(), part.sin()
            c, s = torch.ones_like(c1), torch.zeros_like(s1)
            for k in range(knots):
                cosines[k] += c.sum(1)
                sines[k] += s.sum(1)
                c, s = c * c1 - s * s1, s * c1 + c * s1
        ctx.save_for_backward(x)
        ctx.step, ctx.knots = step, knots
        return cosines, sines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        to_cosine, to_sine = upstream  # [T, V, K]
        grad = torch.zeros_like(x)
        for rows in row_chunks(x.shape[1], 8 * x.shape[0] * x.shape[2], x.device.type):
            part = x[:, rows] * ctx.step
            c1, s1 = part.cos(), part.sin()
            c, s = c1, s1
            for k in range(1, ctx.knots):
                t = k * ctx.step
                grad[:, rows] += c * (t * to_sine[k]).unsqueeze(1)
                grad[:, rows] -= s * (t * to_cosine[k]).unsqueeze(1)
                c, s = c * c1 - s * s1, s * c1 + c * s1
        return grad, None, None


@full_precision
def lejepa(
    views: Sequence[Tensor],
    directions: Tensor,
    *,
    global_views: int | None = None,
    lambd: float = 0.05,
    knots: int = 17,
    limit: float = 3.0,
) -> Tensor:
    """lambd * SIGReg of all views + (1 - lambd) * mean (view - mean of the global views)^2.

    `views` are V projections `[B, D]`, the first `global_views` of them of global crops (None:
    all). Neither teacher nor stopped gradient. See `sigreg` for `directions`, `knots`, `limit`.
    """
    z = torch.stack(list(views))  # [V, B, D]
    center = z[:global_views].mean(0)
    invariance = (z - center).square().mean()
    spread = sigreg(z, directions, knots=knots, limit=limit)
    return lambd * spread + (1 - lambd) * invariance
