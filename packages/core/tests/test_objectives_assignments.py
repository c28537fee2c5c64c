"""Soft assignments: SwAV, iBOT, DINOv2's parts, MSN, PAWS, ReSSL, SEED against released code."""

import math

import pytest
import torch
import torch.nn.functional as F

from reference import assert_gradients, draw, golden
from ssl_core.objectives import (
    Centering,
    Scores,
    dino,
    ibot_patches,
    info_nce,
    msn,
    msn_parts,
    paws_parts,
    ressl,
    seed,
    sharpen,
    sinkhorn,
    soft_cross_entropy,
    swav,
)
from ssl_core.schedules import linear


@pytest.mark.parametrize(
    ("case", "crops", "how"),
    [
        ("two_crops", 2, {}),
        ("multicrop_2_3", 5, {}),
        ("queue_2_2", 4, {}),
        ("seer_eps003_it10", 3, {"temperature": 0.03, "iterations": 10}),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_swav_equals_the_release(case, crops, how, fused):
    """facebookresearch/swav main_swav.py: one iteration, with and without its queue."""
    g = golden(f"swav/{case}")
    emb = g["in_emb"].requires_grad_()
    w = F.normalize(g["in_prototypes"], dim=1).requires_grad_()
    z = F.normalize(emb, dim=1).chunk(crops)
    codes = []
    for q in range(2):
        scores = (z[q] @ w.T).detach()
        if "in_queue" in g:
            scores = torch.cat([g["in_queue"][q] @ w.T.detach(), scores])
        codes.append(sinkhorn(scores, **how)[-len(z[q]) :])
    torch.testing.assert_close(torch.stack(codes), g["out_codes"], rtol=1e-10, atol=1e-14)
    student = [Scores(x, w) if fused else x @ w.T for x in z]
    loss = swav(student, codes)
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [emb, w], [g["grad_emb_via_backward"], g["grad_prototypes"]])


@pytest.mark.parametrize(("case", "locals_"), [("no_locals", 0), ("two_globals_two_locals", 2)])
def test_ibot_equals_the_release(case, locals_):
    """bytedance/ibot iBOTLoss: three calls with two running centres."""
    g = golden(f"ibot/{case}")
    temperature = linear(0.04, 0.07, until=0.5)
    patches = g["in_student_patch0"].shape[2]
    centers = Centering(12).double(), Centering(patches).double()
    for call, epoch in enumerate(g["in_epochs"].tolist()):
        names = ["cls", "patch", *(["local"] if locals_ else [])]
        leaves = [g[f"in_student_{name}{call}"].requires_grad_() for name in names]
        crops = [*leaves[0].chunk(2), *(leaves[2].chunk(locals_) if locals_ else [])]
        teacher, taught = g[f"in_teacher_cls{call}"], g[f"in_teacher_patch{call}"]
        how = {"teacher_temperature": temperature(epoch, 6)}
        cls = dino(crops, teacher.chunk(2), center=centers[0].center, **how)
        hidden = g[f"in_mask{call}"].flatten(2)  # [2, B, N]
        parts = []
        for view, (s, t) in enumerate(zip(leaves[1].chunk(2), taught.chunk(2), strict=True)):
            h = hidden[view]
            parts.append(ibot_patches(s[h], t[h], h, center=centers[1].center, **how))
        patch = torch.stack(parts).mean()
        for got, name in ((cls, "cls"), (patch, "patch"), (cls + patch, "loss")):
            torch.testing.assert_close(got, g[f"out_{name}{call}"].reshape(()), rtol=1e-10, atol=0)
        wants = [g[f"grad_student_{name}{call}"] for name in names]
        assert_gradients(cls + patch, leaves, wants)
        centers[0].update(teacher.mean(0))
        centers[1].update(taught.mean((0, 1)))
        for centering, name in zip(centers, ("cls", "patch"), strict=True):
            want = g[f"out_center_{name}{call}"].reshape(-1)
            torch.testing.assert_close(centering.center, want, rtol=1e-10, atol=1e-14)


def test_masked_patches_equal_dinov2():
    """facebookresearch/dinov2 iBOTPatchLoss, dense and masked."""
    g = golden("dinov2/patch_loss_dense")
    hidden, student = g["in_mask"], g["in_student"].requires_grad_()
    loss = ibot_patches(student[hidden], g["in_targets"][hidden], hidden, given=True)
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [student], [g["grad_student"]])
    g = golden("dinov2/patch_loss_masked")
    student, count = g["in_student"].requires_grad_(), int(g["in_n_masked"])
    loss = ibot_patches(student[:count], g["in_targets"][:count], g["in_mask"], given=True)
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [student], [g["grad_student"]])
    g = golden("dinov2/sinkhorn_patch")
    got = sinkhorn(g["in_teacher"], temperature=g["in_tau_t"].item())
    for count in (9, 11):  # the count the release is told cancels
        torch.testing.assert_close(got, g[f"out_targets_n{count}"], rtol=1e-10, atol=1e-14)


def test_cls_loss_equals_dinov2_over_three_steps():
    """facebookresearch/dinov2 DINOLoss: a sum over all pairs; its centre is applied lazily."""
    g = golden("dinov2/cls_loss_centering_3steps")
    centering = Centering(20).double()
    for step in range(3):
        teacher = g[f"in_teacher{step}"]
        want = g[f"out_center_used{step}"].reshape(-1)
        torch.testing.assert_close(centering.center, want, rtol=1e-10, atol=1e-14)
        targets = ((teacher - centering.center) / 0.05).softmax(1)
        torch.testing.assert_close(targets, g[f"out_targets{step}"], rtol=1e-10, atol=0)
        leaves = [g[f"in_student{step}_{v}"].requires_grad_() for v in range(3)]
        loss = sum(soft_cross_entropy(s, t) for s in leaves for t in targets.chunk(2))
        torch.testing.assert_close(loss, g[f"out_loss{step}"].reshape(()), rtol=1e-10, atol=0)
        assert_gradients(loss, leaves, [g[f"grad_student{step}_{v}"] for v in range(3)])
        centering.update(teacher.mean(0))


def test_token_mean_is_over_all_hidden_tokens():
    hidden = torch.tensor([[True, False, True], [False, False, True]])
    s, t = draw(3, 5), draw(3, 5, seed=1).detach()
    want = soft_cross_entropy(s, (t / 0.04).softmax(1))
    torch.testing.assert_close(ibot_patches(s, t, hidden, mean="token"), want)
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert ibot_patches(s[:0], t[:0], none) == 0
    with pytest.raises(ValueError, match="3 rows of logits for 0 hidden"):
        ibot_patches(s, t, none)


def test_products_inside_equal_products_outside():
    """Scores are logits: same loss and gradients, for features and prototypes alike."""
    w, taught = draw(7, 4), draw(7, 4, seed=1).detach()
    student = [draw(5, 4, seed=s) for s in (2, 3, 4)]
    teacher = [draw(5, 4, seed=s).detach() for s in (5, 6)]
    center = draw(7, seed=7).detach()
    plain = dino([s @ w.T for s in student], [t @ taught.T for t in teacher], center=center)
    fused = dino(
        [Scores(s, w) for s in student], [Scores(t, taught) for t in teacher], center=center
    )
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=0)
    leaves = [w, *student]
    assert_gradients(fused, leaves, list(torch.autograd.grad(plain, leaves)))


@pytest.mark.parametrize(("case", "crops"), [("two_views", 2), ("multicrop_2", 4)])
def test_paws_equals_the_release(case, crops):
    """facebookresearch/suncet init_paws_loss; its me-max lacks the constant log C."""
    g = golden(f"paws/{case}")
    anchor, support = g["in_anchor"].requires_grad_(), g["in_support"].requires_grad_()
    parts = paws_parts(
        anchor.chunk(crops),
        g["in_target"].chunk(2),
        support,
        g["in_support_label"],
        temperature=g["in_tau"].item(),
        sharpening=g["in_T"].item(),
    )
    torch.testing.assert_close(parts["assignment"], g["out_ce"].reshape(()), rtol=1e-6, atol=0)
    spread = parts["me_max"] - math.log(4)
    torch.testing.assert_close(spread, g["out_memax"].reshape(()), rtol=1e-6, atol=0)
    loss = parts["assignment"] + spread
    for leaf, name in ((anchor, "anchor"), (support, "support")):
        got = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
        assert (got - g[f"grad_{name}"]).abs().max() <= 1e-6 * got.abs().max()


def test_msn_is_its_definition():
    anchors = [draw(6, 4), draw(6, 4, seed=1)]
    target, w = draw(6, 4, seed=2), draw(5, 4, seed=3)
    u = F.normalize(w, dim=1)
    wanted = sharpen((F.normalize(target, dim=1) @ u.T / 0.1).softmax(1), 0.25).detach()
    p = [(F.normalize(a, dim=1) @ u.T / 0.1).softmax(1) for a in anchors]
    mean = torch.cat(p).mean(0)
    want = -torch.stack([(wanted * x.log()).sum(1).mean() for x in p]).mean()
    want = want + math.log(5) + (mean * mean.log()).sum()
    got = msn(anchors, target, w)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    leaves = [*anchors, w]
    assert_gradients(got, leaves, list(torch.autograd.grad(want, leaves)))
    assert torch.autograd.grad(msn(anchors, target, w), target, allow_unused=True)[0] is None
    balanced = msn_parts(anchors, target, w, sinkhorn_iterations=3)
    assert balanced["me_max"] == msn_parts(anchors, target, w)["me_max"]


def test_ressl_equals_solo_learn():
    """vturrisi/solo-learn ressl_loss_func on unit vectors."""
    g = golden("ressl/solo_loss")
    q = g["in_q"].requires_grad_()
    how = {"temperature": g["in_tau_q"].item(), "teacher_temperature": g["in_tau_k"].item()}
    loss = ressl(q, g["in_k"], g["in_queue"], **how)
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    unit, grad = q.detach(), g["grad_q"]
    assert_gradients(loss, [q], [grad - (grad * unit).sum(1, keepdim=True) * unit])


def test_ressl_equals_the_release_over_three_steps():
    """KyleZheng1997/ReSSL with linear networks: teacher moves first, queue last."""
    g = golden("ressl/official_3steps_linear")
    w, w_k = g["in_W_q"].requires_grad_(), g["in_W_k"]
    queue, place = g["in_queue"].T.clone(), int(g["in_ptr"])
    for step in range(3):
        w_k = g["in_m"] * w_k + (1 - g["in_m"]) * w.detach()
        q, k = g[f"in_x_strong{step}"] @ w.T, g[f"in_x_weak{step}"] @ w_k.T
        how = {"temperature": g["in_tau_q"].item(), "teacher_temperature": g["in_tau_k"].item()}
        loss = ressl(q, k, queue, **how)
        torch.testing.assert_close(loss, g[f"out_loss{step}"].reshape(()), rtol=1e-10, atol=0)
        assert_gradients(loss, [w], [g[f"grad_W_q{step}"]])
        queue[place : place + 8] = F.normalize(k, dim=1)
        place = (place + 8) % 24
        torch.testing.assert_close(queue.T, g[f"out_queue{step}"], rtol=1e-10, atol=0)


def test_feature_distributions_equal_s2bnn():
    """szq0214/S2-BNN: the softmax runs over the dimensions of unit embeddings."""
    g = golden("s2bnn/kd_loss")
    student, tau = g["in_student"].requires_grad_(), g["in_tau"].item()
    target = (F.normalize(g["in_teacher"], dim=1) / tau).softmax(1)
    loss = soft_cross_entropy(F.normalize(student, dim=1), target, temperature=tau)
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [student], [g["grad_student"]])


def test_seed_limits():
    s, t, queue = draw(4, 6), draw(4, 6, seed=1), draw(9, 6, seed=2)
    sharp = seed(s, t, queue, teacher_temperature=1e-4)
    want = info_nce(s, t, temperature=0.2, symmetric=False, negatives=queue, in_batch=False)
    torch.testing.assert_close(sharp, want)
    unit, bank = F.normalize(t, dim=1), F.normalize(queue, dim=1)
    p = (torch.cat([(unit * unit).sum(1, keepdim=True), unit @ bank.T], 1) / 0.2).softmax(1)
    entropy = torch.special.entr(p).sum(1).mean()
    torch.testing.assert_close(seed(t, t, queue, teacher_temperature=0.2), entropy)


def test_collapsed_values():
    flat = torch.zeros(5, 9, dtype=torch.float64)
    uniform = torch.full_like(flat, 1 / 9)
    assert swav([flat] * 4, [uniform] * 2).item() == pytest.approx(math.log(9))
    hidden = torch.tensor([[True] * 5, [False] * 5])
    assert ibot_patches(flat, flat, hidden).item() == pytest.approx(math.log(9) / 2)
    ones = torch.ones(5, 4, dtype=torch.float64, requires_grad=True)
    loss = ressl(ones, ones, torch.ones(9, 4, dtype=torch.float64))
    assert loss.item() == pytest.approx(math.log(9))
    assert torch.autograd.grad(loss, ones)[0].abs().max() < 1e-12
    with pytest.raises(ValueError, match="teacher_temperature"):
        ressl(ones, ones, ones, temperature=0.1, teacher_temperature=0.2)
    with pytest.raises(ValueError, match="swav"):
        swav([flat], [uniform])
