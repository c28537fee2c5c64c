"""A vector for every token of a text, with the characters it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.errors import CorruptSample, UserError
from ssl_core.runs.model import Model
from ssl_text.reader import TextReader


@dataclass(frozen=True)
class TokenVectors:
    """The tokens of one text, specials left out."""

    pieces: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """Where each piece stands in the text: first character, and the one after its last."""
    vectors: Tensor
    """float32 `[n, D]`, on the CPU."""


def embed_tokens(model: Model, texts: Sequence[str], *, batch_size: int = 64) -> list[TokenVectors]:
    """States of the tokens of each text, as far as the run's `max_length` goes.

    `model` is what `ssl_text.load(run)` gives. A text without any token raises `UserError`.
    """
    reader = model.reader
    assert isinstance(reader, TextReader), "the text domain's reader"
    found = []
    for first in range(0, len(texts), batch_size):
        part = texts[first : first + batch_size]
        states = token_states(model.encoder, reader, part, model.device)
        for text, rows in zip(part, states, strict=True):
            encoding = reader.tokenizer.encode(text, add_special_tokens=False)
            n = len(rows)
            found.append(
                TokenVectors(tuple(encoding.tokens[:n]), tuple(encoding.offsets[:n]), rows)
            )
    return found


@torch.no_grad()
def token_states(
    encoder: torch.nn.Module, reader: TextReader, texts: Sequence[str], device: torch.device | str
) -> list[Tensor]:
    """States float32 `[n, D]` of the tokens of each text, [CLS] and [SEP] left out."""
    samples = []
    for number, text in enumerate(texts):
        try:
            sample = reader.encode(text, key=f"text {number}")
        except CorruptSample as error:
            raise UserError(str(error)) from error
        samples.append(sample[0] if sample.dim() == 2 else sample)
    training = encoder.training
    encoder.eval()
    try:
        states = encoder(reader.collate(samples).to(device)).tokens.float().cpu()
    finally:
        encoder.train(training)
    return [row[1 : len(sample) - 1] for row, sample in zip(states, samples, strict=True)]
