"""What layouts refuse, before any work; and, where there is a GPU, graphs and hidden waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_core import api, recipe
from ssl_core.batch import Batch
from ssl_core.engine.fit import fit
from ssl_core.engine.parallelize import check_layout, parallelize
from ssl_core.errors import UserError
from ssl_core.methods.byol import BYOL
from ssl_core.methods.simclr import SimCLR
from ssl_core.testing.vectors import VECTORS, MLPEncoder, NoisyViews

DIM = 24
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ADAMW = recipe.Optimizer()
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize(
    ("train", "optimizer", "device", "words"),
    [
        ({"parallel": "fsdp"}, "lars", CPU, "lars has no kernel"),
        ({"parallel": "fsdp"}, "sgd", CPU, "use adamw"),
        ({"parallel": "fsdp", "shard": 3}, "adamw", CPU, "4 ranks do not divide into groups of 3"),
        ({"cuda_graphs": True}, "adamw", CPU, "device cpu has none"),
        ({"cuda_graphs": True, "parallel": "fsdp"}, "adamw", CUDA, "train.parallel=fsdp"),
        ({"cuda_graphs": True, "checkpointing": True}, "sgd", CUDA, "train.checkpointing=true"),
    ],
)
def test_what_does_not_go_together_is_refused(
    train: dict[str, Any], optimizer: str, device: torch.device, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check_layout(recipe.Train(**train), recipe.Optimizer(name=optimizer), device, world=4)


@pytest.mark.parametrize("train", [{"parallel": "fsdp", "shard": 2}, {"compile": True}])
def test_what_goes_together_is_not(train: dict[str, Any]) -> None:
    check_layout(recipe.Train(**train), ADAMW, CPU, world=4)
    check_layout(recipe.Train(cuda_graphs=True), ADAMW, CUDA, world=4)


def test_one_process_may_name_any_optimiser() -> None:
    check_layout(recipe.Train(parallel="fsdp"), recipe.Optimizer(name="lars"), CPU, world=1)


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"train.cuda_graphs": True, "train.device": "cpu"}
    with pytest.raises(UserError, match="cuda_graphs"):
        api.pretrain(VECTORS, data=str(tmp_path), out=out, settings=settings)
    assert not out.exists()


def test_graphs_are_made_of_compiled_parts_with_fixed_shapes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(nn.Module, "compile", lambda part, **options: asked.append(options))
    method = SimCLR(MLPEncoder({"dim": DIM}), NoisyViews({"dim": DIM}), hidden=16, dim=8)
    parallelize(method, recipe.Train(compile=True), ADAMW, CPU)
    parallelize(method, recipe.Train(cuda_graphs=True), ADAMW, CUDA)
    assert asked == [{}, {"mode": "reduce-overhead", "dynamic": False}]


class OnDevice:
    """Batches that are on the device already; `between(step)` runs before each."""

    def __init__(self, between: Any = None) -> None:
        self.between = between

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        random = torch.Generator().manual_seed(0)
        made = [torch.randn(32, DIM, generator=random).to(CUDA) for _ in range(stop)]
        for step in range(start, stop):
            if self.between is not None:
                self.between(step)
            ids = torch.arange(32, device=CUDA) + 32 * step
            yield Batch(made[step], ids, ids)


def train(out: Path, loader: OnDevice, **settings: Any) -> float:
    torch.manual_seed(0)
    method = BYOL(MLPEncoder({"dim": DIM}), NoisyViews({"dim": DIM}), hidden=32, dim=16)
    setting = recipe.Train(steps=20, batch_size=32, log_every=20, save_every=20, **settings)
    clipped = recipe.Optimizer(clip=1.0)
    result = fit(method, loader, train=setting, optimizer=clipped, out=out, device=CUDA)
    return float(result.last["loss"])


@needs_gpu
def test_the_host_never_waits_between_log_points(tmp_path: Path) -> None:
    def watch(step: int) -> None:
        if step in (5, 18):
            torch.cuda.set_sync_debug_mode("error" if step == 5 else "default")

    try:
        train(tmp_path, OnDevice(watch))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_cuda_graphs_compute_what_eager_does(tmp_path: Path) -> None:
    eager = train(tmp_path / "eager", OnDevice())
    assert train(tmp_path / "graphs", OnDevice(), cuda_graphs=True) == pytest.approx(eager, 1e-3)
