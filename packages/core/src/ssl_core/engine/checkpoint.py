"""The checkpoints of a run: written beside, flushed, renamed; only a committed one is read.

    checkpoints/step-00000500/
        state.safetensors    parameters, buffers, optimiser moments (state-00003.safetensors and
                             so on where they are split over ranks)
        model.safetensors    the weights people use (the method's backbone)
        meta.json            step, identity of the run, CRC-32 of files

Nothing is pickled. A folder whose checksums do not hold is set aside with a warning, and the one
before it is used. `saver` decides when a folder is whole.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ssl_core.distributed import rank
from ssl_core.engine.parallel import barrier
from ssl_core.engine.shards import Part, joined
from ssl_core.engine.state import load_training_tensors, method_weights
from ssl_core.errors import UserError
from ssl_core.files import sync, write_json
from ssl_core.tensors import read_facts, read_tensors

SCHEMA = 1
CRC = ".crc32"
_FILE = re.compile(r"(?:model|state|state-\d+)\.safetensors")
_log = logging.getLogger("ssl_core")

Damage = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)
"""What reading bytes that are not what we wrote can raise."""


@dataclass(frozen=True)
class Meta:
    """What `meta.json` says about a checkpoint."""

    step: int
    identity: dict[str, Any]
    """What must not change between saving and resuming: seed, batch size, data fingerprint..."""
    skipped: int
    score: float | None


class Checkpoints:
    """The checkpoints of one run; rank 0 commits and drops, every rank may read."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, oldest first."""
        names = [p.name for p in self.folder.glob("step-*") if (p / "meta.json").is_file()]
        numbers = [name.removeprefix("step-") for name in names]
        return sorted(int(number) for number in numbers if number.isdecimal())

    def path(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.folder / f"step-{step:08d}"

    def unfinished(self, step: int) -> Path:
        """Where a checkpoint is written before it is committed."""
        return self.folder / f"tmp-{step:08d}"

    def commit(self, meta: Meta) -> None:
        """Makes an unfinished folder the checkpoint of its step, then drops what is not kept."""
        temporary, final = self.unfinished(meta.step), self.path(meta.step)
        sums = {}
        for file in sorted(temporary.glob(f"*{CRC}")):
            sums[file.name.removesuffix(CRC)] = int(file.read_text())
            file.unlink()
        write_json(temporary / "meta.json", {"schema": SCHEMA, **vars(meta), "crc32": sums})
        sync(temporary)
        if final.exists():  # taken back to an earlier step, the run came by here again
            _set_aside(final)
        os.replace(temporary, final)
        sync(self.folder)
        self._drop()

    def discard(self, step: int) -> None:
        """Removes an unfinished checkpoint."""
        shutil.rmtree(self.unfinished(step), ignore_errors=True)

    def _drop(self) -> None:
        steps, best = self.steps(), self.best()
        for step in set(steps[: -self.keep]) - {best}:
            shutil.rmtree(self.path(step))
        for old in self.folder.glob("damaged-*"):
            shutil.rmtree(old)

    def meta(self, step: int) -> Meta:
        """The description of one checkpoint; raises `ValueError` when it is not ours."""
        return self._describe(step)[0]

    def _describe(self, step: int) -> tuple[Meta, dict[str, int]]:
        found = json.loads((self.path(step) / "meta.json").read_text(encoding="utf-8"))
        if found.get("schema") != SCHEMA:
            raise ValueError(f"schema {found.get('schema')!r} is not {SCHEMA}")
        meta = Meta(found["step"], dict(found["identity"]), int(found["skipped"]), found["score"])
        if meta.step != step or not isinstance(meta.score, (int, float, type(None))):
            raise ValueError(f"it says step {meta.step!r}, score {meta.score!r}")
        strange = [name for name in found["crc32"] if not _FILE.fullmatch(name)]
        if strange:
            raise ValueError(f"it names {strange[0]!r}, which is no file of a checkpoint")
        return meta, dict(found["crc32"])

    def best(self) -> int | None:
        """The step with the highest score, if any was scored."""
        scored = []
        for step in self.steps():
            try:
                score = self.meta(step).score
            except Damage:
                continue
            if score is not None:
                scored.append((score, step))
        return max(scored)[1] if scored else None

    def load_newest(
        self,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        identity: Mapping[str, Any],
        allow: Collection[str] = (),
    ) -> Meta | None:
        """Loads the newest checkpoint that is whole; None when there is none.

        Clears away what a killed attempt left unfinished. Raises `UserError` where a sound
        checkpoint belongs to another run (other seed, batch size, data...), naming what differs,
        unless the name is in `allow`.
        """
        found: Meta | None = None
        damaged = []
        for step in reversed(self.steps()):
            try:
                found, tensors = self._read(step)
            except Damage as error:
                _log.warning("%s is damaged (%s); using the one before", self.path(step), error)
                damaged.append(step)
                continue
            _require_same_identity(found.identity, identity, allow)
            load_training_tensors(method, optimizer, tensors)
            break
        barrier()  # every rank has read; now names may change
        if rank() == 0:
            for step in damaged:
                _set_aside(self.path(step))
            for abandoned in self.folder.glob("tmp-*"):
                shutil.rmtree(abandoned)
        barrier()
        return found

    def weights(self, step: int) -> dict[str, Tensor]:
        """The method's whole state in one checkpoint, heads and second towers included."""
        return method_weights(self._read(step)[1])

    def _read(self, step: int) -> tuple[Meta, dict[str, Tensor]]:
        folder = self.path(step)
        meta, sums = self._describe(step)
        for name, expected in sums.items():
            if crc32(folder / name) != expected:
                raise ValueError(f"{name} does not match its checksum")
        files = [folder / name for name in sorted(sums) if name.startswith("state")]
        parts = [Part(read_tensors(f), read_facts(f).get("places", {})) for f in files]
        return meta, joined(parts)


def crc32(path: Path) -> int:
    """The checksum of a regular file; a link is none of ours."""
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return value


def _set_aside(folder: Path) -> None:
    aside = folder.with_name(folder.name.replace("step-", "damaged-"))
    if aside.exists():
        shutil.rmtree(aside)
    os.replace(folder, aside)


def _require_same_identity(
    saved: Mapping[str, Any], now: Mapping[str, Any], allow: Collection[str]
) -> None:
    for name in sorted({*saved, *now} - {*allow}):
        if saved.get(name) != now.get(name):
            raise UserError(
                f"resume: {name} was {saved.get(name)!r} in the saved run and is now "
                f"{now.get(name)!r}; restore it, train into a new folder, or allow the change "
                f"with --set train.allow=[{name}]"
            )
