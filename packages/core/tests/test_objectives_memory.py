"""What objectives keep for the backward pass: no N x N, D x D or second copy of the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_core.objectives import barlow_twins, dino, info_nce, nt_xent, vicreg


def kept(objective: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Numbers alive in distinct tensors saved for the backward pass."""
    storages: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        alive.append(x)  # so that no address is used twice
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.itemsize
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        objective(*inputs).backward()
    return sum(storages.values())


def leaves(count: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).requires_grad_() for _ in range(count)]


def test_contrastive_losses_keep_no_similarity_matrix():
    batch, dim = 512, 4
    z = leaves(2, batch, dim)
    for objective in (nt_xent, info_nce):
        # A handful of [N, D] tensors; one [B, B] matrix alone would be 128 of them.
        assert kept(objective, *z) < 30 * batch * dim


def test_redundancy_losses_keep_no_covariance_of_wide_embeddings():
    batch, dim = 4, 512
    z = leaves(2, batch, dim)
    for objective in (barlow_twins, vicreg):
        assert kept(objective, *z) < 40 * batch * dim < dim * dim


def test_dino_keeps_one_gradient_a_student_view():
    batch, classes = 8, 1000
    student, teacher = leaves(6, batch, classes), leaves(2, batch, classes)
    numbers = kept(lambda *views: dino(list(views), teacher), *student)
    assert numbers <= 6 * batch * classes + 100
