"""Video's own methods against released values, closed forms and the statements of their papers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference import OneView, assert_gradients, golden, keys
from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.methods.mae import MAE
from ssl_core.methods.vicreg import VICReg
from ssl_core.networks.patch_embed import patchify
from ssl_core.objectives import info_nce, moco, normalise_channels
from ssl_core.views import View
from ssl_video.encoders.create import create_encoder
from ssl_video.encoders.resnet_nano import ResNet3dNano
from ssl_video.methods.clip_order import ClipOrder
from ssl_video.methods.hdc import HDC
from ssl_video.methods.heads import PairwiseOrderHead, orders
from ssl_video.methods.pace import Pace
from ssl_video.methods.rspnet import RSPNet
from ssl_video.methods.tov_vicreg import TOVVICReg
from ssl_video.methods.ultrasound import Ultrasound
from ssl_video.methods.vididi import ViDiDi, derivative, schedule
from ssl_video.views.affine import Affine

FINITE = torch.tensor(True)


class Flat(nn.Module):
    """Features `[B, 6]` as they come: `[B, 6, 1, 1, 1]` clips of one value a channel."""

    embed_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, data: Tensor) -> Features:
        return Features(self.scale * data.mean((2, 3, 4)))


def clips(count: int, rows: int = 8, **params: Any) -> list[View]:
    """Views of random one-pixel clips."""
    generator = torch.Generator().manual_seed(count)
    rng = keys(rows)
    return [
        View(torch.randn(rows, 6, 1, 1, 1, generator=generator), rng.fold(n), params=params)
        for n in range(count)
    ]


def video(rows: int = 4, frames: int = 6) -> Tensor:
    return torch.randn(rows, 3, frames, 16, 16, generator=torch.Generator().manual_seed(0))


def nano(seed: int = 0) -> ResNet3dNano:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_encoder("resnet3d_nano", {}, widths=(6, 12))  # type: ignore[return-value]


def test_orders_and_head_are_those_of_vcop() -> None:
    g = golden("video_order_pace/labels")
    for count in (3, 4):
        table = orders(count)
        assert torch.equal(table[g[f"label{count}"]], g[f"perm{count}"])
        places = torch.arange(count).expand(len(table), count).gather(1, table)
        assert torch.equal(places.gather(1, table.argsort(1)), torch.arange(count).expand_as(table))
    head = PairwiseOrderHead(6, 3, 6).double().eval()
    head.pair.weight.data, head.pair.bias.data = g["fc7_weight"], g["fc7_bias"]
    head.order.weight.data, head.order.bias.data = g["fc8_weight"], g["fc8_bias"]
    x = g["vcop_features"].requires_grad_()
    torch.testing.assert_close(head(x), g["vcop_logits"], atol=1e-10, rtol=0)
    loss = F.cross_entropy(head(x), g["vcop_target"])
    assert abs(loss - g["vcop_loss"]) < 1e-10
    assert_gradients(loss, [x], [g["vcop_grad"]])


def test_equal_clips_tell_no_order() -> None:
    method = ClipOrder(Flat(), OneView(), hidden=8).eval()
    one = clips(1)[0]
    logits, label = method.encode([one, one, one])
    assert len(label.unique()) > 2
    again = method.head(torch.stack([one.data[:, :, 0, 0, 0]] * 3, dim=1))
    torch.testing.assert_close(logits, again)  # whatever the label
    with pytest.raises(ValueError, match="2 views for clips=3"):
        method.encode(clips(2))


def test_a_still_video_tells_no_pace_and_a_moving_one_does() -> None:
    labels = torch.arange(4) % 2
    still = video(1).mean(2, keepdim=True).expand(4, -1, 6, -1, -1)
    method = Pace(nano(), OneView(), paces=2).eval()
    logits, label = method.encode([View(still, keys(4), params={"pace": labels})])
    assert (logits - logits[:1]).abs().max() < 1e-5
    assert torch.equal(label, labels)
    assert method.loss((torch.zeros(4, 2), labels)).total == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="view policy `pace`"):
        method.encode([View(still, keys(4))])


def test_vididi_goes_round_neighbouring_orders_evenly() -> None:
    cycle = schedule(2)
    assert sorted(cycle) == sorted(set(cycle))
    assert set(cycle) == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)}
    x = video()
    assert derivative(x[:, :, :1].expand(-1, -1, 6, -1, -1), 1, 4).abs().max() == 0
    assert torch.equal(derivative(x, 0, 4), x[:, :, :4])
    second = derivative(x, 2, 4)
    want = x[:, :, 2:] - 2 * x[:, :, 1:-1] + x[:, :, :-2]
    torch.testing.assert_close(F.normalize(second.flatten(1)), F.normalize(want.flatten(1)))
    torch.testing.assert_close(second.square().mean((1, 2, 3, 4)), torch.ones(4))


def test_vididi_without_derivatives_is_its_host_bit_for_bit() -> None:
    def made(cls: Any, **options: Any) -> Any:
        encoder = nano()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return cls(encoder, OneView(), hidden=16, dim=8, **options)

    host, add_on = made(VICReg), made(ViDiDi, host="vicreg", highest=0)
    views = [View(video(), keys(4)), View(video().flip(0), keys(4))]
    add_on.view_policy = lambda batch, rng: views
    add_on.before_step(5, 10)
    assert torch.equal(add_on(add_on.views(None, None)).total, host(views).total)
    with pytest.raises(ValueError, match="host must be one of simclr"):
        made(ViDiDi, host="dino")
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        ViDiDi(nano(), OneView(), host="simclr", temprature=1.0)


def decoupled(same: bool = False) -> list[View]:
    x = video(4)
    others = [x] * 3 if same else [video(4).flip(axis) for axis in (2, 3, 4)]
    return [View(v, keys(4).fold(n)) for n, v in enumerate([x, *others])]


def test_hdc_with_one_stage_and_equal_positives_is_twice_info_nce() -> None:
    method = HDC(nano(), OneView(), levels=1, hidden=16, dim=8).eval()
    method.heads[0][1].load_state_dict(method.heads[0][0].state_dict())  # type: ignore[index]
    (level,) = method.encode(decoupled())
    (a, p), (_, _, altered) = level
    far = torch.full_like(altered, 0.0).addcmul(a, torch.tensor(-1e3))  # opposite: no competitor
    loss = method.loss([[[a, p], [a, p, far]]]).total
    torch.testing.assert_close(
        loss, 2 * info_nce(a, p, temperature=0.1, symmetric=False), atol=1e-6, rtol=1e-6
    )


def test_hdc_weights_follow_invariance_without_gradient() -> None:
    method = HDC(nano(), OneView(), levels=2, hidden=16, dim=8, momentum=0.5)
    torch.testing.assert_close(method.weights, torch.full((2, 2), 0.5))
    method(decoupled()).total.backward()
    assert method.similarity.grad is None
    before = method.weights.clone()
    method._measured = torch.tensor([[0.2, 0.2], [1.0, 1.0]])
    method.after_step(Step(0, 10, FINITE))
    assert (method.weights[1] > before[1]).all()
    torch.testing.assert_close(method.weights.sum(0), torch.ones(2))
    kept = method.weights.clone()
    method.after_step(Step(1, 10, torch.tensor(False)))
    assert torch.equal(kept, method.weights)
    with pytest.raises(UserError, match="levels=3 of an encoder with 2 stages"):
        HDC(nano(), OneView(), levels=3)
    with pytest.raises(UserError, match="0 stages"):
        HDC(create_encoder("vit_nano_patch8", {"size": 16, "window": 4}), OneView())


def test_hdc_costs_an_order_blind_network_at_least_log_two() -> None:
    class Blind(ResNet3dNano):
        def stages(self, data: Tensor) -> list[Tensor]:
            return super().stages(data.mean(2, keepdim=True).expand_as(data))

    method = HDC(
        Blind(channels=3, widths=(6, 12), blocks=1, stem_stride=2), OneView(), levels=1, dim=8
    ).eval()
    anchor, _, temporal, _ = decoupled()
    shuffled = View(temporal.data[:, :, [3, 1, 5, 0, 2, 4]], temporal.rng)
    loss = method([anchor, temporal, temporal, shuffled])
    assert loss.parts["time"] >= math.log(2) - 1e-6


def test_zero_affine_is_the_identity_and_shifts_move_pixels() -> None:
    x = video(2)
    op = Affine(turn=90, shift=0.25, scale=2.0)
    torch.testing.assert_close(op.apply(x, torch.zeros(2, 5)), x, atol=1e-5, rtol=0)
    down = op.apply(x, torch.tensor([[0.0, 1, 0, 0, 0]] * 2))
    torch.testing.assert_close(down[:, :, :, 4:], x[:, :, :, :-4], atol=1e-5, rtol=0)
    right = op.apply(x, torch.tensor([[0.0, 0, 1, 0, 0]] * 2))
    torch.testing.assert_close(right[..., 4:], x[..., :-4], atol=1e-5, rtol=0)
    turned = op.apply(x, torch.tensor([[1.0, 0, 0, 0, 0]] * 2))
    torch.testing.assert_close(turned, x.rot90(-1, (3, 4)), atol=1e-4, rtol=0)
    small = op.matrix(torch.tensor([[0.0, 0, 0, 1, 0]]))
    torch.testing.assert_close(small[0, :, :2], torch.eye(2) / 2)
    with pytest.raises(ValueError, match="scale >= 1"):
        Affine(scale=0.5)


def test_ultrasound_counts_a_sweep_and_its_reverse_as_one() -> None:
    table = orders(4, undirected=True)
    assert len(table) == 12
    both = {tuple(row) for row in table.tolist()} | {tuple(row) for row in table.flip(1).tolist()}
    assert both == {tuple(row) for row in orders(4).tolist()}
    affine = torch.zeros(8, 5)
    method = Ultrasound(Flat(), OneView(), hidden=8, weight=0.0).eval()
    loss = method(clips(4, affine=affine))
    assert loss.total == loss.parts["order"]
    logits, label, _, _ = method.encode(clips(4, affine=affine))
    torch.testing.assert_close(loss.total, F.cross_entropy(logits, label))
    with pytest.raises(ValueError, match="4 views of the policy `geometry`, got 3"):
        method.encode(clips(3, affine=affine))


def moments(rows: int = 8) -> list[View]:
    five = clips(5, rows)
    return five[:2] + [View(v.data, v.rng, role="order") for v in five[2:]]


def test_tov_vicreg_adds_one_term_to_vicreg() -> None:
    method = TOVVICReg(Flat(), OneView(), hidden=16, dim=8, weight=0.0).eval()
    plain = VICReg(
        method.encoder, OneView(), hidden=16, dim=8, invariance=10.0, variance=10.0, covariance=10.0
    ).eval()
    plain.projector.load_state_dict(method.projector.state_dict())
    views = moments()
    torch.testing.assert_close(method(views).total, plain(views[:2]).total)
    _, logits, shuffled = method.encode(moments(6000))
    assert shuffled.float().mean() == pytest.approx(5 / 6, abs=0.02)
    prior = torch.tensor([0.0, math.log(5)]).expand_as(logits)
    cost = F.cross_entropy(prior, shuffled)
    assert cost == pytest.approx(0.4506, abs=0.02)
    with pytest.raises(ValueError, match="view policy `triplet`"):
        method.encode(clips(5))


def test_rspnet_ranks_up_to_the_margin() -> None:
    stride = torch.ones(8, dtype=torch.int64)
    method = RSPNet(Flat(), OneView(), hidden=8, dim=6, queue=12)
    (speed, video), _ = method.encode(clips(3, stride=stride))
    loss = method.loss(([speed, video], [speed, -speed, video, video]))
    assert loss.parts["speed"] == 0  # q . k - q . k' = 2 is beyond margin x T = 0.14
    assert method.loss(([speed, video], [speed, speed, video, video])).parts["speed"] == 2
    want = 2 * moco(video, video, method.queue.rows, temperature=0.07)
    torch.testing.assert_close(loss.parts["video"], want.detach())
    method(clips(3, stride=stride)).total.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert method.speed[0].weight.grad.abs().max() > 0  # type: ignore[union-attr,operator]
    before = method.queue.rows.clone()
    method.after_step(Step(0, 10, FINITE))
    assert (method.queue.rows != before).any(1).sum() == 8
    with pytest.raises(ValueError, match="policy `speeds`"):
        method.encode(clips(3))


def test_targets_and_tubes_are_those_of_videomae() -> None:
    g = golden("videomae/tube_target")
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None, None]
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None, None]
    hidden = g["mask"][:2].bool()
    target = normalise_channels(patchify(g["video_normalised"] * std + mean, (2, 4, 4)), 3)
    want = g["target_normalised"]
    torch.testing.assert_close(target[hidden].reshape(want.shape), want, rtol=1e-6, atol=1e-6)
    spec = {"channels": 3, "view_size": 16, "view_frames": 8}
    encoder = create_encoder("vit_nano_patch4", spec, depth=1)
    method = MAE(encoder, OneView(), mask_ratio=0.9, mask="tubes", norm_pixels="channel",
                 decoder_dim=8, decoder_depth=1, decoder_heads=2)  # fmt: skip
    still = video(3)[:, :, :1].expand(-1, -1, 8, -1, -1)
    (seen,) = method.encode([View(still, keys(3))])
    slots = seen.mask.hidden.unflatten(1, (4, 16))
    assert all(torch.equal(a, b) for a, b in pairwise(slots.unbind(1)))
    assert (slots.sum(2) == int(0.9 * 16)).all()
    assert (seen.target.unflatten(1, (4, 14)).diff(dim=1)).abs().max() < 1e-6

    # What was predicted is shown in the input's units: true targets give the input back.
    tokens = encoder.tokenize(video(3, 8))
    seen = replace(seen, predicted=normalise_channels(seen.mask.concealed(tokens.values), 3))
    torch.testing.assert_close(method.content(seen, tokens), tokens.values, atol=1e-4, rtol=0)
    shown = method.shown([View(video(3, 8), keys(3))])
    assert set(shown) == {"hidden", "predicted"}
    assert shown["hidden"].isnan().float().mean() == 14 / 16
