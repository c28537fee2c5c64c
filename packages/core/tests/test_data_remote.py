"""Shards behind a URL, from an HTTP server on this machine that can be told to misbehave."""

from __future__ import annotations

import functools
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ssl_core.data import open_source, remote
from ssl_core.data.remote import cache_limit, make_room, remote_shards
from ssl_core.data.tar_index import index_of
from ssl_core.errors import TrainingAborted, UserError

pytest.importorskip("aiohttp")
SUFFIXES = [".jpg"]


class Handler(SimpleHTTPRequestHandler):
    """Files with byte ranges; `server.broken` spoils answers by the file's name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            super().do_GET()
            return
        content, status = path.read_bytes(), 200
        start, end = 0, len(content)
        asked = self.headers.get("Range")
        if asked and self.server.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, len(content))
            status = 206
        self.server.asked.append((path.name, start, end))
        spoil = self.server.broken.get(path.name)
        body = content[start:end]
        if spoil is not None:
            status, body = spoil(status, start, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.asked: list[tuple[str, int, int]] = []
        self.broken: dict = {}
        self.ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}"

    def bytes_of(self, name: str) -> list[tuple[int, int]]:
        return [(start, end) for asked, start, end in self.asked if asked == name]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Two shards of three images each, with side indices, and an empty cache."""
    folder = tmp_path / "served"
    folder.mkdir()
    for number in range(2):
        write_shard(folder / f"s-{number:05d}.tar", f"{number}")
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(remote, "RESERVE", 0)
    with Server(folder) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def write_shard(path: Path, word: str, *, indexed: bool = True, size: int = 3000) -> None:
    with tarfile.open(path, "w") as tar:
        for i in range(3):
            for name, content in (
                (f"{i}.jpg", f"{word} {i} ".encode() * (size // 4)),
                (f"{i}.cls", str(i % 2).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    path.with_name(path.name + ".index").unlink(missing_ok=True)
    if indexed:
        index_of(path)


def served(tmp_path: Path) -> Path:
    return tmp_path / "served"


def kept(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache" / "shards").glob("*/s-*.tar"))


def content(source) -> list[tuple]:
    records = [source[i] for i in range(len(source))]
    return [(r.key, r.payload, r.label) for r in records]


@pytest.mark.parametrize("place", ["", "/", "/s-*.tar", "/s-{00000..00001}.tar"])
def test_remote_shards_are_the_local_ones(server: Server, tmp_path: Path, place: str) -> None:
    there = open_source(f"{server.url}{place}", suffixes=SUFFIXES)
    here = open_source(served(tmp_path), suffixes=SUFFIXES)
    assert (len(there), there.classes) == (6, ["0", "1"])
    assert there.fingerprint() == here.fingerprint()
    assert content(there) == content(here)


def test_shards_are_fetched_when_first_read_and_once(server: Server, tmp_path: Path) -> None:
    source = open_source(server.url, suffixes=SUFFIXES)
    assert server.bytes_of("s-00000.tar") == [] == server.bytes_of("s-00001.tar")
    worker = pickle.loads(pickle.dumps(source))  # as a loader process gets it
    whole = (served(tmp_path) / "s-00001.tar").stat().st_size
    assert worker[5].payload == source[5].payload
    assert server.bytes_of("s-00001.tar") == [(0, whole)]
    assert kept(tmp_path) == ["s-00001.tar"]
    again = open_source(server.url, suffixes=SUFFIXES)
    assert again[4].payload.startswith(b"1 1 ")
    assert server.bytes_of("s-00001.tar") == [(0, whole)]


def test_threads_fetch_a_shard_once(server: Server) -> None:
    source = open_source(server.url, suffixes=SUFFIXES)
    readers = [threading.Thread(target=source.__getitem__, args=(i % 3,)) for i in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(server.bytes_of("s-00000.tar")) == 1


def test_a_broken_fetch_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CHUNK", 4096)
    source = open_source(server.url, suffixes=SUFFIXES)
    server.broken["s-00000.tar"] = lambda status, start, body: (
        (503, b"") if start >= 8192 else (status, body)
    )
    with pytest.raises(TrainingAborted, match=r"s-00000\.tar cannot be read: 503"):
        source[0]
    assert kept(tmp_path) == []
    before = len(server.bytes_of("s-00000.tar"))
    server.broken.clear()
    assert source[0].payload.startswith(b"0 0 ")
    assert server.bytes_of("s-00000.tar")[before][0] == 8192


def test_a_server_that_sends_less_than_it_promised(server: Server) -> None:
    source = open_source(server.url, suffixes=SUFFIXES)
    server.broken["s-00000.tar"] = lambda status, start, body: (status, body[:5000])
    with pytest.raises(TrainingAborted, match=r"s-00000\.tar ends after 5000 of \d+ bytes"):
        source[0]


def test_bytes_spoilt_on_the_way_are_fetched_again(server: Server, tmp_path: Path) -> None:
    source = open_source(server.url, suffixes=SUFFIXES)
    times: list[int] = []

    def spoil(status: int, start: int, body: bytes) -> tuple[int, bytes]:
        times.append(start)
        return status, body[:600] + bytes([body[600] ^ 1]) + body[601:]

    server.broken["s-00000.tar"] = lambda *answer: spoil(*answer) if not times else answer[::2]
    assert source[0].payload.startswith(b"0 0 ")
    server.broken["s-00001.tar"] = spoil
    with pytest.raises(UserError, match="fetched twice and does not agree with its index"):
        source[3]
    assert kept(tmp_path) == ["s-00000.tar"]


def test_what_changed_on_the_server_is_not_mixed_in(server: Server, tmp_path: Path) -> None:
    source = open_source(server.url, suffixes=SUFFIXES)
    first = source[0].payload
    for number in (0, 1):
        write_shard(served(tmp_path) / f"s-{number:05d}.tar", "new", size=2800)
        os.utime(served(tmp_path) / f"s-{number:05d}.tar", (1, 1))
    assert source[0].payload == first  # kept, and still what was opened
    with pytest.raises(UserError, match=r"s-00001\.tar is no longer what it was"):
        source[3]
    fresh = open_source(server.url, suffixes=SUFFIXES)
    assert fresh[0].payload.startswith(b"new 0 ")
    assert fresh.fingerprint() != source.fingerprint()


def test_what_does_not_exist_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s-00002\.tar does not exist \(404\)"):
        open_source(f"{server.url}/s-{{00001..00002}}.tar", suffixes=SUFFIXES)
    with pytest.raises(UserError, match="does not exist, or cannot be listed"):
        open_source(f"{server.url}/nothing", suffixes=SUFFIXES)
    (served(tmp_path) / "empty").mkdir()
    with pytest.raises(UserError, match=r"lists no \.tar shards"):
        open_source(f"{server.url}/empty", suffixes=SUFFIXES)
    with pytest.raises(UserError, match="manifest is read from local disks only"):
        open_source(f"{server.url}/a.csv", suffixes=SUFFIXES, format="manifest")
    with pytest.raises(UserError, match=r"nowhere:// URLs cannot be read here"):
        open_source("nowhere://bucket/s.tar", suffixes=SUFFIXES)
    source = open_source(server.url, suffixes=SUFFIXES)
    (served(tmp_path) / "s-00000.tar").unlink()
    with pytest.raises(UserError, match="no longer what it was"):
        source[0]


def test_an_unreachable_server_is_a_clear_error(server: Server) -> None:
    server.server_close()
    with pytest.raises(UserError, match="when the server answers again"):
        open_source(f"{server.url}/s-00000.tar", suffixes=SUFFIXES)


def test_shards_without_index_or_with_an_old_one_are_indexed_here(
    server: Server, tmp_path: Path
) -> None:
    write_shard(served(tmp_path) / "s-00000.tar", "bare", indexed=False)
    old = (served(tmp_path) / "s-00001.tar.index").read_bytes()
    write_shard(served(tmp_path) / "s-00001.tar", "long", size=9000)
    (served(tmp_path) / "s-00001.tar.index").write_bytes(old)
    source = open_source(server.url, suffixes=SUFFIXES)
    assert [source[i].payload[:6] for i in (0, 3)] == [b"bare 0", b"long 0"]
    cut = (served(tmp_path) / "s-00000.tar").read_bytes()[:4000]
    (served(tmp_path) / "s-00002.tar").write_bytes(cut)
    with pytest.raises(UserError, match="no complete plain tar file"):
        open_source(server.url, suffixes=SUFFIXES)


def test_a_server_without_ranges_serves_too(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 4096)
    server.ranges = False
    source = open_source(server.url, suffixes=SUFFIXES)
    assert source[1].payload.startswith(b"0 1 ")
    monkeypatch.setenv("SSL_CACHE_BYTES", "1K")
    assert source[4].payload.startswith(b"1 1 ")


def test_what_does_not_fit_is_read_in_place(server: Server, tmp_path: Path, monkeypatch) -> None:
    size = (served(tmp_path) / "s-00000.tar").stat().st_size
    monkeypatch.setenv("SSL_CACHE_BYTES", f"{1.5 * size / 1000}K")
    source = open_source(server.url, suffixes=SUFFIXES)
    here = open_source(served(tmp_path), suffixes=SUFFIXES)
    assert content(source) == content(here)
    assert kept(tmp_path) == ["s-00000.tar"]
    member = len(here[3].payload)
    assert all(end - start == member for start, end in server.bytes_of("s-00001.tar"))
    write_shard(served(tmp_path) / "s-00001.tar", "new", size=2800)
    os.utime(served(tmp_path) / "s-00001.tar", (1, 1))
    with pytest.raises(UserError, match="no longer what it was"):
        source[3]


def test_room_is_made_by_clearing_other_data_oldest_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SSL_CACHE", str(tmp_path))
    monkeypatch.setattr(remote, "RESERVE", 0)
    for age, (folder, name) in enumerate([("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")]):
        shard = tmp_path / "shards" / folder / f"{name}.tar"
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(bytes(100))
        os.utime(shard, (1000 - age, 1000 - age))
    monkeypatch.setenv("SSL_CACHE_BYTES", "400")
    wanted = tmp_path / "shards" / "c" / "2.tar"
    assert make_room(wanted, 150)
    left = {str(p.relative_to(tmp_path / "shards")) for p in tmp_path.glob("shards/*/*.tar")}
    assert left == {"a/1.tar", "c/1.tar"}  # b/1 was the oldest of others, then a/2
    assert not make_room(wanted, 301)
    assert {p.name for p in tmp_path.glob("shards/*/*.tar")} == {"1.tar"}


def test_cache_limit_reads_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, bytes_ in (("200G", 200e9), ("1.5 tb", 1.5e12), ("17", 17), ("", float("inf"))):
        monkeypatch.setenv("SSL_CACHE_BYTES", text)
        assert cache_limit() == bytes_
    monkeypatch.setenv("SSL_CACHE_BYTES", "much")
    with pytest.raises(UserError, match="SSL_CACHE_BYTES: 'much' is no size"):
        cache_limit()


def test_other_protocols_of_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    write_shard(tmp_path / "s-00000.tar", "0")
    memory = fsspec.filesystem("memory")
    for path in tmp_path.glob("s-00000.tar*"):
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    try:
        (shard,) = remote_shards("memory://bucket")
        source = open_source("memory://bucket/*.tar", suffixes=SUFFIXES)
        assert shard.name == "s-00000.tar"
        assert source[2].payload.startswith(b"0 2 ")
    finally:
        memory.rm("/bucket", recursive=True)
