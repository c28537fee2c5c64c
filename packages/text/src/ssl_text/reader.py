"""`TextReader`: documents to token ids, and batches of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from ssl_core.batch import Record, Source
from ssl_core.data.heads import evenly
from ssl_core.data.tokenizer import load_tokenizer, special_ids
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import write_json
from ssl_text.options import TextOptions
from ssl_text.sources.passage import text_of
from ssl_text.tokenizer_kinds import trained
from ssl_text.tokens import TokenBatch

_CHARACTERS_PER_TOKEN = 64
"""A reader looks at this many characters for each token it may keep, and at no more."""


class TextReader:
    """[CLS] document [SEP], cut at `max_length` tokens.

    `spec` holds `vocab_size`, `max_length`, `pad_id`, `cls_id`, `sep_id`, `mask_id` and
    `special_ids`.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_length: int, words: bool = False) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.words = words
        self.special = special_ids(tokenizer)

    @classmethod
    def fit(cls, source: Source, options: TextOptions) -> TextReader:
        """Takes the tokenizer the options name, or trains one on the source's documents."""
        if options.tokenizer is not None:
            tokenizer = load_tokenizer(Path(options.tokenizer))
        else:
            tokenizer = trained(
                options.kind,
                _texts(source, options.fit_limit),
                vocab_size=options.vocab_size,
                lowercase=options.lowercase,
            )
        return cls(tokenizer, max_length=options.max_length, words=options.words)

    @property
    def spec(self) -> Mapping[str, Any]:
        """What encoders and views are built from."""
        return {
            "vocab_size": self.tokenizer.get_vocab_size(),
            "max_length": self.max_length,
            "pad_id": self.special.pad,
            "cls_id": self.special.cls,
            "sep_id": self.special.sep,
            "mask_id": self.special.mask,
            "special_ids": list(self.special.every),
            "words": self.words,
        }

    def decode(self, record: Record) -> Tensor:
        """Token ids int32 `[n]`, 3 <= n <= max_length; raises `CorruptSample` with the reason.

        A reader with `words` gives `[2, n]`, the second row 1 where a word begins.
        """
        return self.encode(text_of(record.payload, record.key), key=record.key)

    def encode(self, text: str, *, key: str = "text") -> Tensor:
        """The same for a string. A document of which no token is left is corrupt."""
        shown = text[: _CHARACTERS_PER_TOKEN * self.max_length]
        found = self.tokenizer.encode(shown, add_special_tokens=False)
        return self._sample(found, 0, key)

    def pieces(self, record: Record) -> list[Tensor]:
        """All of a document as samples of at most `max_length` tokens, one after another."""
        found = self.tokenizer.encode(text_of(record.payload, record.key), add_special_tokens=False)
        inner = self.max_length - 2
        starts = range(0, max(len(found.ids), 1), inner)
        return [self._sample(found, start, record.key) for start in starts]

    def _sample(self, found: Encoding, start: int, key: str) -> Tensor:
        """[CLS], the tokens from `start` on that fit, [SEP]."""
        stop = start + self.max_length - 2
        ids = found.ids[start:stop]
        if not ids:
            raise CorruptSample(f"{key}: no tokens in the document")
        document = torch.tensor([self.special.cls, *ids, self.special.sep], dtype=torch.int32)
        if not self.words:
            return document
        words = torch.tensor([-1, *(-1 if w is None else w for w in found.word_ids[start:stop])])
        starts = torch.ones_like(document)
        starts[1:-1] = words[1:] != words[:-1]
        return torch.stack([document, starts])

    def collate(self, samples: Sequence[Tensor]) -> TokenBatch:
        """Documents as one batch, padded to the longest of them."""
        return TokenBatch.stack(samples, pad_id=self.special.pad)

    def raw(self, data: TokenBatch) -> Tensor:
        """The bag of tokens, float32 `[B, vocab_size]`: counts, specials left out, L2-normed."""
        counts = torch.zeros(len(data), self.tokenizer.get_vocab_size(), device=data.ids.device)
        counts.scatter_add_(1, data.ids, data.valid.to(counts.dtype))
        counts[:, list(self.special.every)] = 0
        return torch.nn.functional.normalize(counts, dim=1)

    def text(self, ids: Tensor, *, hidden: str = "") -> str:
        """Token ids `[n]` as text again, without the special pieces; `hidden` stands for [MASK]."""
        if not hidden:
            found: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
            return found
        places = (ids == self.special.mask).nonzero()[:, 0]
        pieces = [self.text(part) for part in torch.tensor_split(ids, places.tolist())]
        return f" {hidden} ".join(piece.strip() for piece in pieces)

    def save(self, folder: Path | str) -> None:
        """Writes `tokenizer.json` and `reader.json`."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(path / "tokenizer.json"))
        write_json(path / "reader.json", {"max_length": self.max_length, "words": self.words})

    @classmethod
    def load(cls, folder: Path | str) -> TextReader:
        """The reader that `save` wrote."""
        path = Path(folder)
        settings = json.loads((path / "reader.json").read_text(encoding="utf-8"))
        tokenizer = load_tokenizer(path / "tokenizer.json")
        return cls(tokenizer, max_length=settings["max_length"], words=settings["words"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tokenizer": self.tokenizer.to_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, tokenizer=Tokenizer.from_str(state["tokenizer"]))


def _texts(source: Source, limit: int) -> Iterator[str]:
    """Documents to train on. Broken ones are passed over here: the loader reports them.

    Where all are broken, nothing can be trained: `UserError` with the first one's reason.
    """
    first, read = "", 0
    for index in evenly(len(source), limit):
        try:
            record = source[index]
            text = text_of(record.payload, record.key)
        except CorruptSample as error:
            first = first or str(error)
            continue
        read += 1
        yield text
    if first and not read:
        convert = "; `iconv -f LATIN1 -t UTF-8` converts what is in Latin-1"
        raise UserError(
            f"data: no document can be read, the first because: {first}"
            + (convert if "invalid UTF-8" in first else "")
        )
