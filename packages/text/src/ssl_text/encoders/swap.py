"""Embeddings for a new vocabulary from what an old model makes of its words (BIOptimus).

The embedding of a new piece starts as the mean of the contextual vectors that the old model gives
to the old pieces of its occurrences: over all old pieces of an occurrence, then over occurrences.
(The paper does not say how it pools; the mean is assumed.)

States are many times as long as embeddings, and with an output layer that is tied to these, such a
start predicts worse than a random one (docs/text.md). So the vectors are centred, and scaled to
the length of the old embeddings; the paper does not say whether it does so.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
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
    scaled: bool = True,
) -> tuple[Tensor, Tensor]:
    """Embeddings `[V, D]` for the pieces of `new`, and how many occurrences made each, `[V]`.

    Arguments:
        old: the trained encoder, whose widths the new one must have.
        reader: the old encoder's own reader.
        new: the new tokenizer.
        documents: texts in which the new pieces occur; cut where the old reader cuts.
        most: occurrences of a piece that count, the first ones.
        scaled: take from each vector the mean of all and bring it to the mean length of the old
            embeddings; False gives the contextual vectors as they are.

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
    before = old.vocabulary.weight.double().cpu()
    vectors = total / count.clamp(min=1)[:, None]
    met = count > 0
    if scaled and int(met.sum()) > 1:
        centred = F.normalize(vectors - vectors[met].mean(0), dim=1)
        vectors = centred * before.norm(dim=1).mean()
    made = torch.where(met[:, None], vectors, before.mean(0))
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
