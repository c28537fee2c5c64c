"""Embeddings for a new vocabulary from what an old model makes of its words (BIOptimus).

The embedding of a new piece starts as the mean of the contextual vectors that the old model gives
to the old pieces of its occurrences: over all old pieces of an occurrence, then over occurrences.
(The paper does not say how it pools; the mean is assumed.)
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ssl_text.encoders.transformer import TextEncoder
from ssl_text.reader import TextReader


@torch.no_grad()
def distilled_embeddings(
    old: TextEncoder,
    reader: TextReader,
    new: Tokenizer,
    documents: Iterable[str],
    *,
    most: int = 100,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Embeddings `[V, D]` for the pieces of `new`, and how many occurrences made each, `[V]`.

    Arguments:
        old: the trained encoder, whose widths the new one must have.
        reader: the old encoder's own reader.
        new: the new tokenizer.
        documents: texts in which the new pieces occur; cut where the old reader cuts.
        most: occurrences of a piece that count, the first ones.

    Pieces that never occur (and the specials) keep the mean of the old embeddings. Occurrences are
    matched by character offsets in the text.
    """
    device = old.vocabulary.weight.device
    width = old.embed_dim
    total = torch.zeros(new.get_vocab_size(), width, dtype=torch.float64)
    count = torch.zeros(new.get_vocab_size(), dtype=torch.int64)
    training = old.training
    old.eval()
    try:
        for texts in _batches(documents, batch_size):
            samples = [reader.encode(text) for text in texts]
            ids = [sample[0] if sample.dim() == 2 else sample for sample in samples]
            batch = reader.collate(ids).to(device)
            states = old(batch).tokens
            assert states is not None
            for text, row, sample in zip(texts, states.double().cpu(), ids, strict=True):
                _add(text, row, len(sample) - 2, reader, new, total, count, most)
    finally:
        old.train(training)
    start = old.vocabulary.weight.mean(0).double().cpu()
    made = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], start)
    return made.to(old.vocabulary.weight), count


def _add(
    text: str,
    states: Tensor,
    kept: int,
    reader: TextReader,
    new: Tokenizer,
    total: Tensor,
    count: Tensor,
    most: int,
) -> None:
    """Adds the occurrences of new pieces in one document; `states` start at [CLS]."""
    spans = reader.tokenizer.encode(text, add_special_tokens=False).offsets[:kept]
    found = new.encode(text, add_special_tokens=False)
    for piece, (start, stop) in zip(found.ids, found.offsets, strict=True):
        if count[piece] >= most or start == stop:
            continue
        rows = [i for i, (a, b) in enumerate(spans) if a < stop and b > start]
        if rows:
            total[piece] += states[1:][rows].mean(0)
            count[piece] += 1


def _batches(documents: Iterable[str], size: int) -> Iterable[list[str]]:
    batch: list[str] = []
    for document in documents:
        batch.append(document)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
