"""Embeddings of moments instead of whole recordings."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_core.runs.model import Model


def embed_frames(
    model: Model, inputs: Any, *, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Frame embeddings float32 `[N, T, D]` in order, and the middle of each in seconds `[T]`.

    `inputs` is what `model.embed` takes. A frame is one step of the encoder's tokens along time;
    patches above one another are averaged, or side by side where the encoder pools by rows or
    blocks (tokens are the last block's). Seconds count from the start of the part that is embedded,
    the middle `spec["seconds"]` of a recording.
    Raises `UserError` for an input that cannot be read and for encoders without tokens.
    """
    tokens, grid = model.embed_tokens(inputs, batch_size=batch_size)
    if len(grid) == 2:
        maps = tokens.reshape(len(tokens), *grid, -1)  # [N, rows, T, D]
        if getattr(model.encoder, "pool", "mean") in ("rows", "blocks"):
            tokens = maps.swapaxes(1, 2).reshape(len(maps), grid[1], -1)
        else:
            tokens = maps.mean(1)
    step = float(model.reader.spec["seconds"]) / max(1, tokens.shape[1])
    return tokens, (np.arange(tokens.shape[1]) + 0.5) * step
