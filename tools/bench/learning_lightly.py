"""Methods as lightly's own examples train them; used by `learning.py`.

Its transforms, heads and losses, a DataLoader over Pillow images, torch.optim. Sizes, temperatures
and strengths of views are those of our recipe; everything else is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import lightly_crops as crops
import lightly_masked as masked
import lightly_pairs as pairs
import torch
from learning_parts import Setup, loader, paced
from lightly.models import utils
from lightly_base import Model
from torch import Tensor, nn

from ssl_core.engine.precision import autocast


class LightlyRun:
    """One method of lightly's, trained a stretch at a time."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.model: Model = MODELS[setup.recipe.method.name](setup)
        decayed, free = utils.get_weight_decay_parameters([self.model])
        groups = [{"params": _learned(decayed)}, {"params": _learned(free), "weight_decay": 0.0}]
        self.optimizer, self.schedule = paced(setup, groups)
        self.step = 0
        self._batches = self._endless()

    def _endless(self) -> Iterator[list[Tensor]]:
        batches = loader(self.setup, self.model.transform, self.model.collate)
        while True:
            yield from batches

    def advance(self, steps: int) -> None:
        """Trains for so many steps."""
        self.model.train()
        for _ in range(steps):
            share = self.step / self.setup.recipe.train.steps
            batch = next(self._batches)
            with autocast(torch.device("cpu"), self.setup.recipe.train.precision):
                loss = self.model.loss(batch, share)
            loss.backward()
            self.model.after_backward(share)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.step += 1

    @property
    def encoder(self) -> nn.Module:
        """What is judged."""
        return self.model.judged()


def _learned(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]


MODELS: Mapping[str, type[Model]] = {
    "simclr": pairs.SimCLR,
    "barlow_twins": pairs.BarlowTwins,
    "vicreg": pairs.VICReg,
    "vicregl": pairs.VICRegL,
    "w_mse": pairs.WMSE,
    "nnclr": pairs.NNCLR,
    "simsiam": pairs.SimSiam,
    "moco": pairs.MoCo,
    "tico": pairs.TiCo,
    "byol": pairs.BYOL,
    "swav": crops.SwAV,
    "dino": crops.DINO,
    "lejepa": crops.LeJEPA,
    "mae": masked.MAE,
    "simmim": masked.SimMIM,
    "msn": masked.MSN,
    "ibot": masked.IBOT,
    "dinov2": masked.DINOv2,
    "ijepa": masked.IJEPA,
}
