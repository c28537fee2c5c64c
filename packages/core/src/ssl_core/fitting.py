"""`fit`: a method of one's own on data of one's own, without recipe, domain or run folder."""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ssl_core import recipe
from ssl_core.batch import Reader, Record, Source
from ssl_core.data import ArraySource, Loader, Stream
from ssl_core.distributed import rank, world_size
from ssl_core.engine.fit import Callback, FitResult
from ssl_core.engine.fit import fit as train
from ssl_core.engine.parallel import choose_device, launched_world, process_group
from ssl_core.errors import CorruptSample, Preempted, UserError
from ssl_core.methods.base import Method
from ssl_core.runs.progress import progress_callbacks


class TensorReader:
    """Reads rows of a tensor or array as they are; a row with NaN or infinity is corrupt."""

    spec: Mapping[str, Any] = {}

    def decode(self, record: Record) -> Tensor:
        """One sample `[...]`."""
        row = torch.as_tensor(record.payload)
        if row.is_floating_point() and not bool(row.isfinite().all()):
            raise CorruptSample("not all numbers are finite")
        return row

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        """`Batch.data` `[B, ...]`."""
        return torch.stack(list(samples))

    def raw(self, data: Tensor) -> Tensor:
        """The input itself `[B, R]`."""
        return data.flatten(1).float()

    def save(self, folder: Path) -> None:
        """Nothing: it knows nothing of the data."""


def fit(
    method: Method,
    data: Tensor | np.ndarray | Source,
    *,
    reader: Reader | None = None,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    optimizer: recipe.Optimizer | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> FitResult:
    """Trains `method` in place; its encoder is then `method.backbone`.

    Arguments:
        method: any `Method`, built with your encoder (`data -> Features`, with `embed_dim`) and
            your views (`(batch, rng) -> list[View]`).
        data: `[N, ...]`, whose rows become `Batch.data` `[B, ...]`; or a source, with the `reader`
            that decodes its records.
        lr: the peak of a warmed-up cosine of AdamW; `optimizer` (`ssl_core.recipe.Optimizer` or
            its values) instead says everything.
        workers: decoding threads; 0 decodes in the training loop, which suits data in memory.
        settings: further values of `ssl_core.recipe.Train` (`precision`, `accumulate`...).
        out: where checkpoints and `metrics.jsonl` go. The same call with the same folder
            continues. Without it nothing is kept.
        progress: a progress line on stderr; by default when stderr is a terminal.

    Returns steps, rate and the last log record. Under torchrun every process calls this alike.
    Raises `UserError` where a value is not allowed or a source comes without a reader.
    """
    rates = _checked(recipe.Optimizer, optimizer if optimizer is not None else {"lr": lr})
    own = {"steps": steps, "batch_size": batch_size, "seed": seed}
    engine = _checked(recipe.Train, {**own, **(settings or {})})
    place = choose_device(device)
    if isinstance(data, (Tensor, np.ndarray)):
        source: Source = ArraySource(data)
        reader = TensorReader() if reader is None else reader
    elif reader is None:
        raise UserError("reader: a source needs the reader that decodes its records")
    else:
        source = data
    if out is None and launched_world() > 1:
        raise UserError("out: several processes need one folder that all of them see; name it")
    with ExitStack() as stack:
        folder = out if out is not None else stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(process_group(place, timeout=engine.stall_timeout))
        stream = Stream(
            len(source),
            engine.batch_size,
            seed=engine.seed,
            rank=rank(),
            world=world_size(),
            accumulate=engine.accumulate,
        )
        try:
            return train(
                method,
                Loader(source, reader, stream, device=place, workers=workers),
                train=engine,
                optimizer=rates,
                out=Path(folder),
                device=place,
                identity={"data": source.fingerprint()},
                callbacks=[*callbacks, *progress_callbacks(progress)],
            )
        except Preempted as stop:
            how = "the same call goes on" if out is not None else "name a folder `out` to go on"
            raise Preempted(f"{stop}; {how}") from stop


def _checked(model: type[Any], values: Any) -> Any:
    """A section of a recipe from its values; `UserError` names what is not allowed."""
    if isinstance(values, model):
        return values
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        found = error.errors()[0]
        name = ".".join(map(str, found["loc"]))
        raise UserError(f"{name}: {found['input']!r:.80} is not allowed; {found['msg']}") from None
