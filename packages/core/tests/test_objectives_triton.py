"""The Triton kernels give the tiles' sums and gradients: interpreted on a CPU, run on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ssl_core.objectives import nt_xent
from ssl_core.objectives.tiles import self_partition

pytest.importorskip("triton")

# Triton decides while it is imported whether kernels are interpreted: a process of its own.
VISITS = """
import torch
from ssl_core.objectives import triton_partition
for count, total, dim, first, group in [
    (70, 70, 20, 0, 1), (12, 40, 5, 12, 3), (1, 2, 1, 1, 1), (33, 66, 128, 33, 2)
]:
    generator = torch.Generator().manual_seed(count)
    y = 0.2 * torch.randn(total, dim, generator=generator)
    z = y[first : first + count].contiguous()
    share, shares = (torch.rand(n, generator=generator) for n in (count, total))
    p = (z.double() @ y.double().T - 9).exp()
    own = (torch.arange(count) + first) // group
    p[own[:, None] == torch.arange(total) // group] = 0
    visits = triton_partition.Visits(z, y, first, group, 9.0)
    mass, grad = visits.masses(), visits.gradient(share, shares)
    torch.testing.assert_close(mass.double(), p.sum(1), rtol=1e-5, atol=0)
    want = (p * (share[:, None] + shares)).double() @ y.double()
    torch.testing.assert_close(grad.double(), want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
"""
LOSSES = """
import sys, torch
from ssl_core.objectives import nt_xent, triton_partition
launched = []
launch = triton_partition.Visits._launch
triton_partition.Visits._launch = lambda *a: (launched.append(a[1]), launch(*a))
def check(views, dim, kernels, **options):
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(21, dim, generator=generator, requires_grad=True) for _ in range(views)]
    exact = [x.detach().double().requires_grad_() for x in z]
    loss, want = nt_xent(*z, **options), nt_xent(*exact, **options)
    assert len(launched) == kernels, (launched, options)
    launched.clear()
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=0)
    for g, w in zip(torch.autograd.grad(loss, z), torch.autograd.grad(want, exact)):
        torch.testing.assert_close(g.double(), w, rtol=1e-4, atol=1e-6)
check(2, 24, 2)
check(2, 24, 2, decoupled=True, temperature=0.2)
check(3, 24, 2, temperature=0.5)
check(2, 130, 0)  # too wide: by tiles
with torch.no_grad():
    nt_xent(torch.ones(4, 8), torch.ones(4, 8))
assert len(launched) == 1  # no gradient, no second visit
"""


@pytest.mark.parametrize("script", [VISITS, LOSSES], ids=["visits", "losses"])
def test_interpreted_kernels_equal_float64(script):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "SSL_TRITON": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_kernels_are_not_even_imported_unless_asked_for(monkeypatch):
    monkeypatch.delenv("SSL_TRITON", raising=False)
    monkeypatch.setitem(sys.modules, "ssl_core.objectives.triton_partition", None)
    nt_xent(torch.ones(4, 8), torch.ones(4, 8))


def test_rows_of_a_cpu_stay_with_tiles(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    z = torch.nn.functional.normalize(torch.arange(12.0).view(6, 2).sin(), dim=1)
    want = self_partition(z, weights=torch.ones(6), largest=1.0)
    monkeypatch.setenv("SSL_TRITON", "1")
    assert torch.equal(self_partition(z, weights=torch.ones(6), largest=1.0), want)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("decoupled", [False, True])
def test_kernels_on_a_gpu_equal_the_tiles(decoupled, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(300, 128, generator=generator).cuda().requires_grad_() for _ in range(2)]
    found = []
    for asked in ("0", "1"):
        monkeypatch.setenv("SSL_TRITON", asked)
        loss = nt_xent(*z, decoupled=decoupled)
        found.append([loss, *torch.autograd.grad(loss, z)])
    for tiles, kernels in zip(*found, strict=True):
        torch.testing.assert_close(kernels, tiles, rtol=1e-4, atol=1e-6)
