"""The trained encoder as one file for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_core.domain import Domain
from ssl_core.errors import UserError, unknown
from ssl_core.registry import Registry
from ssl_core.runs.folder import Run
from ssl_core.runs.model import load_model
from ssl_core.tensors import write_tensors

FORMATS = ("safetensors", "timm")


def export_run(run: Run, domain: Domain, path: Path, *, format: str) -> Path:
    """Writes the encoder of a run to `path` (a folder gets `<run name>.safetensors`).

    "safetensors" keeps this project's parameter names and stores encoder, options and data facts
    in the metadata; "timm" uses timm's names, so that `load_state_dict` of a timm model with
    `num_classes=0` and the same channels and size takes it. A domain's own formats write a folder.
    Raises `UserError` for an encoder that has no counterpart there.
    """
    if format not in (*FORMATS, *domain.exporters):
        raise unknown("format", format, (*FORMATS, *domain.exporters))
    if format in domain.exporters:
        write = Registry("format", domain.exporters).load(format)
        if path.suffix or path.is_file():
            raise UserError(f"out: {str(path)!r} must be a folder for format {format!r}")
        folder: Path = write(load_model(run, domain, device=torch.device("cpu")), path)
        return folder
    if path.is_dir() or path.suffix == "":
        path = path / f"{run.path.resolve().name}.safetensors"
    if path.suffix != ".safetensors":
        raise UserError(f"out: {str(path)!r} must end in .safetensors, or be a folder")
    model = load_model(run, domain, device=torch.device("cpu"))
    recipe = run.recipe
    facts = {
        "encoder": recipe.encoder.model_dump(mode="json"),
        "spec": dict(model.reader.spec),
        "domain": domain.name,
        "method": recipe.method.name,
    }
    if format == "safetensors":
        write_tensors(path, model.encoder.state_dict(), facts)
    else:
        _save_timm(model.encoder, path, recipe.encoder.name, facts)
    return path


def _save_timm(encoder: nn.Module, path: Path, name: str, facts: Mapping[str, object]) -> None:
    named = timm_tensors(encoder)
    if named is None:
        raise UserError(
            f"format: the encoder {name!r} has no timm counterpart; use format 'safetensors'"
        )
    write_tensors(path, named, facts)


def timm_tensors(encoder: nn.Module) -> dict[str, Tensor] | None:
    """The encoder's weights under timm's names, if it offers `timm_state_dict()`; else None.

    That method raises `UserError` for a variant that timm's model would compute differently.
    """
    offers = getattr(encoder, "timm_state_dict", None)
    return None if offers is None else dict(offers())
