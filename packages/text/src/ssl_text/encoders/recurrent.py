"""Bidirectional GRU and LSTM (Cho et al. 2014; Hochreiter & Schmidhuber 1997) over token ids."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ssl_core.networks.dropout import KeyedDropout
from ssl_text.encoders.base import EmbeddingEncoder, Pieces

Cell = Literal["gru", "lstm"]
_CELLS: dict[str, type[nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentEncoder(EmbeddingEncoder):
    """`depth` bidirectional layers of width `dim` (both directions together).

    Documents run without their padding (torch's packed sequences), so that the backward direction
    starts at each document's own end. Dropout, keyed by sample, follows the embedding and every
    layer but the last.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        cell: Cell,
        dim: int,
        depth: int,
        dropout: float,
        **pieces: Unpack[Pieces],
    ) -> None:
        super().__init__(vocab_size, dim=dim, **pieces)
        if cell not in _CELLS:
            raise ValueError(f"cell must be 'gru' or 'lstm', got {cell!r}")
        if dim < 2 or dim % 2 or depth < 1:
            raise ValueError(f"need an even dim and depth >= 1, got dim {dim}, depth {depth}")
        self.layers = nn.ModuleList(
            _CELLS[cell](dim, dim // 2, batch_first=True, bidirectional=True) for _ in range(depth)
        )
        self.dropout = nn.ModuleList(
            KeyedDropout(dropout, stream=f"layer {number}") for number in range(depth)
        )

    def run(self, states: Tensor, valid: Tensor) -> Tensor:
        lengths = valid.sum(1).cpu()
        total = states.shape[1]
        for layer, dropout in zip(self.layers, self.dropout, strict=True):
            states = dropout(states)
            with torch.autocast(states.device.type, enabled=False):  # no kernels in bfloat16
                packed = pack_padded_sequence(
                    states.to(layer.weight_ih_l0.dtype),
                    lengths,
                    batch_first=True,
                    enforce_sorted=False,
                )
                run, _ = layer(packed)
            states, _ = pad_packed_sequence(run, batch_first=True, total_length=total)
        return states
