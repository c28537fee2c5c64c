"""What `data.options` may hold for text, with defaults: one checked object."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_core.data.reading import Options, whole_number
from ssl_core.errors import UserError, unknown

KINDS = ("bpe", "wordpiece", "unigram", "character", "amino")
"""Tokenizers that can be trained (or, "amino", are fixed)."""


@dataclass(frozen=True)
class TextOptions(Options):
    """Options of the text sources and reader (`--set data.options.max_length=128`)."""

    text_field: str = "text"
    """JSON field or table column that holds the document."""
    label_field: str = "label"
    """Field or column of the optional label (a string or an integer)."""
    group_field: str = "group"
    """Field or column that names what must not be split over training and evaluation."""
    max_length: int = 64
    """Tokens a document is cut to, [CLS] and [SEP] included."""
    tokenizer: str | None = None
    """A `tokenizer.json` to use; None trains a byte-level BPE on the training documents."""
    kind: str = "bpe"
    """What is trained without a `tokenizer`: "bpe" (of bytes), "wordpiece", "unigram",
    "character", or "amino" (TAPE's fixed letters of proteins)."""
    words: bool = False
    """Keep which tokens begin a word, for whole-word and span masks."""
    vocab_size: int = 4000
    """Pieces of a trained tokenizer, specials included; small corpora may yield fewer."""
    lowercase: bool = True
    """Whether a trained tokenizer ignores case."""
    split: bool = False
    """Train on all of a long document, in pieces of `max_length` tokens; needs `token_cache`."""
    token_cache: bool | str = False
    """Tokenise the training documents once and map the ids into memory: true keeps them in the
    user's cache folder ($SSL_CACHE), a path there."""
    fit_limit: int = 200_000
    """Train the tokenizer on at most this many documents, spread evenly over the source."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("data.options.kind", self.kind, KINDS)
        for name, least in (("max_length", 4), ("vocab_size", 30), ("fit_limit", 1)):
            whole_number(name, getattr(self, name), least)
        if not isinstance(self.token_cache, (bool, str)):
            raise UserError(
                f"data.options.token_cache: {self.token_cache!r} is no folder, true or false"
            )
        if self.split and not self.token_cache:
            raise UserError(
                "data.options.split: needs data.options.token_cache: true (or a folder)"
            )
