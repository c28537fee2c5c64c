"""Self-distillation: cross-entropy to a teacher's soft assignments, and what balances them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.distributed import all_mean, all_sum, world_size
from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.view_pairs import pair_cross_entropy


@full_precision
def soft_cross_entropy(
    student_logits: Tensor, target_probs: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """-sum_k t_k log softmax(s / temperature)_k, mean over rows.

    `student_logits` and `target_probs` are `[..., K]`; targets sum to 1 over K and receive no
    gradient. Uniform (collapsed) logits cost log K.
    """
    logits, targets = student_logits / temperature, target_probs.detach()
    # sum(t) * logsumexp - <t, logits>: no log-probabilities are kept for the backward pass.
    return (targets.sum(-1) * logits.logsumexp(-1) - (targets * logits).sum(-1)).mean()


@full_precision
def dino(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    center: Tensor | float = 0.0,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Mean over pairs (teacher view q, student view v != q) of the soft cross-entropy.

    Targets are softmax((t_q - center) / teacher_temperature), without gradient (DINO: Caron et
    al. 2021, eq. 1). `student` and `teacher` are lists of logits `[B, K]`; the first
    `len(teacher)` student views are the teacher's. Mean over rows. Uniform (collapsed) outputs
    cost log K.
    """
    if len(student) < max(2, len(teacher)) or not teacher:
        raise ValueError(
            f"dino: needs at least two student views, the first ones being the teacher's, "
            f"got {len(student)} student and {len(teacher)} teacher views"
        )
    pairs = len(teacher) * (len(student) - 1)
    total = pair_cross_entropy(
        list(student),
        [logits.detach() for logits in teacher],
        center=center,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )
    return total / pairs


class Centering(nn.Module):
    """The running mean of teacher logits that DINO subtracts from its targets.

    `center` is a buffer `[dim]`, zero at the start. Alone, centring drives outputs to uniform and
    the low teacher temperature to one dimension; together they balance.
    """

    center: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"centre momentum must lie in [0, 1], got {momentum}")
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(dim))

    @torch.no_grad()
    def update(self, teacher_logits_mean: Tensor, *, finite: Tensor | None = None) -> None:
        """center <- momentum * center + (1 - momentum) * mean of raw teacher logits `[dim]`.

        The mean is this replica's; it is averaged over replicas here. Call it after the loss that
        used the old centre. Where `finite` (0-dim bool) is False nothing changes, without asking
        the device.
        """
        mean = all_mean(teacher_logits_mean.detach().to(self.center.dtype)).reshape(-1)
        new = self.center * self.momentum + mean * (1 - self.momentum)
        # where, not a product: the mean of a skipped step may be NaN.
        self.center.copy_(new if finite is None else torch.where(finite, new, self.center))

    def extra_repr(self) -> str:
        return f"dim={self.center.shape[0]}, momentum={self.momentum}"


@torch.no_grad()
@full_precision
def sinkhorn(logits: Tensor, *, temperature: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments `[B, K]` whose prototypes share the batch evenly.

    Sinkhorn-Knopp on exp(logits / temperature): prototypes to mass 1/K over the batch of all
    replicas, samples to mass 1, `iterations` times (SwAV: Caron et al. 2020; DINOv2). Rows sum to
    1. No gradient. Uniform logits give uniform assignments.
    """
    q = logits / temperature  # [B, K]
    # One buffer and two scaling vectors: the assignment is diag(u) q diag(v) throughout. Rows are
    # shifted by their own maximum, and u starts where that puts it, so that nothing overflows.
    top = q.amax(1)
    u = (top - _largest(top)).exp()  # [B]
    q.sub_(top.unsqueeze(1)).exp_()
    samples, prototypes = q.shape[0] * world_size(), q.shape[1]
    v = q.new_ones(prototypes)
    tiny = torch.finfo(q.dtype).tiny  # a prototype that nobody is near keeps no mass
    for _ in range(iterations):
        v = 1 / (all_sum(q.T @ u).clamp_(min=tiny) * prototypes)
        u = 1 / ((q @ v) * samples)
    return q.mul_((u * samples).unsqueeze(1)).mul_(v)


def _largest(x: Tensor) -> Tensor:
    """The largest entry over all replicas."""
    largest = x.max()
    if world_size() > 1:
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return largest
