"""CLIP (Radford et al., ICML 2021): a sample and its caption attract, all other pairs repel.

    L = (CE(S, diag) + CE(S^T, diag)) / 2,   S = exp(t) cos(P f(x), Q g(y)),   t learned

`pairs="sigmoid"` is SigLIP (Zhai et al., ICCV 2023): each pair a yes or no, with a learned bias.
The second tower g is any network for the views with role "caption": a text tower, or an encoder
of another modality. Several views of either side (SLIP, CLIP-rocket) count by the mean over all
combinations. The scale is held at or below `max_scale` after each step, as the released code does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.objectives import clip, siglip
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class CLIP(Method):
    """Encoder and second tower, each with a linear map without bias to the shared space.

    `scale` is exp(t) at the start: by default the papers' 1/0.07, or 10 for "sigmoid".
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        tower: nn.Module,
        dim: int = 512,
        pairs: Literal["softmax", "sigmoid"] = "softmax",
        scale: float | None = None,
        bias: float = -10.0,
        max_scale: float = 100.0,
    ) -> None:
        super().__init__(encoder, views)
        if pairs not in ("softmax", "sigmoid"):
            raise ValueError(f"pairs must be 'softmax' or 'sigmoid', got {pairs!r}")
        start = scale if scale is not None else {"softmax": 1 / 0.07, "sigmoid": 10.0}[pairs]
        if not 0 < start <= max_scale:
            raise ValueError(f"scale must lie in (0, {max_scale}], got {start}")
        self.tower = tower
        self.projector, self.tower_projector = _linear(encoder, dim), _linear(tower, dim)
        # One number each, but as vectors: sharding over replicas splits along an axis.
        self.log_scale = nn.Parameter(torch.tensor([math.log(start)]))
        self.bias = nn.Parameter(torch.tensor([bias])) if pairs == "sigmoid" else None
        self.max_scale = max_scale

    def encode(self, views: Sequence[View]) -> Reps:
        captions = [view for view in views if view.role == "caption"]
        samples = [view for view in views if view.role != "caption"]
        if not captions or not samples:
            raise UserError("views: clip needs samples and captions; use the policy 'captioned'")
        texts = [self.tower_projector(f.pooled) for f in self.features(captions, self.tower)]
        return [self.projector(f.pooled) for f in self.features(samples)], texts

    def loss(self, reps: Reps) -> Loss:
        scale = self.log_scale.squeeze(0)
        losses = [self._pairs(image, text, scale) for image in reps[0] for text in reps[1]]
        return Loss.of({"clip": torch.stack(losses).mean()}, {"scale": scale.detach().exp()})

    def _pairs(self, images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        if self.bias is not None:
            return siglip(images, texts, scale, self.bias.squeeze(0))
        return clip(images, texts, scale, max_scale=self.max_scale)

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        # A hair below: rounding in exp must not carry it over the objective's own bound.
        self.log_scale.clamp_(max=math.log(self.max_scale) - 1e-6)


def _linear(network: nn.Module, dim: int) -> nn.Linear:
    width: int = network.embed_dim  # type: ignore[assignment]
    layer = nn.Linear(width, dim, bias=False)
    nn.init.normal_(layer.weight, std=width**-0.5)
    return layer
