"""Checkpoints: written beside the training, whole or absent, and harmless when they lie."""

import errno
import json
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.data.stream import Stream
from ssl_core.engine import saver
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.engine.fit import fit
from ssl_core.engine.metrics import MetricsFile
from ssl_core.engine.shards import Part, joined
from ssl_core.errors import TrainingAborted, UserError
from ssl_core.methods.byol import BYOL
from ssl_core.runs.config import parse
from ssl_core.tensors import read_tensors, write_tensors
from ssl_core.testing.vectors import MLPEncoder, NoisyViews

TRAIN = recipe.Train(steps=12, batch_size=8, log_every=4, save_every=4, seed=1)
DATA = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


class Batches:
    def __init__(self, train, hook=lambda step, method: None, method=None):
        self.train, self.hook, self.method = train, hook, method

    def batches(self, start, stop):
        stream = Stream(len(DATA), self.train.batch_size, seed=self.train.seed)
        for step in range(start, stop):
            self.hook(step, self.method)
            index, ids = (torch.from_numpy(x) for x in stream.rows(step))
            yield Batch(DATA[index], ids, index)


def run(out, *, train=TRAIN, hook=lambda step, method: None, identity=None):
    torch.manual_seed(3)
    spec = {"dim": 6}
    method = BYOL(MLPEncoder(spec, width=8), NoisyViews(spec), hidden=8, dim=4)
    result = fit(
        method,
        Batches(train, hook, method),
        train=train,
        optimizer=recipe.Optimizer(lr=1e-2),
        out=out,
        identity=identity,
    )
    return method, result


def bits(method):
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def assert_same(a, b):
    assert set(a) == set(b)
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def committed(out):
    return Checkpoints(out / "checkpoints").steps()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The writer is held until step 7 begins; what it writes is the state after step 4."""
    go, seen = threading.Event(), {}

    def held(path, tensors, facts=None):
        assert go.wait(30)
        write_tensors(path, tensors, facts)

    def hook(step, method):
        if step == 4:
            seen.update(bits(method))
        if step == 6:
            assert committed(tmp_path / "held") == []
            go.set()

    monkeypatch.setattr(saver, "write_tensors", held)
    train = TRAIN.model_copy(update={"keep": 5})
    method, _ = run(tmp_path / "held", train=train, hook=hook)
    monkeypatch.undo()
    assert committed(tmp_path / "held") == [4, 8, 12]
    folder = Checkpoints(tmp_path / "held/checkpoints").path(4)
    state = read_tensors(folder / "state.safetensors")
    assert_same(seen, {k[len("method/") :]: t for k, t in state.items() if k.startswith("method/")})
    assert_same(bits(method), bits(run(tmp_path / "plain")[0]))


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_survived(tmp_path, monkeypatch, caplog):
    """No space for the first checkpoint: a warning, then the next one is written."""
    free = iter([0, 1 << 40, 1 << 40])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, next(free)))
    run(tmp_path, train=TRAIN.model_copy(update={"keep": 5}))
    assert committed(tmp_path) == [8, 12]
    assert "step 4 was not written" in caplog.text
    assert "would continue from the start" in caplog.text
    assert not list((tmp_path / "checkpoints").glob("tmp-*"))


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch, caplog):
    def full(path, tensors, facts=None):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saver, "write_tensors", full)
    with pytest.raises(TrainingAborted, match=r"free some space .* from the start") as caught:
        run(tmp_path)
    assert caught.value.exit_code == 3
    assert list((tmp_path / "checkpoints").iterdir()) == []
    monkeypatch.undo()
    method, _ = run(tmp_path)
    assert_same(bits(method), bits(run(tmp_path / "plain")[0]))


def test_a_commit_that_fails_leaves_nothing(tmp_path, monkeypatch, caplog):
    commit = Checkpoints.commit

    def sometimes(self, meta):
        if meta.step == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        commit(self, meta)

    monkeypatch.setattr(Checkpoints, "commit", sometimes)
    run(tmp_path, train=TRAIN.model_copy(update={"keep": 5}))
    assert committed(tmp_path) == [4, 12]
    assert "would continue after step 4" in caplog.text


def test_metrics_wait_for_space(tmp_path, caplog):
    metrics = MetricsFile(tmp_path / "metrics.jsonl", after=0)
    disk = metrics._file
    with Path("/dev/full").open("ab", buffering=0) as metrics._file:
        metrics.write({"step": 1})
        metrics.write({"step": 2})
    assert caplog.text.count("cannot be written") == 1
    metrics._file = disk
    metrics.write({"step": 3})
    metrics.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("seed", {"train": TRAIN.model_copy(update={"seed": 2})}),
        ("batch_size", {"train": TRAIN.model_copy(update={"batch_size": 10})}),
        ("data", {"identity": {"data": "other"}}),
    ],
)
def test_a_changed_run_is_refused_unless_allowed_by_name(tmp_path, name, change):
    given = {"train": TRAIN, "identity": {"data": "first"}}
    run(tmp_path, **given)
    given |= change
    with pytest.raises(UserError, match=rf"{name} was .* train.allow=\[{name}\]"):
        run(tmp_path, **given)
    given["train"] = given["train"].model_copy(update={"allow": (name,)})
    _, result = run(tmp_path, **given)
    assert result.resumed_from == 12


def _meta(change):
    def write(folder):
        path = folder / "meta.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return write


def _link(folder):
    os.rename(folder / "state.safetensors", folder.parent / "elsewhere")
    os.symlink(folder.parent / "elsewhere", folder / "state.safetensors")


def _resummed(name, data):
    """Bytes of an attacker who also set the checksum right."""

    def write(folder):
        (folder / name).write_bytes(data)
        sums = json.loads((folder / "meta.json").read_text())["crc32"]
        _meta({"crc32": sums | {name: saver.crc32(folder / name)}})(folder)

    return write


HOSTILE = {
    "no json": lambda f: (f / "meta.json").write_text("{"),
    "a list": lambda f: (f / "meta.json").write_text("[1]"),
    "deeply nested": lambda f: (f / "meta.json").write_text("[" * 200_000),
    "not utf-8": lambda f: (f / "meta.json").write_bytes(b"\xff\xfe"),
    "another schema": _meta({"schema": 99}),
    "another step": _meta({"step": 3}),
    "a score in words": _meta({"score": "best"}),
    "a path out of the folder": _meta({"crc32": {"../../../etc/passwd": 1}}),
    "an absolute path": _meta({"crc32": {"/etc/passwd": 1}}),
    "sums that are no mapping": _meta({"crc32": 7}),
    "a missing file": lambda f: (f / "state.safetensors").unlink(),
    "a link": _link,
    "a pickle": _resummed("state.safetensors", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00."),
    "an endless header": _resummed("state.safetensors", b"\xff" * 7 + b"\x00" + b"{}"),
    "an empty file": _resummed("state.safetensors", b""),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_checkpoint_that_lies_is_set_aside(tmp_path, kind, caplog):
    whole, _ = run(tmp_path)
    newest = Checkpoints(tmp_path / "checkpoints").path(12)
    HOSTILE[kind](newest)
    resumed, result = run(tmp_path)
    assert result.resumed_from == 8
    assert "is damaged" in caplog.text
    assert_same(bits(whole), bits(resumed))
    assert committed(tmp_path) == [8, 12]
    assert not list((tmp_path / "checkpoints").glob("damaged-*"))


def test_weights_of_another_shape_are_refused_in_words(tmp_path):
    run(tmp_path)
    folder = Checkpoints(tmp_path / "checkpoints").path(12)
    state = read_tensors(folder / "state.safetensors")
    state["method/encoder.net.0.weight"] = torch.zeros(3, 3)
    save_file(state, folder / "state.safetensors")
    _resummed("state.safetensors", (folder / "state.safetensors").read_bytes())(folder)
    with pytest.raises(UserError, match=r"encoder.net.0.weight has \(3, 3\), not \(8, 6\)"):
        run(tmp_path)


def test_rows_of_split_tensors_must_be_complete():
    first = Part({"w": torch.ones(2, 3)}, {"w": [0, 4, 3]})
    second = Part({"w": torch.zeros(2, 3)}, {"w": [2, 4, 3]})
    assert joined([second, first])["w"].sum() == 6
    with pytest.raises(ValueError, match="w has 2 of 4 rows"):
        joined([first])
    with pytest.raises(ValueError, match="do not fit"):
        joined([first, Part({"w": torch.zeros(2, 3)}, {"w": [3, 4, 3]})])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: !!python/object/apply:os.system ['touch /tmp/owned']", "not valid YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "aliases"),
        ("description: " + "x" * 1_000_001, "no recipe"),
        ("a: " + "[" * 5000, "not valid YAML"),
    ],
)
def test_a_hostile_recipe_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse(text, "recipe.yaml")


def test_the_writer_waits_its_turn(tmp_path, monkeypatch):
    """Saving at every step keeps one checkpoint under way, and the newest ones stay."""
    run(tmp_path, train=TRAIN.model_copy(update={"save_every": 1}))
    assert committed(tmp_path) == [11, 12]
