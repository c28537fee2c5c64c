"""Objectives under autocast, under torch.compile, and what importing one costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssl_core.networks.masks import Mask
from ssl_core.objectives import (
    Scores,
    barlow_twins,
    bce,
    byol,
    clip,
    dino,
    ibot_patches,
    info_nce,
    koleo,
    lejepa,
    masked_l1,
    masked_pixels,
    masked_token_cross_entropy,
    moco,
    mse,
    msn,
    negative_cosine,
    nt_xent,
    pretext_cross_entropy,
    ressl,
    scaled_cosine,
    seed,
    siglip,
    sinkhorn,
    smooth_l1,
    soft_cross_entropy,
    spectrum_flatness,
    sup_con,
    swav,
    tico,
    triplet,
    vicreg,
    vicregl,
    w_mse,
)
from ssl_core.objectives.precision import power_

MASK = Mask(torch.tensor([[True, False, True, True]] * 6), "replace")
IDS = torch.arange(24).reshape(6, 4) % 5

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nt_xent": lambda a, b: nt_xent(a[:, 0], b[:, 0]),
    "nt_xent decoupled": lambda a, b: nt_xent(a[:, 0], b[:, 0], decoupled=True, weight_sigma=0.5),
    "info_nce": lambda a, b: info_nce(a[:, 0], b[:, 0]),
    "barlow_twins": lambda a, b: barlow_twins(a[:, 0], b[:, 0]),
    "vicreg": lambda a, b: vicreg(a[:, 0], b[:, 0]),
    "byol": lambda a, b: byol(a[:, 0], a[:, 1], b[:, 0], b[:, 1]),
    "negative_cosine": negative_cosine,
    "mse": mse,
    "smooth_l1": smooth_l1,
    "scaled_cosine": lambda a, b: scaled_cosine(a, b, weight=MASK.hidden),
    "soft_cross_entropy": lambda a, b: soft_cross_entropy(a, b.softmax(-1)),
    "dino": lambda a, b: dino(list(a.unbind(1)), list(b.unbind(1))[:2]),
    "dino, products inside": lambda a, b: dino(
        [Scores(s, b[:, 2]) for s in a.unbind(1)], [Scores(t, b[:, 2]) for t in b.unbind(1)[:2]]
    ),
    "swav": lambda a, b: swav(list(a.unbind(1)), [sinkhorn(t) for t in b.unbind(1)[:2]]),
    "ibot_patches": lambda a, b: ibot_patches(a[MASK.hidden], b[MASK.hidden], MASK.hidden),
    "msn": lambda a, b: msn([a[:, 0], a[:, 1]], b[:, 0], b[:, 1]),
    "ressl": lambda a, b: ressl(a[:, 0], b[:, 0], b[:, 1]),
    "seed": lambda a, b: seed(a[:, 0], b[:, 0], b[:, 1]),
    "moco": lambda a, b: moco(a[:, 0], b[:, 0], b[:, 1], hard=b),
    "sup_con": lambda a, b: sup_con(a[:, 0], b[:, 0], labels=IDS[:, 0] % 3),
    "clip": lambda a, b: clip(a[:, 0], b[:, 0], b[0, 0, 0]),
    "siglip": lambda a, b: siglip(a[:, 0], b[:, 0], b[0, 0, 0], b[0, 0, 1]),
    "triplet": lambda a, b: triplet(a[:, 0], b[:, 0]),
    "w_mse": lambda a, b: w_mse(a[:, 0, :2], b[:, 0, :2]),
    "tico": lambda a, b: tico(a[:, 0], b[:, 0], torch.eye(5)),
    "lejepa": lambda a, b: lejepa([a[:, 0], a[:, 1]], b[0, 0].unsqueeze(1)),
    "koleo": lambda a, b: koleo(a[:, 0]),
    "spectrum_flatness": lambda a, b: spectrum_flatness(a[:, 0]),
    "vicregl": lambda a, b: vicregl(
        [a[:, 0], b[:, 0]], [a, b], [b.detach()[..., :2]] * 2, matches=(3, 2)
    ),
    "bce": lambda a, b: bce(a, b),
    "pretext_cross_entropy": lambda a, b: pretext_cross_entropy(a, IDS),
    "masked_pixels": lambda a, b: masked_pixels(a, b, MASK),
    "masked_l1": lambda a, b: masked_l1(a, b, MASK),
    "masked_token_cross_entropy": lambda a, b: masked_token_cross_entropy(a, IDS, MASK),
}


def pair(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 4, 5, generator=generator).to(torch.bfloat16).to(dtype)
    return a.requires_grad_(), b


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_inputs_are_computed_in_float32(name):
    """Inputs that bfloat16 holds exactly give the float32 value, autocast or not."""
    wide, narrow = pair(torch.float32), pair(torch.bfloat16)
    want = LOSSES[name](*wide)
    with torch.autocast("cpu", torch.bfloat16):
        got = LOSSES[name](*narrow)
        from_wide = LOSSES[name](*pair(torch.float32))
    assert got.dtype == torch.float32
    # Targets made by the test itself are rounded under autocast; everything inside is not.
    tolerance = 5e-2 if name == "soft_cross_entropy" else 1e-6
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(from_wide, want, rtol=tolerance, atol=tolerance)
    (grad,) = torch.autograd.grad(got, narrow[0])
    assert grad.dtype == torch.bfloat16
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_float64_stays_float64(name):
    assert LOSSES[name](*pair(torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_powers_are_never_subnormal(dtype):
    tiny, floor = torch.finfo(dtype).tiny, 88 if dtype is torch.float32 else 715
    x = torch.linspace(-1100, 0, 12001, dtype=dtype)
    got = power_(x.clone())
    above = x > -floor
    torch.testing.assert_close(got[above], x[above].exp2(), rtol=torch.finfo(dtype).eps, atol=0)
    assert (got[~above] == 2.0**-floor).all()
    assert 2.0**-floor / 2**20 > tiny  # weights of a loss leave it a normal number


def test_logits_far_apart_leave_no_subnormal_gradient():
    """Some processors take ten times as long for a loss whose numbers are subnormal."""
    student, teacher = torch.randn(2, 2, 8, 512, generator=torch.Generator().manual_seed(0))
    grads = []
    for dtype in (torch.float32, torch.float64):
        views = student.to(dtype).requires_grad_()
        loss = dino([*views], [*teacher.to(dtype)], student_temperature=0.04)
        grads.append(torch.autograd.grad(loss, views)[0])
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=1e-3, atol=1e-6)
    smallest = grads[0][grads[0] != 0].abs().min()
    assert smallest >= torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("name", LOSSES)
def test_no_global_random_state_is_used(name):
    before = torch.get_rng_state()
    a, b = pair(torch.float32)
    LOSSES[name](a, b).backward()
    sinkhorn(b[:, 0])
    assert torch.equal(torch.get_rng_state(), before)


# How many tokens are hidden is known only at run time: `ibot_patches` splits the graph.
@pytest.mark.slow  # importing the compiler alone takes as long as all other tests here
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ibot_patches"])
def test_compiles_without_a_graph_break(name):
    eager, traced = pair(torch.float32), pair(torch.float32)
    want = LOSSES[name](*eager)
    torch._dynamo.reset()
    got = torch.compile(LOSSES[name], backend="aot_eager", fullgraph=True)(*traced)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, traced[0]), torch.autograd.grad(want, eager[0])
    )


def test_importing_objectives_pulls_in_only_torch():
    """Nothing heavy on top of torch, and no other room of the package than it needs."""
    program = (
        "import sys\n"
        "from ssl_core.objectives import nt_xent\n"
        "rooms = {m.split('.')[1] for m in sys.modules if m.startswith('ssl_core.')}\n"
        "heavy = {'sklearn', 'transformers', 'torchvision', 'timm', 'pydantic', 'numba'}\n"
        "print(sorted(rooms), sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['compiling', 'distributed', 'objectives', 'rng', 'surface'] []"
