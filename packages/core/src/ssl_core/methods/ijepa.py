"""I-JEPA (Assran et al., CVPR 2023): predict the teacher's tokens of blocks from a context.

    L = mean over blocks, tokens and features of smooth_l1(g(f(context), places), sg LN(f'(x)))

f' is the moving average of f and sees the whole input; f sees the context alone. On a grid of
three axes with two kinds of blocks and `beta=0` this is V-JEPA (Bardes et al. 2024), whose
blocks span all time; every kind weighs the same, however many places it predicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.masked import token_widths
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.multi_block import MultiBlockMasker
from ssl_core.networks.predictors import LatentPredictor
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import smooth_l1
from ssl_core.objectives.targets import feature_std, normalise_features
from ssl_core.schedules import linear
from ssl_core.views import View, ViewPolicy

Pair = tuple[Tensor, Tensor]


class IJEPA(Method):
    """Context encoder, moving-average target encoder, narrow predictor; nothing is rebuilt.

    `blocks` holds the options of one `MultiBlockMasker` for each kind of blocks (default: one
    with I-JEPA's values). `beta` is that of the smooth L1 loss, 0 the plain one.
    """

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        blocks: Sequence[Mapping[str, Any]] = ({},),
        predictor_dim: int = 384,
        predictor_depth: int = 12,
        predictor_heads: int = 12,
        beta: float = 1.0,
        momentum: float = 0.996,
        end_momentum: float = 1.0,
    ) -> None:
        super().__init__(encoder, views)
        width, _ = token_widths(encoder)
        if not blocks:
            raise ValueError("blocks must name at least one kind of blocks to predict")
        self.maskers = [MultiBlockMasker(**options) for options in blocks]
        self.predictor = LatentPredictor(
            width, dim=predictor_dim, depth=predictor_depth, heads=predictor_heads
        )
        self.teacher = Teacher(encoder=encoder)
        self.beta = beta
        self.momentum = linear(momentum, end_momentum)

    @property
    def backbone(self) -> nn.Module:
        return self.teacher.encoder

    def encode(self, views: Sequence[View]) -> list[Pair]:
        return [pair for view in views for pair in self._predict(view)]

    def _predict(self, view: View) -> list[Pair]:
        tokens: Tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        if tokens.valid is not None:
            raise UserError("ijepa needs inputs of equal size without padding")
        with torch.no_grad():
            whole = self.teacher.encoder.eval().encode(tokens)  # type: ignore[operator]
            target = normalise_features(whole.tokens)  # [B, N, D]
        pairs = []
        for kind, masker in enumerate(self.maskers):
            rng = view.rng.fold("blocks", kind)
            places = masker(rng, tokens.grid, step=self.progress[0])
            with dropout_keys(rng):
                seen = self.encoder.encode(tokens, places.mask())  # type: ignore[operator]
            self.monitored = whole.pooled
            rows = torch.arange(len(view), device=target.device)[:, None, None]
            pairs.append((self.predictor(seen.tokens, places), target[rows, places.targets]))
        return pairs

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """The contexts of the first view, one picture for each kind of blocks."""
        assemble = getattr(self.encoder, "assemble", None)
        if assemble is None:
            return {}
        tokens: Tokens = self.encoder.tokenize(views[0].data)  # type: ignore[operator]
        pictures = {}
        for kind, masker in enumerate(self.maskers):
            rng = views[0].rng.fold("blocks", kind)
            hidden = masker(rng, tokens.grid, step=self.progress[0]).mask().hidden
            seen = tokens.values.masked_fill(hidden.unsqueeze(-1), torch.nan)
            pictures[f"context {kind}"] = assemble(seen, tokens.grid)
        return pictures

    def loss(self, reps: list[Pair]) -> Loss:
        losses = [smooth_l1(predicted, target, beta=self.beta) for predicted, target in reps]
        predicted, target = (x.flatten(1, 2) for x in reps[0])
        everywhere = torch.ones_like(target[..., 0], dtype=torch.bool)
        spread = {
            "target_std": feature_std(target, everywhere),
            "prediction_std": feature_std(predicted, everywhere),
        }
        return Loss.of({"prediction": torch.stack(losses).mean()}, spread)

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)
