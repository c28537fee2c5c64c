"""A run as a MONAI bundle: what `monai.bundle` needs to turn scans into feature vectors.

    configs/metadata.json    versions, what goes in and comes out
    configs/inference.json   network, preparation of scans, data, a program that writes vectors
    configs/reader.json      how scans are prepared, as in the run
    models/model.pt          the weights as a plain state dict, which MONAI's own loader takes
    models/model.safetensors the same weights

    python -m monai.bundle run --config_file BUNDLE/configs/inference.json \\
        --bundle_root BUNDLE --scans '["a.nii.gz"]' --out vectors.npy

`network_def` and the preparation are this package's, so that vectors are those of `embed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core.batch import Batch, Record
from ssl_core.files import write_json
from ssl_core.runs.exporting import prove
from ssl_core.runs.model import Model
from ssl_core.tensors import write_tensors
from ssl_medical.encoders.create import create_encoder
from ssl_medical.reader import VolumeReader
from ssl_medical.views.policies import frame


class FeatureNetwork(nn.Module):
    """An encoder by name; `[B, C, *sides]`, normalised, to pooled features `[B, D]`."""

    def __init__(self, encoder: str, options: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder = create_encoder(encoder, spec, **options)

    def forward(self, data: Tensor) -> Tensor:
        out: Tensor = self.encoder(data).pooled
        return out


class Prepare:
    """A scan's path to the run's deterministic view of it, `[C, *sides]`."""

    def __init__(self, folder: str, sides: list[int]) -> None:
        self.reader = VolumeReader.load(Path(folder))
        self.frame = frame(self.reader.spec, sides)

    def __call__(self, scan: str) -> Tensor:
        block = self.reader.decode(Record(Path(scan).name, scan))
        row = torch.zeros(1, dtype=torch.int64)
        return self.frame.plain(Batch(self.reader.collate([block]), row, row))[0]


def with_weights(network: nn.Module, path: str, device: str) -> nn.Module:
    """`network` with the weights in `path`, in evaluation mode."""
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.to(device).eval()


@torch.no_grad()
def write_features(network: nn.Module, batches: Iterable[Tensor], out: str, device: str) -> None:
    """The features of all batches as one `.npy` file, float32 `[N, D]`."""
    found = [network(batch.as_subclass(Tensor).to(device)).float().cpu() for batch in batches]  # type: ignore[no-untyped-call]
    np.save(out, torch.cat(found).numpy(), allow_pickle=False)


def export_bundle(model: Model, folder: Path) -> Path:
    """Writes the bundle and proves it: what MONAI makes of the files answers as the encoder does.

    Nothing of the scans' headers is in it. Raises `ExportDiffers`.
    """
    assert isinstance(model.reader, VolumeReader)
    spec: Mapping[str, Any] = model.views.spec  # type: ignore[attr-defined]
    named = model.recipe.encoder
    options = {name: value for name, value in named.options.items() if name != "weights"}
    facts = {key: spec[key] for key in ("channels", "axes", "block", "view_sides")}
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    model.reader.save(folder / "configs")
    weights = {f"encoder.{name}": x.cpu() for name, x in model.encoder.state_dict().items()}
    torch.save(weights, folder / "models" / "model.pt")
    write_tensors(folder / "models" / "model.safetensors", weights)
    write_json(folder / "configs" / "inference.json", _inference(named.name, options, facts))
    write_json(folder / "configs" / "metadata.json", _metadata(model, facts))
    prove(model, "model", _rebuilt(folder), folder / "models")
    return folder


def _rebuilt(folder: Path) -> nn.Module:
    """The network as MONAI makes it from the written files alone."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"] = str(folder)
    with torch.random.fork_rng(devices=[]):
        network: nn.Module = parser.get_parsed_content("network")
    return network


def _inference(encoder: str, options: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "scans": [],
        "out": "features.npy",
        "device": "cpu",
        "network_def": {
            "_target_": "ssl_medical.bundle.FeatureNetwork",
            "encoder": encoder,
            "options": dict(options),
            "spec": dict(spec),
        },
        "network": {
            "_target_": "ssl_medical.bundle.with_weights",
            "network": "@network_def",
            "path": "$@bundle_root + '/models/model.pt'",
            "device": "@device",
        },
        "preprocessing": {
            "_target_": "ssl_medical.bundle.Prepare",
            "folder": "$@bundle_root + '/configs'",
            "sides": list(spec["view_sides"]),
        },
        "dataset": {"_target_": "Dataset", "data": "@scans", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 4},
        "run": [
            {
                "_target_": "ssl_medical.bundle.write_features",
                "network": "@network",
                "batches": "@dataloader",
                "out": "@out",
                "device": "@device",
            }
        ],
    }


def _metadata(model: Model, spec: Mapping[str, Any]) -> dict[str, Any]:
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "n/a",
        "num_channels": spec["channels"],
        "spatial_shape": list(spec["view_sides"]),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(n): f"channel {n}" for n in range(spec["channels"])},
    }
    features = {
        "type": "tuples",
        "format": "labels",
        "num_channels": model.dim,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "feature vector"},
    }
    return {
        "schema": (
            "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/"
            "0.8.1/meta_schema_20240725.json"
        ),
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"ssl-medical": version("ssl-medical")},
        "name": f"{model.recipe.method.name} features",
        "task": "feature vectors of scans",
        "description": f"{model.recipe.encoder.name}, pretrained with {model.recipe.method.name}",
        "authors": "",
        "copyright": "",
        "intended_use": "features for further training; not for diagnosis",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": features}},
    }
