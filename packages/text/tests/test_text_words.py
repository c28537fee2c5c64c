"""What the report tells of a document: its tokens as text, hidden ones as squares."""

from __future__ import annotations

import torch

from ssl_core.data.tokenizer import train_tokenizer
from ssl_text.domain import TEXT
from ssl_text.reader import TextReader

TEXTS = ["the quick brown fox jumps over the lazy dog", "a second document"] * 4


def test_documents_read_as_they_were_and_hidden_tokens_are_squares() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=400)
    reader = TextReader(tokenizer, max_length=32)
    batch = reader.collate([reader.encode(text) for text in TEXTS[:2]])
    assert TEXT.words(batch, reader) == TEXTS[:2]
    before, word, after = "the quick brown", " fox", " jumps over the lazy dog"
    size = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in (before, word)]
    hidden = torch.zeros_like(batch.valid)
    hidden[0, 1 + size[0] : 1 + sum(size)] = True
    masked = type(batch)(batch.ids.masked_fill(hidden, reader.special.mask), batch.valid)
    squares = " ".join(["▢"] * size[1])
    shown = TEXT.words(masked, reader)[0]
    assert " ".join(shown.split()) == f"{before} {squares} {after.strip()}"
    assert TEXT.words(torch.zeros(2, 3), reader) == []
