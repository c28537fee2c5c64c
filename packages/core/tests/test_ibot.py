"""iBOT, DINOv2 and MSN: what is masked, what the teacher sees, which terms there are."""

import math

import pytest
import torch

from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.methods.ibot import IBOT, dinov2
from ssl_core.methods.msn import MSN
from ssl_core.networks.grid_masks import VariedBlockMasker
from ssl_core.networks.vit import PatchTransformer
from ssl_core.objectives import dino, ibot_patches, koleo, me_max
from ssl_core.rng import Rng
from ssl_core.testing.vectors import NoisyViews
from ssl_core.views import View

SMALL = {"prototypes": 12, "hidden": 8, "bottleneck": 4}
FINITE = torch.tensor(True)


def encoder(side=16):
    return PatchTransformer(channels=1, sides=(side, side), patch=(4, 4), dim=8, depth=1, heads=2)


def crops(roles, count=6, side=16):
    ids = torch.arange(count)
    return [
        View(torch.randn(count, 1, side, side), Rng.at(i, 0, ids), role)
        for i, role in enumerate(roles)
    ]


def ibot(**options):
    method = IBOT(encoder(), NoisyViews({"dim": 1}), **SMALL, **options)
    method.before_step(5, 10)
    return method


def test_varied_masks_hide_the_drawn_shares_of_the_drawn_images():
    rng = Rng.at(0, 0, torch.arange(2000))
    mask = VariedBlockMasker(0.5, (0.1, 0.5))(rng, 196, grid=(14, 14))
    counts = mask.hidden.sum(1)
    masked = counts > 0
    assert masked.float().mean() == pytest.approx(0.5, abs=0.04)
    shares = counts[masked] / 196
    assert shares.min() >= 0.09
    assert shares.max() <= 0.5
    assert shares.mean() == pytest.approx(0.3, abs=0.02)
    # Rectangles: a hidden token's right neighbour is hidden far more often than chance has it.
    cells = mask.hidden[masked].reshape(-1, 14, 14)
    together = (cells[:, :, 1:] & cells[:, :, :-1]).sum() / cells[:, :, :-1].sum()
    assert together > 0.75
    alone = VariedBlockMasker(0.5, (0.1, 0.5))(rng[5:7], 196, grid=(14, 14)).hidden
    assert torch.equal(alone, mask.hidden[5:7])


def test_varied_masks_of_single_tokens_hide_as_many_on_any_axes():
    rng = Rng.at(0, 0, torch.arange(500))
    blocks = VariedBlockMasker(0.5, (0.1, 0.5))(rng, 64, grid=(8, 8)).hidden
    single = VariedBlockMasker(0.5, (0.1, 0.5), kind="random")
    hidden = single(rng, 64, grid=(4, 4, 4)).hidden
    assert torch.equal(hidden.sum(1), blocks.sum(1))
    assert torch.equal(single(rng[3:9], 64, grid=(4, 4, 4)).hidden, hidden[3:9])
    share = hidden[hidden.any(1)].float().mean(0)  # every place as often
    assert share.std() < 0.03
    with pytest.raises(UserError, match="2 axes"):
        VariedBlockMasker()(rng, 64, grid=(4, 4, 4))
    with pytest.raises(ValueError, match="mask"):
        VariedBlockMasker(kind="squares")


@pytest.mark.parametrize("options", [{"share": 0.0}, {"ratio": (0.5, 0.1)}, {"mode": "drop"}])
def test_varied_masks_refuse_what_makes_no_sense(options):
    with pytest.raises(ValueError, match="share"):
        VariedBlockMasker(**options)


def test_without_hidden_tokens_ibot_is_dino():
    method = ibot(mask_share=1e-9)
    reps = method.encode(crops(["global", "global", "local"]))
    assert not torch.cat(reps.hidden).any()
    loss = method.loss(reps)
    with torch.no_grad():
        student = [method.head(x) for x in reps.student]
        teacher = [method.teacher.head(x) for x in reps.teacher]
        expected = dino(student, teacher, teacher_temperature=method.temperature(*method.progress))
    torch.testing.assert_close(loss.parts["dino"], expected)
    assert float(loss.parts["patches"]) == 0


def test_the_patch_term_is_the_released_one_and_the_teacher_is_never_masked():
    method = ibot(mask_share=1.0, patch_weight=2.0)
    views = crops(["global", "global"])
    reps = method.encode(views)
    whole = method.teacher.encoder(torch.cat([view.data for view in views])).tokens
    torch.testing.assert_close(torch.cat(reps.teacher_tokens), whole)
    expected = [
        ibot_patches(
            method.head(s[hidden]),
            method.teacher.head(t[hidden]),
            hidden,
            teacher_temperature=method.temperature(*method.progress),
        )
        for s, t, hidden in zip(reps.student_tokens, reps.teacher_tokens, reps.hidden, strict=True)
    ]
    torch.testing.assert_close(method.loss(reps).parts["patches"], sum(expected).detach())


def test_centres_follow_the_teachers_class_tokens_and_all_of_its_patches():
    method = ibot(mask_share=1.0)
    reps = method.encode(crops(["global", "global"]))
    method.loss(reps)
    method.after_step(Step(5, 10, FINITE))
    with torch.no_grad():
        classes = torch.cat([method.teacher.head(x) for x in reps.teacher]).mean(0)
        patches = torch.cat([method.teacher.head(x).flatten(0, 1) for x in reps.teacher_tokens])
    torch.testing.assert_close(method.centering.center, 0.1 * classes, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        method.patch_centering.center, 0.1 * patches.mean(0), rtol=1e-4, atol=1e-6
    )


def test_uniform_outputs_cost_log_k_in_both_terms():
    method = ibot(mask_share=1.0)
    with torch.no_grad():
        method.head.weight_g.zero_()
        method.teacher.head.weight_g.zero_()
    parts = method(crops(["global", "global", "local"])).parts
    for name in ("dino", "patches"):
        assert float(parts[name]) == pytest.approx(math.log(12), rel=1e-5)


def test_dinov2_adds_koleo_on_the_students_class_tokens():
    method = dinov2(encoder(), NoisyViews({"dim": 1}), **SMALL, mask_share=1.0)
    method.before_step(5, 10)
    reps = method.encode(crops(["global", "global", "local"]))
    loss = method.loss(reps)
    expected = 0.1 * sum(koleo(x.detach()) for x in reps.student[:2])
    torch.testing.assert_close(loss.parts["koleo"], expected)
    assert set(loss.parts) == {"dino", "patches", "koleo"}
    loss.total.backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_dinov2_learns_from_a_batch_in_which_nothing_is_hidden():
    method = dinov2(encoder(), NoisyViews({"dim": 1}), **SMALL, mask_share=1e-9)
    method.before_step(5, 10)
    loss = method(crops(["global", "global"], count=2))
    assert float(loss.parts["patches"]) == 0
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_unknown_targets_are_refused():
    with pytest.raises(ValueError, match="targets"):
        ibot(targets="mean")


def msn(**options):
    method = MSN(encoder(), NoisyViews({"dim": 1}), prototypes=10, hidden=8, dim=4, **options)
    method.before_step(0, 10)
    return method


def test_msn_targets_the_first_global_view_whole_and_drops_patches_of_the_others():
    method, seen = msn(mask_ratio=0.5), []
    views = crops(["global", "global", "local"])
    kept = method.encoder.encode

    def spy(tokens, mask=None):
        seen.append(None if mask is None else mask.ids_keep.shape[1])
        return kept(tokens, mask)

    method.encoder.encode = spy
    anchors, target = method.encode(views)
    assert seen == [8, None]
    assert len(anchors) == 2
    expected = method.teacher.projector(method.teacher.encoder(views[0].data).pooled)
    torch.testing.assert_close(target, expected)
    assert not target.requires_grad


def test_msn_prototypes_learn_through_the_anchors_and_uniform_ones_cost_log_k():
    method = msn()
    method(crops(["global", "global"])).total.backward()
    assert method.prototypes.grad.any()
    anchors = [torch.eye(10, 4)[:6]]
    with torch.no_grad():
        method.prototypes.copy_(torch.ones(10, 4))
    parts = method.loss((anchors, anchors[0])).parts
    assert float(parts["assignment"]) == pytest.approx(math.log(10), rel=1e-5)
    assert float(parts["me_max"]) == pytest.approx(0, abs=1e-6)
    assert float(me_max(torch.eye(10)[:1])) == pytest.approx(math.log(10), rel=1e-6)
