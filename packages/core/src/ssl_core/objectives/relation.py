"""Similarities to a memory as a distribution: the student should relate as the teacher does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.view_pairs import Scores, Targets, pair_cross_entropy


@full_precision
def ressl(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """CE(softmax(t.Q / T_t), softmax(s.Q / T)) with cosines (ReSSL: Zheng et al. 2021, eq. 5).

    `student` and `teacher` are `[B, D]`, `queue` `[K, D]` holds earlier teacher embeddings; all are
    normalised inside, only the student receives gradient. Mean over rows. T_t must be below T.
    Equal queue rows (collapsed) cost log K with zero gradient. Memory O((B + K) D).
    """
    if not 0 < teacher_temperature <= temperature:
        raise ValueError(
            f"ressl: teacher_temperature must lie in (0, temperature={temperature}], "
            f"got {teacher_temperature}"
        )
    s, t = F.normalize(student, dim=1), F.normalize(teacher.detach(), dim=1)
    bank = F.normalize(queue.detach(), dim=1)
    return pair_cross_entropy(
        [Scores(s, bank)],
        [Scores(t, bank)],
        targets=Targets(teacher_temperature),
        temperature=temperature,
        same_view=True,
    )


@full_precision
def seed(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.2,
    teacher_temperature: float = 1e-4,
) -> Tensor:
    """The same over [the teacher's embedding of the sample, queue] (SEED: Fang et al. 2021, eq. 4).

    `student` and `teacher` `[B, D]`, `queue` `[K, D]` of teacher embeddings, normalised inside;
    only the student receives gradient. As `teacher_temperature` goes to 0 it becomes InfoNCE with
    the teacher's embedding as the positive; a student equal to the teacher at equal temperatures
    costs the entropy of the target. Put the teacher's embeddings into the queue after the loss.
    """
    s, t = F.normalize(student, dim=1), F.normalize(teacher.detach(), dim=1)
    bank = F.normalize(queue.detach(), dim=1)
    mine = torch.cat([(s * t).sum(1, keepdim=True), s @ bank.T], 1)  # [B, 1 + K]
    theirs = torch.cat([(t * t).sum(1, keepdim=True), t @ bank.T], 1)
    return pair_cross_entropy(
        [mine],
        [theirs],
        targets=Targets(teacher_temperature),
        temperature=temperature,
        same_view=True,
    )
