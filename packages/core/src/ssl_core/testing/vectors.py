"""The smallest domain: labelled vectors in memory. Engine tests run on it, and it shows all that
a domain has to bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core.batch import Batch, Reader, Record, Source
from ssl_core.domain import Domain
from ssl_core.encoder import Features
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import read_json, write_json
from ssl_core.methods import pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_core.rng import Rng, generator
from ssl_core.views import View


class VectorSource:
    """Vectors `[N, D]` from `vectors.npy`, labels `[N]` from `labels.npy`."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "vectors.npy").is_file():
            raise UserError(f"data: {folder} holds no vectors.npy")
        self.vectors = np.load(folder / "vectors.npy")
        self.labels = np.load(folder / "labels.npy")

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> Record:
        return Record(f"row-{index:05d}", self.vectors[index], int(self.labels[index]))

    @property
    def classes(self) -> Sequence[str]:
        return [str(label) for label in range(int(self.labels.max()) + 1)]

    def fingerprint(self) -> str:
        return f"{self.vectors.shape}-{float(self.vectors.sum()):.6f}"


class VectorReader:
    """A vector with a NaN is corrupt; the rest become float32 `[D]`."""

    def __init__(self, dim: int) -> None:
        self.spec: Mapping[str, Any] = {"dim": dim}

    def decode(self, record: Record) -> Tensor:
        vector = torch.from_numpy(np.asarray(record.payload, dtype=np.float32))
        if not torch.isfinite(vector).all():
            raise CorruptSample("not all numbers are finite")
        return vector

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(samples))

    def raw(self, data: Tensor) -> Tensor:
        return data

    def save(self, folder: Path) -> None:
        write_json(folder / "reader.json", dict(self.spec))


class NoisyViews:
    """`count` copies of each vector with keyed noise."""

    def __init__(self, spec: Mapping[str, Any], *, noise: float = 0.5, count: int = 2) -> None:
        self.noise = noise
        self.count = count

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        keys = [rng.fold("view", i) for i in range(self.count)]
        dim = batch.data.shape[1]
        return [View(batch.data + self.noise * k.normal("noise", dim), k) for k in keys]

    def plain(self, batch: Batch) -> Tensor:
        data: Tensor = batch.data
        return data


class MLPEncoder(nn.Module):
    """Two layers with batch norm; `[B, dim] -> [B, width]`."""

    def __init__(self, spec: Mapping[str, Any], *, width: int = 16, norm: bool = True) -> None:
        super().__init__()
        self.embed_dim = width
        layer = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.net = nn.Sequential(
            nn.Linear(spec["dim"], width), layer, nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, data: Tensor) -> Features:
        return Features(self.net(data))


class VectorDomain(Domain):
    """Gaussian clusters whose class lies in a few of many noisy dimensions."""

    name = "vectors"
    package = "ssl_core.testing"
    sample_kind = "vectors"
    views = Registry("views", {"noise": "ssl_core.testing.vectors:NoisyViews"})
    encoders = Registry("encoder", {"mlp": "ssl_core.testing.vectors:MLPEncoder"})
    methods = Registry("method", pick("simclr", "byol", "dino", "barlow_twins", "vicreg"))
    default_count = 400

    def open(self, data: Data) -> Source:
        assert data.path is not None, "the caller fills in embedded data"
        return VectorSource(Path(data.path))

    def fit_reader(self, source: Source, data: Data) -> Reader:
        return VectorReader(len(source[0].payload))

    def load_reader(self, folder: Path) -> Reader:
        return VectorReader(read_json(folder / "reader.json")["dim"])

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        random = generator("vectors", seed)
        centres = random.normal(size=(5, 4)) * 2
        labels = np.arange(count) % 5
        vectors = random.normal(size=(count, 24)).astype(np.float32)
        vectors[:, :4] += centres[labels]
        np.save(folder / "vectors.npy", vectors)
        np.save(folder / "labels.npy", labels)


VECTORS = VectorDomain()
