"""A trained encoder with everything needed to use it: reader, deterministic view, weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_core.batch import Batch, Reader, Record, Source
from ssl_core.data import Failure
from ssl_core.data.fetch import Decoder
from ssl_core.domain import Domain
from ssl_core.errors import CorruptSample, UserError
from ssl_core.evaluation.embed import Embedding, embed, embed_source
from ssl_core.recipe import Recipe
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import build_parts, open_data
from ssl_core.tensors import read_tensors
from ssl_core.views import ViewPolicy


@dataclass
class Model:
    """What `load(run)` gives.

    `embed` takes anything the domain reads; `encoder` is the plain network, for own training.
    """

    domain: Domain
    recipe: Recipe
    reader: Reader
    views: ViewPolicy
    encoder: nn.Module
    device: torch.device

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return int(self.encoder.embed_dim)  # type: ignore[arg-type]

    def embed(self, inputs: Any, *, batch_size: int = 256) -> np.ndarray:
        """Embeddings float32 `[N, dim]`, in order.

        `inputs` is a path to data of the domain, a source, or a list (array, tensor) of single
        inputs: what records of this domain hold, such as file paths, bytes or arrays. An input
        that cannot be read raises `UserError` naming it; nothing is left out silently.
        """
        parts = [
            embed(self.encoder, self.views, [batch]).features
            for batch in self._batches(inputs, batch_size)
        ]
        out = torch.cat(parts) if parts else torch.empty(0, self.dim)
        array: np.ndarray = out.numpy()
        return array

    @torch.no_grad()
    def embed_tokens(
        self, inputs: Any, *, batch_size: int = 64
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """Embeddings of places float32 `[N, L, dim]`, in order, and the grid they lie on.

        `inputs` is what `embed` takes; all must have as many places. Raises `UserError` for an
        input that cannot be read and for an encoder that gives the whole alone.
        """
        parts, grid = [], ()
        for batch in self._batches(inputs, batch_size):
            features = self.encoder(self.views.plain(batch))
            if features.tokens is None:
                raise UserError(
                    f"encoder {self.recipe.encoder.name} embeds wholes only; choose one with tokens"
                )
            parts.append(features.tokens.float().cpu())
            grid = tuple(features.grid)
        if len({part.shape[1] for part in parts}) > 1:
            raise UserError("inputs: they differ in length; embed those of one length together")
        array = torch.cat(parts).numpy() if parts else np.empty((0, 0, self.dim), np.float32)
        return array, grid

    def embed_source(
        self,
        source: Source,
        *,
        rows: np.ndarray | None = None,
        batch_size: int = 256,
        on_corrupt: Callable[[Failure], None] | None = None,
    ) -> Embedding:
        """Embeddings of `rows` (default: all) with keys and labels.

        Unreadable records go to `on_corrupt` instead.
        """
        return embed_source(
            self.encoder,
            self.views,
            source,
            self.reader,
            rows=rows,
            batch_size=batch_size,
            device=self.device,
            on_corrupt=on_corrupt,
        )

    def open(self, path: str | Path) -> Source:
        """A source of this domain, read with the run's own data options."""
        data = self.recipe.data.at(path)
        return open_data(self.domain, data)

    def _batches(self, inputs: Any, size: int) -> Iterable[Batch]:
        if isinstance(inputs, (str, Path)):
            inputs = self.open(inputs)
        # A source is walked by index: its items are records, not inputs.
        walked = map(inputs.__getitem__, range(len(inputs))) if is_source(inputs) else inputs
        samples: list[Any] = []
        decode = Decoder(self.reader)
        for number, item in enumerate(walked):
            record = item if isinstance(item, Record) else Record(str(number), item)
            try:
                samples.append(decode(record))
            except CorruptSample as error:
                raise UserError(f"input {record.key}: cannot be read ({error})") from error
            if len(samples) == size:
                yield self._batch(samples)
                samples = []
        if samples:
            yield self._batch(samples)

    def _batch(self, samples: Sequence[Any]) -> Batch:
        rows = torch.arange(len(samples))
        return Batch(self.reader.collate(samples), rows, rows).to(self.device)


def is_source(inputs: Any) -> bool:
    """Whether this is a `Source` rather than a list of inputs."""
    return hasattr(inputs, "fingerprint") and hasattr(inputs, "classes")


def load_model(run: Run, domain: Domain, *, device: torch.device) -> Model:
    """The trained encoder of a run.

    The network is built as in training, by the method: methods may add to an encoder (a mask
    token) or keep a teacher as the backbone.
    """
    if not run.weights.is_file():
        raise UserError(f"weights: {str(run.weights)!r} does not exist; the run has not finished")
    recipe = run.recipe
    reader = domain.load_reader(run.reader_folder)
    parts = build_parts(domain, recipe, reader, training=False)
    encoder = parts.method.backbone
    try:
        encoder.load_state_dict(read_tensors(run.weights))
    except RuntimeError as error:
        raise UserError(
            f"weights: {run.weights} do not fit the recipe's encoder: {error}"
        ) from error
    encoder.requires_grad_(True).to(device).eval()
    return Model(domain, recipe, reader, parts.views, encoder, device)
