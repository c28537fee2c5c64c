"""BEATs' acoustic tokenizer (Chen et al., ICML 2023): codes from which a model can be rebuilt.

    L = 1 - mean cos(o^_i, o_i) + beta mean |e_i - sg(v_i)|^2

o are the tokens of the encoder that the iteration before trained (`teacher`, a finished run), e
the unit vectors a new encoder gives, v the nearest of `codes` directions, and o^ what a small
transformer makes of all v; its gradient reaches e as if e had not been replaced. Directions follow
what they name (momentum 0.99). The run's encoder holds the codebook: as `method.teacher` of
`beats` it names the patches of the next iteration. The released quantiser weighs with `beta` 1 and
sums over code dimensions, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.quantisers import DirectionCodebook
from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.beit import codes_used
from ssl_core.methods.masked import token_widths
from ssl_core.networks.decoders import TransformerDecoder
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask
from ssl_core.views import View, ViewPolicy


class AcousticTokenizer(nn.Module):
    """A token encoder that also names its tokens; as an encoder it is the one inside."""

    def __init__(self, encoder: nn.Module, *, codes: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.token_width, self.token_dim = token_widths(encoder)
        self.embed_dim = encoder.embed_dim
        self.encoder = encoder
        width = self.token_width
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim))
        self.codebook = DirectionCodebook(codes, dim, momentum=momentum)

    def tokenize(self, data: Tensor) -> Tokens:
        """Patches, as the encoder cuts them."""
        tokens: Tokens = self.encoder.tokenize(data)  # type: ignore[operator]
        return tokens

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """The encoder's features."""
        features: Features = self.encoder.encode(tokens, mask)  # type: ignore[operator]
        return features

    def forward(self, data: Tensor) -> Features:
        return self.encode(self.tokenize(data))

    def unit(self, features: Features) -> Tensor:
        """Unit vectors `[B, N, dim]` of encoded tokens, in float32 or better."""
        assert features.tokens is not None
        raw: Tensor = self.head(features.tokens)
        return F.normalize(raw.to(torch.promote_types(raw.dtype, torch.float32)), dim=-1)

    def name(self, tokens: Tokens) -> Tensor:
        """Codes of whole inputs, int64 `[B, N]`."""
        ids: Tensor = self.codebook(self.unit(self.encode(tokens)))
        return ids


@dataclass
class Reps:
    """Rebuilt and given tokens `[B, N, D]`, unit vectors, their codes and the codes' names."""

    rebuilt: Tensor
    given: Tensor
    unit: Tensor
    code: Tensor
    ids: Tensor


class BEATsTokenizer(Method):
    """Tokenizer and estimator; `teacher` has patches of the encoder's size."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        teacher: nn.Module,
        codes: int = 1024,
        code_dim: int = 256,
        momentum: float = 0.99,
        beta: float = 1.0,
        decoder_depth: int = 3,
        decoder_heads: int = 8,
    ) -> None:
        super().__init__(encoder, views)
        self.tokenizer = AcousticTokenizer(encoder, codes=codes, dim=code_dim, momentum=momentum)
        self.teacher = teacher.requires_grad_(False)
        width = self.tokenizer.token_width
        self.estimator = TransformerDecoder(
            code_dim,
            token_widths(teacher)[0],
            dim=width,
            depth=decoder_depth,
            heads=decoder_heads,
            fill=False,
        )
        self.beta = beta
        self.seen: list[Tensor] = []

    @property
    def backbone(self) -> nn.Module:
        return self.tokenizer

    def encode(self, views: Sequence[View]) -> list[Reps]:
        self.seen = []
        return [self._rebuild(view) for view in views]

    def _rebuild(self, view: View) -> Reps:
        tokens = self.tokenizer.tokenize(view.data)
        with torch.no_grad():
            given = self.teacher.eval()(view.data).tokens
        if given is None or given.shape[1] != tokens.values.shape[1]:
            count = None if given is None else given.shape[1]
            raise UserError(
                f"method.teacher: it gives {count} tokens where the encoder has "
                f"{tokens.values.shape[1]}; give a run with the same patches"
            )
        with dropout_keys(view.rng):
            features = self.tokenizer.encode(tokens)
            self.monitored = features.pooled.detach()
            unit = self.tokenizer.unit(features)
            ids = self.tokenizer.codebook(unit)
            self.seen.append(unit.detach().flatten(0, 1))
            code = self.tokenizer.codebook.directions[ids].to(unit.dtype)
            through = unit + (code - unit).detach()
            nothing = Mask(torch.zeros_like(ids, dtype=torch.bool), "replace", tokens.grid)
            rebuilt = self.estimator(Features(features.pooled, through), nothing, tokens)
        return Reps(rebuilt, given, unit, code, ids)

    def loss(self, reps: list[Reps]) -> Loss:
        away = [1 - F.cosine_similarity(r.rebuilt.float(), r.given.float(), dim=-1) for r in reps]
        pull = [(r.unit - r.code.detach()).square().sum(-1) for r in reps]
        parts = {
            "rebuilt": torch.stack([x.mean() for x in away]).mean(),
            "commitment": self.beta * torch.stack([x.mean() for x in pull]).mean(),
        }
        used = codes_used(reps[0].ids, self.tokenizer.codebook.codes)
        return Loss.of(parts, {"codes_used": used})

    def after_step(self, step: Step) -> None:
        if self.seen:
            self.tokenizer.codebook.update(torch.cat(self.seen), step.finite)
