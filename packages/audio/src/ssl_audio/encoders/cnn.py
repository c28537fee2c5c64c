"""BYOL-A's convolutional encoder (Niizumi et al. 2021; pooling of its 2023 journal form).

Three blocks of convolution, batch norm, ReLU and 2 x 2 max pooling; what remains of the frequency
axis is flattened into the channels of each time step, two linear layers follow, and the time axis
is pooled as mean + maximum. Time steps are the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.networks.dropout import KeyedDropout


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


class AudioCNN(nn.Module):
    """`[B, 1, F, T]` to pooled `[B, dim]` and tokens `[B, T / 8, dim]`."""

    def __init__(
        self,
        *,
        mels: int,
        width: int,
        dim: int,
        layers: int,
        first_stride: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        reduction = first_stride * 2**layers
        if mels < reduction:
            raise ValueError(f"{mels} mel bands are too few for a reduction by {reduction}")
        blocks = [_block(width if i else 1, width, 1 if i else first_stride) for i in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        left = mels
        for i in range(layers):
            left = (left if i or first_stride == 1 else -(-left // first_stride)) // 2
        self.fc1 = nn.Linear(width * left, dim)
        self.dropout = KeyedDropout(dropout, stream="audio cnn")
        self.fc2 = nn.Linear(dim, dim)
        self.activation = nn.ReLU()

    def forward(self, data: Tensor) -> Features:
        x = self.blocks(data)  # [B, C, f, t]
        x = x.flatten(1, 2).transpose(1, 2)  # [B, t, C f]
        x = self.activation(self.fc1(x))
        x = self.activation(self.fc2(self.dropout(x)))
        return Features(x.mean(1) + x.amax(1), x, (x.shape[1],))


def audio_cnn(
    spec: Mapping[str, Any],
    *,
    width: int = 64,
    dim: int = 2048,
    layers: int = 3,
    first_stride: int = 1,
    dropout: float = 0.0,
) -> AudioCNN:
    """As published with 64 mel bands, `dim=2048` and dropout 0.3 (0 here: views are random enough).

    `first_stride=2` costs a quarter.
    """
    return AudioCNN(
        mels=int(spec["mels"]),
        width=width,
        dim=dim,
        layers=layers,
        first_stride=first_stride,
        dropout=dropout,
    )
