"""Token ids made once: a memory-mapped cache of a source under one reader.

    FOLDER/cache.json      version, type of ids, whether word beginnings are kept
    FOLDER/ids.bin         the ids of all samples, one sample after another
    FOLDER/starts.bin      one byte a token: 1 where a word begins (only for readers with words)
    FOLDER/ends.npy        int64 [N], where each sample ends in ids.bin
    FOLDER/rows.npy        int64 [N], the document each sample is (a piece of)
    FOLDER/reasons.json    row -> why a document cannot be read

The folder's name is a hash of the documents' fingerprint, their files' sizes and times, and the
tokenizer; it appears whole or not at all. Samples are the reader's own to the last id. A document
that cannot be read has one empty sample, so that training meets, counts and replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ssl_core.batch import Decoded, Reader, Record, Source
from ssl_core.data.fetch import spec_digest
from ssl_core.data.heads import digest, head_of
from ssl_core.environment import available_cores
from ssl_core.errors import CorruptSample, SSLError
from ssl_core.files import atomic_folder, cache_folder, read_json, write_json
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader

VERSION = 1
_DOCUMENTS = 4096
"""Documents tokenised between two writes."""
_THREADS = 8
"""At most: four fifths of the work is the tokenizer's own, which runs beside other threads."""


class TokenSource:
    """Samples of a cache; `source` gives keys, labels and groups."""

    def __init__(self, folder: Path, source: Source, *, spec: str, pieces: bool) -> None:
        self.folder, self.source = folder, source
        self.spec, self.pieces = spec, pieces
        facts = read_json(folder / "cache.json")
        self._ids = _map(folder / "ids.bin", np.dtype(facts["dtype"]))
        self._starts = _map(folder / "starts.bin", np.dtype(np.uint8)) if facts["words"] else None
        self._ends = np.load(folder / "ends.npy")
        self._rows = np.load(folder / "rows.npy")
        self._reasons = {int(k): str(v) for k, v in read_json(folder / "reasons.json").items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.folder, self.source, self.spec, self.pieces)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self.source.classes

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, int64 `[N]`, specials included."""
        return np.diff(self._ends, prepend=0)

    def head(self, index: int) -> Record:
        """Key, label and meta; the pieces of a document after the first are "key#2", "key#3"..."""
        row = int(self._rows[index])
        head = head_of(self.source, row)
        piece = index - int(np.searchsorted(self._rows, row)) if self.pieces else 0
        key = f"{head.key}#{piece + 1}" if piece else head.key
        return Record(key, None, head.label, head.meta)

    def __getitem__(self, index: int) -> Record:
        head = self.head(index)
        start, end = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        if start == end:
            raise CorruptSample(self._reasons[int(self._rows[index])])
        sample = torch.from_numpy(self._ids[start:end].astype(np.int32))
        if self._starts is not None:
            marked = torch.from_numpy(self._starts[start:end].astype(np.int32))
            sample = torch.stack([sample, marked])
        return Record(head.key, Decoded(sample, self.spec), head.label, head.meta)

    def fingerprint(self) -> str:
        """That of the documents, and whether they are cut into pieces."""
        whole = self.source.fingerprint()
        return digest([whole, "pieces"]) if self.pieces else whole


def _again(folder: Path, source: Source, spec: str, pieces: bool) -> TokenSource:
    return TokenSource(folder, source, spec=spec, pieces=pieces)


def cached_tokens(source: Source, reader: Reader, options: TextOptions) -> TokenSource:
    """The tokens of `source` from the cache, which is filled first where it lacks them.

    With `options.split` a document longer than the reader takes becomes several samples.
    """
    assert isinstance(reader, TextReader), "the text domain's reader"
    place = options.token_cache
    root = (
        Path(place).expanduser() if isinstance(place, str) else cache_folder() / "text" / "tokens"
    )
    facts = (VERSION, reader.max_length, reader.words, options.split)
    name = digest([source.fingerprint(), *_stamps(source), reader.tokenizer.to_str(), *facts])
    folder = root / name
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            _fill(temporary, source, reader, split=options.split)
    return TokenSource(folder, source, spec=spec_digest(reader), pieces=options.split)


def _stamps(source: Any) -> Iterator[object]:
    """Size and time of change of the files behind a source, where it tells them."""
    while source is not None:
        for part in getattr(source, "parts", ()):
            state = part.path.stat()
            yield from (part.name, state.st_size, state.st_mtime_ns)
        source = getattr(source, "source", None)


def _fill(folder: Path, source: Source, reader: TextReader, *, split: bool) -> None:
    """Tokenises every document, a few thousand in memory at a time."""
    small = reader.tokenizer.get_vocab_size() <= 1 << 16
    dtype = np.dtype(np.uint16 if small else np.int32)
    sizes: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    reasons: dict[int, str] = {}

    def made(row: int) -> list[torch.Tensor] | str:
        try:
            record = source[row]
            return reader.pieces(record) if split else [reader.decode(record)]
        except SSLError:
            raise
        except Exception as error:  # whatever a document trips over is a property of the document
            return str(error) or type(error).__name__

    with (
        (folder / "ids.bin").open("wb") as ids,
        (folder / "starts.bin").open("wb") as starts,
        ThreadPoolExecutor(min(_THREADS, available_cores()), thread_name_prefix="tokenise") as pool,
    ):
        for first in range(0, len(source), _DOCUMENTS):
            chunk = range(first, min(first + _DOCUMENTS, len(source)))
            samples: list[torch.Tensor] = []
            owners: list[int] = []
            for row, found in zip(chunk, pool.map(made, chunk), strict=True):
                if isinstance(found, str):
                    reasons[row] = found
                    found = [torch.zeros((2, 0) if reader.words else 0, dtype=torch.int32)]
                samples += found
                owners += [row] * len(found)
            _append(samples, ids, starts, dtype)
            sizes.append(np.array([sample.shape[-1] for sample in samples], np.int64))
            rows.append(np.array(owners, np.int64))
    nothing = [np.zeros(0, np.int64)]
    np.save(folder / "ends.npy", np.concatenate(nothing + sizes).cumsum())
    np.save(folder / "rows.npy", np.concatenate(nothing + rows))
    write_json(folder / "reasons.json", reasons)
    facts = {"version": VERSION, "dtype": dtype.name, "words": reader.words}
    write_json(folder / "cache.json", facts)


def _append(
    samples: Sequence[torch.Tensor], ids: BinaryIO, starts: BinaryIO, dtype: np.dtype[Any]
) -> None:
    joined = torch.cat(list(samples), dim=-1).numpy()
    if joined.ndim == 2:
        starts.write(joined[1].astype(np.uint8).tobytes())
        joined = joined[0]
    ids.write(joined.astype(dtype).tobytes())


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """A file as an array on the disk; an empty file cannot be mapped."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    # A plain view of the map: slices of `memmap` objects cost several times as much.
    return np.memmap(path, dtype, mode="r").view(np.ndarray)
