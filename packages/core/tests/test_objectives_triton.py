"""The Triton kernels give the tiles' sums and gradients: interpreted on a CPU, run on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from ssl_core.objectives import info_nce, nt_xent

pytest.importorskip("triton")

# Triton decides while it is imported whether kernels are interpreted: a process of its own.
VISITS = """
import torch
from ssl_core.objectives import triton_partition
for count, total, dim, first, group, size in [
    (70, 70, 20, 0, 1, 0.2), (12, 40, 5, 12, 3, 0.2), (1, 2, 1, 1, 1, 0.2),
    (33, 66, 128, 33, 2, 0.2), (40, 70, 20, 30, 0, 0.2), (70, 70, 20, 0, 1, 5.0),
]:
    generator = torch.Generator().manual_seed(count)
    y = size * torch.randn(total, dim, generator=generator)
    z = y[first : first + count].contiguous()
    w, ws, ls = (torch.rand(n, generator=generator) for n in (count, total, total))
    s = z.double() @ y.double().T
    if group:
        own = (torch.arange(count) + first) // group
        s[own[:, None] == torch.arange(total) // group] = -torch.inf
    visits = triton_partition.Visits(z, y, group, gather=False)
    visits.first = first  # as if these were one replica's rows
    logs = visits.logs()
    want = s.logsumexp(1)
    torch.testing.assert_close(logs.double() * 0.6931471805599453, want, rtol=1e-5, atol=1e-5)
    ls += logs.max()
    grad = visits.gradient(w, logs, ws, ls)
    e = s * 1.4426950408889634
    g = w[:, None] * (e - logs.double()[:, None]).exp2() + ws * (e - ls.double()).exp2()
    want = g @ y.double()
    # A similarity of hundreds is itself rounded by 2^-24 of it, which is what its exponential errs.
    near = 1e-5 if size < 1 else 1e-4
    atol = near * float(want.abs().max())
    torch.testing.assert_close(grad.double(), want, rtol=near, atol=atol)
"""
LOSSES = """
import torch
from ssl_core.objectives import clip, info_nce, nt_xent, triton_partition
launched = []
launch = triton_partition.Visits._launch
triton_partition.Visits._launch = lambda *a: (launched.append(a[1]), launch(*a))
def check(loss, inputs, kernels, dim=24, count=21, rtol=1e-4, **options):
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(count, dim, generator=generator, requires_grad=True) for _ in range(inputs)]
    exact = [x.detach().double().requires_grad_() for x in z]
    found, want = loss(*z, **options), loss(*exact, **options)
    assert len(launched) == kernels, (launched, options)
    launched.clear()
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=0)
    for g, w in zip(torch.autograd.grad(found, z), torch.autograd.grad(want, exact)):
        torch.testing.assert_close(g.double(), w, rtol=rtol, atol=1e-6 if rtol < 1e-3 else 1e-4)
check(nt_xent, 2, 2)
check(nt_xent, 2, 2, decoupled=True, temperature=0.2)
check(nt_xent, 3, 2, temperature=0.5)
# Tiles cannot: exp(-400). Logits of 200 are rounded, and the gradient is 200 times as large.
check(nt_xent, 2, 2, temperature=0.005, rtol=1e-3)
check(nt_xent, 2, 0, dim=130)  # too wide: by tiles
check(info_nce, 2, 4, symmetric=True)
check(info_nce, 2, 4, symmetric=True, decoupled=True, temperature=0.3, weights=torch.rand(21))
check(info_nce, 2, 0, symmetric=False)  # one direction: by rows
scale = torch.tensor(2.6, requires_grad=True)
check(lambda a, b: clip(a, b, scale.to(a.dtype)), 2, 4)
check(lambda a, b: clip(a, b, scale.to(a.dtype) + 2.0), 2, 4, rtol=1e-3)  # at its largest, 100
with torch.no_grad():
    nt_xent(torch.ones(4, 8), torch.ones(4, 8))
assert len(launched) == 1  # no gradient, no second visit
launched.clear()
a, b = (torch.randn(9, 8) for _ in range(2))
slopes = []
for rows in (a, a.double()):
    learned = torch.tensor(2.0, dtype=rows.dtype, requires_grad=True)
    clip(rows, b.to(rows.dtype), learned).backward()
    slopes.append(learned.grad.double())
assert len(launched) == 4
torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)
"""
REPLICAS = """
import sys, torch, torch.distributed as dist
from ssl_core.objectives import info_nce, nt_xent
rank, folder = int(sys.argv[1]), sys.argv[2]
z = [torch.randn(20, 24, generator=torch.Generator().manual_seed(i)) for i in range(2)]
losses = [nt_xent, lambda a, b: info_nce(a, b, symmetric=True, temperature=0.2)]
whole = []
for loss in losses:
    exact = [x.double().requires_grad_() for x in z]
    whole.append((loss(*exact), exact))
wanted = [torch.autograd.grad(value, exact) for value, exact in whole]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
rows = slice(10 * rank, 10 * rank + 10)
for loss, (value, _), want in zip(losses, whole, wanted):
    own = [x[rows].clone().requires_grad_() for x in z]
    mine = loss(*own)
    grads = torch.autograd.grad(mine, own)
    total = mine.detach().clone()
    dist.all_reduce(total)
    torch.testing.assert_close(total.double() / 2, value.detach(), rtol=1e-5, atol=0)
    for g, w in zip(grads, want):
        torch.testing.assert_close(g.double() / 2, w[rows], rtol=1e-4, atol=1e-6)
dist.destroy_process_group()
"""
INTERPRETED = {**os.environ, "TRITON_INTERPRET": "1", "SSL_TRITON": "1"}


@pytest.mark.parametrize("script", [VISITS, LOSSES], ids=["visits", "losses"])
def test_interpreted_kernels_equal_float64(script):
    done = subprocess.run(
        [sys.executable, "-c", script], env=INTERPRETED, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_replicas_together_give_the_whole_batch(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", REPLICAS, str(rank), str(tmp_path)],
            env=INTERPRETED,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [each.communicate(timeout=300)[1] for each in ranks]
    assert [each.returncode for each in ranks] == [0, 0], errors


def test_kernels_are_not_even_imported_unless_asked_for(monkeypatch):
    monkeypatch.delenv("SSL_TRITON", raising=False)
    monkeypatch.setitem(sys.modules, "ssl_core.objectives.triton_partition", None)
    nt_xent(torch.ones(4, 8), torch.ones(4, 8))


def test_rows_of_a_cpu_stay_with_tiles(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    z = [torch.arange(12.0).view(6, 2).sin(), torch.arange(12.0).view(6, 2).cos()]
    want = nt_xent(*z)
    monkeypatch.setenv("SSL_TRITON", "1")
    assert torch.equal(nt_xent(*z), want)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", [nt_xent, partial(info_nce, symmetric=True)])
@pytest.mark.parametrize("decoupled", [False, True])
def test_kernels_on_a_gpu_equal_the_tiles(loss, decoupled, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(300, 128, generator=generator).cuda().requires_grad_() for _ in range(2)]
    found = []
    for asked in ("0", "1"):
        monkeypatch.setenv("SSL_TRITON", asked)
        value = loss(*z, decoupled=decoupled)
        found.append([value, *torch.autograd.grad(value, z)])
    for tiles, kernels in zip(*found, strict=True):
        torch.testing.assert_close(kernels, tiles, rtol=1e-4, atol=1e-6)
