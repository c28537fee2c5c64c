"""Readers that decode another part of a record each time: the part is chosen by seed and id."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from readers import DecodingReader
from ssl_core.batch import Batch, Record
from ssl_core.data import ArraySource, Loader, Stream, decode_all
from ssl_core.errors import CorruptSample

MODULE = """
import torch
from ssl_core.errors import CorruptSample


class Parts:
    spec = {}
    draws = True

    def decode(self, record):
        return torch.tensor([record.payload, 0])

    def draw(self, record, key):
        if key % 16 == 0:
            raise CorruptSample("this part is damaged")
        return torch.tensor([record.payload, key % 1000])

    def collate(self, samples):
        return torch.stack(list(samples))
"""


class Parts(DecodingReader):
    """The number itself and the part of it that was asked for; one part in 16 is damaged."""

    draws = True

    def decode(self, record: Record) -> torch.Tensor:
        return torch.tensor([record.payload, 0])

    def draw(self, record: Record, key: int) -> torch.Tensor:
        if key % 16 == 0:
            raise CorruptSample("this part is damaged")
        return torch.tensor([record.payload, key % 1000])

    def collate(self, samples: Any) -> torch.Tensor:
        return torch.stack(list(samples))


def batches(reader: Any, start: int = 0, **options: Any) -> list[Batch]:
    source = ArraySource(np.arange(24))
    with Loader(source, reader, Stream(24, 8, seed=3), max_corrupt=0.9, **options) as loader:
        return list(loader.batches(start, 12))


def test_parts_are_a_function_of_the_id_for_any_workers_cache_and_start() -> None:
    first = batches(Parts(), workers=0)
    for options in ({"workers": 2}, {"workers": 1, "cache": "memory"}):
        for a, b in zip(first, batches(Parts(), **options), strict=True):
            assert torch.equal(a.data, b.data)
            assert a.keys == b.keys
    for a, b in zip(first[7:], batches(Parts(), 7, workers=2), strict=True):
        assert torch.equal(a.data, b.data)
    seen = torch.cat([batch.data for batch in first])
    assert len(seen[:, 1].unique()) > 60, "every epoch sees another part"
    drawn = torch.cat([batch.index for batch in first])
    assert torch.equal(drawn, seen[:, 0]), "a replacement's row is the row that is shown"


def test_processes_draw_the_same_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_drawing_reader.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import a_drawing_reader

    reader = a_drawing_reader.Parts()
    others = batches(reader, workers=1, worker_kind="process")
    for a, b in zip(batches(reader, workers=1), others, strict=True):
        assert torch.equal(a.data, b.data)
    del sys.modules["a_drawing_reader"]


def test_evaluation_sees_the_fixed_part() -> None:
    source = ArraySource(np.arange(24))
    (batch,) = decode_all(source, Parts(), batch_size=24)
    assert batch.data[:, 1].eq(0).all()
