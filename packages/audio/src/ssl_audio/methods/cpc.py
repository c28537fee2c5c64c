"""CPC (van den Oord et al. 2018): tell the future moment from others, from what was heard so far.

    L = mean over k = 1..K and t of -log softmax(z' . W_k c_t / width)[z_{t + k}]

z are the moments of the wave, c their causal context, z' the true future and `negatives` other
moments. As in Rivière et al. 2020 scores are divided by the width of z. Negatives come from the
same recording (there: from the same speaker), so that a loss is a mean over recordings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_audio.objectives import frame_nce, other_moments
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy

Reps = list[tuple[Tensor, Tensor, Rng]]


class CPC(Method):
    """A causal encoder of waves; one linear predictor for each of `steps` moments ahead."""

    batch_coupled = False

    def __init__(
        self, encoder: nn.Module, views: ViewPolicy, *, steps: int = 12, negatives: int = 128
    ) -> None:
        super().__init__(encoder, views)
        if not (getattr(encoder, "causal", False) and hasattr(encoder, "local_dim")):
            raise UserError(
                f"encoder: CPC needs one that sees only the past of a wave, got "
                f"{type(encoder).__name__}; choose cpc_nano or cpc_base"
            )
        context: int = encoder.embed_dim  # type: ignore[assignment]
        self.width: int = encoder.local_dim  # type: ignore[assignment]
        self.predictors = nn.ModuleList(
            nn.Linear(context, self.width, bias=False) for _ in range(steps)
        )
        self.negatives = negatives

    def encode(self, views: Sequence[View]) -> Reps:
        reps = []
        for view in views:
            local: Tensor = self.encoder.local(view.data)  # type: ignore[operator]
            with dropout_keys(view.rng):
                features = self.encoder.contextual(local)  # type: ignore[operator]
            self.monitored = features.pooled.detach()
            reps.append((local, features.tokens, view.rng))
        return reps

    def loss(self, reps: Reps) -> Loss:
        losses = [self._step(k, *rep) for rep in reps for k in range(1, len(self.predictors) + 1)]
        return Loss.of({"future": torch.stack(losses).mean()})

    def _step(self, k: int, local: Tensor, context: Tensor, rng: Rng) -> Tensor:
        rows, count = local.shape[:2]
        if count <= k + 1:
            raise UserError(
                f"steps: {k} moments ahead of {count}; give longer views or fewer steps"
            )
        asked = self.predictors[k - 1](context[:, :-k])  # [B, N - k, width]
        own = torch.arange(k, count, device=local.device).expand(rows, -1)
        others = other_moments(
            rng, f"cpc {k}", own, own.new_full((rows,), count), self.negatives
        )  # [B, N - k, K]
        # All dot products of a recording once, then a choice: fewer numbers than gathered vectors.
        scores = asked @ local.transpose(1, 2) / self.width  # [B, N - k, N]
        return frame_nce(scores.gather(2, own.unsqueeze(-1)).squeeze(-1), scores.gather(2, others))
