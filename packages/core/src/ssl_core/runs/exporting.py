"""The trained encoder as files for other programs, each proven by reading it again.

An export comes with a model card and, where the domain can make one, an example: an input and the
encoder's answer to it. What was written is loaded as another program would load it, and its answer
compared; an export that differs is an error, not a file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_core.domain import Domain
from ssl_core.errors import SSLError, UserError, unknown
from ssl_core.registry import Registry
from ssl_core.runs.card import write_card
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model, load_model
from ssl_core.tensors import read_facts, read_tensors, write_tensors

FORMATS = ("safetensors", "timm", "onnx")
TOLERANCE = 1e-4
"""Largest difference of an answer that counts as rounding, relative to the largest number."""

Answer = Callable[[Tensor], Tensor]


class ExportDiffers(SSLError):
    """An exported network answers otherwise than the encoder it was made from: our fault."""


def export_run(run: Run, domain: Domain, path: Path, *, format: str) -> Path:
    """Writes the encoder of a run to `path`; returns the file or folder.

    "safetensors" keeps this project's parameter names and stores encoder, options and data facts
    in the metadata; "timm" uses timm's names, so that `load_state_dict` of a timm model with
    `num_classes=0` and the same channels and size takes it; both write one `.safetensors` file (a
    folder gets `<run name>.safetensors`). "onnx" and a domain's own formats write a folder.
    Raises `UserError` for an encoder that has no counterpart there, `ExportDiffers` when what was
    written answers otherwise.
    """
    formats = dict.fromkeys((*FORMATS, *domain.exporters))
    if format not in formats:
        raise unknown("format", format, formats)
    single = format in ("safetensors", "timm")
    if format in domain.exporters and not (single and path.suffix == ".safetensors"):
        return _folder(run, domain, path, format, Registry("format", domain.exporters).load(format))
    if not single:
        from ssl_core.runs.onnx_format import export_onnx

        return _folder(run, domain, path, format, export_onnx)
    if path.is_dir() or path.suffix == "":
        path = path / f"{run.path.resolve().name}.safetensors"
    if path.suffix != ".safetensors":
        raise UserError(f"out: {str(path)!r} must end in .safetensors, or be a folder")
    model = load_model(run, domain, device=torch.device("cpu"))
    facts = {
        "encoder": run.recipe.encoder.model_dump(mode="json"),
        "spec": {**model.reader.spec, **getattr(model.views, "spec", {})},
        "domain": domain.name,
        "method": run.recipe.method.name,
    }
    if format == "safetensors":
        write_tensors(path, model.encoder.state_dict(), facts)
        with kept_if_proven(path):
            prove(model, path.stem, _rebuilt(domain, path), path.parent)
    else:
        named = timm_tensors(model.encoder)
        if named is None:
            raise UserError(
                f"format: the encoder {run.recipe.encoder.name!r} has no timm counterpart; use "
                "format 'safetensors'"
            )
        write_tensors(path, named, facts)
        twin = getattr(model.encoder, "timm_twin", None)
        if twin is not None:
            network: nn.Module = twin()
            network.load_state_dict(read_tensors(path))
            with kept_if_proven(path):
                prove(model, path.stem, network.eval(), path.parent)
    write_card(run, model, path, format=format)
    return path


def _folder(run: Run, domain: Domain, path: Path, format: str, write: Callable[..., Path]) -> Path:
    """A format that fills a folder."""
    if path.suffix or path.is_file():
        raise UserError(f"out: {str(path)!r} must be a folder for format {format!r}")
    model = load_model(run, domain, device=torch.device("cpu"))
    folder = write(model, path)
    write_card(run, model, folder, format=format)
    return folder


@contextlib.contextmanager
def kept_if_proven(file: Path) -> Iterator[None]:
    """Removes `file` when what happens inside finds that it answers otherwise."""
    try:
        yield
    except ExportDiffers:
        file.unlink(missing_ok=True)
        raise


def prove(model: Model, stem: str, answer: Answer, folder: Path) -> float | None:
    """Keeps an example beside an export and compares the exported network's answer to it.

    Writes `<stem>.example.safetensors` with `input` and the encoder's `pooled`. Returns the largest
    difference, None where the domain makes no example. Raises `ExportDiffers`.
    """
    example = example_of(model)
    if example is None:
        return None
    data, expected = example
    write_tensors(folder / f"{stem}.example.safetensors", {"input": data, "pooled": expected})
    with torch.no_grad():
        found = answer(data)
    if found.shape != expected.shape:
        raise ExportDiffers(
            f"export: the file answers {tuple(found.shape)}, the encoder {tuple(expected.shape)}"
        )
    off = float((found.float() - expected).abs().max())
    if not off <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ExportDiffers(f"export: the file's answer differs from the encoder's by {off:.3g}")
    return off


def example_of(model: Model) -> tuple[Tensor, Tensor] | None:
    """An input made up by the domain, never a user's, and the pooled features `[2, D]` of it."""
    spec = {**model.reader.spec, **getattr(model.views, "spec", {})}
    data = model.domain.example(spec)
    if data is None:
        return None
    with torch.no_grad():
        return data, model.encoder.eval()(data).pooled.float()


def _rebuilt(domain: Domain, path: Path) -> Answer:
    """The encoder made again from nothing but the file."""
    facts = read_facts(path)
    named = dict(facts["encoder"])
    with torch.random.fork_rng(devices=[]):
        network = domain.create_encoder(named.pop("name"), facts["spec"], named)
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        path.unlink()
        raise UserError(
            "format: the method made another network of the recipe's encoder, which no file of "
            "weights describes; load the run itself"
        ) from error
    network.eval()
    return lambda data: network(data).pooled


def timm_tensors(encoder: nn.Module) -> dict[str, Tensor] | None:
    """The encoder's weights under timm's names, if it offers `timm_state_dict()`; else None.

    That method raises `UserError` for a variant that timm's model would compute differently.
    """
    offers = getattr(encoder, "timm_state_dict", None)
    return None if offers is None else dict(offers())
