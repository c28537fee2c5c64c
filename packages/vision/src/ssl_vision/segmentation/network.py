"""A light head over an encoder's patch features, its views, its loss and mean IoU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.ops.colour import Normalise
from ssl_core.ops.geometry import HorizontalFlip, RandomResizedCrop
from ssl_core.ops.pixels import Ragged, crop_resize, image_sizes
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_vision.segmentation.pairs import VOID, split

HeadKind = Literal["linear", "fcn"]


@dataclass(frozen=True)
class PairViews:
    """One crop and mirror image of image and mask alike; the mask, by nearest pixel, in `params`.

    `plain` is the whole image, stretched to the square.
    """

    spec: Mapping[str, Any]
    size: int
    crop: RandomResizedCrop = field(default_factory=lambda: RandomResizedCrop((0.25, 1.0)))
    flip: HorizontalFlip = field(default_factory=HorizontalFlip)

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        own = rng.fold("view", 0)
        images, masks = split(batch.data)
        boxes = self.crop.sample(own, image_sizes(images))
        flip = self.flip.sample(own)
        seen = [
            _nearest(mask, box, self.size, mirrored)
            for mask, box, mirrored in zip(masks, boxes.tolist(), flip.tolist(), strict=True)
        ]
        return [View(self._pixels(images, boxes, flip), own, params={"mask": torch.stack(seen)})]

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, C, size, size]`, normalised."""
        images, _ = split(batch.data)
        sizes = image_sizes(images)
        return self._pixels(images, torch.cat([torch.zeros_like(sizes), sizes], dim=1), None)

    def _pixels(self, images: Tensor | Ragged, boxes: Tensor, flip: Tensor | None) -> Tensor:
        low, high = self.spec["range"]
        pixels = crop_resize(
            images, boxes, (self.size, self.size), value_range=(low, high), flip=flip
        )
        return Normalise(tuple(self.spec["mean"]), tuple(self.spec["std"])).apply(pixels)


def _nearest(mask: Tensor, box: Sequence[int], size: int, mirrored: bool) -> Tensor:
    """A box of a mask `[H, W]` as `[size, size]`, by the pixels nearest to output centres."""
    top, left, height, width = box
    centres = (torch.arange(size, device=mask.device) + 0.5) / size
    rows, columns = top + (centres * height).long(), left + (centres * width).long()
    out = mask[rows[:, None], columns]
    return out.flip(1) if mirrored else out


class Segmenter(Method):
    """Class scores of every pixel from patch features; cross-entropy over labelled pixels.

    `head` "linear" is batch norm and one 1 x 1 convolution (the linear protocol of DINOv2, Oquab
    et al. 2023), "fcn" a 3 x 3 convolution to a quarter of the width, batch norm, ReLU and the
    1 x 1 convolution (torchvision's FCN head, Long et al. 2015, without its dropout). Scores are
    enlarged bilinearly. With `frozen` the encoder stands still in evaluation mode.
    """

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: PairViews,
        *,
        classes: int,
        head: HeadKind = "fcn",
        frozen: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        self.classes = classes
        self.head = dense_head(_token_width(encoder, views), classes, head)
        self.freeze(frozen)

    def freeze(self, frozen: bool) -> None:
        """Whether the encoder stands still from now on."""
        self.frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def encode(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Scores `[B, classes, h, w]` on the encoder's grid and masks `[B, H, W]`."""
        (features,) = self.features(views)
        return self.head(feature_map(features)), views[0].params["mask"]

    def loss(self, reps: tuple[Tensor, Tensor]) -> Loss:
        scores, mask = reps
        scores = enlarged(scores.float(), tuple(mask.shape[1:]))
        known = (mask != VOID).flatten(1)
        each = F.cross_entropy(scores, mask, ignore_index=VOID, reduction="none").flatten(1)
        rows = each.sum(1) / known.sum(1).clamp(min=1)
        right = ((scores.detach().argmax(1) == mask).flatten(1) & known).sum() / known.sum()
        return Loss.of({"cross_entropy": rows.mean()}, metrics={"pixel_accuracy": right})


def dense_head(width: int, classes: int, kind: HeadKind) -> nn.Sequential:
    """A head on maps `[B, width, h, w]`."""
    if kind == "linear":
        return nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))
    if kind == "fcn":
        inner = max(classes, width // 4)
        return nn.Sequential(
            nn.Conv2d(width, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, classes, 1),
        )
    raise UserError(f"head: {kind!r}; choose linear or fcn")


def feature_map(features: Features) -> Tensor:
    """Patch features as a map `[B, D, h, w]`."""
    if features.tokens is None or len(features.grid) != 2:
        raise UserError("encoder: segmentation needs features on a grid; choose another encoder")
    return features.tokens.transpose(1, 2).unflatten(2, features.grid)


def _token_width(encoder: nn.Module, views: PairViews) -> int:
    """Width of patch features, which some networks widen again after pooling."""
    training = encoder.training
    like = next(encoder.parameters())
    blank = like.new_zeros(1, int(views.spec["channels"]), views.size, views.size)
    with torch.no_grad():
        width: int = feature_map(encoder.eval()(blank)).shape[1]
    encoder.train(training)
    return width


def enlarged(scores: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Scores at the resolution `sides`, bilinearly."""
    return F.interpolate(scores, size=sides, mode="bilinear", align_corners=False)


@torch.no_grad()
def confusion(method: Segmenter, batches: Iterable[Batch]) -> Tensor:
    """Pixels int64 `[classes, classes]` by true and found class, at the masks' own resolution."""
    method.eval()
    views: Any = method.view_policy
    table = torch.zeros(method.classes, method.classes, dtype=torch.int64)
    for batch in batches:
        scores = method.head(feature_map(method.encoder(views.plain(batch)))).float()
        for one, mask in zip(scores, split(batch.data)[1], strict=True):
            found = enlarged(one[None], tuple(mask.shape))[0].argmax(0)
            known = mask != VOID
            pairs = mask[known] * method.classes + found[known]
            table += pairs.bincount(minlength=method.classes**2).view_as(table).cpu()
    return table


def measures(table: Tensor) -> dict[str, float]:
    """Mean intersection over union of the classes that occur or were found; pixel accuracy."""
    hits = table.diagonal().double()
    union = table.sum(0) + table.sum(1) - table.diagonal()
    there = union > 0
    return {
        "mIoU": float((hits[there] / union[there]).mean()),
        "pixel_accuracy": float(hits.sum() / table.sum().clamp(min=1)),
    }
