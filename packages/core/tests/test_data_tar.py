"""Tar shards by random access: equal to the folder they were made of, safe against hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssl_core.data import TarSource, open_source, split_holdout, tar, tar_index
from ssl_core.data.tar import expand_braces
from ssl_core.data.tar_index import index_of
from ssl_core.errors import CorruptSample, UserError

SUFFIXES = [".jpg", ".png"]


def write_tar(path: Path, members: dict[str, bytes], *, format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def content(source) -> dict[str, tuple]:
    records = [source[i] for i in range(len(source))]
    assert [r.key for r in records] == [source.head(i).key for i in range(len(source))]
    return {r.key: (r.payload, r.label, dict(r.meta)) for r in records}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_shard_of_a_folder_equals_the_folder(tmp_path: Path, format: int) -> None:
    root = tmp_path / "root"
    for number in range(20):
        name = f"{'cat' if number % 3 else 'dog'}/{'long' * 20}{number}.jpg"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes([number]) * (number * 100))
    with tarfile.open(tmp_path / "all.tar", "w", format=format) as file:
        file.add(root, arcname=".")
    folder = open_source(root, suffixes=SUFFIXES)
    shard = open_source(tmp_path / "all.tar", suffixes=SUFFIXES)
    assert shard.classes == folder.classes == ["cat", "dog"]
    wanted = {
        f"all.tar/{folder[i].key}": (Path(folder[i].payload).read_bytes(), folder[i].label, {})
        for i in range(len(folder))
    }
    assert content(shard) == wanted


def test_webdataset_samples_are_grouped(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "s-00.tar",
        {
            "a/0.jpg": b"zero",
            "a/0.cls": b"7\n",
            "a/0.json": json.dumps({"caption": "x", "group": "g", "cls": 1}).encode(),
            "a/0.seg.png": b"mask",
            "b/0.PNG": b"one",
            "b/0.cls": b"12",
            "b/1.txt": b"no image",
            "__key__": b"?",
        },
    )
    write_tar(tmp_path / "s-01.tar", {"a/0.jpg": b"two", "a/0.json": b'{"label": "7"}'})
    source = open_source(f"{tmp_path}/s-*.tar", suffixes=SUFFIXES)
    assert source.classes == ["7", "12"]
    assert content(source) == {
        "s-00.tar/a/0.jpg": (b"zero", 0, {"caption": "x", "group": "g", "cls": 1}),
        "s-00.tar/b/0.PNG": (b"one", 1, {}),
        "s-01.tar/a/0.jpg": (b"two", 0, {"label": "7"}),
    }
    assert source.head(0).meta["group"] == "g"


def test_patterns_braces_and_folders_name_the_same_shards(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"s-{number:02d}.tar", {f"{number}.jpg": bytes([number])})
    prints = {
        open_source(where, suffixes=SUFFIXES).fingerprint()
        for where in (tmp_path, f"{tmp_path}/s-*.tar", f"{tmp_path}/s-{{00..02}}.tar")
    }
    assert len(prints) == 1
    assert expand_braces("a{8..10}-{0..1}") == ["a8-0", "a8-1", "a9-0", "a9-1", "a10-0", "a10-1"]
    with pytest.raises(UserError, match="no shard matches"):
        open_source(f"{tmp_path}/t-*.tar", suffixes=SUFFIXES)
    with pytest.raises(UserError, match=r"s-03\.tar does not exist"):
        open_source(f"{tmp_path}/s-{{02..03}}.tar", suffixes=SUFFIXES)


def test_folder_of_samples_may_hold_shards_too(tmp_path: Path) -> None:
    write_tar(tmp_path / "backup.tar", {"9.jpg": b"9"})
    (tmp_path / "1.jpg").write_bytes(b"1")
    assert [open_source(tmp_path, suffixes=SUFFIXES)[0].key] == ["1.jpg"]


def test_splits_and_groups_steer_the_holdout(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {"train/1.jpg": b"1", "train/2.jpg": b"2", "val/3.jpg": b"3"})
    train, held = split_holdout(open_source(tmp_path / "s.tar", suffixes=SUFFIXES), 0.3)
    assert (len(train), held[0].payload) == (2, b"3")


# -- the index -------------------------------------------------------------------------------


def test_index_is_built_once_and_again_when_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_tar(tmp_path / "s.tar", {"1.jpg": b"abc"})
    first = index_of(shard)
    assert (tmp_path / "s.tar.index").is_file()
    with monkeypatch.context() as patched:
        patched.setattr(tar_index, "_scan", None)
        assert index_of(shard) == first
        moved = tmp_path / "moved.tar"
        moved.write_bytes(shard.read_bytes())
        (tmp_path / "moved.tar.index").write_bytes((tmp_path / "s.tar.index").read_bytes())
        assert index_of(moved) == first
    write_tar(shard, {"2.jpg": b"abcd"})
    assert [member.name for member in index_of(shard)] == ["2.jpg"]


def test_index_goes_to_the_cache_where_the_shard_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_tar(tmp_path / "s.tar", {"1.jpg": b"abc"})
    (tmp_path / "s.tar.index").mkdir()  # a place no file can be written to, even by root
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    first = index_of(shard)
    assert len(list((tmp_path / "cache" / "tar-index").glob("*.index"))) == 1
    monkeypatch.setattr(tar_index, "_scan", None)
    assert index_of(shard) == first


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: "not JSON",
        lambda stored: json.dumps([1]),
        lambda stored: json.dumps({**stored, "version": 0}),
        lambda stored: json.dumps({**stored, "members": [["1.jpg", 0, 10**9, 0, {}]]}),
        lambda stored: json.dumps({**stored, "members": [["1.jpg", -5, 3, 0, {}]]}),
        lambda stored: json.dumps({**stored, "members": [["1.jpg"]]}),
    ],
)
def test_damaged_index_is_built_again(tmp_path: Path, damage) -> None:
    shard = write_tar(tmp_path / "s.tar", {"1.jpg": b"abc"})
    first = index_of(shard)
    place = tmp_path / "s.tar.index"
    place.write_text(damage(json.loads(place.read_text())))
    assert index_of(shard) == first
    assert json.loads(place.read_text())["members"] == [["1.jpg", 512, 3, first[0].crc32, {}]]


# -- damaged and hostile shards --------------------------------------------------------------


def test_changed_bytes_are_corrupt(tmp_path: Path) -> None:
    members = {f"{i}.jpg": bytes([i]) * 30_000 for i in range(9)}
    shard = write_tar(tmp_path / "s.tar", members)
    source = TarSource([shard], SUFFIXES)
    data = bytearray(shard.read_bytes())
    place = data.index(bytes([4]) * 100)
    data[place + 50] ^= 1
    shard.write_bytes(data)
    assert source[3].payload == members["3.jpg"]
    with pytest.raises(CorruptSample, match=r"4\.jpg: bytes differ"):
        source[4]
    shard.write_bytes(data[: place + 10])
    with pytest.raises(CorruptSample, match=r"5\.jpg: bytes differ"):
        source[5]


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {f"{i}.jpg": bytes(2000) for i in range(5)})
    whole = shard.read_bytes()
    for name, data in {
        "cut": whole[: 2560 + 600],
        "garbage": b"this is text" * 100,
        "header": whole[:2560] + b"\1" + whole[2561:],
        "empty": b"",
    }.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf"{name}\.tar is no complete plain tar file"):
            open_source(path, suffixes=SUFFIXES)
    (tmp_path / "z.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match="unpack the compression first"):
        open_source(tmp_path / "z.tar.gz", suffixes=SUFFIXES)


def test_shard_without_end_mark_is_whole(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"1.jpg": bytes(512)})
    shard.write_bytes(shard.read_bytes()[:1024])
    assert len(open_source(shard, suffixes=SUFFIXES)) == 1


def test_links_devices_and_strange_names_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as file:
        for name, kind in {
            "link.jpg": tarfile.SYMTYPE,
            "hard.jpg": tarfile.LNKTYPE,
            "device.jpg": tarfile.CHRTYPE,
            "pipe.jpg": tarfile.FIFOTYPE,
            "folder.jpg": tarfile.DIRTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.jpg")
            file.addfile(info)
        for name in ("../../up.jpg", "/etc/abs.jpg", "._mac.jpg", ".hidden/1.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 4
            file.addfile(info, io.BytesIO(b"data"))
    source = open_source(path, suffixes=SUFFIXES)
    assert content(source) == {
        "s.tar/../../up.jpg": (b"data", 1, {}),
        "s.tar//etc/abs.jpg": (b"data", 0, {}),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tar", "s.tar.index", "secret.jpg"]


def test_members_above_the_cap_are_corrupt_and_not_read(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"1.jpg": bytes(100), "2.jpg": bytes(101)})
    source = TarSource([shard], SUFFIXES, max_bytes=100)
    assert len(source[0].payload) == 100
    with pytest.raises(CorruptSample, match="101 bytes, more than the cap of 100"):
        source[1]


def test_sidecar_that_is_no_json_is_corrupt_for_its_record(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "s.tar",
        {"1.jpg": b"1", "1.json": b"{broken", "2.jpg": b"2", "2.json": b"[3]"},
    )
    source = TarSource([shard], SUFFIXES)
    with pytest.raises(CorruptSample, match=r"1\.json is not JSON"):
        source[0]
    assert source.head(0).key == "s.tar/1.jpg"
    assert source[1].meta == {"json": [3]}


def test_shard_without_samples_says_what_was_looked_for(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"1.wav": b"1"})
    with pytest.raises(UserError, match=r"no member of .*s\.tar ends in \.jpg, \.png"):
        open_source(shard, suffixes=SUFFIXES)


# -- many readers ----------------------------------------------------------------------------


def test_threads_and_copies_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "_MAX_OPEN", 2)  # the third shard is opened for each read
    for number in range(3):
        write_tar(
            tmp_path / f"{number}.tar",
            {f"{i}.jpg": bytes([number, i]) * 5000 for i in range(40)},
        )
    source = open_source(tmp_path, suffixes=SUFFIXES)
    alone = [source[i].payload for i in range(len(source))]
    copied = pickle.loads(pickle.dumps(source))
    for reader in (source, copied):
        with ThreadPoolExecutor(8) as pool:
            order = [(i * 37) % len(alone) for i in range(len(alone))]
            got = [record.payload for record in pool.map(reader.__getitem__, order)]
        assert got == [alone[i] for i in order]
        assert len(reader._files._open) == 2
        reader.close()
        assert reader._files._open == {}
        assert reader[5].payload == alone[5]
        reader.close()
