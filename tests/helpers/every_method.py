"""Every core method on tiny random images in float64: what tests of replicas and resuming train."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.data import Stream
from ssl_core.encoder import Features
from ssl_core.engine.fit import fit
from ssl_core.methods import METHODS
from ssl_core.methods.base import Method
from ssl_core.networks.text_tower import TextTower
from ssl_core.networks.vit import PatchTransformer
from ssl_core.registry import Registry
from ssl_core.rng import Rng
from ssl_core.views import View

CHANNELS, SIDE, ROWS = 2, 24, 30
STEPS, STOP = 6, 3
TRAIN = recipe.Train(steps=STEPS, batch_size=16, log_every=3, save_every=STOP, seed=1)
SGD = recipe.Optimizer(name="sgd", lr=0.05, weight_decay=1e-4, clip=1.0)


class ConvNet(nn.Module):
    """Two strided convolutions with batch norm; a feature map of 6 x 6."""

    embed_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(CHANNELS, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.GELU())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.GELU())

    def forward(self, x: Tensor) -> Features:
        x = self.two(self.one(x))
        return Features(x.flatten(2).mean(2), x.flatten(2).transpose(1, 2), tuple(x.shape[2:]))


def vit(**options: Any) -> PatchTransformer:
    """A transformer of two blocks with drop-path, so that keyed noise is in the forward."""
    return PatchTransformer(
        channels=CHANNELS,
        sides=(SIDE, SIDE),
        patch=(4, 4),
        dim=8,
        depth=2,
        heads=2,
        drop_path=0.2,
        **options,
    )


def classless() -> PatchTransformer:
    """The same without a class token."""
    return vit(class_token=False, pool="mean")


class Noisy:
    """`whole` noisy views, `local` smaller ones, and `captions` of a few ids."""

    def __init__(self, whole: int = 2, local: int = 0, captions: int = 0) -> None:
        self.whole, self.local, self.captions = whole, local, captions

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        views = []
        for number in range(self.whole + self.local):
            key = rng.fold("view", number)
            noise = key.normal("noise", *batch.data.shape[1:], dtype=torch.float64)
            data = batch.data + 0.3 * noise
            if number >= self.whole:
                data = data[..., 4:20, 4:20]
            box = torch.tensor([0.0, 0.0, SIDE, SIDE]).expand(len(batch), 4)
            params = {"boxes": box, "flip": key.bernoulli("flip", p=0.5)}
            role = "global" if number < self.whole else "local"
            views.append(View(data, key, role=role, params=params))
        for _ in range(self.captions):
            ids = batch.index[:, None] * torch.arange(1, 6) % 9 + 1
            views.append(View(ids, rng.fold("caption"), role="caption"))
        return views

    def plain(self, batch: Batch) -> Tensor:
        data: Tensor = batch.data
        return data


class Images:
    """The local batches of one rank; a signal is sent to this process before step `stop`."""

    def __init__(self, *, rank: int = 0, world: int = 1, stop: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = ROWS, CHANNELS, SIDE, SIDE
        self.data = torch.randn(shape, dtype=torch.float64, generator=generator)
        self.stream = Stream(ROWS, TRAIN.batch_size, seed=TRAIN.seed, rank=rank, world=world)
        self.stop = stop

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            if step == self.stop:
                os.kill(os.getpid(), signal.SIGTERM)
            index, ids = (torch.from_numpy(x) for x in self.stream.rows(step, 0))
            yield Batch(self.data[index], ids, index, label=index % 3)


HEAD = {"hidden": 8, "dim": 6}
PROTOTYPES = {"hidden": 8, "bottleneck": 6, "prototypes": 12}
DECODER = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
D2V = {"decoder_dim": 8, "decoder_depth": 1, "decoder_groups": 4, "masks": 2, "mask_block": 2}
JEPA = {"predictor_dim": 8, "predictor_depth": 1, "predictor_heads": 2}
LOCAL = {"local_hidden": 8, "local_dim": 4, "matches": (4, 2)}
CROPS, ONE = Noisy(2, 1), Noisy(1)

Case = tuple[Any, Noisy, dict[str, Any]]
CASES: dict[str, Case] = {
    **dict.fromkeys(
        ("simclr", "sup_con", "byol", "moco_v3", "tico", "barlow_twins", "vicreg"),
        (ConvNet, Noisy(), HEAD),
    ),
    "moco": (ConvNet, Noisy(), HEAD | {"queue": 20}),
    "nnclr": (ConvNet, Noisy(), HEAD | {"predictor_hidden": 8, "queue": 20}),
    "pirl": (ConvNet, Noisy(), {"bank": ROWS, "dim": 6, "cells": 2, "negatives": 12}),
    "clip": (ConvNet, Noisy(1, captions=1), {"dim": 6}),
    "simsiam": (ConvNet, Noisy(), HEAD | {"predictor_hidden": 4}),
    "ressl": (ConvNet, Noisy(), HEAD | {"queue": 20}),
    "swav": (ConvNet, CROPS, HEAD | {"prototypes": 10, "queue": 6}),
    "vicregl": (ConvNet, CROPS, HEAD | LOCAL),
    "lvm_med": (
        ConvNet,
        Noisy(),
        HEAD
        | {"local_hidden": 8, "local_dim": 4, "group": 8, "near": 3, "matches": 4}
        | {"vicregl": 1.0},
    ),
    "w_mse": (ConvNet, Noisy(), {"hidden": 8, "dim": 3, "size": 8}),
    "lejepa": (ConvNet, CROPS, HEAD | {"directions": 16}),
    "seed": (ConvNet, Noisy(), {"hidden": 8, "queue": 20}),
    "feature_distillation": (ConvNet, Noisy(), {"hidden": 8}),
    "dino": (vit, CROPS, PROTOTYPES),
    "ibot": (vit, CROPS, PROTOTYPES),
    "dinov2": (vit, CROPS, PROTOTYPES),
    "msn": (vit, CROPS, HEAD | {"prototypes": 12}),
    "mae": (vit, ONE, DECODER),
    "simmim": (vit, ONE, {"mask_unit": 1}),
    "data2vec": (vit, ONE, D2V | {"momentum": 0.5, "end_momentum": 0.9}),
    "ijepa": (classless, ONE, JEPA | {"momentum": 0.5}),
    "spark": (ConvNet, ONE, {"decoder_dim": 8}),
    "maskfeat": (vit, ONE, {"mask_block": 2}),
    "beit": (vit, ONE, {"mask_block": 2, "levels": (4, 3)}),
    "mixmim": (classless, ONE, DECODER | {"mask_unit": 1}),
    "rotation": (ConvNet, ONE, {}),
    "jigsaw": (ConvNet, ONE, {"cells": 2, "permutations": 10, "dim": 4, "hidden": 8}),
    "relative_patch": (ConvNet, ONE, {"dim": 4, "hidden": 8}),
    "exemplar": (ConvNet, Noisy(), {"dim": 4}),
    "inpainting": (
        ConvNet,
        ONE,
        {"hole": 16, "overlap": 2, "channels": CHANNELS, "decoder_dim": 8, "adversarial": 0.01},
    ),
}
"""Encoder, views and options of every method of the core."""

_REGISTRY = Registry("method", METHODS)


def build(name: str) -> Method:
    """A fresh method in float64 with a fixed initialisation."""
    torch.manual_seed(3)
    encoder, views, options = CASES[name]
    if name in ("seed", "feature_distillation"):
        options = options | {"teacher": ConvNet()}
    if name == "clip":
        tower = TextTower(vocab_size=12, length=6, pad_id=0, dim=8, depth=1, heads=2)
        options = options | {"tower": tower}
    method: Method = _REGISTRY.build(name, encoder(), views, options=options)
    return method.double()


def train(name: str, out: Path, **images: Any) -> Method:
    """Trains, or continues, `name` in `out`; `images` as `Images` takes them."""
    method = build(name)
    fit(method, Images(**images), train=TRAIN, optimizer=SGD, out=out)
    return method
