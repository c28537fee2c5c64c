"""The network that is fine-tuned for segmentation, its loss, and how well it does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core.batch import Source
from ssl_core.errors import CorruptSample, UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.views import View, ViewPolicy
from ssl_medical.encoders.resnet_nano import CONV
from ssl_medical.encoders.unet_nano import DenseHead, axes_of
from ssl_medical.segmentation.labelled import LabelledReader, LabelledViews, as_input


class Segmenter(Method):
    """An encoder, its dense map, two layers to `classes`; MONAI's Dice plus cross-entropy.

    Both layers see one voxel: what a dense map tells (places, say) need not separate linearly.
    """

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        classes: int,
        dim: int = 32,
        hidden: int = 64,
    ) -> None:
        super().__init__(encoder, views)
        from monai.losses import DiceCELoss

        self.head = DenseHead(encoder, dim=dim)
        conv = CONV[axes_of(encoder)]
        self.out = nn.Sequential(
            conv(self.head.dense_dim, hidden, 1), nn.ReLU(), conv(hidden, classes, 1)
        )
        self.classes = classes
        self.objective = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)

    def logits(self, data: Tensor) -> Tensor:
        """`[B, classes, *sides]`."""
        return self.out(self.head(self.encoder, data)[1])  # type: ignore[no-any-return]

    def encode(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Logits and labels `[B, *sides]`."""
        (view,) = views
        return self.out(self.dense(view)), view.params["labels"]

    def dense(self, view: View) -> Tensor:
        """The map that the last layers see, `[B, D, *sides]`."""
        with dropout_keys(view.rng):
            features, dense = self.head(self.encoder, view.data)
        self.monitored = features.pooled.detach()
        return dense

    def known(self, labels: Tensor) -> Tensor:
        """Labels the network has no class for (rare ones it never saw) count as background."""
        return torch.where(labels < self.classes, labels, 0)

    def loss(self, reps: tuple[Tensor, Tensor]) -> Loss:
        logits, labels = reps
        known = self.known(labels).unsqueeze(1)
        return Loss.of({"dice_ce": self.objective(logits.float(), known)})


@torch.no_grad()
def predict(
    method: Segmenter, scan: np.ndarray, views: LabelledViews, device: torch.device
) -> Tensor:
    """Labels int64 `[X, Y, Z]` of a prepared scan, by overlapping windows (MONAI's).

    Slices are segmented one by one.
    """
    from monai.inferers import sliding_window_inference

    x = as_input(views.frame, scan, device)
    sides = views.frame.sides
    if len(sides) == 2:
        x = x[0].permute(3, 0, 1, 2)  # [Z, C, X, Y]
    logits: Any = sliding_window_inference(
        x, sides, 4, method.logits, overlap=0.25, mode="gaussian", padding_mode="constant"
    )
    found = logits.argmax(1)
    return found.permute(1, 2, 0) if len(sides) == 2 else found[0]


def scores(
    method: Segmenter,
    source: Source,
    reader: LabelledReader,
    views: LabelledViews,
    device: torch.device,
    *,
    distance: bool = True,
) -> dict[str, Any]:
    """Dice and the 95th percentile of surface distances in mm, a class and overall.

    Means over the scans in which the class occurs; a class that is missed entirely has no distance
    and counts 0 in Dice. Scans that cannot be read are passed over and counted as `unreadable`;
    `UserError` when none can.
    """
    from monai.metrics import compute_dice, compute_hausdorff_distance

    method.eval()
    dice: list[np.ndarray] = []
    far: list[np.ndarray] = []
    reasons = []
    for row in range(len(source)):
        try:
            scan, labels = reader.pair(source[row])
        except CorruptSample as error:
            reasons.append(str(error))
            continue
        found = predict(method, scan, views, device).cpu()
        pair = [_one_hot(x, method.classes) for x in (found, torch.from_numpy(labels[0]).long())]
        dice.append(compute_dice(*pair, include_background=False)[0].numpy())
        if distance:
            spacing = list(reader.spec["spacing"])
            with warnings.catch_warnings():
                # MONAI 1.6 calls itself with a deprecated option, and warns of every missed class.
                warnings.simplefilter("ignore")
                hd = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)[0].numpy()
            far.append(np.where(np.isfinite(hd), hd, np.nan))
    if not dice:
        raise UserError(f"data: no labelled scan can be read to score; {', '.join(reasons[:1])}")
    out: dict[str, Any] = {"scans": len(dice), "unreadable": len(reasons), **_means("dice", dice)}
    return out | (_means("hd95", far) if distance else {})


def _means(name: str, rows: list[np.ndarray]) -> dict[str, Any]:
    table = np.stack(rows)
    seen = np.isfinite(table)
    each = np.where(seen, table, 0).sum(0) / np.maximum(seen.sum(0), 1)
    known = seen.any(0)
    return {
        name: float(each[known].mean()) if known.any() else None,
        f"{name}_classes": [float(v) if k else None for v, k in zip(each, known, strict=True)],
    }


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    """bool `[1, classes, X, Y, Z]`."""
    return torch.stack([labels == c for c in range(classes)])[None]
