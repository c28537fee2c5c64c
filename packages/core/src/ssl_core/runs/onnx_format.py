"""An encoder as an ONNX graph: a batch of inputs to pooled features, any batch size."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.files import atomic_path
from ssl_core.runs.exporting import example_of, kept_if_proven, prove
from ssl_core.runs.model import Model

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


class _Pooled(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, data: Tensor) -> Tensor:
        pooled: Tensor = self.encoder(data).pooled
        return pooled


def export_onnx(model: Model, folder: Path) -> Path:
    """Writes `model.onnx` with the input `input` and the output `pooled`, run by onnxruntime.

    Raises `UserError` without the packages of `ssl-core[onnx]`, for a domain whose inputs are no
    plain tensors, and for networks that the exporter cannot follow.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format: onnx needs {', '.join(missing)}; pip install 'ssl-core[onnx]'")
    example = example_of(model)
    if example is None:
        raise UserError(
            f"format: ssl-{model.domain.name} has no inputs that an ONNX graph takes; use "
            "format 'safetensors'"
        )
    file = folder / "model.onnx"
    with atomic_path(file) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of its libraries' next versions
        try:
            torch.onnx.export(
                _Pooled(model.encoder).eval(),
                (example[0],),
                temporary,
                input_names=["input"],
                output_names=["pooled"],
                dynamic_shapes={"data": {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # torch.export raises many kinds for what it cannot follow
            raise UserError(
                f"format: {type(model.encoder).__name__} cannot be written as ONNX "
                f"({type(error).__name__}: {str(error).splitlines()[0]:.200})"
            ) from error
    with kept_if_proven(file):
        prove(model, "model", _session(file), folder)
    return folder


def _session(file: Path) -> Any:
    """onnxruntime's answer, one row at a time: another batch size than the exporter saw."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def answer(data: Tensor) -> Tensor:
        rows = [session.run(None, {"input": row.numpy()})[0] for row in data.split(1)]
        return torch.cat([torch.from_numpy(row) for row in rows])

    return answer
