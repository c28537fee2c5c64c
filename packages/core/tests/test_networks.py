"""Heads, teacher and cross-replica batch norm against released code and closed forms."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from reference import GOLDEN
from ssl_core.networks.batchnorm import CrossReplicaBatchNorm, convert_batchnorm
from ssl_core.networks.dropout import KeyedDropout, dropout_keys, key_dropout
from ssl_core.networks.heads import MLPHead, PrototypeHead
from ssl_core.networks.teacher import Teacher, ema_update
from ssl_core.rng import Rng


@pytest.mark.parametrize("norm_last", [False, True])
def test_prototype_head_equals_released_dino_head(norm_last):
    """facebookresearch/dino, vision_transformer.py, DINOHead."""
    arrays = np.load(GOLDEN / f"dino/head_norm_last_{int(norm_last)}.npz")
    tensors = {k: torch.from_numpy(arrays[k]) for k in arrays.files}
    head = PrototypeHead(6, 10, hidden=12, bottleneck=5, norm_last=norm_last).double()
    names = {f"mlp.{i}.{w}": f"mlp_{i}_{w}" for i in (0, 2, 4) for w in ("weight", "bias")}
    names |= {"weight_v": "last_layer_weight_v", "weight_g": "last_layer_weight_g"}
    head.load_state_dict({ours: tensors[f"in_param_{theirs}"] for ours, theirs in names.items()})
    x = tensors["in_x"].requires_grad_()
    y = head(x)
    torch.testing.assert_close(y, tensors["out_y"], rtol=1e-10, atol=1e-12)
    (y * tensors["in_cotangent"]).sum().backward()
    torch.testing.assert_close(x.grad, tensors["grad_x"], rtol=1e-9, atol=1e-12)
    for ours, parameter in head.named_parameters():
        expected = tensors[f"grad_param_{names[ours]}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-12)


def test_frozen_prototypes_get_a_zero_gradient():
    head = PrototypeHead(6, 10, hidden=12, bottleneck=5)
    head.frozen = True
    x = torch.randn(4, 6, requires_grad=True)
    head(x).square().sum().backward()
    assert not head.weight_v.grad.any()
    assert x.grad.any()


def test_mlp_head_layers():
    head = MLPHead(4, 3, hidden=5, layers=3, last_bias=False)
    kinds = [type(m).__name__ for m in head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None
    assert head[-1].bias is None
    with pytest.raises(ValueError, match="layers=0"):
        MLPHead(4, 3, layers=0)


def test_teacher_equals_released_momentum_updater():
    """vturrisi/solo-learn, solo/utils/momentum.py, MomentumUpdater: three updates."""
    arrays = np.load(GOLDEN / "ema/solo_three_updates.npz")
    student, target = (
        [torch.from_numpy(arrays[f"in_{side}_{name}"]).clone() for name in ("W", "b")]
        for side in ("online", "target")
    )
    momentum = float(arrays["in_tau_base"])
    for s in range(3):
        ema_update(target, student, momentum, torch.tensor(True))
        for ours, name in zip(target, ("W", "b"), strict=True):
            expected = torch.from_numpy(arrays[f"out_target_{name}{s}"])
            torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
        momentum = float(arrays[f"out_tau_next{s}"])
        torch._foreach_add_(student, 0.1)


def test_teacher_limits():
    method = nn.Module()
    method.encoder = nn.Linear(3, 3)
    teacher = Teacher(encoder=method.encoder)
    assert not any(p.requires_grad for p in teacher.parameters())
    with torch.no_grad():
        method.encoder.weight += 1
    kept = teacher.encoder.weight.clone()
    teacher.update(method, 0.5, torch.tensor(False))
    assert torch.equal(teacher.encoder.weight, kept)
    teacher.update(method, 1.0, torch.tensor(True))
    assert torch.equal(teacher.encoder.weight, kept)
    teacher.update(method, 0.0, torch.tensor(True))
    assert torch.equal(teacher.encoder.weight, method.encoder.weight)


def test_teacher_follows_networks_that_were_moved_or_replaced():
    method = nn.Module()
    method.encoder = nn.Linear(3, 3)
    method.teacher = Teacher(encoder=method.encoder)
    method.teacher.update(method, 0.5, torch.tensor(True))
    for change in (
        lambda m: m.double(),
        lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}, assign=True),
        lambda m: setattr(m, "encoder", nn.Linear(3, 3).double()),
        copy.deepcopy,
    ):
        method = change(method) if change is copy.deepcopy else (change(method), method)[1]
        with torch.no_grad():
            method.encoder.weight += 1
        method.teacher.update(method, 0.0, torch.tensor(True))
        assert torch.equal(method.teacher.encoder.weight, method.encoder.weight)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (torch.randn(3, 5), torch.randn(3, 5)),
        (torch.randn(2, 3, 4, 4).double(), torch.randn(2, 3, 4, 4).double()),
        (channels_last(torch.randn(2, 3, 4, 4)), channels_last(torch.randn(2, 3, 4, 4))),
        (torch.randn(2, 3, 4, 4), channels_last(torch.randn(2, 3, 4, 4))),  # unlike strides
        (torch.randn(3, 5), torch.randn(5, 3).T),
        (torch.randn(6, 5)[::2], torch.randn(6, 5)[::2]),  # gaps between rows
        (torch.randn(3, 5), torch.randn(3, 1).expand(3, 5)),
        (torch.randn(()), torch.randn(())),
    ],
)
@pytest.mark.parametrize("momentum", [0.996, 0.5, 0.3])
def test_teacher_moves_by_any_layout(old, new, momentum):
    """What lies alike goes through one fused pass, the rest through `lerp`: the same numbers."""
    old, kept = copy.deepcopy(old), new.clone()  # a clone would close the gaps
    expected = momentum * old.double() + (1 - momentum) * new.double()
    beside = [torch.zeros(2, dtype=old.dtype), torch.ones(2, dtype=old.dtype)]
    ema_update([old, beside[0]], [new, beside[1]], momentum, torch.tensor(False))
    assert not beside[0].any()
    ema_update([old, beside[0]], [new, beside[1]], momentum, torch.tensor(True))
    torch.testing.assert_close(old.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(beside[0], torch.full_like(beside[0], 1 - momentum))
    assert torch.equal(new, kept)


def test_teacher_update_is_one_pass_that_autograd_does_not_see(monkeypatch):
    method = nn.Module()
    method.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(3, 3))
    teacher = Teacher(encoder=method.encoder)
    monkeypatch.setattr(torch, "_foreach_lerp_", None)  # the other way would fail
    before = copy.deepcopy(method.encoder.state_dict())
    with torch.no_grad():
        method.encoder[1].weight += 1
    teacher.update(method, 0.75, torch.tensor(True))
    moved = teacher.encoder[1].weight - before["1.weight"]
    torch.testing.assert_close(moved, torch.full((3, 3), 0.25))
    assert torch.equal(teacher.encoder[0].weight, before["0.weight"])
    assert all(p.is_leaf and p.requires_grad for p in method.encoder.parameters())


def test_teacher_looks_again_where_the_student_was_laid_out_anew():
    method = nn.Module()
    method.encoder = nn.Conv2d(3, 4, 3)
    teacher = Teacher(encoder=method.encoder)
    teacher.update(method, 0.75, torch.tensor(True))
    method.encoder.to(memory_format=torch.channels_last)
    with torch.no_grad():
        method.encoder.weight += torch.randn(4, 3, 3, 3)
    expected = 0.75 * teacher.encoder.weight + 0.25 * method.encoder.weight
    teacher.update(method, 0.75, torch.tensor(True))
    torch.testing.assert_close(teacher.encoder.weight, expected)


def test_cross_replica_batchnorm_alone_is_batchnorm():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    weight = plain[1].weight
    x = torch.randn(6, 3, 8, 8)
    expected = plain(x)
    plain[1].running_mean.zero_()
    assert convert_batchnorm(plain) == 1
    assert isinstance(plain[1], CrossReplicaBatchNorm)
    assert plain[1].weight is weight
    assert torch.equal(plain(x), expected)


def test_keyed_dropout():
    net = nn.Sequential(nn.Linear(5, 400), nn.Dropout(0.25), nn.Dropout(0.25))
    assert key_dropout(net) == 2
    x, rng = torch.ones(6, 5), Rng.at(0, 0, torch.arange(6))
    with dropout_keys(rng):
        whole = net(x)
    with dropout_keys(rng[2:4]):
        part = net(x[2:4])
    torch.testing.assert_close(whole[2:4], part)  # a matrix product rounds by its size
    share = (whole == 0).float().mean()
    assert abs(share - (1 - 0.75**2)) < 0.03, "two layers must not drop the same units"
    with pytest.raises(RuntimeError, match="one key per row"):
        net(x)
    assert torch.equal(net.eval()(x), net[0](x))
    assert isinstance(net[1], KeyedDropout)
