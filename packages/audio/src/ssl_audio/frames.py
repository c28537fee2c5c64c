"""Embeddings of moments instead of whole recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssl_core.batch import Batch, Record
from ssl_core.errors import CorruptSample, UserError
from ssl_core.runs.model import Model, is_source


@torch.no_grad()
def embed_frames(
    model: Model, inputs: Any, *, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Frame embeddings float32 `[N, T, D]` in order, and the middle of each in seconds `[T]`.

    `inputs` is what `model.embed` takes. A frame is one step of the encoder's tokens along time;
    patches above one another are averaged. Seconds count from the start of the part that is
    embedded, the middle `spec["seconds"]` of a recording. Raises `UserError` for an input that
    cannot be read and for encoders without tokens.
    """
    if isinstance(inputs, (str, bytes)) or hasattr(inputs, "__fspath__"):
        inputs = model.open(inputs)
    items = map(inputs.__getitem__, range(len(inputs))) if is_source(inputs) else inputs
    samples = [_decoded(model, number, item) for number, item in enumerate(items)]
    parts = []
    for start in range(0, len(samples), batch_size):
        some = samples[start : start + batch_size]
        rows = torch.arange(len(some))
        data = model.views.plain(Batch(model.reader.collate(some), rows, rows).to(model.device))
        features = model.encoder(data)
        if features.tokens is None:
            raise UserError(f"encoder: {type(model.encoder).__name__} has no frames, only a whole")
        tokens = features.tokens
        if len(features.grid) == 2:
            tokens = tokens.unflatten(1, features.grid).mean(1)
        parts.append(tokens.float().cpu())
    if not parts:
        return np.empty((0, 0, model.dim), np.float32), np.empty(0)
    out = torch.cat(parts)
    step = float(model.reader.spec["seconds"]) / out.shape[1]
    return out.numpy(), (np.arange(out.shape[1]) + 0.5) * step


def _decoded(model: Model, number: int, item: Any) -> Any:
    record = item if isinstance(item, Record) else Record(str(number), item)
    try:
        return model.reader.decode(record)
    except CorruptSample as error:
        raise UserError(f"input {record.key}: cannot be read ({error})") from error
