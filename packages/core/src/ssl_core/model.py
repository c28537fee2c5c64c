"""A trained encoder with everything needed to use it: reader, deterministic view, weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ssl_core.batch import Batch, Reader, Record, Source
from ssl_core.data import Failure
from ssl_core.domain import Domain
from ssl_core.errors import CorruptSample, UserError
from ssl_core.evaluation.embed import Embedding, embed, embed_source
from ssl_core.files import atomic_path, to_json
from ssl_core.recipe import Recipe
from ssl_core.run import Run
from ssl_core.views import ViewPolicy

ALIASES = "aliases"


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
        if isinstance(inputs, (str, Path)):
            inputs = self.open(inputs)
        # A source is walked by index: its items are records, not inputs.
        walked = map(inputs.__getitem__, range(len(inputs))) if is_source(inputs) else inputs
        parts = [
            embed(self.encoder, self.views, [batch]).features
            for batch in self._batches(walked, batch_size)
        ]
        out = torch.cat(parts) if parts else torch.empty(0, self.dim)
        array: np.ndarray = out.numpy()
        return array

    def embed_source(
        self,
        source: Source,
        *,
        batch_size: int = 256,
        on_corrupt: Callable[[Failure], None] | None = None,
    ) -> Embedding:
        """Embeddings with keys and labels; unreadable records go to `on_corrupt` instead."""
        return embed_source(
            self.encoder,
            self.views,
            source,
            self.reader,
            batch_size=batch_size,
            device=self.device,
            on_corrupt=on_corrupt,
        )

    def open(self, path: str | Path) -> Source:
        """A source of this domain, read with the run's own data options."""
        data = self.recipe.data.model_copy(
            update={"path": str(path), "format": "auto", "limit": None}
        )
        return self.domain.open(data)

    def _batches(self, inputs: Iterable[Any], size: int) -> Iterable[Batch]:
        samples: list[Any] = []
        for number, item in enumerate(inputs):
            record = item if isinstance(item, Record) else Record(str(number), item)
            try:
                samples.append(self.reader.decode(record))
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


def save_weights(module: nn.Module, path: Path, metadata: dict[str, Any] | None = None) -> None:
    """Writes a module's parameters and buffers as safetensors, whole or not at all.

    Tied tensors are stored once; their other names stand in the file's metadata.
    """
    from safetensors.torch import save_file

    from ssl_core.engine.state import unshared

    stored, aliases = unshared(module.state_dict())
    facts = {name: to_json(value) for name, value in (metadata or {}).items()}
    with atomic_path(path) as temporary:
        save_file(stored, temporary, {"format": "pt", ALIASES: to_json(aliases), **facts})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of `save_weights`, under all their names."""
    import json

    if not path.is_file():
        raise UserError(f"weights: {str(path)!r} does not exist; the run has not finished")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        aliases = json.loads((file.metadata() or {}).get(ALIASES, "{}"))
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def load_model(run: Run, domain: Domain, *, device: torch.device) -> Model:
    """The trained encoder of a run.

    The network is built as in training, by the method: methods may add to an encoder (a mask
    token) or keep a teacher as the backbone.
    """
    from ssl_core.parts import build_parts

    recipe = run.recipe
    reader = domain.load_reader(run.reader_folder)
    parts = build_parts(domain, recipe, reader)
    encoder = parts.method.backbone
    try:
        encoder.load_state_dict(read_weights(run.weights))
    except RuntimeError as error:
        raise UserError(
            f"weights: {run.weights} do not fit the recipe's encoder: {error}"
        ) from error
    encoder.requires_grad_(True).to(device).eval()
    return Model(domain, recipe, reader, parts.views, encoder, device)
