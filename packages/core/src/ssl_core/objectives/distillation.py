"""Self-distillation: cross-entropy to a teacher's soft assignments, and their centre."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.distributed import all_mean, all_sum, world_size
from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.view_pairs import Logits, Targets, pair_cross_entropy


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
    student: Sequence[Logits],
    teacher: Sequence[Logits],
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

    Instead of logits either may hold `Scores(features, prototypes)`: the product with the
    prototypes then runs inside, block by block, and `[B, K]` never exists.
    """
    _check_views("dino", student, teacher)
    return pair_cross_entropy(
        student,
        teacher,
        targets=Targets(teacher_temperature, center),
        temperature=student_temperature,
    )


@full_precision
def swav(student: Sequence[Logits], codes: Sequence[Tensor], *, temperature: float = 0.1) -> Tensor:
    """Mean over pairs (assigned view q, student view v != q) of CE(codes_q, softmax(s_v / T)).

    `student` are scores `[B, K]` of all crops (or `Scores`), `codes` the assignments `[B, K]` of
    the first `len(codes)` of them, rows summing to 1, without gradient: `sinkhorn` for SwAV (Caron
    et al. 2020, eq. 2) and DINOv2. Uniform (collapsed) scores cost log K.
    """
    _check_views("swav", student, codes)
    how = Targets(1.0, given=True)
    return pair_cross_entropy(student, codes, targets=how, temperature=temperature)


def _check_views(name: str, student: Sequence[Logits], teacher: Sequence[Logits]) -> None:
    if len(student) < max(2, len(teacher)) or not teacher:
        raise ValueError(
            f"{name}: needs at least two student views, the first ones being the teacher's, "
            f"got {len(student)} student and {len(teacher)} teacher views"
        )


@full_precision
def ibot_patches(
    student: Logits,
    teacher: Logits,
    hidden: Tensor,
    *,
    center: Tensor | float = 0.0,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    given: bool = False,
    mean: Literal["image", "token"] = "image",
) -> Tensor:
    """Soft cross-entropy of the hidden tokens of a view to the teacher's (iBOT: Zhou et al. 2022).

    Arguments:
        student, teacher: logits `[M, K]` of the M hidden tokens in row-major order of `hidden`, or
            `Scores` of them. The teacher saw the whole view and receives no gradient.
        hidden: bool `[B, N]`.
        given: `teacher` are target probabilities already (Sinkhorn: DINOv2).
        mean: "image" averages within an image first; one without hidden tokens costs 0 and
            counts (iBOT, DINOv2). "token" is the mean over all hidden tokens of all replicas.

    Uniform (collapsed) outputs cost log K times the share of images with hidden tokens.
    """
    like = student if isinstance(student, Tensor) else student.features
    counts = hidden.sum(1, dtype=like.dtype)  # [B]
    if mean == "image":
        each = 1 / (counts.clamp(min=1) * hidden.shape[0])
        weights = each.unsqueeze(1).expand_as(hidden)[hidden]  # [M]
    else:
        total = all_sum(counts.sum())
        weights = (world_size() / total.clamp(min=1)).expand(int(counts.sum()))
    rows = like.shape[0]
    if weights.shape[0] != rows:
        raise ValueError(
            f"ibot_patches: {rows} rows of logits for {weights.shape[0]} hidden tokens"
        )
    return pair_cross_entropy(
        [student],
        [teacher],
        targets=Targets(teacher_temperature, center, given=given),
        temperature=student_temperature,
        same_view=True,
        weights=weights,
    )


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
