"""Captions beside samples: one of several drawn for each visit, as padded token ids.

A caption stands in a record's meta, where manifests put their columns and shards their JSON: a
text, or a list of texts of which training draws one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Record, Source, to_device
from ssl_core.data.heads import evenly
from ssl_core.data.tokenizer import load_tokenizer, special_ids, tokenizer_from, train_tokenizer
from ssl_core.errors import CorruptSample, UserError

_FILE = "tokenizer.json"


def captions_of(record: Record, field: str) -> list[str]:
    """The captions of a record without those that are empty: `meta[field]`, a text or a list."""
    found = record.meta.get(field)
    several = found if isinstance(found, (list, tuple)) else [found]
    return [text for text in (str(x).strip() for x in several if x is not None) if text]


@dataclass(frozen=True)
class Captioned:
    """Samples and their captions: what a captioned reader collates.

    `samples` is what the plain reader's `collate` made; `ids` is int64 `[B, length]`.
    """

    samples: Any
    ids: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str) -> Captioned:
        """The same on another device."""
        return replace(self, samples=to_device(self.samples, device), ids=self.ids.to(device))


class CaptionReader:
    """A reader of samples that also reads their captions.

    `reader` is the plain reader. Training draws one of a record's captions; evaluation takes the
    first. A record without a caption is corrupt in training, and whole in evaluation, where its
    ids are the empty caption. `spec` is the plain reader's and, under `captions`, `vocab_size`,
    `length` and `pad_id`.
    """

    draws = True

    def __init__(self, reader: Any, tokenizer: Any, *, field: str, length: int) -> None:
        self.reader = reader
        self.tokenizer = tokenizer
        self.field = field
        self.length = length
        self.special = special_ids(tokenizer)

    @classmethod
    def fit(
        cls,
        reader: Any,
        source: Source,
        *,
        field: str,
        length: int,
        vocab_size: int,
        tokenizer: str | None = None,
        limit: int = 200_000,
    ) -> CaptionReader:
        """Takes the tokenizer of a file, or trains one on up to `limit` records' captions.

        Raises `UserError` where no record has a caption.
        """
        if tokenizer is not None:
            return cls(reader, load_tokenizer(Path(tokenizer)), field=field, length=length)
        texts = _texts(source, field, limit)
        return cls(
            reader, train_tokenizer(texts, vocab_size=vocab_size), field=field, length=length
        )

    @property
    def spec(self) -> Mapping[str, Any]:
        facts = {
            "vocab_size": self.tokenizer.get_vocab_size(),
            "length": self.length,
            "pad_id": self.special.pad,
        }
        return {**self.reader.spec, "captions": facts}

    def decode(self, record: Record) -> tuple[Any, Tensor]:
        """The sample, and the ids of its first caption (of none, where there is none)."""
        texts = captions_of(record, self.field)
        return self.reader.decode(record), self.encode(texts[0] if texts else "")

    def draw(self, record: Record, key: int) -> tuple[Any, Tensor]:
        """The sample, and the ids of the caption that `key` picks."""
        texts = captions_of(record, self.field)
        if not texts:
            raise CorruptSample(f"no caption under {self.field!r}")
        return self.reader.decode(record), self.encode(texts[key % len(texts)])

    def encode(self, text: str) -> Tensor:
        """[CLS] text [SEP], cut and padded to `length`: int32 `[length]`."""
        found = self.tokenizer.encode(text, add_special_tokens=False).ids[: self.length - 2]
        ids = torch.full((self.length,), self.special.pad, dtype=torch.int32)
        whole = torch.tensor([self.special.cls, *found, self.special.sep], dtype=torch.int32)
        ids[: len(whole)] = whole
        return ids

    def collate(self, samples: Sequence[tuple[Any, Tensor]]) -> Captioned:
        """Samples as the plain reader collates them, captions `[B, length]`."""
        ids = torch.stack([ids for _, ids in samples]).long()
        return Captioned(self.reader.collate([sample for sample, _ in samples]), ids)

    def raw(self, data: Captioned) -> Tensor:
        """The plain reader's raw features of the samples: captions are no input of the encoder."""
        raw: Tensor = self.reader.raw(data.samples)
        return raw

    def save(self, folder: Path) -> None:
        """What the plain reader writes, the tokenizer, and how captions are read."""
        from ssl_core.files import write_json

        self.reader.save(folder)
        self.tokenizer.save(str(Path(folder, _FILE)))
        write_json(Path(folder, "captions.json"), {"field": self.field, "length": self.length})

    @classmethod
    def load(cls, reader: Any, folder: Path) -> CaptionReader:
        """The reader that `save` wrote, around the plain reader loaded from the same folder."""
        from ssl_core.files import read_json

        facts = read_json(Path(folder, "captions.json"))
        return cls(reader, load_tokenizer(Path(folder, _FILE)), **facts)

    @staticmethod
    def saved_in(folder: Path) -> bool:
        """Whether a run folder's reader reads captions."""
        return Path(folder, "captions.json").is_file()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tokenizer": self.tokenizer.to_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, tokenizer=tokenizer_from(state["tokenizer"]))


def _texts(source: Source, field: str, limit: int) -> Iterator[str]:
    """The captions of up to `limit` records; broken records are passed over here."""
    return (text for record in _readable(source, limit) for text in captions_of(record, field))


def _readable(source: Source, limit: int) -> Iterable[Record]:
    for index in evenly(len(source), limit):
        try:
            yield source[index]
        except CorruptSample:
            continue


def require_captions(source: Source, field: str) -> None:
    """Raises `UserError`, naming what is there, where 64 records spread over have no caption."""
    names: set[str] = set()
    for record in _readable(source, 64):
        if captions_of(record, field):
            return
        names |= set(record.meta)
    there = f"; records have {', '.join(sorted(names))}" if names else ""
    raise UserError(
        f"data.options.captions: no record has a caption under {field!r}{there}. Give a manifest "
        "(CSV, Parquet or JSON lines) with a column of captions, or shards with JSON members"
    )
