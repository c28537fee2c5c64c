"""Stopped and resumed runs of masked methods end in the bits of whole ones; pictures are drawn."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reference import OneView, keys
from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.data.stream import Stream
from ssl_core.engine.fit import fit
from ssl_core.errors import Preempted
from ssl_core.methods.base import Method
from ssl_core.methods.beit import BEiT
from ssl_core.methods.data2vec import Data2Vec
from ssl_core.methods.ijepa import IJEPA
from ssl_core.methods.mixmim import MixMIM
from ssl_core.networks.vit import PatchTransformer
from ssl_core.views import View

TRAIN = recipe.Train(steps=8, batch_size=8, log_every=2, save_every=3, seed=1)
DECODER = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
D2V = {"decoder_dim": 16, "decoder_depth": 2, "decoder_groups": 4, "masks": 2, "mask_block": 2}
JEPA = {"predictor_dim": 8, "predictor_depth": 1, "predictor_heads": 2}

METHODS: dict[str, Callable[[nn.Module], Method]] = {
    "data2vec": lambda e: Data2Vec(e, OneView(), momentum=0.5, end_momentum=0.9, **D2V),
    "ijepa": lambda e: IJEPA(e, OneView(), momentum=0.5, **JEPA),
    "beit": lambda e: BEiT(e, OneView(), mask_block=2, levels=(4, 3)),
    "mixmim": lambda e: MixMIM(e, OneView(), mask_unit=1, **DECODER),
}


class Images:
    """Batches of random images; a signal is sent before step `stop`."""

    def __init__(self, stop: int | None) -> None:
        self.data = torch.randn(30, 2, 24, 24, generator=torch.Generator().manual_seed(0))
        self.stream = Stream(30, TRAIN.batch_size, seed=TRAIN.seed, accumulate=1)
        self.stop = stop

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            if step == self.stop:
                os.kill(os.getpid(), signal.SIGTERM)
            index, ids = (torch.from_numpy(x) for x in self.stream.rows(step, 0))
            yield Batch(self.data[index], ids, index)


def fresh(name: str) -> Method:
    torch.manual_seed(3)
    encoder = PatchTransformer(
        channels=2,
        sides=(24, 24),
        patch=(4, 4),
        dim=16,
        depth=2,
        heads=2,
        class_token=False,
        pool="mean",
        drop_path=0.2,
    )
    return METHODS[name](encoder)


def trained(name: str, out: Path, stop: int | None = None) -> Method:
    method = fresh(name)
    settings: dict[str, Any] = {"train": TRAIN, "optimizer": recipe.Optimizer(lr=1e-3)}
    fit(method, Images(stop), out=out, **settings)
    return method


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    whole = trained(name, tmp_path / "whole")
    with pytest.raises(Preempted):
        trained(name, tmp_path / "parts", stop=4)
    resumed = trained(name, tmp_path / "parts")
    for (key, x), y in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(x, y), key


@pytest.mark.parametrize("name", ["data2vec", "ijepa", "beit"])
def test_what_is_hidden_is_shown_as_holes(name: str) -> None:
    method = fresh(name).eval()
    x: Tensor = torch.randn(2, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pictures = method.shown([View(x, keys(2))])
    (picture,) = pictures.values()
    seen = ~picture.isnan()
    assert torch.equal(picture[seen], x[seen])
    assert 0.05 < seen.double().mean() < 0.95
