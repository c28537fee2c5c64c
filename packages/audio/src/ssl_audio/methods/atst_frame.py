"""ATST-Frame (Li, Shao & Li, TASLP 2024): BYOL, frame by frame, where frames are hidden.

    L = mean over hidden frames of 2 - 2 cos(q(z_student), sg z_teacher)

Both branches hear the same segment; only the student's copy is changed (views "frames") and has
spans of frames hidden. Projector and predictor work on frames; the teacher's momentum rises from
`momentum` to 1. ATST-Clip is BYOL with two segments and a class token (recipe `atst_clip`). The
released code also swaps the branches; here each step costs one student and one teacher pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.masked import token_widths
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.span_masks import SpanMasker
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.schedules import cosine
from ssl_core.views import View, ViewPolicy

Reps = tuple[Tensor, Tensor, Tensor]


@full_precision
def frame_byol(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """2 - 2 cos of corresponding frames `[B, N, D]`, mean over hidden ones (bool `[B, N]`)."""
    cosine_of = F.cosine_similarity(predicted, target.detach(), dim=-1)
    return masked_mean(2 - 2 * cosine_of, hidden)


class ATSTFrame(Method):
    """A token encoder of frames in replace mode, and a moving average of it."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 4096,
        dim: int = 256,
        mask_ratio: float = 0.65,
        span: int = 5,
        momentum: float = 0.997,
    ) -> None:
        super().__init__(encoder, views)
        width, _ = token_widths(encoder)
        encoder.enable_mask_token()  # type: ignore[operator]
        self.masker = SpanMasker(mask_ratio, span, least=2)
        self.projector = MLPHead(width, dim, hidden=hidden)
        self.predictor = MLPHead(dim, dim, hidden=hidden)
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.momentum = cosine(momentum, 1.0)

    @property
    def backbone(self) -> nn.Module:
        return self.teacher.encoder

    def encode(self, views: Sequence[View]) -> Reps:
        student, teacher = views
        tokens: Tokens = self.encoder.tokenize(student.data)  # type: ignore[operator]
        if len(tokens.grid) == 2 and tokens.grid[0] != 1:
            raise UserError(
                f"encoder: ATST-Frame needs one token a frame, got {tokens.grid[0]} for each; "
                "choose spec_vit_..._frame4"
            )
        count = tokens.values.shape[1]
        mask = self.masker(student.rng, count, grid=(count,))
        with dropout_keys(student.rng):
            features: Features = self.encoder.encode(tokens, mask)  # type: ignore[operator]
        self.monitored = features.pooled.detach()
        with torch.no_grad():
            taught = self.features([teacher], self.teacher.encoder)[0]
            target = self._each(self.teacher.projector, taught)
        return self.predictor_on(self._each(self.projector, features)), target, mask.hidden

    @staticmethod
    def _each(head: nn.Module, features: Features) -> Tensor:
        assert features.tokens is not None
        out: Tensor = head(features.tokens.flatten(0, 1))
        return out.unflatten(0, features.tokens.shape[:2])

    def predictor_on(self, x: Tensor) -> Tensor:
        """The predictor on every frame of `[B, N, dim]`."""
        out: Tensor = self.predictor(x.flatten(0, 1))
        return out.unflatten(0, x.shape[:2])

    def loss(self, reps: Reps) -> Loss:
        return Loss.of({"frames": frame_byol(*reps)})

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)
