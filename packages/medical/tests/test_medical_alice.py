"""Alice and the inpainting U-Net: released values, partners, what the networks are asked."""

import pytest
import torch

from reference import assert_gradients, draw, golden
from ssl_core.batch import Batch
from ssl_core.methods.base import Step
from ssl_core.objectives import Centering, dino
from ssl_core.rng import Rng
from ssl_medical.blocks import Blocks
from ssl_medical.encoders.create import create_encoder
from ssl_medical.methods.alice import Alice, Align, alice, partners
from ssl_medical.methods.unet_inpainting import UNetInpainting
from ssl_medical.segmentation.labelled import labelled_views
from ssl_medical.segmentation.network import Segmenter
from ssl_medical.views.dropped import dropped
from ssl_medical.views.policies import mae

SPEC = {"channels": 1, "axes": 3, "block": [16, 16, 16], "shape": [32, 32, 32],
        "spacing": [1.0, 1.0, 1.0], "mean": [0.5], "std": [0.3], "draws": True}  # fmt: skip


def batch_of(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 32767, (count, 1, 16, 16, 16), generator=generator, dtype=torch.int16)
    corner = torch.randint(0, 16, (count, 3), generator=generator)
    ids = torch.arange(count)
    return Batch(Blocks(data, corner, torch.full((count, 3), 32)), ids, ids)


def test_losses_gradients_and_centres_are_the_released_ones() -> None:
    g = golden("alice/losses")
    student = [g[n].requires_grad_() for n in ("student_cls", "student_patch", "reconstruction")]
    across = torch.tensor([2, 3, 0, 1])
    images = torch.cat([g["image_view0"], g["image_view1"]])
    terms = alice(
        tuple(student),
        (g["teacher_cls"][across], g["teacher_patch"], images),
        centers=(g["centre_before"], g["centre_patch_before"]),
        teacher_temperature=float(g["temp_teacher"]),
    )
    weighted = [w * term for w, term in zip((1.0, 1.0, 10.0), terms, strict=True)]
    wants = ("loss_cls", "loss_patch", "loss_recon")
    for term, want in zip(weighted, wants, strict=True):
        torch.testing.assert_close(term, g[want], rtol=0, atol=1e-9)
    gradients = ("grad_student_cls", "grad_student_patch", "grad_reconstruction")
    assert_gradients(torch.stack(weighted).sum(), student, [g[name] for name in gradients])
    for name, mean in (
        ("centre", g["teacher_cls"].mean(0)),
        ("centre_patch", g["teacher_patch"].flatten(0, 1).mean(0)),
    ):
        centre = Centering(len(mean)).double()
        centre.center.copy_(g[f"{name}_before"].flatten())
        centre.update(mean)
        torch.testing.assert_close(centre.center, g[f"{name}_after"].flatten(), rtol=0, atol=1e-9)


def test_partners_lie_near_and_never_within_the_same_scan() -> None:
    place = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.5, 0.5], [0.15, 0.1, 0.1], [0.12, 0.5, 0.1]])
    partner, near = partners(place, 0.1)
    assert partner.tolist() == [2, 1, 0, 3], "alone, a crop is its own partner"
    assert near.tolist() == [True, False, True, False]
    partner, near = partners(place.expand(4, 4, 3)[0], 10.0)
    assert near.all()
    assert (partner != torch.arange(4)).all()


def test_alone_in_the_batch_it_is_dino_on_identical_crops() -> None:
    student, teacher = draw(5, 4), draw(5, 4, seed=1).detach()
    own, _ = partners(torch.arange(15.0).view(5, 3), 0.1)
    empty = torch.zeros(5, 1, 3, dtype=torch.float64)
    (term, *_) = alice(
        (student, empty, empty),
        (teacher[own], empty, empty),
        centers=(torch.zeros(4), torch.zeros(3)),
        teacher_temperature=0.04,
    )
    # Both of two views are the same crop.
    torch.testing.assert_close(term, dino([student, student], [teacher, teacher]))


def test_views_tell_where_in_the_body_they_lie() -> None:
    batch = batch_of()
    (view,) = mae(SPEC, size=8, scale=(0.5, 0.5))(batch, Rng.at(0, 0, batch.ids))
    want = view.params["centre"] / 32
    torch.testing.assert_close(view.params["place"], want)
    assert view.params["place"].min() > 0
    assert view.params["place"].max() < 1


def test_the_student_asks_and_the_teacher_keeps_still() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("vit_nano_patch8", SPEC, depth=1, dim=48)
    method = Alice(
        encoder, mae(SPEC, size=16), hidden=16, bottleneck=8, prototypes=6, place_prototypes=5,
        align_heads=2, align_hidden=16, decoder_depth=1, decoder_heads=2, tolerance=1.0,
    )  # fmt: skip
    method.before_step(5, 10)
    batch = batch_of()
    views = method.views(batch, Rng.at(0, 0, batch.ids))
    loss = method(views)
    assert loss.metrics["matched"] == 1
    loss.total.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert encoder.mask_token.grad.abs().sum() > 0
    before = {n: p.clone() for n, p in method.teacher.named_parameters()}
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(1.0)
    method.after_step(Step(5, 10, torch.tensor(True)))
    moved = dict(method.teacher.named_parameters())
    assert (moved["encoder.norm.weight"] > before["encoder.norm.weight"]).all()
    assert method.centering.center.abs().sum() > 0
    align = Align(8, 2, 16)
    asking, asked = draw(2, 3, 8).detach().float(), draw(2, 5, 8).detach().float()
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(align(asking, asked), align(asking, asked[:, order]))


def test_dropped_voxels_are_the_mean_and_the_target_is_whole() -> None:
    batch = batch_of()
    policy = dropped(SPEC, size=16, scale=(1.0, 1.0), share=0.3)
    (view,) = policy(batch, Rng.at(0, 0, batch.ids))
    hidden = view.params["hidden"]
    assert (view.data[hidden] == 0).all()
    assert torch.equal(view.data[~hidden], view.params["target"][~hidden])
    assert 0.1 < hidden.float().mean() < 0.35
    encoder = create_encoder("unet_nano", SPEC, widths=(4, 8), dim=4)
    method = UNetInpainting(encoder, policy)
    method.out.weight.data.zero_()
    method.out.bias.data.zero_()
    loss = method([view])
    target = view.params["target"]
    torch.testing.assert_close(loss.total, target.square().mean())
    torch.testing.assert_close(loss.metrics["hidden"], target[hidden].square().mean())
    absolute = UNetInpainting(encoder, policy, distance="l1")
    absolute.out.weight.data.zero_()
    absolute.out.bias.data.zero_()
    torch.testing.assert_close(absolute([view]).total, target.abs().mean())
    with pytest.raises(ValueError, match="distance must be"):
        UNetInpainting(encoder, policy, distance="l3")
    with pytest.raises(ValueError, match="share"):
        dropped(SPEC, share=0.0)


def test_only_the_last_layers_are_new_for_segmentation() -> None:
    encoder = create_encoder("unet_nano", SPEC, widths=(4, 8), dim=4)
    own = {id(p) for p in encoder.parameters()}
    head = Segmenter(encoder, labelled_views(SPEC, [16] * 3), classes=3)
    fresh = [name for name, p in head.named_parameters() if id(p) not in own]
    assert fresh == ["out.0.weight", "out.0.bias", "out.2.weight", "out.2.bias"]
