"""Clips as contact sheets for the report: frames side by side, time to the right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GAP = 1
_FRAMES = 8


def draw(data: Any, spec: Mapping[str, Any], *, frames: int = _FRAMES) -> list[np.ndarray]:
    """One uint8 sheet `[H, W, 3]` a clip of normalised `[B, C, T, H, W]`; hidden parts are grey.

    At most `frames` of a clip are drawn, spread evenly. `spec` gives the mean and deviation that
    normalised them. Derivatives are drawn on the same scale, so what stands still is the mean
    colour.
    """
    if not isinstance(data, Tensor) or data.dim() != 5:
        return []
    count = min(frames, data.shape[2])
    places = torch.linspace(0, data.shape[2] - 1, count).round().long().to(data.device)
    clips = data.detach()[:, :, places].float().cpu()
    mean, std = (torch.tensor(spec[name])[:, None, None, None] for name in ("mean", "std"))
    pixels = (clips * std + mean).nan_to_num(0.5).clamp(0, 1)  # [B, 3, t, H, W]
    sheets = (pixels * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()  # [B, t, H, W, 3]
    padded = np.pad(sheets, ((0, 0), (0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
    return [np.concatenate(list(clip), axis=1)[:, :-_GAP] for clip in padded]
