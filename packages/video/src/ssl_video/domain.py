"""The video domain: what `ssl-video`, the contract tests and experiments walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ssl_core.batch import Reader, Source
from ssl_core.domain import Domain
from ssl_core.methods import PAIRED, pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_video import samples
from ssl_video.encoders import ENCODERS
from ssl_video.methods import METHODS
from ssl_video.reader import ReaderOptions, VideoReader
from ssl_video.sources import open_videos
from ssl_video.views import VIEWS


class VideoDomain(Domain):
    """Videos: files in folders, manifests or shards, GIFs, folders of frames, arrays."""

    name = "video"
    package = "ssl_video"
    sample_kind = "videos"
    more_samples: ClassVar[dict[str, str]] = {"changes": "ssl_video.changes:write_changes"}
    libraries = ("decord2", "av", "torchvision", "transformers", "pillow")
    views = Registry("views", VIEWS)
    encoders = Registry("encoder", ENCODERS)
    methods = Registry(
        "method",
        pick(
            *PAIRED,
            *("dino", "ibot", "dinov2", "msn"),
            *("mae", "simmim", "maskfeat", "data2vec", "ijepa"),
        )
        | METHODS,
    )

    def open(self, data: Data) -> Source:
        assert data.path is not None, "the embedded data is written before it is opened"
        return open_videos(data.path, format=data.format, limit=data.limit)

    def fit_reader(self, source: Source, data: Data) -> Reader:
        return VideoReader.fit(source, ReaderOptions.of(data.options))

    def load_reader(self, folder: Path) -> Reader:
        return VideoReader.load(folder)

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        samples.write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        return samples.DEFAULT_COUNT

    def facts(self, source: Source, rows: Sequence[int]) -> Mapping[str, Any]:
        from ssl_video.facts import video_facts

        return video_facts(source, rows)

    def draw(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        from ssl_video.pictures import draw

        return draw(data, spec)

    def thumbnails(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        """First, middle and last frame of every clip."""
        from ssl_video.pictures import draw

        return draw(data, spec, frames=3)

    def abilities(self) -> Mapping[str, str]:
        from importlib.metadata import version

        from ssl_video.files.open import has_decord

        return {
            "MP4, MKV, WebM, AVI, MOV": f"PyAV {version('av')}",
            "second backend": f"decord {version('decord2')}" if has_decord() else "missing",
            "GIF, folders of frames": f"Pillow {version('pillow')}",
        }

    def create_encoder(
        self, name: str, spec: Mapping[str, Any], options: Mapping[str, Any]
    ) -> nn.Module:
        """Our own encoders and torchvision's video and image models by name."""
        from ssl_video.encoders.create import create_encoder

        return create_encoder(name, spec, **options)

    def encoder_names(self) -> list[str]:
        from ssl_video.encoders.create import encoder_names

        return encoder_names()


VIDEO = VideoDomain()
