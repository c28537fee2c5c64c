"""Two replicas equal one process: gradients averaged over ranks are those of the whole batch.

The file is also the program its two ranks run: `python test_distributed_losses.py RANK FOLDER`.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ssl_core.objectives import (
    Centering,
    barlow_twins,
    byol,
    dino,
    info_nce,
    masked_l1,
    masked_pixels,
    masked_smooth_l1,
    masked_token_cross_entropy,
    mse,
    negative_cosine,
    nt_xent,
    scaled_cosine,
    sinkhorn,
    smooth_l1,
    soft_cross_entropy,
    vicreg,
)

WORLD, BATCH, TOKENS, DIM = 2, 6, 4, 5


@dataclass
class Rows:
    """What a rank sees of the batch: two views `[b, T, D]` after a shared linear network."""

    a: Tensor
    b: Tensor
    hidden: Tensor
    ids: Tensor


def wide(x: Tensor) -> Tensor:
    """More dimensions than samples, so that the Gram form is taken: `[b, T, D] -> [b, T D]`."""
    return x.flatten(1)


LOSSES: dict[str, Callable[[Rows], Tensor]] = {
    "nt_xent": lambda r: nt_xent(r.a[:, 0], r.b[:, 0]),
    "nt_xent of three views": lambda r: nt_xent(r.a[:, 0], r.b[:, 0], r.a[:, 1]),
    "nt_xent decoupled, weighted": lambda r: nt_xent(
        r.a[:, 0], r.b[:, 0], decoupled=True, weight_sigma=0.5, weight_gradient=True
    ),
    "info_nce": lambda r: info_nce(r.a[:, 0], r.b[:, 0]),
    "info_nce one way, decoupled": lambda r: info_nce(
        r.a[:, 0], r.b[:, 0].detach(), symmetric=False, decoupled=True
    ),
    "info_nce with a queue": lambda r: info_nce(
        r.a[:, 0], r.b[:, 0], symmetric=False, in_batch=False, negatives=torch.eye(DIM).double()
    ),
    "barlow_twins": lambda r: barlow_twins(r.a[:, 0], r.b[:, 0]),
    "barlow_twins by Gram": lambda r: barlow_twins(wide(r.a), wide(r.b)),
    "vicreg": lambda r: vicreg(r.a[:, 0], r.b[:, 0]),
    "vicreg by Gram": lambda r: vicreg(wide(r.a), wide(r.b)),
    "byol": lambda r: byol(r.a[:, 0], r.b[:, 0], r.a[:, 1], r.b[:, 1]),
    "negative_cosine": lambda r: negative_cosine(r.a, r.b),
    "mse": lambda r: mse(r.a, r.b),
    "smooth_l1": lambda r: smooth_l1(r.a, r.b),
    "scaled_cosine": lambda r: scaled_cosine(r.a, r.b, weight=r.hidden),
    "soft_cross_entropy": lambda r: soft_cross_entropy(r.a, r.b.softmax(-1)),
    "dino": lambda r: dino(list(r.a.unbind(1)), list(r.b.unbind(1))[:2]),
    "masked_pixels": lambda r: masked_pixels(r.a, r.b, r),
    "masked_l1": lambda r: masked_l1(r.a, r.b, r),
    "masked_smooth_l1": lambda r: masked_smooth_l1(r.a, r.b, r),
    "masked_token_cross_entropy": lambda r: masked_token_cross_entropy(r.a, r.ids, r),
}


def whole_batch() -> tuple[Tensor, Rows]:
    """The shared weights and the inputs of all ranks; ranks hide 2 and 7 tokens."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    a, b = torch.randn(2, BATCH, TOKENS, DIM, generator=generator, dtype=torch.float64)
    hidden = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    hidden[0, :2] = True
    hidden[3:, 1:3] = True
    hidden[5, 0] = True
    return weight, Rows(a, b, hidden, torch.arange(BATCH * TOKENS).reshape(BATCH, TOKENS) % DIM)


def gradient(loss: Callable[[Rows], Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    """The loss of these rows and its gradient with respect to the shared weights."""
    weight, inputs = whole_batch()
    weight.requires_grad_()
    seen = Rows(
        inputs.a[rows] @ weight, inputs.b[rows] @ weight, inputs.hidden[rows], inputs.ids[rows]
    )
    value = loss(seen)
    (grad,) = torch.autograd.grad(value, weight)
    return value.detach(), grad


def state_of(rows: slice) -> dict[str, Tensor]:
    """What is shared but is no loss: Sinkhorn's assignments and the centre."""
    _, inputs = whole_batch()
    centering = Centering(DIM).double()
    centering.update(inputs.a[rows, 0].mean(0))
    return {"sinkhorn": sinkhorn(inputs.a[rows, 0], temperature=0.5), "centre": centering.center}


def main(rank: int, folder: Path) -> None:
    """One rank: every loss on its half of the batch, gradients averaged as an engine does."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=120),
    )
    half = BATCH // WORLD
    rows = slice(rank * half, (rank + 1) * half)
    results: dict[str, Tensor] = {}
    for name, loss in LOSSES.items():
        value, grad = gradient(loss, rows)
        for tensor in (value, grad):
            dist.all_reduce(tensor)
            tensor /= WORLD
        results[f"{name}/loss"], results[f"{name}/grad"] = value, grad
    results["alone/loss"] = gradient(lambda r: nt_xent(r.a[:, 0], r.b[:, 0], gather=False), rows)[0]
    results |= state_of(rows)
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Results of both ranks, from one pair of processes for all losses."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    for process in running:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_equal_one_process(name, ranks):
    value, grad = gradient(LOSSES[name], slice(None))
    assert grad.abs().max() > 0
    for got in ranks:
        torch.testing.assert_close(got[f"{name}/loss"], value, rtol=1e-10, atol=1e-14)
        assert (got[f"{name}/grad"] - grad).abs().max() <= 1e-10 * grad.abs().max()


def test_without_gather_a_rank_sees_only_its_rows(ranks):
    for rank, got in enumerate(ranks):
        rows = slice(3 * rank, 3 * rank + 3)
        want, _ = gradient(LOSSES["nt_xent"], rows)
        torch.testing.assert_close(got["alone/loss"], want, rtol=1e-12, atol=0)


def test_shared_state_is_that_of_the_whole_batch(ranks):
    want = state_of(slice(None))
    codes = torch.cat([got["sinkhorn"] for got in ranks])
    torch.testing.assert_close(codes, want["sinkhorn"], rtol=1e-12, atol=0)
    for got in ranks:
        torch.testing.assert_close(got["centre"], want["centre"], rtol=1e-12, atol=0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
