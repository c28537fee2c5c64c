"""The medical domain: what `ssl-medical`, the contract tests and experiments walk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_core.batch import Reader, Source
from ssl_core.domain import Domain
from ssl_core.methods import PAIRED, pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_medical import samples
from ssl_medical.encoders import ENCODERS
from ssl_medical.methods import METHODS
from ssl_medical.reader import ReaderOptions, VolumeReader
from ssl_medical.sources import open_volumes
from ssl_medical.views import VIEWS


class MedicalDomain(Domain):
    """Scans: NIfTI, NRRD and MetaImage files, DICOM series, manifests with patients."""

    name = "medical"
    package = "ssl_medical"
    sample_kind = "scans"
    libraries = ("monai", "nibabel", "pydicom", "pynrrd")
    tasks = Registry("task", {"segmentation": "ssl_medical.segmentation.run:segment_run"})
    measures = Registry(
        "evaluation.more",
        {"few_label_dice": "ssl_medical.segmentation.few_labels:few_label_dice"},
    )
    exporters = Registry("format", {"monai": "ssl_medical.bundle:export_bundle"})
    views = Registry("views", VIEWS)
    encoders = Registry("encoder", ENCODERS)
    methods = Registry(
        "method",
        pick(
            *PAIRED,
            *("dino", "ibot", "dinov2", "msn"),
            *("mae", "simmim", "data2vec", "ijepa", "spark"),
            *("rotation", "jigsaw", "relative_patch", "inpainting", "lvm_med"),
        )
        | METHODS,
    )

    def open(self, data: Data) -> Source:
        assert data.path is not None, "the embedded data is written before it is opened"
        return open_volumes(data.path, format=data.format, limit=data.limit)

    def fit_reader(self, source: Source, data: Data) -> Reader:
        return VolumeReader.fit(source, ReaderOptions.of(data.options))

    def load_reader(self, folder: Path) -> Reader:
        return VolumeReader.load(folder)

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        samples.write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        return samples.DEFAULT_COUNT

    def abilities(self) -> Mapping[str, str]:
        from importlib.metadata import version

        from pydicom.pixels import get_decoder
        from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

        syntaxes = {
            "RLE": RLELossless,
            "JPEG lossless": JPEGLosslessSV1,
            "JPEG-LS": JPEGLSLossless,
            "JPEG 2000": JPEG2000Lossless,
        }
        known = [name for name, syntax in syntaxes.items() if get_decoder(syntax).is_available]
        return {
            "NIfTI": f"nibabel {version('nibabel')}",
            "NRRD": f"pynrrd {version('pynrrd')}",
            "MetaImage": "built in",
            "DICOM series": f"pydicom {version('pydicom')}",
            "compressed DICOM": ", ".join(known) or "none; pip install 'pylibjpeg[all]'",
        }

    def example(self, spec: Mapping[str, Any]) -> Any:
        """Two blocks of noise `[2, C, *sides]`, as normalised voxels."""
        import torch

        from ssl_core.rng import generator

        sides = spec.get("view_sides", spec["block"][: int(spec["axes"])])
        shape = (2, int(spec["channels"]), *(int(side) for side in sides))
        return torch.from_numpy(generator("export example").standard_normal(shape, "float32"))

    def loading(self, format: str, path: Path) -> str | None:
        """How MONAI runs a bundle; the rest is the core's to say."""
        if format != "monai":
            return None
        return (
            "from monai.bundle import run\n\n"
            f'run(config_file="{path.name}/configs/inference.json", bundle_root="{path.name}",\n'
            '    scans=["scan.nii.gz"], out="vectors.npy")'
        )

    def draw(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        """The three middle planes of every block side by side; the first channel."""
        from ssl_medical.picture import planes

        return planes(data, spec)

    def create_encoder(
        self, name: str, spec: Mapping[str, Any], options: Mapping[str, Any]
    ) -> nn.Module:
        """Our own encoders and MONAI's by name."""
        from ssl_medical.encoders.create import create_encoder

        return create_encoder(name, spec, **options)


MEDICAL = MedicalDomain()
