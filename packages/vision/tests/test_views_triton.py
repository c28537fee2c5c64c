"""The Triton kernels make the views of torch's calls: interpreted on a CPU, run on a GPU."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import ColourJitter, Grey, Normalise, Solarise
from ssl_core.ops.fused import fused
from ssl_core.ops.geometry import RandomResizedCrop
from ssl_core.ops.pipeline import Augmentation
from ssl_core.rng import Rng

pytest.importorskip("triton")

# Triton decides while it is imported whether kernels are interpreted: a process of its own.
START = """
import os, torch
from ssl_core.batch import Batch
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import ColourJitter, Grey, Normalise, Solarise
from ssl_core.ops.fused import fused
from ssl_core.ops.geometry import RandomResizedCrop
from ssl_core.ops.pipeline import Augmentation
from ssl_core.ops.pixels import crop_resize
from ssl_core.rng import Rng
def asked(yes):
    os.environ["SSL_TRITON"] = "1" if yes else "0"
    named = fused(torch.device("cpu"))
    assert (named is not None) == yes, named
def stored(dtype, count, channels, height, width):
    pixels = torch.rand(count, height, width, channels, generator=torch.Generator().manual_seed(3))
    pixels[0] = pixels[0].mul(4).round().div(4)  # ties of channels, greys
    if dtype != torch.float32:
        pixels = (pixels * torch.iinfo(dtype).max).round().to(dtype)
    return pixels.permute(0, 3, 1, 2)
"""
CROPS = """
boxes = torch.tensor([[0, 0, 17, 13], [3, 5, 11, 2], [16, 12, 1, 1], [1, 2, 5, 4]])
flip = torch.tensor([False, True, True, False])
for interpolation, dtype, high in (
    ("bilinear", torch.uint8, 255.0), ("bicubic", torch.uint8, 255.0),
    ("bilinear", torch.uint16, 65535.0), ("bicubic", torch.float32, 1.0),
):
    data = stored(dtype, 4, 2 if dtype == torch.uint8 else 1, 17, 13)
    ragged = [image[:, : 17 - n] for n, image in enumerate(data[:2])]
    for images, rows in ((data, [0, 1, 2, 3]), (data, [3, 1]), (ragged, [1, 3])):
        made = []
        for yes in (True, False):
            asked(yes)
            made.append(crop_resize(images, boxes, (5, 4), value_range=(0.0, high),
                                    interpolation=interpolation, flip=flip, rows=rows))
        if dtype == torch.uint8:
            assert torch.equal(*made)
        torch.testing.assert_close(*made, rtol=0, atol=2e-6)
"""
CHAINS = """
count = 4
for name, channels, options in (
    ("all", 3, dict(grey=Grey(0.5), blur=GaussianBlur(0.5, kernel=5), solarise=Solarise(0.5))),
    ("wide blur", 3, dict(jitter=ColourJitter(p=0.0), blur=GaussianBlur(0.5, sigma=(1.0, 9.0)))),
    ("no contrast", 3, dict(jitter=ColourJitter(0.4, 0.0, 0.4, 0.1, p=1.0))),
    ("grey images", 1, dict(blur=GaussianBlur(0.5))),
):
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.25, 0.3, 0.2)[:channels]
    given = dict(jitter=ColourJitter(0.8, 0.8, 0.8, 0.2, p=0.8)) | options
    view = Augmentation(5, Normalise(mean, std), crop=RandomResizedCrop((0.2, 1.0)), **given)
    ids = torch.arange(count)
    data = stored(torch.uint8, count, channels, 9, 8)
    keys = Rng.cat([Rng.at(0, 5, ids), Rng.at(0, 6, ids)])
    params = view.sample(keys, torch.tensor([[9, 8]] * 8))
    made = []
    for yes in (True, False):
        asked(yes)
        pixels = view.apply(data, params)
        some = torch.linspace(0, 1, 2 * channels * 25).view(2, channels, 5, 5)
        made.append([pixels, view.colouring(params)(some, [7, 2])])  # as frames are coloured
    for found, want in zip(*made):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-4, msg=lambda m: f"{name}: {m}")
"""


@pytest.mark.parametrize("program", [CROPS, CHAINS], ids=["crops", "chains"])
def test_interpreted_kernels_make_the_same_views(program: str) -> None:
    variables = {"TRITON_INTERPRET": "1", "SSL_COMPILED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", START + program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


FINISH = "solarise:*u8 threshold:fp32 mean_0:fp32 mean_1:fp32 mean_2:fp32 "
FINISH += "std_0:fp32 std_1:fp32 std_2:fp32"
COLOUR = "x:*fp32 steps:*i64 factors:*fp32 means:*fp32 pixels:i32"
BLUR = "x:*fp32 out:*fp32 sigma:*fp32 most:i32 height:i32 width:i32"
TAPS = "{0}_first:*i64 {0}_taken:*i64 {0}_bits:*i64 {0}_most:i32 {0}_weights:"
BOXES = "out:*fp32 shown:*i64 boxes:*i64 flip:*u8 low:fp32 factor:fp32 image_stride:i32 "
BOXES += "channel_stride:i32 row_stride:i32 column_stride:i32 tall:i32 wide:i32 channels:i32 "
BOXES += "height:i32 width:i32"
PIXELS = {"PIXELS": 1024}


def taps(kind: str) -> str:
    return " ".join(TAPS.format(axis) + kind for axis in ("down", "across"))


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted")
@pytest.mark.parametrize(
    ("room", "kernel", "types", "sizes"),
    [
        ("resize", "_box_rows", f"images:*u8 {BOXES} {taps('*i32')}", {"WHOLE": True, "BLOCK": 64}),
        (
            "resize",
            "_box_rows",
            f"images:*u16 {BOXES} {taps('*fp32')}",
            {"WHOLE": False, "BLOCK": 64},
        ),
        ("colour", "_means", COLOUR, PIXELS),
        ("colour", "_colour", f"{COLOUR} grey:*u8 sigma:*fp32 blocks:i32 {FINISH}", PIXELS),
        ("colour", "_blur_columns", BLUR, {"BLOCK": 256}),
        ("colour", "_blur_rows", f"{BLUR} {FINISH}", {"BLOCK": 256}),
    ],
)
def test_kernels_compile_without_a_gpu(room, kernel, types, sizes) -> None:
    backend = pytest.importorskip("triton.backends.compiler")
    compiler = importlib.import_module("triton.compiler")
    made = getattr(importlib.import_module(f"ssl_core.ops.kernels.{room}"), kernel)
    known = dict(entry.split(":") for entry in types.split())
    names = made.arg_names
    assert {*known, *sizes} == {*names}
    source = compiler.ASTSource(
        fn=made,
        signature={name: known.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): size for name, size in sizes.items()},
    )
    found = compiler.compile(source, target=backend.GPUTarget("cuda", 80, 32))
    assert found.metadata.shared <= 1024


def test_kernels_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("SSL_COMPILED", "0")
    cuda = torch.device("cuda")
    assert fused(cuda) is None
    monkeypatch.setenv("SSL_TRITON", "1")
    assert fused(torch.device("cpu")) is None
    assert fused(cuda).__name__ == "ssl_core.ops.kernels"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_kernels_on_a_gpu_make_the_same_views(interpolation, monkeypatch) -> None:
    view = Augmentation(
        64,
        Normalise((0.4, 0.5, 0.6), (0.25, 0.3, 0.2)),
        crop=RandomResizedCrop((0.1, 1.0)),
        jitter=ColourJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        grey=Grey(0.2),
        blur=GaussianBlur(0.5),
        solarise=Solarise(0.2),
        interpolation=interpolation,
    )
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (50, 3, 97, 83), generator=generator, dtype=torch.uint8)
    ids, made = torch.arange(50), []
    for device, asked in (("cpu", "0"), ("cuda", "1")):
        monkeypatch.setenv("SSL_TRITON", asked)
        batch = Batch(data.to(device), ids.to(device), ids.to(device))
        made.append(view(batch, Rng.at(0, 5, batch.ids)).data.cpu())
    torch.testing.assert_close(*made, rtol=0, atol=1e-4)
