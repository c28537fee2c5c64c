"""One row of a source to one decoded sample, or the reason why not. Runs in any worker."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_core.batch import Decoded, Reader, Record, Source
from ssl_core.data.heads import digest, head_of
from ssl_core.data.limits import with_retries
from ssl_core.errors import CorruptSample, SSLError, TrainingAborted, UserError
from ssl_core.files import plain
from ssl_core.rng import key_of, shuffled


@dataclass(frozen=True)
class Failure:
    """A record that did not become a sample."""

    index: int
    key: str
    reason: str


@dataclass(frozen=True)
class Item:
    """A decoded sample; `failures` are the records it stands in for, in the order tried."""

    index: int
    key: str
    label: int | None
    sample: Any
    failures: tuple[Failure, ...] = ()


def spec_digest(reader: Reader) -> str:
    """A hash of the facts a reader decodes by."""
    return digest([json.dumps(plain(reader.spec), sort_keys=True)])


class Decoder:
    """`Reader.decode`, or the part for a key by a drawing reader; packed samples as they are.

    Raises `UserError` for samples that were packed by a reader with other facts.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.draws = bool(getattr(reader, "draws", False))
        self._spec: str | None = None

    def __call__(self, record: Record, key: int | None = None) -> Any:
        payload = record.payload
        if not isinstance(payload, Decoded):
            if self.draws and key is not None:
                return self.reader.draw(record, key)  # type: ignore[attr-defined]
            return self.reader.decode(record)
        if self._spec is None:
            self._spec = spec_digest(self.reader)
        if payload.spec != self._spec:
            raise UserError(
                "data: these samples were packed for other reader facts (channels, sizes, "
                "vocabulary...) than this run's; give the original files instead"
            )
        return payload.sample


class Fetcher:
    """Decodes rows and replaces corrupt ones; a pure function of row and id, whoever runs it.

    A reader with `draws` True decodes only a part of a record (a clip of a long video), another
    one for every id: it is asked `draw(record, key)` with a key of seed and id, and `decode`
    stays the deterministic part that evaluation sees. Whether such a record is corrupt may depend
    on the part, so nothing is remembered of it.

    A corrupt row is replaced by row `shuffled(row, seed, attempt)` for attempt 1, 2, ...: the same
    replacement in every worker, run and resume. `known` remembers failures by row, so that no
    corrupt record is decoded twice. More failures in a chain than a share `max_corrupt` of corrupt
    records makes plausible (one chain in 10^9) raise `TrainingAborted`.
    """

    def __init__(
        self, source: Source, reader: Reader, *, seed: int = 0, max_corrupt: float = 0.05
    ) -> None:
        self.source = source
        self.decoder = Decoder(reader)
        self.seed = seed
        self.known: dict[int, Failure] = {}
        self.draws = self.decoder.draws
        share = min(max(max_corrupt, 0.2), 0.998)
        self.attempts = math.ceil(math.log(1e-9) / math.log(share))

    def decode(self, index: int, id: int | None = None) -> Item | Failure:
        """One row as it is, by a drawing reader the part for `id` of it (None: `decode`'s part).

        Only errors made for the user pass through.
        """
        try:
            record = with_retries(lambda: self.source[index])
            sample = with_retries(lambda: self.decoder(record, self._key_for(index, id)))
        except SSLError:
            raise
        except Exception as error:
            # Whatever a decoder trips over is a property of the record: name it and go on.
            reason = str(error) if isinstance(error, CorruptSample) else _described(error)
            return Failure(index, self._key(index), reason)
        return Item(index, record.key, record.label, sample)

    def _key_for(self, index: int, id: int | None) -> int | None:
        if id is None or not self.draws:
            return None  # a key costs as much as reading a short packed sample
        # The row is part of the key: what replaces a damaged part is drawn anew.
        return key_of("draw", self.seed, id, index)

    def _key(self, index: int) -> str:
        """The record's name, even where the record cannot be read."""
        try:
            return head_of(self.source, index).key
        except Exception:
            return f"row {index}"

    def resolve(
        self, index: int, known: Mapping[int, Failure] | None = None
    ) -> tuple[int, tuple[Failure, ...]]:
        """The row that stands for `index` as far as `known` (default: the fetcher's memory) tells,
        and the failures before it."""
        known = self.known if known is None else known
        failures: dict[int, Failure] = {}
        at, attempt = index, 0
        while (failure := known.get(at)) is not None:
            failures[at] = failure
            if len(failures) == len(self.source) or attempt == self.attempts:
                raise TrainingAborted(
                    f"data: {len(failures)} records in a row are corrupt, as far as "
                    f"{failure.key}; the first is {_named(failures)}"
                )
            attempt += 1
            at = self.replacement(index, attempt)
        return at, tuple(failures.values())

    def replacement(self, index: int, attempt: int) -> int:
        """The row tried instead of `index` at this attempt, from 1."""
        n = len(self.source)
        return int(shuffled(np.array([index]), n, "replacement", self.seed, attempt)[0])

    def fetch(self, index: int, id: int | None = None) -> Item:
        """The sample for a row under an id, or its replacement."""
        known = {} if self.draws else self.known
        while True:
            at, failures = self.resolve(index, known)
            found = self.decode(at, id)
            if isinstance(found, Item):
                return Item(found.index, found.key, found.label, found.sample, failures)
            known[at] = found

    def fetch_all(self, indices: Sequence[int], ids: Sequence[int] | None = None) -> list[Item]:
        """The samples for several rows, in order."""
        if ids is None:
            return [self.fetch(index) for index in indices]
        return [self.fetch(index, id) for index, id in zip(indices, ids, strict=True)]

    def remember(self, failures: Iterable[Failure]) -> None:
        """Takes over what another process's fetcher found corrupt."""
        if not self.draws:
            self.known.update({failure.index: failure for failure in failures})


def _described(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _named(failures: dict[int, Failure]) -> str:
    first = next(iter(failures.values()))
    return f"{first.key}: {first.reason}"
