"""Methods of many crops as lightly's own examples train them; used by `learning_lightly.py`."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from learning_parts import Setup
from lightly import loss as losses
from lightly import transforms
from lightly.models import modules, utils
from lightly_base import Model, momentum
from torch import Tensor, nn


def crops(setup: Setup) -> transforms.DINOTransform:
    views = setup.recipe.views.options
    return transforms.DINOTransform(
        global_crop_size=views["size"],
        global_crop_scale=tuple(views["global_scale"]),
        local_crop_size=views["local_size"],
        local_crop_scale=tuple(views["local_scale"]),
        n_local_views=views["local_views"],
        hf_prob=views["flip"],
        random_gray_scale=views["grey"],
        gaussian_blur=(0.0, 0.0, 0.0),
        solarization_prob=views["solarise"],
        normalize=setup.normalise,
    )


class SwAV(Model):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        hidden, dim = setup.option("method", "hidden"), setup.option("method", "dim")
        self.projection_head = modules.SwaVProjectionHead(self.width, hidden, dim)
        self.prototypes = modules.SwaVPrototypes(dim, setup.option("method", "prototypes"))
        self.criterion = losses.SwaVLoss()
        self.transform = crops(setup)

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        self.prototypes.normalize()
        scores = []
        for view in views:
            z = F.normalize(self.projection_head(self.backbone(view)), dim=1, p=2)
            scores.append(self.prototypes(z))
        return self.criterion(scores[:2], scores[2:])[0]


class DINO(Model):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of = setup.recipe.method.options
        sizes = (self.width, of["hidden"], of["bottleneck"], of["prototypes"])
        batch_norm = of["head_norm"] == "batch"
        self.head = modules.DINOProjectionHead(*sizes, batch_norm=batch_norm, freeze_last_layer=1)
        self.teacher_backbone = copy.deepcopy(self.backbone)
        self.teacher_head = modules.DINOProjectionHead(*sizes, batch_norm=batch_norm)
        self.teacher_head.load_state_dict(self.head.state_dict())
        utils.deactivate_requires_grad(self.teacher_backbone)
        utils.deactivate_requires_grad(self.teacher_head)
        self.epochs = self._epoch(1.0)
        self.criterion = losses.DINOLoss(
            output_dim=of["prototypes"],
            teacher_temp=of["teacher_temperature"],
            warmup_teacher_temp_epochs=max(1, round(0.3 * self.epochs)),
        )
        self.transform = crops(setup)

    def _epoch(self, share: float) -> int:
        train = self.setup.recipe.train
        return int(share * train.steps * train.batch_size / len(self.setup.files))

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        m = momentum(self.setup, share)
        utils.update_momentum(self.backbone, self.teacher_backbone, m=m)
        utils.update_momentum(self.head, self.teacher_head, m=m)
        with torch.no_grad():
            taught = [self.teacher_head(self.teacher_backbone(view)) for view in views[:2]]
        student = [self.head(self.backbone(view)) for view in views]
        return self.criterion(taught, student, epoch=self._epoch(share))

    def after_backward(self, share: float) -> None:
        self.head.cancel_last_layer_gradients(current_epoch=self._epoch(share))

    def judged(self) -> nn.Module:
        return self.teacher_backbone.encoder


class LeJEPA(Model):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of = setup.recipe.method.options
        self.projection_head = modules.LeJEPAProjectionHead(self.width, of["hidden"], of["dim"])
        self.criterion = losses.LeJEPALoss(
            lambda_param=of["lambd"], sigreg_num_vectors=of["directions"]
        )
        self.transform = crops(setup)

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        wide, narrow = (
            torch.stack(self.projection_head(self.backbone(torch.cat(same))).chunk(len(same)))
            for same in (views[:2], views[2:])
        )
        return self.criterion(local_proj=narrow, global_proj=wide)
