"""Causal encoders: a frame's token knows the past alone.

`gru_<size>` runs over spectrogram frames (APC: Chung et al. 2019: three layers of 512 with
residual links), `cpc_<size>` over 10 ms frames of five convolutions on the wave (CPC: van den Oord
et al. 2018, in the form of Rivière et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError

KERNELS = (10, 8, 4, 4, 4)
STRIDES = (5, 4, 2, 2, 2)
STEP = 160


class SpectrogramGRU(nn.Module):
    """`[B, 1, F, T]` to tokens `[B, T, dim]`, one a frame, and their mean."""

    causal = True

    def __init__(self, mels: int, *, dim: int, depth: int) -> None:
        super().__init__()
        self.embed_dim = dim
        self.layers = nn.ModuleList(
            nn.GRU(dim if i else mels, dim, batch_first=True) for i in range(depth)
        )

    def forward(self, data: Tensor) -> Features:
        x = data[:, 0].transpose(1, 2)  # [B, T, F]
        for i, layer in enumerate(self.layers):
            y = layer(x)[0]
            x = y + x if i else y
        return Features(x.mean(1), x, (x.shape[1],))


class ChannelNorm(nn.Module):
    """Each moment of `[B, C, T]` to mean 0, variance 1 over its channels, then affine."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


class CPCEncoder(nn.Module):
    """Waves `[B, T]` to tokens `[B, T / 160, dim]` in causal context, and their mean.

    Convolutions are padded on the left, so that nothing after a frame's 10 ms reaches it.
    """

    causal = True

    def __init__(self, *, width: int, dim: int, depth: int) -> None:
        super().__init__()
        self.embed_dim = dim
        self.local_dim = width
        self.convs = nn.ModuleList(
            nn.Conv1d(width if i else 1, width, kernel, stride)
            for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True))
        )
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in KERNELS)
        self.context = nn.GRU(width, dim, num_layers=depth, batch_first=True)

    def local(self, data: Tensor) -> Tensor:
        """Features of single moments, `[B, N, width]`."""
        if data.dim() != 2 or data.shape[1] < STEP:
            raise UserError(
                f"encoder cpc: takes waves [B, T] of at least {STEP} samples, got "
                f"{tuple(data.shape)}; use views 'wave'"
            )
        x = data[:, : data.shape[1] // STEP * STEP].unsqueeze(1)
        for conv, norm, kernel, stride in zip(
            self.convs, self.norms, KERNELS, STRIDES, strict=True
        ):
            x = F.relu(norm(conv(F.pad(x, (kernel - stride, 0)))))
        return x.transpose(1, 2)

    def contextual(self, local: Tensor) -> Features:
        """`[B, N, width]` with what came before."""
        x: Tensor = self.context(local)[0]
        return Features(x.mean(1), x, (x.shape[1],))

    def forward(self, data: Tensor) -> Features:
        return self.contextual(self.local(data))


def gru(spec: Mapping[str, Any], *, dim: int, depth: int = 3) -> SpectrogramGRU:
    """A recurrent encoder of the spec's mel bands."""
    return SpectrogramGRU(int(spec["mels"]), dim=dim, depth=depth)


def cpc(spec: Mapping[str, Any], *, width: int, dim: int, depth: int = 1) -> CPCEncoder:
    """A recurrent encoder of waves; 256 and 256 as published."""
    return CPCEncoder(width=width, dim=dim, depth=depth)


gru_nano = partial(gru, dim=128, depth=2)
gru_base = partial(gru, dim=512)
cpc_nano = partial(cpc, width=64, dim=96)
cpc_base = partial(cpc, width=256, dim=256)
