"""Swin UNETR's pretraining (Tang et al., CVPR 2022): rotation, contrast and inpainting at once.

    L = CE(quarters) + NT-Xent(z_1, z_2; t = 0.5) + mean |r(cut(x)) - x|   over two views

The released code also swaps regions with another sample of the batch; here cut-outs hold noise
only, so that a sample's views do not depend on its neighbours. Its heads read two tokens of the
last stage, these the pooled features.

With `learned` weights it is CSwin UNet's pretraining (Li et al., Medical Physics 2025), whose paper
names no tasks: L = sum_i L_i / (2 s_i^2) + log(1 + s_i^2), s_i learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.auto_weight import AutoWeight
from ssl_core.networks.dropout import dropout_keys
from ssl_core.objectives import nt_xent
from ssl_core.views import View, ViewPolicy
from ssl_medical.encoders.resnet_nano import CONV
from ssl_medical.encoders.unet_nano import DenseHead, axes_of

Reps = list[dict[str, Tensor]]


class SwinUNETRPretext(Method):
    """Any encoder; three heads, whose losses `rotation`, `contrast`, `inpainting` weight.

    `learned` weighs them by parameters of its own besides.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        dim: int = 512,
        decoder_dim: int = 16,
        temperature: float = 0.5,
        rotation: float = 1.0,
        contrast: float = 1.0,
        inpainting: float = 1.0,
        learned: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.dense = DenseHead(encoder, dim=decoder_dim)
        channels = int(views.spec["channels"])  # type: ignore[attr-defined]
        self.pixels = CONV[axes_of(encoder)](self.dense.dense_dim, channels, 1)
        self.turns = nn.Linear(width, 4)
        self.projector = nn.Linear(width, dim)
        self.temperature = temperature
        self.balance = AutoWeight(3) if learned else None
        self.weights = {"rotation": rotation, "contrast": contrast, "inpainting": inpainting}

    def encode(self, views: Sequence[View]) -> Reps:
        return [self._answers(view) for view in views]

    def _answers(self, view: View) -> dict[str, Tensor]:
        with dropout_keys(view.rng):
            features, dense = self.dense(self.encoder, view.data)
        self.monitored = features.pooled.detach()
        return {
            "turns": self.turns(features.pooled),
            "z": self.projector(features.pooled),
            "pixels": self.pixels(dense),
            "quarters": view.params["quarters"],
            "target": view.params["target"],
        }

    def loss(self, reps: Reps) -> Loss:
        joined = {name: torch.cat([rep[name] for rep in reps]) for name in reps[0]}
        parts = {
            "rotation": F.cross_entropy(joined["turns"].float(), joined["quarters"]),
            "contrast": nt_xent(*(rep["z"] for rep in reps), temperature=self.temperature),
            "inpainting": F.l1_loss(joined["pixels"].float(), joined["target"].float()),
        }
        weighted = {name: self.weights[name] * part for name, part in parts.items()}
        if self.balance is None:
            return Loss.of(weighted)
        told = {f"{name} loss": part.detach() for name, part in parts.items()}
        return Loss.of(self.balance(weighted), told)


def cswin_unet(
    encoder: nn.Module,
    views: ViewPolicy,
    *,
    dim: int = 512,
    decoder_dim: int = 16,
    temperature: float = 0.5,
) -> SwinUNETRPretext:
    """CSwin UNet's pretraining (Li et al., Medical Physics 2025): tasks with learned weights."""
    return SwinUNETRPretext(
        encoder, views, dim=dim, decoder_dim=decoder_dim, temperature=temperature, learned=True
    )
