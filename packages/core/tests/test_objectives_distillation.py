"""Distillation losses against loops, closed forms and released code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reference import draw, golden
from ssl_core.objectives import Centering, dino, soft_cross_entropy
from ssl_core.schedules import linear


@pytest.mark.parametrize(
    ("case", "crops", "end", "share", "epochs"),
    [("two_globals_only", 2, 0.04, 0.0, 3), ("two_globals_two_locals", 4, 0.07, 0.5, 6)],
)
def test_dino_equals_the_release(case, crops, end, share, epochs):
    """facebookresearch/dino DINOLoss: three calls with a running centre and teacher warm-up."""
    g = golden(f"dino/{case}")
    temperature = linear(0.04, end, until=share)
    schedule = [temperature(epoch, epochs) for epoch in range(epochs)]
    np.testing.assert_allclose(schedule, g["out_teacher_temp_schedule"].numpy(), rtol=1e-12)
    centering = Centering(g["in_student0"].shape[1]).double()
    for call, epoch in enumerate(g["in_epochs"].tolist()):
        student, teacher = g[f"in_student{call}"].requires_grad_(), g[f"in_teacher{call}"]
        loss = dino(
            student.chunk(crops),
            teacher.chunk(2),
            center=centering.center,
            teacher_temperature=schedule[epoch],
        )
        torch.testing.assert_close(loss, g[f"out_loss{call}"].reshape(()), rtol=1e-10, atol=0)
        (grad,) = torch.autograd.grad(loss, student)
        want = g[f"grad_student{call}"]
        assert (grad - want).abs().max() <= 1e-10 * want.abs().max()
        centering.update(teacher.mean(0))
        want = g[f"out_center{call}"].reshape(-1)
        torch.testing.assert_close(centering.center, want, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("students", "teachers"), [(2, 2), (5, 2), (3, 1)])
def test_dino_is_the_mean_over_pairs(students, teachers):
    leaf = draw(students, 3, 6)
    student = list(leaf.unbind())
    teacher = [draw(3, 6, seed=10 + s) for s in range(teachers)]
    center = draw(6, seed=99).detach()
    terms = []
    for q, t in enumerate(teacher):
        target = ((t.detach() - center) / 0.05).softmax(1)
        for v, s in enumerate(student):
            if v != q:
                terms.append(-(target * (s / 0.2).log_softmax(1)).sum(1).mean())
    want = torch.stack(terms).mean()
    got = dino(student, teacher, center=center, student_temperature=0.2, teacher_temperature=0.05)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    grads = [torch.autograd.grad(loss, leaf)[0] for loss in (got, want)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-13)


def test_teacher_gets_no_gradient():
    student, teacher = draw(3, 4, seed=1), draw(3, 4, seed=2)
    dino([student, student], [teacher, teacher]).backward()
    soft_cross_entropy(student, teacher.softmax(1)).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_collapsed_values():
    flat = torch.zeros(5, 9, dtype=torch.float64)
    uniform = torch.full_like(flat, 1 / 9)
    assert dino([flat] * 4, [flat] * 2).item() == pytest.approx(math.log(9), rel=1e-12)
    assert soft_cross_entropy(flat, uniform).item() == pytest.approx(math.log(9), rel=1e-12)


def test_soft_cross_entropy_of_one_hot_targets_is_cross_entropy():
    logits = draw(4, 3, 7)
    ids = torch.arange(12).reshape(4, 3) % 7
    target = torch.nn.functional.one_hot(ids, 7).double()
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1) / 0.3, ids.flatten())
    torch.testing.assert_close(soft_cross_entropy(logits, target, temperature=0.3), want)


def test_centre_stays_where_the_step_was_not_finite():
    centering = Centering(3, momentum=0.5)
    centering.update(torch.tensor([2.0, 4.0, 6.0]), finite=torch.tensor(True))
    assert centering.center.tolist() == [1.0, 2.0, 3.0]
    centering.update(torch.full((3,), torch.nan), finite=torch.tensor(False))
    assert centering.center.tolist() == [1.0, 2.0, 3.0]
    again = Centering(3)
    again.load_state_dict(centering.state_dict())
    assert again.center.tolist() == [1.0, 2.0, 3.0]


def test_centring_removes_what_all_teachers_share():
    """A common offset in the teacher's logits cancels once the centre has learned it."""
    logits, offset = draw(4, 5).detach(), torch.tensor([9.0, 0, 0, 0, 0])
    want = dino([logits] * 2, [logits] * 2)
    got = dino([logits] * 2, [logits + offset] * 2, center=offset)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


def test_wrong_arguments_are_named():
    z = torch.ones(3, 2)
    with pytest.raises(ValueError, match="two student views"):
        dino([z], [z])
    with pytest.raises(ValueError, match="teacher views"):
        dino([z, z], [])
    for temperatures in ({"student_temperature": 0.0}, {"teacher_temperature": -0.1}):
        with pytest.raises(ValueError, match="temperatures must be positive"):
            dino([z, z], [z], **temperatures)
    with pytest.raises(ValueError, match="momentum"):
        Centering(3, momentum=1.5)
