"""The vision domain: what `ssl-vision`, the contract tests and experiments walk."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ssl_core.batch import Reader, Source
from ssl_core.data.captions import CaptionReader
from ssl_core.domain import Domain
from ssl_core.methods import pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_core.views import ViewPolicy
from ssl_vision import samples
from ssl_vision.captioned import fit_captioned, with_captions
from ssl_vision.corruptions import CORRUPTIONS, SEVERITIES, CorruptedViews
from ssl_vision.encoders import ENCODERS
from ssl_vision.formats import SUFFIXES
from ssl_vision.methods import METHODS
from ssl_vision.reader import ImageReader, ReaderOptions
from ssl_vision.views import VIEWS

_EXTRA_FORMATS = (
    ("DICOM", "pydicom", "dicom"),
    ("HEIC", "pillow_heif", "heic"),
    ("packed TIFF, deep JPEG 2000", "imagecodecs", "tiff"),
)
"""What is read by an optional package: the package, and the extra that brings it."""


class VisionDomain(Domain):
    """Images: folders, manifests, shards or data sets of JPEG, PNG and other files."""

    name = "vision"
    package = "ssl_vision"
    sample_kind = "images"
    libraries = ("torchvision", "timm", "pillow")
    double = 0.99
    corruptions = dict.fromkeys(CORRUPTIONS, SEVERITIES)
    tasks: ClassVar[dict[str, str]] = {"segmentation": "ssl_vision.segmentation.run:segment_run"}
    measures: ClassVar[dict[str, str]] = {
        "segmentation": "ssl_vision.segmentation.run:dense_linear",
        "caption_retrieval": "ssl_vision.retrieval:caption_retrieval",
    }
    exporters: ClassVar[dict[str, str]] = {
        name: f"ssl_vision.exporting.{name}_format:export_{name}"
        for name in ("timm", "torchvision", "transformers")
    }
    card: ClassVar[dict[str, str]] = {"pipeline_tag": "image-feature-extraction"}
    views = Registry("views", VIEWS)
    encoders = Registry("encoder", ENCODERS)
    methods = Registry(
        "method",
        {
            **pick(
                *("simclr", "moco", "moco_v3", "nnclr", "pirl", "sup_con", "clip"),
                *("byol", "simsiam", "ressl", "swav"),
                *("dino", "ibot", "dinov2", "msn"),
                *("barlow_twins", "vicreg", "vicregl", "tico", "w_mse", "lejepa"),
                *("seed", "feature_distillation"),
                *("mae", "simmim", "maskfeat", "beit", "data2vec", "ijepa", "spark", "mixmim"),
                *("rotation", "jigsaw", "relative_patch", "exemplar", "inpainting"),
            ),
            **METHODS,
        },
    )

    towers = Registry("tower", {"text": "ssl_core.networks.text_tower:text_tower"})

    def open(self, data: Data) -> Source:
        from ssl_core.data import open_source

        assert data.path is not None, "the embedded data is written before it is opened"
        if data.options.get("captions") is not None:
            data = with_captions(data)
        source: Source = open_source(
            str(data.path), suffixes=SUFFIXES, format=data.format, limit=data.limit
        )
        return source

    def fit_reader(self, source: Source, data: Data) -> Reader:
        options = ReaderOptions.of(data.options)
        if options.captions is not None:
            return fit_captioned(source, options)
        return ImageReader.fit(source, options)

    def load_reader(self, folder: Path) -> Reader:
        images = ImageReader.load(folder)
        return CaptionReader.load(images, folder) if CaptionReader.saved_in(folder) else images

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        samples.write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        return samples.DEFAULT_COUNT

    def facts(self, source: Source, rows: Sequence[int]) -> Mapping[str, Any]:
        from ssl_vision.facts import image_facts

        return image_facts(source, rows)

    def example(self, spec: Mapping[str, Any]) -> Any:
        """Two images of noise `[2, C, H, W]`, as normalised pixels."""
        import torch

        from ssl_core.rng import generator
        from ssl_vision.encoders.spec import channels_of, size_of

        shape = (2, channels_of(spec), *size_of(spec))
        return torch.from_numpy(generator("export example").standard_normal(shape, "float32"))

    def loading(self, format: str, path: Path) -> str | None:
        from ssl_vision.exporting.loading import loading

        return loading(format, path)

    def draw(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        """Pictures `[H, W, 3]` of normalised images `[B, C, H, W]`; what is hidden becomes grey.

        None of captions."""
        if data.dim() != 4:
            return []
        mean = data.new_tensor(spec["mean"])[:, None, None]
        std = data.new_tensor(spec["std"])[:, None, None]
        pixels = (data.float() * std + mean).nan_to_num(0.5).clamp(0, 1)
        if pixels.shape[1] not in (1, 3):
            pixels = pixels.mean(1, keepdim=True)
        bytes_ = (pixels.expand(-1, 3, -1, -1) * 255).round().byte()
        return list(bytes_.permute(0, 2, 3, 1).cpu().numpy())

    def abilities(self) -> Mapping[str, str]:
        from PIL import features

        from ssl_vision.decode import fast_decoder

        readers = {"JPEG": "torchvision" if fast_decoder("JPEG") is not None else "Pillow"}
        for name in ("webp", "libtiff", "jpg_2000", "avif"):
            has = features.check(name)
            readers[name] = "Pillow" if has else "missing; pip install --upgrade pillow"
        for name, package, extra in _EXTRA_FORMATS:
            has = importlib.util.find_spec(package) is not None
            readers[name] = package if has else f"missing; pip install 'ssl-vision[{extra}]'"
        return readers

    def corrupted(
        self, views: ViewPolicy, spec: Mapping[str, Any], name: str, severity: int
    ) -> ViewPolicy:
        return CorruptedViews(views, tuple(spec["mean"]), tuple(spec["std"]), name, severity)

    def create_encoder(
        self, name: str, spec: Mapping[str, Any], options: Mapping[str, Any]
    ) -> nn.Module:
        """Our own encoders and any timm, torchvision or transformers model by name."""
        from ssl_vision.encoders.create import create_encoder

        return create_encoder(name, spec, **options)

    def encoder_names(self) -> list[str]:
        from ssl_vision.encoders.create import encoder_names

        return encoder_names()


VISION = VisionDomain()
