"""Embeds records in order, through the deterministic view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core.batch import Batch, Reader, Source
from ssl_core.data import Failure, decode_all
from ssl_core.rng import shuffled
from ssl_core.views import ViewPolicy


@dataclass(frozen=True)
class Embedding:
    """Rows in the order of the source; unreadable records are left out."""

    features: Tensor
    """float32 `[N, D]`, on the CPU."""
    labels: Tensor
    """int64 `[N]`, -1 where missing."""
    keys: tuple[str, ...]
    index: Tensor
    """int64 `[N]`, rows of the source."""
    raw: Tensor | None = None
    """float32 `[N, R]`: the input itself, when asked for."""

    def __len__(self) -> int:
        return len(self.features)


@torch.no_grad()
def embed(
    encoder: nn.Module, views: ViewPolicy, batches: Iterable[Batch], *, raw: Reader | None = None
) -> Embedding:
    """The pooled features of every sample, and with `raw` the input as features too.

    The encoder runs in evaluation mode and is put back into the mode it was in.
    """
    training = encoder.training
    encoder.eval()
    features, inputs, labels, index = [], [], [], []
    keys: list[str] = []
    try:
        for batch in batches:
            features.append(_pooled(encoder, views, batch).float().cpu())
            if raw is not None:
                inputs.append(raw.raw(batch.data).float().cpu())
            none = torch.full((len(batch),), -1, dtype=torch.int64)
            labels.append(none if batch.label is None else batch.label.cpu())
            index.append(batch.index.cpu())
            keys.extend(batch.keys)
    finally:
        encoder.train(training)
    if not features:
        width = int(getattr(encoder, "embed_dim", 0))
        empty = torch.empty(0, dtype=torch.int64)
        return Embedding(torch.empty(0, width), empty, (), empty)
    return Embedding(
        torch.cat(features),
        torch.cat(labels),
        tuple(keys),
        torch.cat(index),
        torch.cat(inputs) if raw is not None else None,
    )


def _pooled(encoder: nn.Module, views: ViewPolicy, batch: Batch) -> Tensor:
    """Features `[B, D]` of the plain view, or the mean over a policy's several ones."""
    several = getattr(views, "plains", None)
    if several is None:
        pooled: Tensor = encoder(views.plain(batch)).pooled
        return pooled
    return torch.stack([encoder(data).pooled.float() for data in several(batch)]).mean(0)


def embed_source(
    encoder: nn.Module,
    views: ViewPolicy,
    source: Source,
    reader: Reader,
    *,
    rows: np.ndarray | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 2,
    on_corrupt: Callable[[Failure], None] | None = None,
) -> Embedding:
    """Decodes and embeds the records `rows` (default: all) of a source.

    Records that cannot be read are left out and given to `on_corrupt` (default: a log warning).
    """
    batches = decode_all(
        source,
        reader,
        rows,
        batch_size=batch_size,
        device=device,
        workers=workers,
        on_corrupt=on_corrupt,
    )
    return embed(encoder, views, batches)


def sample_rows(length: int, limit: int, *labels: int | str) -> np.ndarray:
    """At most `limit` rows of `length`, in order, chosen by a keyed permutation."""
    if length <= limit:
        return np.arange(length)
    return np.sort(shuffled(np.arange(limit), length, *labels))
