"""SwAV, DINO and MAE as lightly's own examples train them; used by `learning_lightly.py`."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from learning_parts import Setup, TimmTwin
from lightly import loss as losses
from lightly import transforms
from lightly.models import modules, utils
from lightly_base import Model, momentum
from torch import Tensor, nn
from torchvision.transforms import v2


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


class MAE(Model):
    """On timm's network of our encoder's shape; judged in our encoder."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of, views = setup.recipe.method.options, setup.recipe.views.options
        self.twin = TimmTwin(setup.encoder)
        vit = self.twin.vit
        self.backbone = modules.MaskedVisionTransformerTIMM(vit=vit)  # type: ignore[assignment]
        self.patch_size: int = vit.patch_embed.patch_size[0]
        width = of["decoder_dim"]
        self.decoder_embed = nn.Linear(self.width, width)
        self.decoder = modules.MaskedVisionTransformerDecoderTIMM(
            num_patches=vit.patch_embed.num_patches,
            embed_dim=width,
            depth=of["decoder_depth"],
            num_heads=of["decoder_heads"],
        )
        self.decoder_pred = nn.Linear(width, self.patch_size**2 * 3)
        self.mask_ratio = of["mask_ratio"]
        self.criterion = nn.MSELoss()
        # What lightly's MAETransform holds, without its flip, which the recipe has not.
        chain = v2.Compose(
            [
                v2.RandomResizedCrop(views["size"], scale=tuple(views["scale"])),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(setup.mean, setup.std),
            ]
        )
        self.transform = lambda image: [chain(image)]

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        images = views[0]
        idx_keep, idx_mask = utils.random_token_mask(
            size=(len(images), self.backbone.sequence_length), mask_ratio=self.mask_ratio
        )
        encoded = self.backbone.encode(images=images, idx_keep=idx_keep)
        tokens = utils.repeat_token(
            self.decoder.mask_token, (len(images), self.backbone.sequence_length)
        )
        tokens = utils.set_at_index(tokens, idx_keep, self.decoder_embed(encoded))
        decoded = self.decoder.decode(self.decoder.add_pos_embed(tokens))
        predicted = self.decoder_pred(utils.get_at_index(decoded, idx_mask))
        patches = utils.patchify(images, self.patch_size)
        target = utils.get_at_index(patches, idx_mask - 1)
        return self.criterion(predicted, utils.normalize_mean_var(target))

    def judged(self) -> nn.Module:
        return self.twin.ours(self.backbone.vit)
