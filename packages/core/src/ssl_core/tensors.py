"""Named tensors on disk: safetensors with the same bytes for the same content."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Size, Tensor

from ssl_core.files import atomic_path, to_json

ALIASES = "aliases"


def unshared(
    tensors: Mapping[str, Tensor], *, copy: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous tensors on the CPU without shared storage, and {alias: name} for the rest.

    Tied weights appear under two names in a state dict; safetensors stores each memory once.
    Without `copy`, what is on the CPU already is only looked at.
    """
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[int, Size, tuple[int, ...]], str] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            stored[name] = tensor.detach().to("cpu", copy=copy).contiguous()
    return stored, aliases


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None
) -> None:
    """Writes tensors and JSON `facts` as safetensors, whole or not at all.

    Tied tensors are stored once; their other names stand in the metadata. Equal content gives
    equal bytes, so that runs can be compared by checksum.
    """
    stored, aliases = unshared(tensors, copy=False)
    metadata = {name: to_json(value) for name, value in (facts or {}).items()}
    if aliases:
        metadata[ALIASES] = to_json(aliases)
    with atomic_path(path) as temporary:
        save_file(stored, temporary, {"format": "pt", **metadata})
        _sort_header(temporary)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of `write_tensors`, under all their names."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        aliases = json.loads((file.metadata() or {}).get(ALIASES, "{}"))
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON facts that `write_tensors` was given."""
    with safe_open(path, "pt") as file:
        found = dict(file.metadata() or {})
    return {k: json.loads(v) for k, v in found.items() if k not in ("format", ALIASES)}


def _sort_header(path: Path) -> None:
    """Puts the header's keys in order; the library writes metadata in an order of chance."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        data = text.encode()
        if len(data) > length:  # escaped otherwise than the library does: leave it as it is
            return
        file.seek(8)
        file.write(data.ljust(length))
