"""A run's rivals on any records: what they start from, how unreadable records are told of."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core import api
from ssl_core.errors import UserError
from ssl_core.runs.assessing import rivals_of
from ssl_core.runs.folder import Run
from ssl_core.runs.rivals import ORDER, Rivals, told
from ssl_core.testing.vectors import VECTORS, VectorSource


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        settings = {"train.steps": 2, "train.batch_size": 32}
        out = tmp_path_factory.mktemp("runs") / "first"
        return api.pretrain(VECTORS, out=out, settings=settings, progress=False)


@pytest.fixture
def source(tmp_path: Path) -> VectorSource:
    VECTORS.samples(tmp_path, count=30, seed=1)
    vectors = np.load(tmp_path / "vectors.npy")
    vectors[7] = np.nan
    np.save(tmp_path / "vectors.npy", vectors)
    return VectorSource(tmp_path)


def test_all_rivals_see_the_same_records(run: Run, source: VectorSource) -> None:
    rivals = Rivals.of(run, VECTORS)
    failures = []
    found = rivals.features(source, batch_size=8, on_corrupt=failures.append)
    assert tuple(found) == ORDER
    rows = [row for row in range(30) if row != 7]
    for embedding in found.values():
        assert embedding.index.tolist() == rows
        assert embedding.labels.tolist() == source.labels[rows].tolist()
    assert {failure.index for failure in failures} == {7}
    raw = rivals.model.reader.raw(torch.from_numpy(source.vectors[rows]).float())
    torch.testing.assert_close(found["raw"].features, raw)
    trained = api.load(run.path, domain=VECTORS).embed(list(source.vectors[rows]))
    np.testing.assert_allclose(found["trained"].features, trained, rtol=1e-6)


def test_nothing_readable_gives_no_rows(run: Run, source: VectorSource) -> None:
    source.vectors[:] = np.nan
    found = Rivals.of(run, VECTORS).features(source, on_corrupt=lambda _: None)
    assert [len(found[name]) for name in ORDER] == [0, 0, 0]


def test_untrained_is_what_training_began_with(run: Run, source: VectorSource) -> None:
    settings = {"train.steps": 1, "train.batch_size": 32, "start.weights": str(run.path)}
    settings["optimizer.lr"] = 1e-3
    again = api.pretrain(VECTORS, out=run.path.parent / "next", settings=settings, progress=False)
    source.vectors[7] = 0
    first = Rivals.of(run, VECTORS).features(source)
    second = Rivals.of(again, VECTORS).features(source)
    torch.testing.assert_close(second["untrained"].features, first["trained"].features)
    assert not torch.equal(second["trained"].features, first["trained"].features)


def test_features_that_are_not_finite_have_no_score(run: Run) -> None:
    compared = rivals_of(run, VECTORS)
    trained = compared.rivals["trained"]
    queries = trained.queries.clone()
    queries[0] = torch.nan
    broken = replace(trained, queries=queries)
    assert compared.evaluator.probe(trained)["converged"]
    assert math.isnan(compared.evaluator.score(broken))
    found = compared.evaluator.probe(broken)
    assert math.isnan(found["accuracy"])
    assert not found["converged"]


def test_data_is_opened_whole_with_options_changed(run: Run) -> None:
    with pytest.raises(UserError, match="no vectors"):
        Rivals.of(run, VECTORS).open(str(run.path))


def test_rivals_are_told_in_one_order() -> None:
    scores = {"trained": 0.5, "raw": 0.25, "other": 0.125}
    assert told(scores) == "raw 25.0, trained 50.0"
    assert told(scores, {"other": "Other", "raw": "pixels"}) == "Other 12.5, pixels 25.0"
