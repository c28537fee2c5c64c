"""What travels from files to methods: a `Record` from a source, a `Batch` on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """One raw item of a source. `payload` is a path, bytes or an in-memory object."""

    key: str
    payload: Any
    label: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """A payload that needs no decoding: the sample itself, and a hash of the reader's facts."""

    sample: Any
    spec: str


class Source(Protocol):
    """An indexable collection of records that knows no domain; pure and safe in threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None for an unlabelled source."""

    def fingerprint(self) -> str:
        """A short hash of keys and sizes; a resumed run refuses another one."""


class Reader(Protocol):
    """How a domain turns records into what its views take. Runs in loader threads.

    Where records are long, a reader may decode only a part of one: with `draws = True` and
    `draw(record, key) -> sample`, training asks for the part that the integer `key` picks, chosen
    before anything is decoded, and `decode` is the fixed part that evaluation sees.
    """

    @property
    def spec(self) -> Mapping[str, Any]:
        """JSON facts of the data that encoders and views are built from (channels, sizes...)."""

    def decode(self, record: Record) -> Any:
        """Bytes to one compact sample; raises `CorruptSample` with the reason."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """Samples to `Batch.data`."""

    def raw(self, data: Any) -> Tensor:
        """The input itself as features `[B, R]`: what an encoder has to beat."""

    def save(self, folder: Any) -> None:
        """Writes what `Domain.load_reader` needs (JSON, tokenizer files) into a run folder."""


def to_device(data: Any, device: torch.device | str, *, non_blocking: bool = True) -> Any:
    """Moves tensors, lists of tensors and any object with `.to(device)`."""
    if isinstance(data, Tensor):
        return data.to(device, non_blocking=non_blocking)
    if isinstance(data, (list, tuple)):
        return type(data)(to_device(x, device, non_blocking=non_blocking) for x in data)
    return data.to(device)


@dataclass(frozen=True)
class Batch:
    """Collated samples.

    `data` is what the reader's `collate` made: a tensor `[B, ...]`, a list of B tensors of
    different sizes, or the domain's own batch object with `.to(device)`. `ids` (int64 `[B]`)
    keys all randomness and is unique within a stream; `index` (int64 `[B]`) is the row in the
    source; `label` is int64 `[B]` (-1 where missing) or None.
    """

    data: Any
    ids: Tensor
    index: Tensor
    keys: tuple[str, ...] = ()
    label: Tensor | None = None

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            data=to_device(self.data, device),
            ids=to_device(self.ids, device),
            index=to_device(self.index, device),
            label=None if self.label is None else to_device(self.label, device),
        )
