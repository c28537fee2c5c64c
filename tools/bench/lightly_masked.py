"""Methods on a masked transformer as lightly's own examples train them; for `learning_lightly.py`.

All but MAE start from our encoder's weights and fixed positions: MAE's example draws them anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from learning_parts import Setup, TimmTwin
from lightly import loss as losses
from lightly.data.ijepa_collate import IJEPAMaskCollator
from lightly.models import modules, utils
from lightly.models.modules import heads
from lightly_base import Model, momentum
from lightly_crops import crops
from torch import Tensor, nn
from torchvision.transforms import v2

OURS = {"weight_initialization": "skip", "pos_embed_initialization": "skip"}
"""How lightly leaves a network's weights and positions as they are."""


def one_crop(setup: Setup) -> Callable[[Any], list[Tensor]]:
    """What lightly's MAETransform and IJEPATransform hold, without the flip our recipes lack."""
    views = setup.recipe.views.options
    chain = v2.Compose(
        [
            v2.RandomResizedCrop(views["size"], scale=tuple(views["scale"])),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(setup.mean, setup.std),
        ]
    )
    return lambda image: [chain(image)]


class Masked(Model):
    """On timm's network of our encoder's shape; judged in our encoder."""

    def __init__(self, setup: Setup, *, anew: bool = False, **options: Any) -> None:
        super().__init__(setup)
        self.twin = TimmTwin(setup.encoder, start=not anew, **options)
        start = {} if anew else OURS
        self.student = modules.MaskedVisionTransformerTIMM(vit=self.twin.vit, **start)
        del self.backbone  # the encoder it holds is the twin's, to be judged
        self.tokens: int = self.student.sequence_length
        self.patch: int = self.student.vit.patch_embed.patch_size[0]

    def hidden(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Places kept and places hidden, class token among the kept."""
        size, ratio = (len(images), self.tokens), self.setup.option("method", "mask_ratio")
        kept, hidden = utils.random_token_mask(size=size, mask_ratio=ratio)
        return kept, hidden

    def patches(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Pixels of the hidden places."""
        patches = utils.patchify(images, self.patch)
        found: Tensor = utils.get_at_index(patches, hidden - 1)
        return found

    def judged(self) -> nn.Module:
        return self.twin.ours(self.student.vit)


class Taught(Masked):
    """With a slow copy of the network, which is judged, and of what else is in `copies`."""

    def __init__(self, setup: Setup, **options: Any) -> None:
        super().__init__(setup, **options)
        self.teacher = slow_copy(self.student)
        self.copies = [(self.student, self.teacher)]

    def follow(self, m: float) -> None:
        """What the examples do after each step; here before the next."""
        for module, copied in self.copies:
            utils.update_momentum(module, copied, m=m)

    def judged(self) -> nn.Module:
        return self.twin.ours(self.teacher.vit)


def slow_copy(module: nn.Module) -> nn.Module:
    """A copy that no gradient reaches."""
    copied = copy.deepcopy(module)
    utils.deactivate_requires_grad(copied)
    return copied


class MAE(Masked):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, anew=True)
        of = setup.recipe.method.options
        width = of["decoder_dim"]
        self.decoder_embed = nn.Linear(self.width, width)
        self.decoder = modules.MaskedVisionTransformerDecoderTIMM(
            num_patches=self.student.vit.patch_embed.num_patches,
            embed_dim=width,
            depth=of["decoder_depth"],
            num_heads=of["decoder_heads"],
        )
        self.decoder_pred = nn.Linear(width, self.patch**2 * 3)
        self.criterion = nn.MSELoss()
        self.transform = one_crop(setup)

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        (images,) = views
        idx_keep, idx_mask = self.hidden(images)
        encoded = self.student.encode(images=images, idx_keep=idx_keep)
        tokens = utils.repeat_token(self.decoder.mask_token, (len(images), self.tokens))
        embedded = self.decoder_embed(encoded).type_as(tokens)
        tokens = utils.set_at_index(tokens, idx_keep, embedded)
        decoded = self.decoder.decode(self.decoder.add_pos_embed(tokens))
        predicted = self.decoder_pred(utils.get_at_index(decoded, idx_mask))
        target = utils.normalize_mean_var(self.patches(images, idx_mask))
        return self.criterion(predicted, target)


class SimMIM(Masked):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.decoder = nn.Linear(self.width, self.patch**2 * 3)
        self.criterion = nn.L1Loss()
        self.transform = one_crop(setup)

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        (images,) = views
        _, idx_mask = self.hidden(images)
        encoded = self.student.encode(images=images, idx_mask=idx_mask)
        predicted = self.decoder(utils.get_at_index(encoded, idx_mask))
        return self.criterion(predicted, self.patches(images, idx_mask))


class MSN(Taught):
    """Prototypes learn, as in the paper; the library's example leaves them as they were drawn."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, dynamic_img_size=True)
        of = setup.recipe.method.options
        self.head = heads.MSNProjectionHead(self.width, of["hidden"], of["dim"])
        self.teacher_head = slow_copy(self.head)
        self.copies.append((self.head, self.teacher_head))
        self.prototypes = nn.Linear(of["dim"], of["prototypes"], bias=False).weight
        self.criterion = losses.MSNLoss()
        self.transform = crops(setup)

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        self.follow(momentum(self.setup, share))
        with torch.no_grad():
            targets = self.teacher_head(self.teacher(images=views[0]))
        anchors = [self._masked(views[1]), self._masked(torch.cat(views[2:]))]
        return self.criterion(torch.cat(anchors), targets, self.prototypes)

    def _masked(self, images: Tensor) -> Tensor:
        tokens = (images.shape[-1] // self.patch) ** 2 + self.student.vit.num_prefix_tokens
        ratio = self.setup.recipe.method.options.get("mask_ratio", 0.15)
        kept, _ = utils.random_token_mask(size=(len(images), tokens), mask_ratio=ratio)
        projected: Tensor = self.head(self.student(images=images, idx_keep=kept))
        return projected


class IBOT(Taught):
    head_kind: type[nn.Module] = heads.DINOProjectionHead

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, dynamic_img_size=True)
        prototypes = setup.option("method", "prototypes")
        self.head, self.teacher_head = self.two_heads()
        self.copies.append((self.head, self.teacher_head))
        self.of_images = losses.DINOLoss(output_dim=prototypes)
        self.of_patches = losses.IBOTPatchLoss(output_dim=prototypes)
        self.transform = crops(setup)

    def two_heads(self) -> tuple[nn.Module, nn.Module]:
        """The student's, and one of the same weights that no gradient reaches."""
        of = self.setup.recipe.method.options
        sizes = (self.width, of["hidden"], of["bottleneck"], of["prototypes"])
        head, taught = self.head_kind(*sizes), self.head_kind(*sizes)
        taught.load_state_dict(head.state_dict())  # their weight norm does not copy
        utils.deactivate_requires_grad(taught)
        return head, taught

    def loss(self, views: list[Tensor], share: float) -> Tensor:
        self.follow(momentum(self.setup, share))
        images = torch.cat(views[:2])
        mask, blocks = self._mask(images)
        with torch.no_grad():
            taught = self.teacher.encode(images)
            taught_images = self.teacher_head(self.pooled(taught))
            taught_patches = self.teacher_head(taught[mask])
        seen = self.student.encode(images, mask=mask)
        pooled = [self.pooled(seen), self.pooled(self.student.encode(torch.cat(views[2:])))]
        end = self.setup.option("method", "teacher_temperature")
        temperature = 0.04 + (end - 0.04) * min(1.0, share / 0.3)
        of_images = self.of_images(
            taught_images.chunk(2),
            self.head(torch.cat(pooled)).chunk(len(views)),
            teacher_temp=temperature,
        )
        of_patches = self.of_patches(
            taught_patches, self.head(seen[mask]), blocks, teacher_temp=temperature
        )
        loss: Tensor = of_images + of_patches + self.spread(pooled[0])
        return loss

    def _mask(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is hidden, of all tokens `[B, N]` and on the grid `[B, H, W]`."""
        height, width = self.student.vit.patch_embed.grid_size
        # Blocks of four patches and more, the default, are too large for grids this small.
        blocks = utils.random_block_mask((len(images), height, width), min_num_masks_per_block=1)
        mask = torch.zeros(len(images), self.tokens, dtype=torch.bool)
        mask[:, 1:] = blocks.flatten(1)
        return mask, blocks

    def pooled(self, tokens: Tensor) -> Tensor:
        """What our encoder gives for an image: the class token or the mean of its patches."""
        return tokens[:, 0] if self.student.vit.global_pool == "token" else tokens[:, 1:].mean(1)

    def spread(self, pooled: Tensor) -> Tensor | float:
        return 0.0


class DINOv2(IBOT):
    head_kind = heads.DINOv2ProjectionHead

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.koleo = losses.KoLeoLoss()

    def spread(self, pooled: Tensor) -> Tensor | float:
        return 0.1 * sum(self.koleo(view) for view in pooled.chunk(2))


class IJEPA(Taught):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        of = setup.recipe.method.options
        (blocks,) = of["blocks"]
        self.predictor = modules.IJEPAPredictorTIMM(
            num_patches=self.student.vit.patch_embed.num_patches,
            depth=of["predictor_depth"],
            mlp_dim=self.width,
            predictor_embed_dim=of["predictor_dim"],
            num_heads=of["predictor_heads"],
        )
        self.criterion = nn.SmoothL1Loss()
        self.transform = one_crop(setup)
        self.collate = IJEPAMaskCollator(
            input_size=setup.option("views", "size"),
            patch_size=self.patch,
            enc_mask_scale=(0.85, 1.0),
            pred_mask_scale=tuple(blocks["scale"]),
            aspect_ratio=(0.75, 1.5),
            npred=blocks["targets"],
            min_keep=3,  # it draws until there are more, and blocks of 2 x 2 never have five
        )

    def loss(self, views: Any, share: float) -> Tensor:
        start = self.setup.option("method", "momentum")
        self.follow(start + (1 - start) * share)
        (images,), context, targets = views
        predicted = self.predictor(
            self.student.encode(images, idx_keep=context[0]), context, targets
        )
        with torch.no_grad():
            taught = self.teacher.encode(images)
            taught = utils.apply_masks(F.layer_norm(taught, taught.shape[-1:]), targets)
        return self.criterion(predicted, taught)
