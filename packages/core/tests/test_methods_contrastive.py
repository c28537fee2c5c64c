"""What the discriminative methods add to their objectives: roles of views, memories, schedules."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.methods.lejepa import LeJEPA
from ssl_core.methods.moco import MoCo
from ssl_core.methods.moco_v3 import MoCoV3
from ssl_core.methods.nnclr import NNCLR
from ssl_core.methods.ressl import ReSSL
from ssl_core.methods.simsiam import SimSiam
from ssl_core.methods.sup_con import SupCon
from ssl_core.methods.swav import SwAV
from ssl_core.methods.tico import TiCo
from ssl_core.methods.w_mse import WMSE
from ssl_core.objectives import info_nce, negative_cosine, nt_xent, sinkhorn, soft_cross_entropy
from ssl_core.rng import Rng
from ssl_core.testing.vectors import MLPEncoder, NoisyViews
from ssl_core.views import View

SPEC = {"dim": 6}
SMALL = {"hidden": 8, "dim": 4}
FINITE, BAD = torch.tensor(True), torch.tensor(False)


def parts(count=2):
    return MLPEncoder(SPEC, norm=False), NoisyViews(SPEC, count=count)


@pytest.fixture
def batch():
    ids = torch.arange(8)
    return Batch(torch.randn(8, 6), ids, ids, label=torch.arange(8) % 3)


def views_of(method, batch, step=0):
    method.before_step(step, 10)
    return method.views(batch, Rng.at(0, step, batch.ids))


def test_moco_is_one_positive_against_the_queue_and_keys_enter_after_the_step(batch):
    method = MoCo(*parts(), **SMALL, queue=12, temperature=0.3)
    (q,), (k,) = reps = method.encode(views_of(method, batch))
    logits = torch.cat(
        [
            (F.normalize(q, dim=1) * F.normalize(k, dim=1)).sum(1, keepdim=True),
            F.normalize(q, dim=1) @ method.queue.rows.T,
        ],
        dim=1,
    )
    expected = F.cross_entropy(logits / 0.3, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(method.loss(reps).total, expected)
    assert not k.requires_grad
    method.after_step(Step(0, 10, FINITE))
    torch.testing.assert_close(method.queue.rows[:8], F.normalize(k, dim=1))


def test_symmetric_moco_is_the_mean_of_both_directions(batch):
    method = MoCo(*parts(), **SMALL, queue=12, symmetric=True)
    views = views_of(method, batch)
    both = method(views).total
    method.symmetric = False
    forth, back = method(views).total, method(views[::-1]).total
    torch.testing.assert_close(both, (forth + back) / 2)


def test_moco_collapsed_costs_log_of_queue_and_one(batch):
    method = MoCo(*parts(), **SMALL, queue=12)
    with torch.no_grad():
        method.queue.rows.copy_(torch.ones(12, 4) / 2)
    same = [torch.ones(8, 4)]
    assert float(method.loss((same, same)).total) == pytest.approx(math.log(13), rel=1e-6)


def test_moco_v3_keys_come_from_the_slow_encoder_without_a_predictor(batch):
    method = MoCoV3(*parts(), **SMALL, temperature=0.5)
    (q_1, q_2), (k_1, k_2) = reps = method.encode(views_of(method, batch))
    one_way = {"temperature": 0.5, "symmetric": False}
    expected = 2 * 0.5 * (info_nce(q_1, k_2, **one_way) + info_nce(q_2, k_1, **one_way))
    torch.testing.assert_close(method.loss(reps).total, expected)
    assert {name for name, _ in method.teacher.named_children()} == {"encoder", "projector"}


def test_moco_v3_freezes_only_what_is_there():
    with pytest.raises(UserError, match="no patch embedding"):
        MoCoV3(*parts(), **SMALL, freeze_patches=True)


def test_nnclr_with_the_batch_as_its_queue_is_simclr_with_a_predictor(batch):
    method = NNCLR(*parts(), **SMALL, predictor_hidden=8, queue=16, temperature=0.3)
    z, p = method.encode(views_of(method, batch))
    z = [x.detach() for x in z]
    with torch.no_grad():
        method.queue.rows.copy_(F.normalize(torch.cat(z), dim=1))
    one_way = {"temperature": 0.3, "symmetric": False}
    expected = (info_nce(z[0], p[1], **one_way) + info_nce(z[1], p[0], **one_way)) / 2
    torch.testing.assert_close(method.loss((z, p)).total, expected)
    method.after_step(Step(0, 10, FINITE))
    torch.testing.assert_close(method.queue.rows[:8], F.normalize(z[0], dim=1))


def test_simsiam_predicts_the_other_view_and_stops_the_gradient(batch):
    method = SimSiam(*parts(), **SMALL, predictor_hidden=4)
    (p_1, p_2), (z_1, z_2) = reps = method.encode(views_of(method, batch))
    loss = method.loss(reps)
    expected = (negative_cosine(p_1, z_2) + negative_cosine(p_2, z_1)) / 2
    torch.testing.assert_close(loss.total, expected)
    gradient = torch.autograd.grad(loss.total, (z_1, p_1), retain_graph=True)
    through_predictor = torch.autograd.grad(
        p_1, z_1, torch.autograd.grad(loss.total, p_1, retain_graph=True)[0]
    )[0]
    torch.testing.assert_close(gradient[0], through_predictor)


def test_simsiam_shows_a_collapse(batch):
    method = SimSiam(*parts(), **SMALL, predictor_hidden=4)
    flat = [torch.ones(8, 4), torch.ones(8, 4)]
    assert float(method.loss((flat, flat)).metrics["direction_std"]) == 0
    spread = [F.normalize(torch.randn(4096, 4), dim=1)] * 2
    found = float(method.loss((spread, spread)).metrics["direction_std"])
    assert found == pytest.approx(1, abs=0.02)


def test_ressl_teaches_from_the_first_view(batch):
    method = ReSSL(*parts(3), **SMALL, queue=12)
    views = views_of(method, batch)
    student, teacher = method.encode(views)
    assert len(student) == 2
    expected = method.teacher.projector(method.teacher.encoder(views[0].data).pooled)
    torch.testing.assert_close(teacher, expected)
    scores = F.normalize(teacher, dim=1) @ method.queue.rows.T
    wanted = (scores / 0.04).softmax(1)
    losses = [
        soft_cross_entropy(F.normalize(s, dim=1) @ method.queue.rows.T, wanted) for s in student
    ]
    torch.testing.assert_close(method(views).total, sum(losses) / 2)


def crops(count, roles):
    ids = torch.arange(count)
    return [View(torch.randn(count, 6), Rng.at(i, 0, ids), role) for i, role in enumerate(roles)]


def swav(**options):
    return SwAV(*parts(), **SMALL, prototypes=10, **options)


def test_swav_swaps_balanced_codes_between_views():
    method = swav()
    method.before_step(0, 10)
    globals_, locals_ = reps = method.encode(crops(8, ["local", "global", "global"]))
    scores = [z @ method.prototypes.T for z in (*globals_, *locals_)]
    codes = [sinkhorn(s.detach()) for s in scores[:2]]
    pairs = [soft_cross_entropy(scores[v], codes[u]) for u in range(2) for v in range(3) if v != u]
    torch.testing.assert_close(method.loss(reps).total, sum(pairs) / 4)


def test_swav_queue_joins_the_assignment_late_and_alone():
    method = swav(queue=6, queue_start=0.5)
    views = crops(8, ["global", "global"])
    for step, joined in ((4, False), (5, True)):
        method.before_step(step, 10)
        z = method.encode(views)[0][0].detach()
        rows = torch.cat([z, method.queues[0].rows]) if joined else z
        expected = sinkhorn(rows @ method.prototypes.detach().T)[:8]
        torch.testing.assert_close(method._assign(z, 0), expected)
    method(views)
    before = method.queues[1].rows.clone()
    method.after_step(Step(5, 10, BAD))
    assert torch.equal(method.queues[1].rows, before)
    method.after_step(Step(5, 10, FINITE))
    assert not torch.equal(method.queues[1].rows, before)


def test_swav_prototypes_have_unit_length_and_stand_still_at_first():
    method = swav(freeze_prototypes=0.2)
    views = crops(8, ["global", "global"])
    for step, moves in ((0, False), (2, True)):
        method.zero_grad()
        with torch.no_grad():
            method.prototypes.mul_(3)
        method.before_step(step, 10)
        torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(10))
        method(views).total.backward()
        assert bool(method.prototypes.grad.any()) is moves


def test_tico_stores_its_covariance_after_the_step(batch):
    method = TiCo(*parts(), **SMALL, rho=8.0, beta=0.9)
    (z,), (t,) = reps = method.encode(views_of(method, batch))
    unit, other = F.normalize(z, dim=1), F.normalize(t, dim=1)
    covariance = 0.1 * (unit.T @ unit / 8).detach()
    expected = 1 - (unit * other).sum(1).mean() + 8 * ((unit @ covariance) * unit).sum(1).mean()
    torch.testing.assert_close(method.loss(reps).total, expected)
    assert not method.covariance.covariance.any()
    method.after_step(Step(0, 10, FINITE))
    torch.testing.assert_close(method.covariance.covariance, covariance)


def test_w_mse_splits_are_keyed_by_the_step_and_cover_the_batch(batch):
    method = WMSE(*parts(), hidden=8, dim=2, size=4, splits=3)
    reps = [z.detach() for z in method.encode(views_of(method, batch))]
    losses = []
    for step in (0, 0, 1):
        method.before_step(step, 10)
        losses.append(float(method.loss(reps).total))
    assert losses[0] == losses[1] != losses[2]
    method.size = 5  # does not divide 8: whitened as a whole
    assert math.isfinite(float(method.loss(reps).total))
    collapsed = [torch.ones(8, 2), torch.ones(8, 2)]
    assert float(method.loss(collapsed).total) == pytest.approx(2, abs=1e-5)


def test_lejepa_directions_are_keyed_by_the_step_and_collapse_shows(batch):
    method = LeJEPA(*parts(), **SMALL, directions=32, lambd=0.5)
    z = [torch.randn(512, 4) for _ in range(2)]
    losses = []
    for step in (0, 0, 1):
        method.before_step(step, 10)
        losses.append(float(method.loss((z, [])).total))
    assert losses[0] == losses[1] != losses[2]
    healthy = float(method.loss((z, [])).metrics["sigreg"])
    zeros = [torch.zeros(512, 4)] * 2
    collapsed = float(method.loss((zeros, [])).metrics["sigreg"])
    assert healthy == pytest.approx(1.06, abs=0.3)
    assert collapsed == pytest.approx(0.402 * 512, rel=0.01)


def test_sup_con_of_unlabelled_samples_is_nt_xent(batch):
    method = SupCon(*parts(), **SMALL, temperature=0.3)
    unknown = Batch(batch.data, batch.ids, batch.index, label=torch.full((8,), -1))
    views = views_of(method, unknown)
    z, labels = method.encode(views)
    assert len(labels.unique()) == 8
    torch.testing.assert_close(method.loss((z, labels)).total, nt_xent(*z, temperature=0.3))
    labelled = method(views_of(method, batch)).total
    assert not torch.isclose(labelled, method(views).total)


def test_sup_con_needs_labels(batch):
    method = SupCon(*parts(), **SMALL)
    with pytest.raises(UserError, match="learns from labels"):
        method.views(Batch(batch.data, batch.ids, batch.index), Rng.at(0, 0, batch.ids))
