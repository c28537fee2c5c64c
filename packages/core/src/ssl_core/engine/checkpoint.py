"""Checkpoints: written beside, flushed, renamed; only a committed folder is ever read.

    checkpoints/step-00000500/
        state.safetensors    parameters, buffers, optimiser moments
        model.safetensors    the weights people use (the method's backbone)
        meta.json            step, identity of the run, CRC-32 of files

Nothing is pickled. A folder whose checksums do not hold is passed over with a warning, and the one
before it is used.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.engine.state import load_training_tensors, training_tensors
from ssl_core.errors import UserError
from ssl_core.files import sync, write_json
from ssl_core.tensors import read_tensors, write_tensors

SCHEMA = 1
_log = logging.getLogger("ssl_core")


@dataclass(frozen=True)
class Meta:
    """What `meta.json` says about a checkpoint."""

    step: int
    identity: dict[str, Any]
    """What must not change between saving and resuming: seed, batch size, data fingerprint..."""
    skipped: int
    score: float | None


class Checkpoints:
    """The checkpoints of one run; writes from rank 0 only, reads anywhere."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, oldest first."""
        names = [p.name for p in self.folder.glob("step-*") if (p / "meta.json").is_file()]
        return sorted(int(name.removeprefix("step-")) for name in names)

    def path(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(
        self,
        step: int,
        method: nn.Module,
        backbone: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        identity: Mapping[str, Any],
        skipped: int,
        score: float | None,
    ) -> Path:
        """Writes and commits the state after `step` steps, then drops what is not kept."""
        final = self.path(step)
        if step in self.steps():
            return final
        self.folder.mkdir(parents=True, exist_ok=True)
        for abandoned in self.folder.glob("tmp-*"):
            shutil.rmtree(abandoned)
        temporary = self.folder / f"tmp-{step:08d}"
        temporary.mkdir()
        write_tensors(temporary / "state.safetensors", training_tensors(method, optimizer))
        write_tensors(temporary / "model.safetensors", backbone.state_dict())
        meta = {
            "schema": SCHEMA,
            "step": step,
            "identity": dict(identity),
            "skipped": skipped,
            "score": score,
            "crc32": {name.name: _crc32(name) for name in sorted(temporary.iterdir())},
        }
        write_json(temporary / "meta.json", meta)
        sync(temporary)
        if final.exists():  # an uncommitted leftover: a committed one was returned above
            shutil.rmtree(final)
        os.replace(temporary, final)
        sync(self.folder)
        self._drop()
        return final

    def _drop(self) -> None:
        steps = self.steps()
        scored = [
            (meta.score, step) for step in steps if (meta := self.meta(step)).score is not None
        ]
        best = {max(scored)[1]} if scored else set()
        for step in set(steps[: -self.keep]) - best:
            shutil.rmtree(self.path(step))

    def meta(self, step: int) -> Meta:
        """The description of one checkpoint; raises `ValueError` when it is not ours."""
        found = json.loads((self.path(step) / "meta.json").read_text())
        if found.get("schema") != SCHEMA:
            raise ValueError(f"schema {found.get('schema')!r} is not {SCHEMA}")
        return Meta(found["step"], found["identity"], found["skipped"], found["score"])

    def best(self) -> int | None:
        """The step with the highest score, if any was scored."""
        scored = [(m.score, s) for s in self.steps() if (m := self.meta(s)).score is not None]
        return max(scored)[1] if scored else None

    def load_newest(
        self,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        identity: Mapping[str, Any],
    ) -> Meta | None:
        """Loads the newest checkpoint that is whole; None when there is none.

        Raises `UserError` where a sound checkpoint belongs to another run (other seed, batch
        size, data...), naming what differs.
        """
        for step in reversed(self.steps()):
            try:
                meta, tensors = self._read(step)
            except (OSError, ValueError, KeyError) as error:
                _log.warning("%s is damaged (%s); using the one before", self.path(step), error)
                continue
            _require_same_identity(meta.identity, identity)
            load_training_tensors(method, optimizer, tensors)
            return meta
        return None

    def _read(self, step: int) -> tuple[Meta, dict[str, Tensor]]:
        folder = self.path(step)
        sums = json.loads((folder / "meta.json").read_text())["crc32"]
        for name, expected in sums.items():
            if _crc32(folder / name) != expected:
                raise ValueError(f"{name} does not match its checksum")
        return self.meta(step), read_tensors(folder / "state.safetensors")


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return value


def _require_same_identity(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted({*saved, *now}):
        if saved.get(name) != now.get(name):
            raise UserError(
                f"resume: {name} was {saved.get(name)!r} in the saved run and is now "
                f"{now.get(name)!r}; restore it, or train into a new folder"
            )
