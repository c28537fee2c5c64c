"""Packs data for fast reading: files into tar shards, or decoded samples into mapped files.

Both are written part by part by several threads, each part whole or absent, and the same command
again goes on where it stopped. Records that cannot be read are left out, listed and counted.
"""

from __future__ import annotations

import io
import math
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.batch import Record, Source
from ssl_core.data import head_of, read_bytes
from ssl_core.data.fetch import Failure, Fetcher, spec_digest
from ssl_core.data.heads import digest
from ssl_core.data.packed import HEAD, READER, VERSION, part_file, write_part
from ssl_core.data.tar_index import index_of
from ssl_core.domain import Domain
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import atomic_folder, atomic_path, atomic_write, read_json, to_json, write_json
from ssl_core.recipe import Data
from ssl_core.runs.parts import fitted_reader, open_data

# Hidden, so that no reader of folders takes them for samples.
PLAN = ".pack.json"
FAILURES = ".unreadable.jsonl"


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote."""

    folder: Path
    records: int
    parts: int
    resumed: int
    """Parts that stood there already."""
    bytes: int
    failures: list[Failure]


def pack(
    domain: Domain,
    data: Data,
    folder: Path,
    *,
    decoded: bool = False,
    per_part: int = 1024,
    workers: int = 2,
    on_part: Callable[[int, int], None] | None = None,
) -> Packed:
    """Writes the records of `data` into `folder`, `per_part` of them to a part.

    Without `decoded` the files go as they are into `shard-00000.tar`, ... with a `.json` beside
    each (key, label, group, split); with it the decoded samples go into a packed folder that is
    memory-mapped. `on_part(done, all)` is told of progress.

    Raises `UserError` when `folder` holds something else, or no record could be read.
    """
    if per_part < 1 or workers < 1:
        raise UserError(f"pack: per_part {per_part} and workers {workers} must be at least 1")
    source = open_data(domain, data)
    count = math.ceil(len(source) / per_part)
    _claim(folder, _plan(source, data, per_part, decoded))
    ranges = [range(p * per_part, min((p + 1) * per_part, len(source))) for p in range(count)]
    if decoded:
        writer = _decoded_writer(domain, source, data, folder)
    else:
        writer = _shard_writer(source, folder)
    resumed = 0
    failures: list[Failure] = []
    for done, (was_there, found) in enumerate(_in_order(writer, ranges, workers), 1):
        resumed += was_there
        failures += found
        if on_part is not None:
            on_part(done, count)
    records = len(source) - len(failures)
    if records == 0:
        raise UserError(f"pack: none of {len(source)} records can be read ({failures[0].reason})")
    _finish(domain, source, folder, count, failures, decoded=decoded)
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    return Packed(folder, records, count, resumed, size, failures)


Writer = Callable[[int, range], tuple[bool, list[Failure]]]


def _in_order(
    writer: Writer, ranges: list[range], workers: int
) -> Iterable[tuple[bool, list[Failure]]]:
    with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
        try:
            yield from pool.map(writer, range(len(ranges)), ranges)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _plan(source: Source, data: Data, per_part: int, decoded: bool) -> dict[str, Any]:
    return {
        "version": VERSION,
        "decoded": decoded,
        "per_part": per_part,
        "fingerprint": source.fingerprint(),
        "options": digest([to_json(data.options)]),
    }


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Makes the folder, or checks that the same command made it."""
    if (folder / PLAN).is_file():
        if read_json(folder / PLAN) != plan:
            raise UserError(
                f"pack: {folder} holds other data or was packed otherwise; give a new folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"pack: {folder} is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN, plan)


def _decoded_writer(domain: Domain, source: Source, data: Data, folder: Path) -> Writer:
    if not (folder / READER).is_dir():
        with atomic_folder(folder / READER) as temporary:
            fitted_reader(domain, source, data).save(temporary)
    fetcher = Fetcher(source, domain.load_reader(folder / READER))

    def write(number: int, rows: range) -> tuple[bool, list[Failure]]:
        place = part_file(folder, number)
        if place.is_file():
            return True, _noted(place)
        found = [fetcher.decode(row) for row in rows]
        failures = [item for item in found if isinstance(item, Failure)]
        _note(place, failures)
        kept = [item for item in found if not isinstance(item, Failure)]
        write_part(folder, number, [(head_of(source, item.index), item.sample) for item in kept])
        return False, failures

    return write


def _shard_writer(source: Source, folder: Path) -> Writer:
    def write(number: int, rows: range) -> tuple[bool, list[Failure]]:
        place = folder / f"shard-{number:05d}.tar"
        if place.is_file():
            return True, _noted(place)
        failures: list[Failure] = []
        sums: dict[str, int] = {}
        with atomic_path(place) as temporary, tarfile.open(temporary, "w") as tar:
            for row in rows:
                try:
                    record = source[row]
                    content = read_bytes(record)
                except CorruptSample as error:
                    failures.append(Failure(row, head_of(source, row).key, str(error)))
                    continue
                name = f"{row:08d}{_suffix(record)}"
                sums[name] = zlib.crc32(content)
                _add(tar, name, content)
                _add(tar, f"{row:08d}.json", to_json(_facts(source, record)).encode())
        _note(place, failures)
        _verify(place, sums)
        return False, failures

    return write


def _suffix(record: Record) -> str:
    if isinstance(record.payload, (str, os.PathLike)) and Path(record.payload).is_dir():
        raise UserError(f"pack: {record.key} is a folder, not a file; use --decoded")
    # One dot only: readers of shards take what follows the first one for the kind of member.
    return Path(record.key).suffix.lower()


def _facts(source: Source, record: Record) -> dict[str, Any]:
    facts = {name: record.meta[name] for name in ("group", "split") if name in record.meta}
    if record.label is not None and source.classes is not None:
        facts["label"] = source.classes[record.label]
    return {"key": record.key, **facts}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # no owner and no time: equal data gives equal bytes
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _verify(shard: Path, sums: dict[str, int]) -> None:
    """Reads the shard back (which also writes its index) and compares checksums."""
    found = {member.name: member.crc32 for member in index_of(shard)}
    wrong = [name for name, crc in sums.items() if found.get(name) != crc]
    if wrong:
        shard.unlink()
        raise UserError(f"pack: {wrong[0]} did not come back from {shard}; check the disk")


def _note(place: Path, failures: list[Failure]) -> None:
    """Failures of a part are kept beside it, so that a resumed command still counts them."""
    if failures:
        write_json(_notes(place), [[f.index, f.key, f.reason] for f in failures])


def _noted(place: Path) -> list[Failure]:
    file = _notes(place)
    return [Failure(*entry) for entry in read_json(file)] if file.is_file() else []


def _notes(place: Path) -> Path:
    return place.with_name(f".{place.stem}.unreadable")


def _finish(
    domain: Domain,
    source: Source,
    folder: Path,
    parts: int,
    failures: list[Failure],
    *,
    decoded: bool,
) -> None:
    """Lists what was left out, and commits a packed folder by its head file."""
    if failures:
        lines = [to_json({"key": f.key, "reason": f.reason}) for f in failures]
        atomic_write(folder / FAILURES, "\n".join(lines) + "\n")
    if decoded:
        reader = domain.load_reader(folder / READER)
        classes = source.classes
        head = {
            "version": VERSION,
            "finished": True,
            "parts": parts,
            "classes": None if classes is None else list(classes),
            "fingerprint": source.fingerprint(),
            "spec": spec_digest(reader),
        }
        write_json(folder / HEAD, head)
