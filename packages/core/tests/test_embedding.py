"""Embedding to files part by part: equal to one pass, resumed after a stop, other work refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_core import api
from ssl_core.errors import UserError
from ssl_core.runs.embedding import embed_to, told_on_stderr
from ssl_core.testing.vectors import VECTORS, VectorSource


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        settings = {"train.steps": 2, "train.batch_size": 32}
        out = tmp_path_factory.mktemp("runs") / "first"
        return api.load(api.pretrain(VECTORS, out=out, settings=settings, progress=False))


@pytest.fixture
def source(tmp_path: Path) -> VectorSource:
    (tmp_path / "data").mkdir()
    VECTORS.samples(tmp_path / "data", count=50, seed=1)
    vectors = np.load(tmp_path / "data" / "vectors.npy")
    vectors[7] = np.nan
    np.save(tmp_path / "data" / "vectors.npy", vectors)
    return VectorSource(tmp_path / "data")


class Stopped(Exception):
    pass


def test_parts_make_the_whole_and_a_stopped_one_goes_on(model, source, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"

    def stop(done: int, total: int) -> None:
        if done == 32:
            raise Stopped

    with pytest.raises(Stopped):
        embed_to(model, source, out, part=16, advance=stop)
    assert not out.exists()
    told: list[tuple[int, int]] = []
    found = embed_to(model, source, out, part=16, advance=lambda *at: told.append(at))
    assert told == [(16, 50), (32, 50), (48, 50), (50, 50)]
    assert (found.count, found.dim, found.resumed) == (49, 32, 32)
    assert [failure.key for failure in found.failures] == ["row-00007"]
    whole = model.embed_source(source, on_corrupt=lambda failure: None)
    assert np.allclose(np.load(out), whole.features.numpy(), atol=1e-6)
    assert (tmp_path / "v.keys.txt").read_text().split() == list(whole.keys)
    assert np.array_equal(np.load(tmp_path / "v.labels.npy"), whole.labels.numpy())
    assert not (tmp_path / "v.npy.parts").exists()


def test_parts_of_other_work_are_refused(model, source, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"

    def stop(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        embed_to(model, source, out, part=16, advance=stop)
    with pytest.raises(UserError, match="with other part; remove that folder"):
        embed_to(model, source, out, part=8)


def test_progress_is_told_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    advance = told_on_stderr(seconds=1e9)
    advance(1, 3)
    advance(2, 3)
    advance(3, 3)
    assert capsys.readouterr().err.count("embedded") == 1
