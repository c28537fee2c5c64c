"""Parameter groups, LARS, skipped steps and rates."""

from __future__ import annotations

import copy
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference import GOLDEN
from ssl_core import recipe
from ssl_core.engine import lars as lars_module
from ssl_core.engine.lars import LARS
from ssl_core.engine.optim import build_optimizer, layer_ids, param_groups, set_schedule
from ssl_core.errors import UserError
from ssl_core.schedules import cosine, warmup_cosine


def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


class Named(nn.Module):
    """Parameters with given dotted names; weights have two dimensions."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        for name in dict.fromkeys(names):
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            one = leaf == "bias" or "norm" in name
            setattr(module, leaf, nn.Parameter(torch.ones(4) if one else torch.ones(4, 4)))


def by_name(module: nn.Module, groups: list[dict]) -> dict[str, tuple[int, dict]]:
    names = {id(p): name for name, p in module.named_parameters()}
    return {
        names[id(p)]: (index, group) for index, group in enumerate(groups) for p in group["params"]
    }


def test_layer_decay_equals_mae():
    """facebookresearch/mae util/lr_decay.py on a three-block ViT."""
    g = golden("layer_decay/vit3")
    names = [str(name) for name in g["names"]]
    module = Named(names)
    groups = param_groups(module, weight_decay=0.05, layer_decay=0.65)
    assert len(groups) == int(g["n_groups"])
    found = by_name(module, groups)
    assert set(found) == set(names)
    ids, _ = layer_ids(names)
    for i, name in enumerate(names):
        _, group = found[name]
        assert ids[name] == g["layer_id"][i]
        assert group["lr_scale"] == pytest.approx(g["lr_scale"][i], rel=1e-12)
        assert group["weight_decay"] == g["weight_decay"][i]
    # The same parameters stand together, whatever the order of the groups.
    pairs = {(found[name][0], int(g["group_index"][i])) for i, name in enumerate(names)}
    assert len(pairs) == len(groups)
    scales = [0.65 ** (13 - i) for i in range(14)]
    np.testing.assert_allclose(scales, g["vitb_scales_d065"], rtol=1e-12)


def test_layer_ids_equal_beit():
    """microsoft/unilm beit/optim_factory.py get_num_layer_for_vit."""
    g = golden("layer_decay/vit3")
    names = [str(name) for name in g["beit_names"]]
    ids, _ = layer_ids(names)
    for name, want in zip(names, g["beit_layer_id_num_max5"], strict=True):
        assert ids[name] == want, name


@pytest.mark.parametrize(
    ("names", "want"),
    [
        # torchvision's ResNet, ConvNeXt (stages) and ViT, Hugging Face's BERT, a GIN
        (
            ["conv1.weight", "layer1.0.conv1.weight", "layer4.1.bn2.weight", "fc.weight"],
            [0, 1, 4, 5],
        ),
        (
            [
                "stem.0.weight",
                "stages.0.blocks.1.weight",
                "stages.3.blocks.0.weight",
                "head.weight",
            ],
            [0, 1, 4, 5],
        ),
        (
            [
                "class_token",
                "encoder.pos_embedding",
                "encoder.layers.encoder_layer_0.mlp.0.weight",
                "encoder.layers.encoder_layer_1.mlp.0.weight",
                "encoder.ln.weight",
            ],
            [0, 0, 1, 2, 3],
        ),
        (
            [
                "embeddings.word_embeddings.weight",
                "encoder.layer.0.attention.self.query.weight",
                "encoder.layer.1.attention.self.query.weight",
                "pooler.dense.weight",
            ],
            [0, 1, 2, 3],
        ),
        (["model.blocks.0.w", "model.blocks.1.w", "mask_token", "norm.weight"], [1, 2, 0, 3]),
        (["convs.0.nn.0.weight", "convs.1.nn.0.weight"], [1, 2]),
        (["fc1.weight", "fc2.weight"], []),
    ],
)
def test_layer_ids_of_other_families(names, want):
    assert list(layer_ids(names)[0].values()) == want


class TinyMethod(nn.Module):
    """An encoder with blocks, a head and a frozen teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Named(["pos_embed", "blocks.0.weight", "blocks.0.bias", "blocks.1.weight"])
        self.head = nn.Linear(4, 4)
        self.teacher = nn.Linear(4, 4).requires_grad_(False)


def test_groups_of_a_method():
    method = TinyMethod()
    method.encoder.no_weight_decay = lambda: {"blocks.1.weight"}
    groups = param_groups(method, weight_decay=0.1, layer_decay=0.5, backbone=method.encoder)
    got = {
        name: (group["lr_scale"], group["weight_decay"])
        for name, (_, group) in by_name(method, groups).items()
    }
    assert got == {
        "encoder.pos_embed": (0.125, 0.0),
        "encoder.blocks.0.weight": (0.25, 0.1),
        "encoder.blocks.0.bias": (0.25, 0.0),
        "encoder.blocks.1.weight": (0.5, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (1.0, 0.0),
    }


def test_without_layer_decay_there_are_two_groups():
    groups = param_groups(TinyMethod(), weight_decay=0.1)
    assert [(g["lr_scale"], g["decayed"]) for g in groups] == [(1.0, False), (1.0, True)]
    same = param_groups(TinyMethod(), weight_decay=0.1, layer_decay=1.0)
    assert len(same) == 2


def test_unusable_settings_are_named():
    with pytest.raises(UserError, match=r"layer_decay=0\.5: Linear has no numbered blocks"):
        param_groups(nn.Linear(2, 2), weight_decay=0.0, layer_decay=0.5)
    with pytest.raises(UserError, match="no trainable parameters"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), recipe.Optimizer())
    with pytest.raises(ValueError, match="form"):
        LARS([nn.Parameter(torch.ones(1))], lr=0.1, form="other")


LARS_CASES = {
    # facebookresearch/barlowtwins LARS, with and without its filters for 1-D parameters
    "barlow_filtered": ({"lr": 0.2, "weight_decay": 0.01}, False),
    "barlow_unfiltered": ({"lr": 0.2, "weight_decay": 0.01}, True),
    # facebookresearch/moco-v3 LARS
    "mocov3": ({"lr": 0.3, "weight_decay": 0.01}, False),
    # vturrisi/solo-learn LARS
    "solo_exclude_clip": (
        {"lr": 0.3, "weight_decay": 0.01, "trust": 0.02, "form": "sum_of_norms", "clip": True},
        False,
    ),
    "solo_no_clip_nesterov": (
        {"lr": 0.3, "weight_decay": 0.01, "trust": 0.02, "form": "sum_of_norms", "nesterov": True},
        True,
    ),
}


def run_lars(case: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    g = golden(f"lars/{case}")
    options, adapt_bias = LARS_CASES[case]
    weight = nn.Parameter(torch.tensor(g["in_W"], dtype=dtype))
    bias = nn.Parameter(torch.tensor(g["in_b"], dtype=dtype))
    bias_group = {"params": [bias], "adapt": adapt_bias}
    if not adapt_bias:
        bias_group["weight_decay"] = 0.0
    optimizer = LARS([{"params": [weight]}, bias_group], **options)
    got, want = [], []
    for step in range(3):
        weight.grad = torch.tensor(g[f"in_gW{step}"], dtype=dtype)
        bias.grad = torch.tensor(g[f"in_gb{step}"], dtype=dtype)
        optimizer.step()
        got += [weight.detach().clone(), bias.detach().clone()]
        want += [torch.tensor(g[f"out_{name}{step}"]) for name in "Wb"]
    return got, want


@pytest.mark.parametrize("case", LARS_CASES)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
@pytest.mark.parametrize("way", ["loops", "kernel", "neither"])
def test_lars_equals_released_codes(case, dtype, rtol, way, monkeypatch):
    """All ways through: compiled, scaled in torch's kernel, scaled before it, and without it."""
    if way == "loops":
        loops = pytest.importorskip("ssl_core.engine.lars_loops")
        updates = mock.Mock(wraps=loops.sgd_)
        monkeypatch.setattr(loops, "sgd_", updates)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1 if way == "loops" else 2)
    if way == "neither":
        monkeypatch.setattr(lars_module, "_FUSED_DEVICES", ())
    for got, want in zip(*run_lars(case, dtype), strict=True):
        assert (got.double() - want).abs().max() <= rtol * want.abs().max()
    if way == "loops":
        assert updates.called == (dtype == torch.float32)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_compiled_lars_equals_torchs_kernel(momentum, nesterov, monkeypatch):
    """Any shape and order in memory, many sums of squares long, and a step that is skipped."""
    loops = pytest.importorskip("ssl_core.engine.lars_loops")
    updates = mock.Mock(wraps=loops.sgd_)
    monkeypatch.setattr(loops, "sgd_", updates)
    shapes = [(40_000,), (24, 16, 3, 3), (24, 16, 1, 1), (3, 2, 2, 2, 2)]
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    start[1] = start[1].contiguous(memory_format=torch.channels_last)
    start.append(start[1].transpose(0, 1))  # no order that loops know
    grads = [[torch.randn_like(p) for p in start] for _ in range(3)]
    grads[1][0][7] = torch.nan

    def run(threads: int) -> list[Tensor]:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        params = [nn.Parameter(p.clone()) for p in start]
        settings = {"momentum": momentum, "nesterov": nesterov and momentum > 0}
        optimizer = LARS(params, lr=0.3, weight_decay=0.1, **settings)
        for step in grads:
            for p, g in zip(params, step, strict=True):
                p.grad = g.clone()
            optimizer.found_inf = torch.tensor(float(step is grads[1]))
            optimizer.step()
        return [p.detach() for p in params]

    compiled = run(1)
    assert updates.call_count == 2 * len(shapes)  # the steps not skipped
    for got, want in zip(compiled, run(2), strict=True):
        torch.testing.assert_close(got, want, rtol=2e-6, atol=2e-6)


def test_lars_takes_ratio_one_where_a_norm_is_zero():
    for dtype in (torch.float32, torch.float64):  # and no momentum, hence no buffers
        p = nn.Parameter(torch.zeros(3, 3, dtype=dtype))
        optimizer = LARS([p], lr=0.5, momentum=0.0, weight_decay=0.1)
        p.grad = torch.ones_like(p)
        optimizer.step()
        torch.testing.assert_close(p.detach(), torch.full((3, 3), -0.5, dtype=dtype))
        p.grad = torch.zeros_like(p)
        LARS([p], lr=0.5, momentum=0.0).step()
        torch.testing.assert_close(p.detach(), torch.full((3, 3), -0.5, dtype=dtype))


def test_lars_runs_a_closure():
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([p], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert (p < 1).all()


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_skipped_step_changes_nothing(name, dtype):
    """Also when it is the very first one, and the steps after it are as if it never was."""
    config = recipe.Optimizer(name=name, lr=0.1)
    start = nn.Linear(3, 3).to(dtype)
    grads = [
        [torch.full_like(p, value) for p in start.parameters()]
        for value in (torch.nan, 0.3, torch.inf, -0.2)
    ]

    def run(skipped: bool) -> tuple[list[Tensor], list[Tensor]]:
        module = copy.deepcopy(start)
        optimizer = build_optimizer(module, config)
        for step_grads in grads:
            finite = bool(torch.isfinite(step_grads[0]).all())
            if not finite and not skipped:
                continue
            for p, g in zip(module.parameters(), step_grads, strict=True):
                p.grad = g.clone()
            optimizer.found_inf = torch.tensor(0.0 if finite else 1.0)
            optimizer.grad_scale = None
            optimizer.step()
        moments = [
            torch.as_tensor(value)
            for p in module.parameters()
            for _, value in sorted(optimizer.state[p].items())
        ]
        return [p.detach() for p in module.parameters()], moments

    for got, want in zip(run(True), run(False), strict=True):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)


def test_lars_without_a_kernel_skips_too(monkeypatch):
    monkeypatch.setattr(lars_module, "_FUSED_DEVICES", ())
    p = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    optimizer = LARS([p], lr=0.1)
    p.grad = torch.full_like(p, torch.nan)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert (p == 1).all()
    assert (optimizer.state[p]["momentum_buffer"] == 0).all()


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_optimisers_equal_the_plain_ones(name):
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).double()
    twin = copy.deepcopy(module)
    config = recipe.Optimizer(name=name, lr=0.05, weight_decay=0.1, betas=(0.8, 0.9))
    optimizer = build_optimizer(module, config)
    weights = [p for p in twin.parameters() if p.ndim > 1]
    biases = [p for p in twin.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    if name == "adamw":
        plain = torch.optim.AdamW(groups, lr=0.05, betas=(0.8, 0.9), foreach=False)
    elif name == "sgd":
        plain = torch.optim.SGD(groups, lr=0.05, momentum=0.9, foreach=False)
    else:
        groups[1]["adapt"] = False
        plain = LARS(groups, lr=0.05)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(3):
        for net, opt in ((module, optimizer), (twin, plain)):
            opt.zero_grad()
            net(x).square().sum().backward()
            opt.step()
    for a, b in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_rates_are_a_pure_function_of_the_step():
    config = recipe.Optimizer(
        lr=0.2, warmup=0.2, end_lr=0.01, weight_decay=0.04, weight_decay_end=0.4, layer_decay=0.5
    )
    optimizer = build_optimizer(TinyMethod(), config)
    rate = warmup_cosine(0.2, warmup=4, end=0.01)
    decay = cosine(0.04, 0.4)
    for step in (13, 0, 3, 4, 19):
        set_schedule(optimizer, config, step, 20)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(rate(step, 20) * group["lr_scale"], rel=1e-12)
            want = decay(step, 20) if group["decayed"] else 0.0
            assert group["weight_decay"] == pytest.approx(want, rel=1e-12)


def test_constant_weight_decay():
    config = recipe.Optimizer(weight_decay=0.3, warmup=0.0)
    optimizer = build_optimizer(TinyMethod(), config)
    set_schedule(optimizer, config, 7, 10)
    assert sorted({group["weight_decay"] for group in optimizer.param_groups}) == [0.0, 0.3]
