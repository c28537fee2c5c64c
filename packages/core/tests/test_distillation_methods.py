"""Distillation from a frozen run: the teacher stays as it is, and its folder may go afterwards."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from ssl_core import api
from ssl_core.batch import Batch
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.methods import pick
from ssl_core.methods.base import Step
from ssl_core.methods.feature_distillation import FeatureDistillation
from ssl_core.methods.seed import SEED
from ssl_core.registry import Registry
from ssl_core.rng import Rng
from ssl_core.runs.parts import frozen_encoder
from ssl_core.testing.vectors import MLPEncoder, NoisyViews, VectorDomain, VectorReader

SPEC = {"dim": 6}


class Taught(VectorDomain):
    """Vectors, with a method that distils."""

    methods = Registry("method", pick("simclr", "feature_distillation"))


TAUGHT = Taught()


def views_of(method):
    ids = torch.arange(8)
    batch = Batch(torch.randn(8, 6), ids, ids)
    method.before_step(0, 10)
    return method.views(batch, Rng.at(0, 0, ids))


def test_seed_is_the_cross_entropy_of_similarities():
    method = SEED(
        MLPEncoder(SPEC), NoisyViews(SPEC), teacher=MLPEncoder(SPEC, width=4), hidden=8, queue=10
    )
    student, teacher = reps = method.encode(views_of(method))
    expected = []
    for s, t in zip(student, teacher, strict=True):
        s, t = F.normalize(s, dim=1), F.normalize(t, dim=1)
        bank = method.queue.rows
        mine = torch.cat([(s * t).sum(1, keepdim=True), s @ bank.T], 1) / 0.2
        theirs = torch.cat([(t * t).sum(1, keepdim=True), t @ bank.T], 1) / 1e-4
        expected.append(-(theirs.softmax(1) * mine.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(method.loss(reps).total, sum(expected) / 2)
    method.after_step(Step(0, 10, torch.tensor(True)))
    torch.testing.assert_close(method.queue.rows[:8], F.normalize(teacher[0], dim=1))


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_a_student_equal_to_its_teacher_costs_nothing(distance):
    teacher = MLPEncoder(SPEC)
    method = FeatureDistillation(
        MLPEncoder(SPEC), NoisyViews(SPEC), teacher=teacher, hidden=8, distance=distance
    )
    taught = torch.randn(8, 16)
    wanted = F.layer_norm(taught, (16,)) if distance == "mse" else taught
    assert float(method.loss(([wanted], [taught])).total) == pytest.approx(0, abs=1e-6)
    opposite = method.loss(([-taught], [taught])).total
    assert float(opposite) > 1


def test_the_teacher_neither_learns_nor_moves():
    teacher = MLPEncoder(SPEC)
    method = FeatureDistillation(MLPEncoder(SPEC), NoisyViews(SPEC), teacher=teacher, hidden=8)
    method.train()
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    method(views_of(method)).total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], x) for name, x in teacher.state_dict().items())


def test_unknown_distances_are_refused():
    with pytest.raises(ValueError, match="distance"):
        FeatureDistillation(
            MLPEncoder(SPEC), NoisyViews(SPEC), teacher=MLPEncoder(SPEC), distance="l7"
        )


def recipe(**method):
    return {
        "domain": "vectors",
        "views": {"name": "noise"},
        "encoder": {"name": "mlp"},
        "method": method,
        "train": {"steps": 3, "batch_size": 8},
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("distilled")
    (root / "data").mkdir()
    TAUGHT.samples(root / "data", count=60, seed=0)
    api.pretrain(
        TAUGHT,
        recipe(name="simclr", hidden=8, dim=4),
        data=root / "data",
        out=root / "teacher",
        progress=False,
    )
    return root


def test_a_run_is_distilled_and_then_used_without_it(folders):
    run = api.pretrain(
        TAUGHT,
        recipe(name="feature_distillation", teacher=str(folders / "teacher"), hidden=8),
        data=folders / "data",
        out=folders / "student",
        progress=False,
    )
    assert run.summary["steps"] == 3
    shutil.move(folders / "teacher", folders / "moved")
    try:
        vectors = api.load(run, domain=TAUGHT).embed(folders / "data")
    finally:
        shutil.move(folders / "moved", folders / "teacher")
    assert len(vectors) == 60


def test_a_teacher_of_other_data_is_refused(folders):
    with pytest.raises(UserError, match="dim 24"):
        frozen_encoder(TAUGHT, folders / "teacher", VectorReader(5))


def test_a_teacher_that_is_not_there_is_refused(folders):
    with pytest.raises(UserError, match="nowhere"):
        frozen_encoder(TAUGHT, folders / "nowhere", VectorReader(24))


def test_the_test_domain_is_complete():
    assert isinstance(TAUGHT, Domain)
