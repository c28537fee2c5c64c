"""Writes checkpoints beside the training, and commits one once every rank has written its part.

A step costs the training a copy into CPU memory. The rest happens in a thread: writing, flushing,
checksums. Every rank tells the others in the step's vote how far it is; when all are done, rank 0
renames the folder into place. One checkpoint is under way at a time.

A full disk does not stop a run: the part is removed, a warning says which checkpoint is the newest
one, and the next is tried as usual. Only the last checkpoint of a run, or the one before it stops
for a signal, must succeed; `TrainingAborted` says so.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.distributed import rank
from ssl_core.engine.checkpoint import CRC, Checkpoints, Meta, crc32
from ssl_core.engine.shards import full, is_sharded, own_part
from ssl_core.engine.state import training_tensors
from ssl_core.engine.vote import Vote
from ssl_core.errors import TrainingAborted
from ssl_core.files import sync
from ssl_core.tensors import write_tensors

SPARE = 1 << 20
"""Bytes to leave free on the disk, for logs and descriptions."""

_log = logging.getLogger("ssl_core")


class Saver:
    """The one writer of a rank. `progress` goes into the vote, its outcome into `observe`."""

    def __init__(self, checkpoints: Checkpoints, identity: Mapping[str, Any]) -> None:
        self.checkpoints = checkpoints
        self.identity = dict(identity)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._staged: dict[str, Tensor] = {}
        self._meta: Meta | None = None
        self._writing: Future[None] | None = None
        self._committing: tuple[int, Future[None]] | None = None

    def start(
        self,
        step: int,
        method: nn.Module,
        backbone: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        skipped: int,
        score: float | None,
        vote: Vote,
    ) -> None:
        """Takes a copy of the state after `step` steps and begins to write it."""
        self.finish(vote)
        state = training_tensors(method, optimizer)
        part, sharded = own_part(state), is_sharded(state.values())
        weights = {name: full(tensor) for name, tensor in backbone.state_dict().items()}
        files = {}
        if part.tensors:
            name = f"state-{rank():05d}" if sharded else "state"
            files[f"{name}.safetensors"] = self._copied("state", part.tensors), part.places
        if rank() == 0:
            files["model.safetensors"] = self._copied("model", weights), {}
        copied = torch.cuda.Event() if torch.cuda.is_available() else None
        if copied is not None:
            copied.record()
        self._meta = Meta(step, self.identity, skipped, score)
        self._writing = self._thread.submit(self._write, step, files, copied)

    def _copied(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies in CPU memory; from an accelerator into pinned memory, without waiting."""
        seen: dict[tuple[int, torch.Size, tuple[int, ...]], Tensor] = {}
        copies = {}
        for name, tensor in tensors.items():
            tensor = tensor.detach()
            place = (tensor.data_ptr(), tensor.shape, tensor.stride())
            if place not in seen or not tensor.numel():
                key = f"{kind}/{name}"
                buffer = self._staged.get(key)
                if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                    buffer = torch.empty(
                        tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
                    )
                    self._staged[key] = buffer
                seen[place] = buffer.copy_(tensor, non_blocking=True)
            copies[name] = seen[place]
        return copies

    def _write(self, step: int, files: Mapping[str, Any], copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        folder = self.checkpoints.unfinished(step)
        folder.mkdir(parents=True, exist_ok=True)
        need = sum(t.nbytes for tensors, _ in files.values() for t in tensors.values())
        if shutil.disk_usage(folder).free < need + SPARE:
            raise OSError(errno.ENOSPC, f"no space for {need / 1e6:.1f} MB", str(folder))
        for name, (tensors, places) in files.items():
            write_tensors(folder / name, tensors, {"places": places} if places else None)
            (folder / f"{name}{CRC}").write_text(str(crc32(folder / name)))
        sync(folder)

    @property
    def progress(self) -> tuple[int, int]:
        """For the vote: minus the step this rank is done writing, and the step that failed."""
        if self._meta is None or self._writing is None or not self._writing.done():
            return 0, -1
        failed = self._writing.exception() is not None
        return -self._meta.step, self._meta.step if failed else -1

    def observe(self, slowest: int, failed: int) -> None:
        """Commits or gives up the checkpoint under way, as all ranks agreed (see `progress`)."""
        if self._meta is None or -slowest != self._meta.step:
            return
        meta, writing = self._meta, self._writing
        self._meta = self._writing = None
        if failed == meta.step:
            assert writing is not None
            self._give_up(meta.step, writing.exception())
        elif rank() == 0:
            committing = self._thread.submit(self.checkpoints.commit, meta)
            self._committing = meta.step, committing

    def finish(self, vote: Vote, *, required: bool = False) -> None:
        """Waits until what is under way is committed; with `required`, it must have been.

        Every rank calls this at the same step. Raises `TrainingAborted`.
        """
        wanted = self._meta
        if wanted is not None:
            assert self._writing is not None
            self._writing.exception()  # waits
            _, slowest, failed = vote.settle(0, *self.progress)
            self.observe(slowest, failed)
        if self._committing is not None:
            step, committing = self._committing
            self._committing = None
            if (error := committing.exception()) is not None:
                self._give_up(step, error)
        if not required or wanted is None:
            return
        lost = rank() == 0 and self.checkpoints.steps()[-1:] != [wanted.step]
        if vote.settle(int(lost), 0, -1)[0]:
            raise TrainingAborted(
                f"the checkpoint after step {wanted.step} could not be written below "
                f"{str(self.checkpoints.folder)!r}; free some space there, then run the same "
                f"command again: it goes on {self._from()}"
            )

    def _give_up(self, step: int, reason: BaseException | None) -> None:
        if rank() == 0:
            self.checkpoints.discard(step)
        elif reason is None:
            return  # the rank that knows the reason says it, and so does rank 0
        _log.warning(
            "the checkpoint of step %d was not written (%s); training goes on, and would continue "
            "%s if it stopped now",
            step,
            reason or "another rank could not write its part",
            self._from(),
        )

    def _from(self) -> str:
        steps = self.checkpoints.steps()
        return f"after step {steps[-1]}" if steps else "from the start"

    def close(self) -> None:
        """Ends the thread once its work is done."""
        self._thread.shutdown()
