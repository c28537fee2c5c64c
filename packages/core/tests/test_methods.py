"""What methods add to their objectives: pairing, teachers, centres, joints."""

import math

import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.methods.barlow_twins import BarlowTwins
from ssl_core.methods.base import Step
from ssl_core.methods.byol import BYOL
from ssl_core.methods.dino import DINO
from ssl_core.methods.joint import Joint
from ssl_core.methods.simclr import SimCLR
from ssl_core.objectives import info_nce, nt_xent
from ssl_core.rng import Rng
from ssl_core.testing.vectors import MLPEncoder, NoisyViews
from ssl_core.views import View

SPEC = {"dim": 6}
FINITE = torch.tensor(True)


@pytest.fixture
def batch():
    ids = torch.arange(8)
    return Batch(torch.randn(8, 6), ids, ids)


def views_of(method, batch, step=0):
    method.before_step(step, 10)
    return method.views(batch, Rng.at(0, step, batch.ids))


def test_simclr_is_nt_xent_of_its_projections(batch):
    method = SimCLR(MLPEncoder(SPEC), NoisyViews(SPEC, count=3), hidden=8, dim=4, temperature=0.3)
    z = method.encode(views_of(method, batch))
    assert len(z) == 3
    torch.testing.assert_close(method.loss(z).total, nt_xent(*z, temperature=0.3))


def test_simclr_as_dcl_leaves_its_positives_out(batch):
    method = SimCLR(
        MLPEncoder(SPEC), NoisyViews(SPEC), hidden=8, dim=4, decoupled=True, weight_sigma=0.5
    )
    z = method.encode(views_of(method, batch))
    expected = nt_xent(*z, temperature=0.1, decoupled=True, weight_sigma=0.5)
    torch.testing.assert_close(method.loss(z).total, expected)


def test_simclr_as_simcse_contrasts_one_direction(batch):
    method = SimCLR(MLPEncoder(SPEC), NoisyViews(SPEC), head="tanh", pairs="cross")
    z = method.encode(views_of(method, batch))
    assert z[0].shape == (8, 16)
    assert z[0].abs().max() < 1
    expected = info_nce(z[0], z[1], temperature=0.1, symmetric=False)
    torch.testing.assert_close(method.loss(z).total, expected)


def test_joint_views_see_batch_statistics_together_and_separate_ones_do_not(batch):
    encoder = MLPEncoder(SPEC)
    method = SimCLR(encoder, NoisyViews(SPEC), hidden=8, dim=4)
    views = views_of(method, batch)
    together = torch.cat([f.pooled for f in method.features(views)])
    torch.testing.assert_close(together, encoder(torch.cat([v.data for v in views])).pooled)
    apart = method.features(views, joint=False)
    torch.testing.assert_close(apart[1].pooled, encoder(views[1].data).pooled)


def test_simclr_heads_end_in_a_norm_where_asked():
    plain, released = (
        SimCLR(MLPEncoder(SPEC), NoisyViews(SPEC), hidden=8, dim=4, last_norm=last)
        for last in (False, True)
    )
    assert plain.projector[-1].bias is not None
    z = released.projector(torch.randn(32, 16))
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="reweight"):
        SimCLR(MLPEncoder(SPEC), NoisyViews(SPEC), head="mpl")


@pytest.mark.parametrize("joint", [True, False])
def test_simclr_shows_the_encoder_its_views_together_or_apart(batch, joint):
    encoder = MLPEncoder(SPEC)
    method = SimCLR(encoder, NoisyViews(SPEC), hidden=8, dim=4, joint=joint)
    views = views_of(method, batch)
    expected = method.features(views, joint=joint)
    for z, features in zip(method.encode(views), expected, strict=True):
        torch.testing.assert_close(z, method.projector(features.pooled))


def test_byol_learns_from_a_teacher_that_follows(batch):
    method = BYOL(MLPEncoder(SPEC), NoisyViews(SPEC), hidden=8, dim=4, momentum=0.5)
    loss = method(views_of(method, batch)).total
    assert 0 <= float(loss.detach()) <= 8
    loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in method.teacher.encoder.parameters()]
    method.after_step(Step(0, 10, FINITE))
    for old, new in zip(before, method.teacher.encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.5)
    method.after_step(Step(10, 10, FINITE))  # momentum has risen to 1


def crops(n, roles):
    ids = torch.arange(n)
    return [View(torch.randn(n, 6), Rng.at(i, 0, ids), role) for i, role in enumerate(roles)]


def dino(**options):
    small = {"prototypes": 12, "hidden": 8, "bottleneck": 4}
    return DINO(MLPEncoder(SPEC), NoisyViews(SPEC), **small, **options)


def test_dino_teacher_sees_globals_only_and_their_order_does_not_matter():
    method = dino().eval()
    views = crops(8, ["local", "global", "local", "global"])
    student, teacher = method.encode(views)
    assert len(student) == 4
    assert len(teacher) == 2
    shuffled = [views[1], views[3], views[0], views[2]]
    torch.testing.assert_close(method(views).total, method(shuffled).total)


def test_dino_of_uniform_outputs_is_log_k():
    method = dino()
    with torch.no_grad():
        method.head.weight_g.zero_()
        method.teacher.head.weight_g.zero_()
    loss = method(crops(8, ["global", "global", "local"]))
    assert float(loss.total.detach()) == pytest.approx(math.log(12), rel=1e-6)
    assert float(loss.metrics["teacher_entropy"]) == pytest.approx(math.log(12), rel=1e-6)


def test_dino_centre_moves_after_the_step_by_the_teacher_mean():
    method = dino(center_momentum=0.9)
    views = crops(8, ["global", "global"])
    _, teacher = method.encode(views)
    method(views)
    assert not method.centering.center.any()
    method.after_step(Step(0, 10, FINITE))
    expected = 0.1 * torch.cat(teacher).mean(0)
    torch.testing.assert_close(method.centering.center.flatten(), expected)


def test_dino_freezes_prototypes_at_the_start_only():
    method = dino(freeze_last=0.2)
    for step, frozen in ((0, True), (1, True), (2, False)):
        method.before_step(step, 10)
        assert method.head.frozen is frozen


def test_joint_is_the_weighted_sum_of_its_members(batch):
    encoder, policy = MLPEncoder(SPEC), NoisyViews(SPEC)
    simclr = SimCLR(encoder, policy, hidden=8, dim=4)
    barlow = BarlowTwins(encoder, policy, hidden=8, dim=4)
    joint = Joint(encoder, policy, members={"a": (2.0, simclr), "b": (0.5, barlow)})
    views = views_of(joint, batch)
    assert [view.owner for view in views] == [("a",), ("a",), ("b",), ("b",)]
    loss = joint(views)
    expected = 2.0 * simclr(views[:2]).total + 0.5 * barlow(views[2:]).total
    torch.testing.assert_close(loss.total, expected)
    assert set(loss.parts) == {"a/nt_xent", "b/barlow_twins"}
    torch.testing.assert_close(sum(loss.parts.values()), loss.total.detach())
    owned = {id(p) for p in joint.parameters()}
    assert len(owned) == len(list(joint.parameters()))


def test_joint_refuses_members_with_other_encoders():
    policy = NoisyViews(SPEC)
    member = SimCLR(MLPEncoder(SPEC), policy, hidden=8, dim=4)
    with pytest.raises(ValueError, match="'a' has another encoder"):
        Joint(MLPEncoder(SPEC), policy, members={"a": (1.0, member)})
