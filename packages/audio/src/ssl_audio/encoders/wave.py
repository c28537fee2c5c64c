"""Encoders that start from the wave: convolutions to 20 ms frames, then a transformer.

The architecture of wav2vec 2.0 (Baevski et al. 2020) and HuBERT: seven convolutions (receptive
field 25 ms, step 20 ms), a linear map, relative positions by a wide grouped convolution, blocks.
Blocks are pre-norm, as in the published large models. As a token encoder its tokens are the 20 ms
pieces of the wave; masks act on the frames after the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.networks.masks import Mask
from ssl_core.networks.transformer import blocks, initialise
from ssl_core.networks.vit import MaskTokens

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
STEP = 320
"""Product of the strides: samples a frame."""
REACH = 400
"""Samples one frame sees."""


class ConvolutionalFront(nn.Module):
    """Waves `[B, T]` to local features `[B, T / 320, width]`.

    The first convolution is followed by a norm of each channel over time, as in the base model.
    Zeros after the end make one frame of every whole 320 samples.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True)):
            conv = nn.Conv1d(width if i else 1, width, kernel, stride, bias=False)
            nn.init.kaiming_normal_(conv.weight)
            norm = [] if i else [nn.GroupNorm(width, width)]
            layers += [conv, *norm, nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, wave: Tensor) -> Tensor:
        x = F.pad(wave, (0, REACH - STEP)).unsqueeze(1)
        return self.layers(x).transpose(1, 2)  # type: ignore[no-any-return]


class ConvolutionalPositions(nn.Module):
    """Adds GELU(grouped convolution over `kernel` frames) to `[B, N, D]`."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.even = kernel % 2 == 0
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=(4 / (kernel * dim)) ** 0.5)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        places = self.conv(x.transpose(1, 2))
        if self.even:
            places = places[..., :-1]
        return x + F.gelu(places).transpose(1, 2)


class WaveTransformer(MaskTokens):
    """`[B, T]` to pooled `[B, D]` (mean over time) and tokens `[B, T / 320, D]`."""

    def __init__(
        self,
        *,
        width: int,
        dim: int,
        depth: int,
        heads: int,
        positions: int,
        groups: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.local_dim = width
        self.token_dim = STEP
        self.front = ConvolutionalFront(width)
        # The blocks' epsilon: transformers' wav2vec 2.0 knows one for all.
        self.front_norm = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(width, dim)
        self.places = ConvolutionalPositions(dim, positions, groups)
        self.blocks = blocks(
            depth, dim, heads, mlp_ratio=mlp_ratio, dropout=dropout, drop_path=drop_path
        )
        self.blocks.apply(initialise)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def tokenize(self, data: Tensor) -> Tokens:
        """Cuts waves `[B, T]` into pieces `[B, T / 320, 320]`."""
        if data.dim() != 2 or data.shape[1] < STEP:
            raise UserError(
                f"encoder wave: takes waves [B, T] of at least {STEP} samples, got "
                f"{tuple(data.shape)}; use views 'wave'"
            )
        count = data.shape[1] // STEP
        return Tokens(data[:, : count * STEP].unflatten(1, (count, STEP)), (count,))

    def local(self, data: Tensor) -> Tensor:
        """Features of single frames, before any context: `[B, T]` to `[B, N, width]`."""
        return self.front(data)  # type: ignore[no-any-return]

    def contextual(self, local: Tensor, mask: Mask | None = None) -> Features:
        """Frames in context; hidden ones are replaced by the mask token."""
        x = self.layers(local, mask)[-1]
        return Features(x.mean(1), x, (x.shape[1],))

    def layers(self, local: Tensor, mask: Mask | None = None) -> list[Tensor]:
        """What every block puts out, `[B, N, D]` each; the last one normalised."""
        x = self.project(self.front_norm(local))
        if mask is not None:
            if mask.mode != "replace":
                raise UserError(
                    f"encoder wave: hides frames by replacing them, not by {mask.mode!r}; choose a "
                    "method that replaces, or a spec_vit encoder"
                )
            x = self.replaced(x, mask)
        x = self.places(x)
        out = []
        for block in self.blocks:
            x = block(x)
            out.append(x)
        out[-1] = self.norm(x)
        return out

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """Pieces of a wave, encoded; see `tokenize`."""
        return self.contextual(self.local(tokens.values.flatten(1)), mask)

    def forward(self, data: Tensor) -> Features:
        return self.encode(self.tokenize(data))


def wave_transformer(
    spec: Mapping[str, Any],
    *,
    width: int,
    dim: int,
    depth: int,
    heads: int,
    positions: int = 128,
    groups: int = 16,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> WaveTransformer:
    """An encoder of waves; `positions` is the width of the position convolution in frames."""
    return WaveTransformer(
        width=width,
        dim=dim,
        depth=depth,
        heads=heads,
        positions=positions,
        groups=groups,
        mlp_ratio=mlp_ratio,
        dropout=dropout,
        drop_path=drop_path,
    )


SIZES: dict[str, dict[str, int]] = {
    "nano": {"width": 64, "dim": 96, "depth": 3, "heads": 3, "positions": 16, "groups": 4},
    "small": {"width": 256, "dim": 384, "depth": 6, "heads": 6},
    "base": {"width": 512, "dim": 768, "depth": 12, "heads": 12},
}
wave_nano = partial(wave_transformer, **SIZES["nano"])
wave_small = partial(wave_transformer, **SIZES["small"])
wave_base = partial(wave_transformer, **SIZES["base"])
