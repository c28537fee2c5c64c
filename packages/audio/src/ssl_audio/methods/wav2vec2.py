"""wav2vec 2.0 (Baevski et al., NeurIPS 2020): tell the hidden frame's code from other frames'.

    L = -log softmax(cos(c_t, q) / temperature)[q_t] + diversity (GV - perplexity) / GV
        + penalty mean z^2

z are the frames after the convolutions, q the quantised form of z normalised (as the transformer
sees it, or codes would fade as the penalty makes z small), c the context of frames whose spans
were hidden; negatives are `negatives` other hidden frames of the recording, those with the
same codes left out. The released code sums over frames; here it is their mean, and masks need not
hide equally many frames in each recording of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_audio.objectives import code_diversity, cosine_logits, frame_nce, other_moments
from ssl_audio.quantisers import GumbelQuantiser
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import rows_at
from ssl_core.networks.span_masks import SpanMasker
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy


@dataclass
class Hidden:
    """The hidden frames of one view, M slots a recording of which `valid` ones are real."""

    context: Tensor
    quantised: Tensor
    probabilities: Tensor
    codes: Tensor
    valid: Tensor
    local: Tensor
    rng: Rng


def wave_encoder(encoder: nn.Module, method: str) -> int:
    """The width before context of a wave encoder; `UserError` for any other."""
    if not hasattr(encoder, "local_dim") or not hasattr(encoder, "enable_mask_token"):
        raise UserError(
            f"encoder: {method} needs convolutions and a transformer on waves, got "
            f"{type(encoder).__name__}; choose wave_nano, wave_small or wave_base"
        )
    encoder.enable_mask_token()
    return int(encoder.local_dim)  # type: ignore[arg-type]


class Wav2Vec2(Method):
    """A wave encoder, a Gumbel quantiser, two projections."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        dim: int = 256,
        groups: int = 2,
        codes: int = 320,
        mask_ratio: float = 0.65,
        span: int = 10,
        negatives: int = 100,
        temperature: float = 0.1,
        diversity: float = 0.1,
        penalty: float = 10.0,
        gumbel: tuple[float, float, float] = (2.0, 0.5, 0.999995),
        front_gradient: float = 0.1,
    ) -> None:
        super().__init__(encoder, views)
        local = wave_encoder(encoder, "wav2vec 2.0")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.masker = SpanMasker(mask_ratio, span, least=2)
        self.quantiser = GumbelQuantiser(local, dim, groups=groups, codes=codes)
        self.project_code = nn.Linear(dim, dim)
        self.project_context = nn.Linear(width, dim)
        self.codes, self.groups = codes, groups
        self.negatives, self.temperature = negatives, temperature
        self.diversity, self.penalty = diversity, penalty
        self.gumbel, self.front_gradient = tuple(gumbel), front_gradient

    def encode(self, views: Sequence[View]) -> list[Hidden]:
        return [self._hidden(view) for view in views]

    def _hidden(self, view: View) -> Hidden:
        local: Tensor = self.encoder.local(view.data)  # type: ignore[operator]
        # The convolutions learn at a tenth of the rate, as released.
        local = local * self.front_gradient + local.detach() * (1 - self.front_gradient)
        count = local.shape[1]
        mask = self.masker(view.rng, count, grid=(count,))
        with dropout_keys(view.rng):
            features = self.encoder.contextual(local, mask)  # type: ignore[operator]
        self.monitored = features.pooled.detach()
        most = int(mask.hidden.sum(1).max())
        slots = mask.hidden.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        noise = None
        if self.training:
            uniform = view.rng.uniform("gumbel", count, self.groups * self.codes, low=1e-7)
            noise = rows_at(-(-uniform.log()).log(), slots).unflatten(2, (self.groups, self.codes))
        start, end, decay = self.gumbel
        seen: Tensor = self.encoder.front_norm(local)  # type: ignore[operator]
        quantised, probabilities, codes = self.quantiser(
            rows_at(seen, slots),
            temperature=max(start * decay ** self.progress[0], end),
            noise=noise,
        )
        return Hidden(
            self.project_context(rows_at(features.tokens, slots)),
            self.project_code(quantised),
            probabilities,
            codes,
            mask.hidden.gather(1, slots),
            local,
            view.rng,
        )

    def loss(self, reps: list[Hidden]) -> Loss:
        contrast = [self._contrast(rep) for rep in reps]
        spread = [code_diversity(rep.probabilities, rep.valid) for rep in reps]
        size = [rep.local.float().square().mean() for rep in reps]
        parts = {
            "contrast": torch.stack(contrast).mean(),
            "diversity": self.diversity * torch.stack(spread).mean(),
            "penalty": self.penalty * torch.stack(size).mean(),
        }
        return Loss.of(parts)

    def _contrast(self, rep: Hidden) -> Tensor:
        rows, slots = rep.valid.shape
        own = torch.arange(slots, device=rep.valid.device).expand(rows, -1)
        others = other_moments(rep.rng, "negatives", own, rep.valid.sum(1), self.negatives)
        return contrast(rep.context, rep.quantised, rep.codes, others, rep.valid, self.temperature)


def contrast(
    context: Tensor,
    quantised: Tensor,
    codes: Tensor,
    others: Tensor,
    valid: Tensor,
    temperature: float,
) -> Tensor:
    """The contrastive term: `[B, M, D]` both, codes `[B, M, G]`, `others` int64 `[B, M, K]`.

    A negative with the anchor's own codes is left out. Codes are compared,
    not vectors: when the choice is random, rounding may tell equal ones apart.
    """
    slots, negatives = others.shape[1:]
    flat = others.flatten(1)
    picked = rows_at(quantised, flat).unflatten(1, (slots, negatives))
    same = (rows_at(codes, flat).unflatten(1, (slots, negatives)) == codes.unsqueeze(2)).all(-1)
    positive = cosine_logits(context, quantised, temperature)
    negative = cosine_logits(context.unsqueeze(2), picked, temperature)
    return frame_nce(positive, negative.masked_fill(same, -torch.inf), valid)
