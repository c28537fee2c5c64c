"""Tensors split over ranks, as the parts each rank writes and the wholes a reader needs.

FSDP keeps the rows of a parameter on different ranks (a `DTensor`). A rank writes its own rows and
where they belong; whoever reads puts the rows together, so that any number of ranks, sharded or
not, can continue from the files of any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from ssl_core.distributed import rank

Place = list[int]
"""First row, then the shape of the whole tensor."""


@dataclass(frozen=True)
class Part:
    """What one rank writes: plain tensors, and for rows of a larger one their place."""

    tensors: dict[str, Tensor]
    places: dict[str, Place]


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether any of the tensors is split over ranks."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def own_part(tensors: Mapping[str, Tensor]) -> Part:
    """This rank's share: its rows of split tensors; on rank 0 also everything else.

    Of replicated groups of shards (HSDP) only the first writes.
    """
    part = Part({}, {})
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            if rank() == 0:
                part.tensors[name] = tensor
            continue
        first, writes = _first_row(tensor)
        local = tensor.to_local()
        if writes and local.shape[0]:
            part.tensors[name] = local
            part.places[name] = [first, *tensor.shape]
    return part


def _first_row(tensor: DTensor) -> tuple[int, bool]:
    """The first row held here, and whether this rank is the one to write it."""
    coordinates = tensor.device_mesh.get_coordinate()
    assert coordinates is not None, "every rank is part of the mesh"
    first, writes = 0, True
    for axis, placement in enumerate(tensor.placements):
        if isinstance(placement, Shard):
            assert placement.dim == 0, "FSDP splits the first dimension"
            # As torch.chunk does: equal chunks, the last ones smaller or empty.
            chunk = -(-tensor.shape[0] // tensor.device_mesh.size(axis))
            first = min(tensor.shape[0], coordinates[axis] * chunk)
        else:
            assert isinstance(placement, Replicate), f"no place for {placement}"
            writes = writes and coordinates[axis] == 0
    return first, writes


def joined(parts: Iterable[Part]) -> dict[str, Tensor]:
    """Whole tensors from all parts; `ValueError` when rows of one are missing or doubled."""
    whole: dict[str, Tensor] = {}
    rows: dict[str, int] = {}
    for part in parts:
        for name, tensor in part.tensors.items():
            if name not in part.places:
                whole[name] = tensor
                continue
            first, *shape = part.places[name]
            target = whole.setdefault(name, torch.empty(shape, dtype=tensor.dtype))
            if list(target.shape) != shape or first < 0 or first + len(tensor) > shape[0]:
                raise ValueError(f"rows of {name} do not fit together")
            target[first : first + len(tensor)] = tensor
            rows[name] = rows.get(name, 0) + len(tensor)
    for name, count in rows.items():
        if count != whole[name].shape[0]:
            raise ValueError(f"{name} has {count} of {whole[name].shape[0]} rows")
    return whole


def split_like(whole: Tensor, model: Tensor) -> Tensor:
    """`whole` laid out over ranks as `model` is; every rank holds all of it and keeps its rows."""
    if not isinstance(model, DTensor):
        return whole
    whole = whole.to(model.to_local().device)
    return distribute_tensor(whole, model.device_mesh, model.placements, src_data_rank=None)


def full(tensor: Tensor) -> Tensor:
    """The whole tensor; a collective where it is split."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
