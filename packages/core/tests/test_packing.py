"""Packing: what comes out of a packed folder is what the reader decoded, or a clear error."""

import pickle

import numpy as np
import pytest
import torch

from ssl_core.batch import Record
from ssl_core.data import TarSource, head_of, read_folder
from ssl_core.data.fetch import Decoder
from ssl_core.data.packed import PackedSource, write_part
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import read_json, write_json
from ssl_core.recipe import Data
from ssl_core.runs.packing import pack
from ssl_core.runs.parts import fitted_reader, open_data
from ssl_core.testing.vectors import VECTORS, VectorReader


@pytest.fixture
def vectors(tmp_path):
    folder = tmp_path / "vectors"
    folder.mkdir()
    VECTORS.samples(folder, count=50, seed=3)
    return Data(path=str(folder))


@pytest.fixture
def packed(vectors, tmp_path):
    pack(VECTORS, vectors, tmp_path / "packed", decoded=True, per_part=20)
    return tmp_path / "packed"


def test_packed_samples_are_the_decoded_ones(vectors, packed):
    source, found = open_data(VECTORS, vectors), PackedSource(packed)
    reader = fitted_reader(VECTORS, found, Data(path=str(packed)))
    decode = Decoder(reader)
    assert reader.spec == VECTORS.fit_reader(source, vectors).spec
    assert len(found) == len(source)
    assert found.classes == source.classes
    for index in range(len(source)):
        expected, record = source[index], found[index]
        assert (record.key, record.label) == (expected.key, expected.label)
        assert torch.equal(decode(record), reader.decode(expected))
        assert head_of(found, index).key == expected.key


def test_a_packed_source_survives_pickling(packed):
    again = pickle.loads(pickle.dumps(PackedSource(packed)))
    assert torch.equal(again[7].payload.sample, PackedSource(packed)[7].payload.sample)


@pytest.mark.parametrize(
    "sample",
    [
        torch.arange(24, dtype=torch.uint8).view(2, 4, 3).permute(2, 0, 1),
        torch.arange(6, dtype=torch.int16),
        torch.tensor(1.5),
        torch.empty(0, 3),
        torch.arange(8, dtype=torch.uint8).view(2, 4)[:, ::2],
    ],
    ids=["channels last", "int16", "scalar", "empty", "strided"],
)
def test_type_shape_and_layout_come_back(tmp_path, sample):
    write_part(tmp_path, 0, [(Record("a", None), torch.ones(3)), (Record("b", None), sample)])
    head = {"version": 1, "finished": True, "parts": 1, "classes": None}
    write_json(tmp_path / "packed.json", {**head, "fingerprint": "f", "spec": "s"})
    found = PackedSource(tmp_path)[1].payload.sample
    assert found.dtype == sample.dtype
    assert torch.equal(found, sample)
    order = np.argsort(sample.stride()).tolist()
    assert np.argsort(found.stride()).tolist() == order


def test_writing_into_a_sample_changes_no_file(packed):
    sample = PackedSource(packed)[0].payload.sample
    before = sample.clone()
    sample.zero_()
    assert torch.equal(PackedSource(packed)[0].payload.sample, before)


def test_damage_is_a_corrupt_sample(packed):
    with (packed / "part-00001.bin").open("r+b") as file:
        file.seek(3)
        file.write(b"\xff")
    found = PackedSource(packed)
    with pytest.raises(CorruptSample, match="checksum"):
        found[20]
    assert found[21].label is not None


def test_an_interrupted_pack_goes_on(vectors, packed):
    (packed / "packed.json").unlink()
    (packed / "part-00002.json").unlink()
    with pytest.raises(UserError, match="holds no vectors"):
        open_data(VECTORS, Data(path=str(packed)))
    again = pack(VECTORS, vectors, packed, decoded=True, per_part=20)
    assert (again.parts, again.resumed, again.records) == (3, 2, 50)
    assert len(PackedSource(packed)) == 50


def test_unreadable_records_are_left_out_and_still_known_on_resume(vectors, tmp_path):
    path = tmp_path / "vectors" / "vectors.npy"
    array = np.load(path)
    array[5] = np.nan
    np.save(path, array)
    for resumed in (0, 3):
        found = pack(VECTORS, vectors, tmp_path / "out", decoded=True, per_part=20)
        assert found.resumed == resumed
        assert [(f.index, f.key) for f in found.failures] == [(5, "row-00005")]
    keys = {PackedSource(tmp_path / "out").head(i).key for i in range(49)}
    assert "row-00005" not in keys


def test_other_data_in_the_folder_is_refused(vectors, packed, tmp_path):
    with pytest.raises(UserError, match="packed otherwise"):
        pack(VECTORS, vectors, packed, decoded=True, per_part=10)
    with pytest.raises(UserError, match="not empty"):
        pack(VECTORS, vectors, tmp_path / "vectors")


def test_another_reader_is_refused(packed):
    with pytest.raises(UserError, match="original files"):
        Decoder(VectorReader(3))(PackedSource(packed)[0])


def test_options_cannot_change_packed_samples(packed):
    with pytest.raises(UserError, match="noise cannot change"):
        fitted_reader(VECTORS, PackedSource(packed), Data(options={"noise": 1}))


def test_an_unfinished_or_foreign_folder_is_refused(packed):
    head = read_json(packed / "packed.json")
    for changed, message in (({"finished": False}, "not finished"), ({"version": 0}, "version")):
        write_json(packed / "packed.json", {**head, **changed})
        with pytest.raises(UserError, match=message):
            PackedSource(packed)


def test_objects_are_no_samples_to_map(tmp_path):
    with pytest.raises(UserError, match="list objects"):
        write_part(tmp_path, 0, [(Record("a", None), [1, 2])])


class Files:
    """A domain of text files, whose files shards can hold."""

    name, package, sample_kind = "files", "ssl_core.testing", "files"

    def open(self, data):
        return read_folder(data.path, [".txt"])


def _write_files(folder):
    for name in ("cat/one.txt", "cat/t.w.o.txt", "dog/three.txt"):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name * 100)
    return Data(path=str(folder))


def test_shards_hold_the_files_and_what_is_known_of_them(tmp_path):
    data = _write_files(tmp_path / "files")
    for out in ("a", "b"):
        pack(Files(), data, tmp_path / out, per_part=2)
    shards = sorted((tmp_path / "a").glob("*.tar"))
    found, source = TarSource(shards, [".txt"]), read_folder(tmp_path / "files", [".txt"])
    assert list(found.classes) == ["cat", "dog"]
    for index in range(3):
        assert found[index].payload.decode() == source[index].key * 100
        assert found[index].label == source[index].label
        assert found[index].meta["key"] == source[index].key
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "b" / shard.name).read_bytes()


def test_a_folder_with_nothing_to_read_is_an_error(tmp_path):
    data = _write_files(tmp_path / "files")
    for path in (tmp_path / "files").rglob("*.txt"):
        path.unlink()
        path.symlink_to("nowhere")
    with pytest.raises(UserError, match="none of 3 records"):
        pack(Files(), data, tmp_path / "out")
