"""What losses ask of a cross-covariance `[D, D]` without forming it: its diagonal and its norm.

When the batch is smaller than the width, sums of squares come from the N x N Gram matrices:
||a'b||^2 = <aa', bb'>, at no loss of exactness.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_core.distributed import all_sum, gather, rank, world_size

_BLOCK_BYTES = 2**19
"""Columns of so much stay in a CPU core's second cache, with what is computed from them."""


def row_count(z: Tensor) -> int:
    """Rows of all replicas; statistics over a single one raise `ValueError`."""
    count = z.shape[0] * world_size()
    if count < 2:
        raise ValueError("statistics over a batch need at least 2 samples, got 1")
    return count


def centred(z: Tensor) -> Tensor:
    """`[B, ..., D]` less the mean over all replicas' rows."""
    # No difference of two large tensors: its gradient would be copied for either.
    return z + all_sum(z.sum(0)) / -row_count(z)


def cross_product(z0: Tensor, z1: Tensor, *, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """Of a'b over all replicas' rows: its diagonal `[..., D]`, and ||a'b||_F^2 over all slots.

    a and b are `z0` and `z1` `[B, ..., D]` with every column centred, slot by slot of `...`; with
    `eps` divided by sqrt(biased variance + eps), too. Not twice differentiable.
    """
    row_count(z0)
    result: tuple[Tensor, Tensor] = _CrossProduct.apply(
        z0.movedim(0, -2), z1.movedim(0, -2), eps, z1 is z0
    )
    return result


class _CrossProduct(torch.autograd.Function):
    """Of `[..., B, D]`, in blocks of columns: neither a nor b outlives its block.

    The norm's gradient by a is 2 (bb') a = 2 b (b'a), whichever is less; autograd would multiply
    twice as often, not knowing that Gram matrices are symmetric, and pass over memory three times
    as often. As the values are the same on every replica, so are their gradients: none is
    exchanged, world_size() times the own rows' is what a gathered backward pass would sum to.
    """

    @staticmethod
    def forward(
        ctx: Any, z0: Tensor, z1: Tensor, eps: float | None, equal: bool
    ) -> tuple[Tensor, Tensor]:
        views = [z0] if equal else [z0, z1]
        count, width = z0.shape[-2] * world_size(), z0.shape[-1]
        ctx.wide, ctx.equal, ctx.eps, ctx.count = count < width, equal, eps, count
        means = [all_sum(z.sum(-2)) / count for z in views]  # [..., D]
        scales = [torch.ones_like(mean) for mean in means]
        diagonal = torch.empty_like(means[0])
        side = count if ctx.wide else width
        products = [z0.new_zeros(*z0.shape[:-2], side, side) for _ in views[: 1 + ctx.wide]]
        gathered = []  # [..., N, D]
        for columns in _blocks(z0, ctx.wide):
            units = []
            for z, mean, scale in zip(views, means, scales, strict=True):
                x = z[..., columns] - mean[..., None, columns]
                if eps is not None:
                    squares = all_sum((x * x).sum(-2))
                    scale[..., columns] = (squares / count + eps).rsqrt()
                    x.mul_(scale[..., None, columns])
                units.append(x)
            diagonal[..., columns] = (units[0] * units[-1]).sum(-2)
            if not ctx.wide:
                products[0] += units[0].mT @ units[-1]
                continue
            for x, gram in zip(units, products, strict=True):
                rows = _gathered(x)
                _add_gram(rows, gram)
                if world_size() > 1:  # own rows are made again at less cost than they are kept
                    gathered.append(rows)
        if ctx.wide:
            products = [gram.tril() + gram.tril(-1).mT for gram in products]
        else:
            products = [all_sum(products[0])]
        ctx.save_for_backward(*views, *means, *scales, *products, *gathered)
        return all_sum(diagonal), (products[0] * products[-1]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        number = 1 if ctx.equal else 2
        saved = iter(ctx.saved_tensors)
        views, means, scales = (list(itertools.islice(saved, number)) for _ in range(3))
        products = list(itertools.islice(saved, number if ctx.wide else 1))
        gathered = list(saved)
        # With z1 = z0 both factors give the same gradient.
        to_diagonal, to_norm = (g * (world_size() * (2 if ctx.equal else 1)) for g in upstream)
        products = [product * (2 * to_norm) for product in products]
        share = views[0].shape[-2]
        own = slice(rank() * share, (rank() + 1) * share)
        grads = [torch.empty_like(z) for z in views]
        for columns in _blocks(views[0], ctx.wide):
            units = [
                (z[..., columns] - mean[..., None, columns]).mul_(scale[..., None, columns])
                for z, mean, scale in zip(views, means, scales, strict=True)
            ]
            for v, unit in enumerate(units):
                other, grad = units[-1 - v], grads[v][..., columns]
                if ctx.wide:
                    gram = products[-1 - v][..., own, :]
                    torch.matmul(gram, gathered[v] if gathered else unit, out=grad)
                else:
                    torch.matmul(other, products[0] if v else products[0].mT, out=grad)
                grad.addcmul_(other, to_diagonal[..., None, columns])
                # Through the mean, and through the variance where columns were divided by it.
                mean = all_sum(grad.sum(-2)) / ctx.count
                if ctx.eps is not None:
                    slope = all_sum((grad * unit).sum(-2)) / ctx.count
                    grad.addcmul_(unit, slope.unsqueeze(-2), value=-1)
                grad.sub_(mean.unsqueeze(-2)).mul_(scales[v][..., None, columns])
        return grads[0], None if ctx.equal else grads[1], None, None


def _blocks(z: Tensor, wide: bool) -> list[slice]:
    """Columns of `[..., B, D]` worked on together: all, except for Gram matrices on one CPU."""
    width = z.shape[-1]
    step = width
    if wide and z.device.type == "cpu" and world_size() == 1:
        step = max(16, _BLOCK_BYTES * width // (z.numel() * z.element_size()))
    return [slice(start, start + step) for start in range(0, width, step)]


def _add_gram(rows: Tensor, gram: Tensor) -> None:
    """Adds rows rows' to `[..., N, N]`; on a CPU in strips, which end soon past the diagonal."""
    count = rows.shape[-2]
    strips = 4 if rows.device.type == "cpu" and count >= 64 else 1
    edges = [count * i // strips for i in range(strips + 1)]
    for start, stop in itertools.pairwise(edges):
        gram[..., start:stop, :stop] += rows[..., start:stop, :] @ rows[..., :stop, :].mT


def _gathered(rows: Tensor) -> Tensor:
    """All replicas' rows, `[..., B, D] -> [..., N, D]`."""
    return gather(rows.movedim(-2, 0).contiguous()).movedim(0, -2) if world_size() > 1 else rows
