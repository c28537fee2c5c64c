"""Reading with a cap, and trying again only where that may help."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssl_core.batch import Record
from ssl_core.data import limits
from ssl_core.data.limits import read_bytes, read_capped, with_retries
from ssl_core.errors import CorruptSample


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(limits.time, "sleep", waited.append)
    return waited


def failing(times: int, number: int):
    calls = []

    def work() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(number, "no luck")
        return f"after {len(calls)}"

    return work


def test_transient_errors_are_tried_four_times(pauses: list[float]) -> None:
    assert with_retries(failing(3, errno.EIO)) == "after 4"
    assert pauses == sorted(pauses)
    assert len(pauses) == 3
    with pytest.raises(OSError, match="no luck"):
        with_retries(failing(4, errno.ESTALE))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR])
def test_lasting_errors_are_not_tried_again(number: int, pauses: list[float]) -> None:
    with pytest.raises(OSError, match="no luck"):
        with_retries(failing(1, number))
    assert pauses == []


def test_bytes_come_from_memory_and_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    for payload in (b"12345", bytearray(b"12345"), memoryview(b"12345"), path, str(path)):
        assert read_bytes(Record("x", payload), max_bytes=5) == b"12345"
        with pytest.raises(CorruptSample, match="more than the cap of 4"):
            read_bytes(Record("x", payload), max_bytes=4)


def test_what_cannot_be_read_is_corrupt(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(CorruptSample, match="No such file"):
        read_bytes(Record("x", tmp_path / "gone"))
    with pytest.raises(CorruptSample, match="Is a directory"):
        read_bytes(Record("x", tmp_path))
    with pytest.raises(CorruptSample, match="neither a file nor bytes, but int"):
        read_bytes(Record("x", 3))
    assert pauses == []


def test_endless_files_are_read_up_to_the_cap() -> None:
    with pytest.raises(CorruptSample, match="more than the cap of 1000"):
        read_bytes(Record("x", "/dev/zero"), max_bytes=1000)


@pytest.mark.parametrize(("size", "cap", "read"), [(0, 5, 0), (4, 5, 4), (5, 5, 5), (9, 5, 6)])
def test_at_most_one_byte_beyond_the_cap_is_read(
    tmp_path: Path, size: int, cap: int, read: int
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * size)
    assert len(read_capped(path, cap)) == len(read_capped(str(path), cap)) == read


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="of POSIX")
def test_what_tells_no_size_is_read_all_the_same(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for sent, read in ((b"123", b"123"), (b"123456789", b"123456")):
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(pipe.write_bytes, sent)
            assert read_capped(pipe, 5) == read
            writing.result()
