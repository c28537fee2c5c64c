"""Long recordings as several records, one for each part of a given length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssl_audio.decode import SHORTEST, Window, duration
from ssl_core.batch import Record, Source
from ssl_core.data import head_of
from ssl_core.data.heads import digest
from ssl_core.errors import CorruptSample


class Windows:
    """The parts of every record of `source`, at most `seconds` long and equally long in a file.

    Headers are read once, here. Parts of one recording share its group, so that a hold-out never
    parts them. A record whose header cannot be read stays one record, which decoding reports.
    """

    def __init__(self, source: Source, *, seconds: float) -> None:
        self.source = source
        self.seconds = seconds
        spans = [self._spans(i) for i in range(len(source))]
        self._row = np.repeat(np.arange(len(source)), [len(of) for of in spans])
        self._span = [span for of in spans for span in of]

    def _spans(self, index: int) -> list[tuple[int, int] | None]:
        try:
            frames, rate = duration(self.source[index].payload)
        except CorruptSample:
            return [None]
        parts = max(1, -(-frames // max(1, round(self.seconds * rate))))
        edges = np.linspace(0, frames, parts + 1).round().astype(int).tolist()
        if parts == 1 or (edges[1] - edges[0]) < SHORTEST * rate:
            return [None]
        return list(itertools.pairwise(edges))

    def __len__(self) -> int:
        return len(self._row)

    @property
    def classes(self) -> Sequence[str] | None:
        """The classes of the recordings."""
        return self.source.classes

    def head(self, index: int) -> Record:
        """Key, label and meta of a part."""
        return self._part(head_of(self.source, int(self._row[index])), index)

    def __getitem__(self, index: int) -> Record:
        return self._part(self.source[int(self._row[index])], index)

    def _part(self, record: Record, index: int) -> Record:
        span = self._span[index]
        if span is None:
            return record
        group = record.meta.get("group") or record.key
        return replace(
            record,
            key=f"{record.key}@{span[0]}",
            payload=Window(record.payload, *span),
            meta={**record.meta, "group": group},
        )

    def fingerprint(self) -> str:
        """A hash of the source's fingerprint and the length of parts."""
        return digest([self.source.fingerprint(), str(self.seconds)])
