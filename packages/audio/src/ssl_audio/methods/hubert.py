"""HuBERT (Hsu et al., TASLP 2021): predict the cluster of hidden frames, in two iterations.

    L = -log softmax(cos(A o_t, e) / temperature)[cluster_t] over hidden frames + penalty mean z^2

The first iteration's clusters are k-means of cepstra with their slopes, not normalised, as
released; from the share `switch` of the run on they are k-means of block `layer` of the encoder as
it stood then. The paper fits both offline on a part of the data; here the centres follow the stream
during the first `fit` share of each iteration and then rest, so that a run is one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_audio.cepstra import COEFFICIENTS, cepstra
from ssl_audio.methods.wav2vec2 import wave_encoder
from ssl_audio.objectives import cosine_logits
from ssl_audio.quantisers import OnlineKMeans
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.span_masks import SpanMasker
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import masked_token_cross_entropy
from ssl_core.views import View, ViewPolicy


@dataclass
class Guess:
    """Logits `[B, N, C]`, clusters `[B, N]`, the mask, local features, what was clustered."""

    logits: Tensor
    clusters: Tensor
    hidden: Tensor
    local: Tensor


class HuBERT(Method):
    """A wave encoder, one linear map and learned cluster names."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        clusters: Sequence[int] = (100, 500),
        dim: int = 256,
        layer: int = 6,
        switch: float = 0.4,
        fit: float = 0.25,
        mask_ratio: float = 0.8,
        span: int = 10,
        temperature: float = 0.1,
        penalty: float = 10.0,
    ) -> None:
        super().__init__(encoder, views)
        wave_encoder(encoder, "HuBERT")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        first, second = clusters
        if not 0 < switch < 1 or not 0 < fit <= 1:
            raise ValueError(f"need 0 < switch < 1 and 0 < fit <= 1, got {switch} and {fit}")
        self.masker = SpanMasker(mask_ratio, span)
        self.project = nn.Linear(width, dim)
        self.names = nn.ParameterList(
            nn.Parameter(torch.empty(count, dim).uniform_()) for count in (first, second)
        )
        self.kmeans = nn.ModuleList(
            [OnlineKMeans(first, 3 * COEFFICIENTS), OnlineKMeans(second, width)]
        )
        self.earlier = Teacher(encoder=encoder)
        self.layer, self.switch, self.fit = layer, switch, fit
        self.temperature, self.penalty = temperature, penalty
        self.seen: list[Tensor] = []

    @property
    def iteration(self) -> int:
        """0 while cepstra name the clusters, then 1."""
        return int(self.progress[0] >= self.switch * self.progress[1])

    def encode(self, views: Sequence[View]) -> list[Guess]:
        self.seen = []
        return [self._guess(view) for view in views]

    def _guess(self, view: View) -> Guess:
        local: Tensor = self.encoder.local(view.data)  # type: ignore[operator]
        count = local.shape[1]
        mask = self.masker(view.rng, count, grid=(count,))
        with dropout_keys(view.rng):
            features = self.encoder.contextual(local, mask)  # type: ignore[operator]
        self.monitored = features.pooled.detach()
        with torch.no_grad():
            clustered = self._clustered(view.data, count)
            self.seen.append(clustered.flatten(0, 1))
            clusters = self.kmeans[self.iteration](clustered)
        names = self.names[self.iteration]
        asked = self.project(features.tokens).unsqueeze(2)  # [B, N, 1, dim]
        return Guess(cosine_logits(asked, names, self.temperature), clusters, mask.hidden, local)

    def _clustered(self, wave: Tensor, count: int) -> Tensor:
        if self.iteration == 0:
            return cepstra(wave, count)
        earlier = self.earlier.encoder.eval()
        layers = earlier.layers(earlier.local(wave))  # type: ignore[operator]
        picked: Tensor = layers[min(self.layer, len(layers)) - 1]
        return picked

    def loss(self, reps: list[Guess]) -> Loss:
        named = [masked_token_cross_entropy(r.logits, r.clusters, r) for r in reps]
        size = [rep.local.float().square().mean() for rep in reps]
        idle = 0 * self.names[1 - self.iteration].sum()  # every parameter takes part in each step
        parts = {
            "clusters": torch.stack(named).mean() + idle,
            "penalty": self.penalty * torch.stack(size).mean(),
        }
        return Loss.of(parts)

    def after_step(self, step: Step) -> None:
        start = self.switch * step.total
        length = step.total - start if self.iteration else start
        begun = step.index - (start if self.iteration else 0)
        if self.seen and begun <= self.fit * length:
            self.kmeans[self.iteration].update(torch.cat(self.seen), step.finite)
        if step.index + 1 < start or self.iteration == 0:
            # What the second iteration listens with: the encoder as the first one left it.
            self.earlier.update(self, 0.0, step.finite)
