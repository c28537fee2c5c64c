"""Embeddings of moments instead of whole clips."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_core.runs.model import Model


def embed_frames(
    model: Model, inputs: Any, *, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of moments float32 `[N, T, D]` in order, and which frame lies in the middle of
    each, `[T]`.

    `inputs` is what `model.embed` takes. A moment is one step of the encoder's tokens along time
    (a tubelet's two frames, or as many as a convolutional network joins); places side by side are
    averaged. Frames count from the start of the clip in the middle of the video that is embedded,
    in frames of the file. Raises `UserError` for an input that cannot be read and for encoders
    without tokens.
    """
    tokens, grid = model.embed_tokens(inputs, batch_size=batch_size)
    if len(grid) == 3:
        tokens = tokens.reshape(len(tokens), grid[0], grid[1] * grid[2], -1).mean(2)
    plain = model.views.sizes.plain  # type: ignore[attr-defined]
    step = plain.frames * plain.stride / max(1, tokens.shape[1])
    return tokens, (np.arange(tokens.shape[1]) + 0.5) * step - 0.5 * plain.stride
