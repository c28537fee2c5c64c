"""Pretext classification, written once: logits and labels of known transformations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.tiles import cut_tiles
from ssl_core.objectives import accuracy, pretext_cross_entropy
from ssl_core.rng import Rng
from ssl_core.views import View

Answers = list[tuple[Tensor, Tensor]]


class PretextClassifier(Method):
    """Reps are one (logits `[B, Q, C]`, labels `[B, Q]`) a view: Q questions about each sample.

    Blind guesses cost log C.
    """

    batch_coupled = False

    def loss(self, reps: Answers) -> Loss:
        losses = [pretext_cross_entropy(logits, labels) for logits, labels in reps]
        right = [accuracy(logits, labels) for logits, labels in reps]
        parts = {"classification": torch.stack(losses).mean()}
        return Loss.of(parts, {"accuracy": torch.stack(right).mean()})

    def pooled(self, variants: Tensor, rng: Rng) -> Tensor:
        """`pooled_variants` of this method."""
        return pooled_variants(self, variants, rng)


def pooled_variants(method: Method, variants: Tensor, rng: Rng) -> Tensor:
    """The encoder on Q variants of every sample `[B, Q, C, ...]`: `[B, Q, D]`, one forward."""
    rows, count = variants.shape[:2]
    numbers = torch.arange(count, device=rng.device).repeat(rows)
    keys = Rng(rng.key.repeat_interleave(count)).fold("variant", numbers)
    with dropout_keys(keys):
        features: Features = method.encoder(variants.flatten(0, 1))
    method.monitored = features.pooled.detach()
    out: Tensor = features.pooled.unflatten(0, (rows, count))
    return out


class TileHead(nn.Module):
    """Pooled tiles `[B, n, D]` to `[B, n, dim]`: linear, batch norm over all tiles, ReLU."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm(self.linear(x.flatten(0, 1))))
        return out.reshape(*x.shape[:2], -1)


def tile_features(
    method: PretextClassifier, head: TileHead, view: View, cells: int, share: float
) -> Tensor:
    """`cells`^axes jittered tiles of every sample through encoder and `head`: `[B, n, dim]`."""
    out: Tensor = head(method.pooled(cut_tiles(view.data, cells, view.rng, share=share), view.rng))
    return out


def tile_count(cells: int, axes: int, least: int = 2) -> int:
    """How many tiles `cells` a side make; `ValueError` for fewer than `least` a side."""
    if cells < least or not 1 <= axes <= 3:
        raise ValueError(
            f"need cells >= {least} and 1 to 3 axes, got cells={cells} and axes={axes}"
        )
    return int(cells**axes)
