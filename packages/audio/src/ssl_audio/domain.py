"""The audio domain: what `ssl-audio`, the contract tests and experiments walk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ssl_audio import samples
from ssl_audio.encoders import ENCODERS
from ssl_audio.formats import SUFFIXES
from ssl_audio.methods import METHODS
from ssl_audio.options import ReaderOptions
from ssl_audio.reader import AudioReader
from ssl_audio.views import VIEWS
from ssl_audio.windows import Windows
from ssl_core.batch import Reader, Source
from ssl_core.domain import Domain
from ssl_core.methods import PAIRED, pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry


class AudioDomain(Domain):
    """Recordings: folders, manifests, shards or data sets of WAV, FLAC, OGG, MP3 and others."""

    name = "audio"
    package = "ssl_audio"
    sample_kind = "recordings"
    libraries = ("soundfile", "transformers")
    exporters: ClassVar[dict[str, str]] = {
        "transformers": "ssl_audio.exporting:export_transformers"
    }
    more_samples: ClassVar[dict[str, str]] = {"spoken": "ssl_audio.spoken:write_spoken"}
    card: ClassVar[dict[str, str]] = {"pipeline_tag": "feature-extraction"}
    views = Registry("views", VIEWS)
    encoders = Registry("encoder", ENCODERS)
    methods = Registry(
        "method",
        {
            **pick(*PAIRED, "dino", "ibot", "dinov2", "msn"),
            **pick("mae", "simmim", "data2vec", "beit", "maskfeat", "ijepa"),
            **METHODS,
        },
    )

    def open(self, data: Data) -> Source:
        from ssl_core.data import limited, open_source

        assert data.path is not None, "the embedded data is written before it is opened"
        options = ReaderOptions.of(data.options)
        source: Source = open_source(data.path, suffixes=SUFFIXES, format=data.format)
        if options.split:
            source = Windows(source, seconds=options.max_seconds)
        return limited(source, data.limit)

    def fit_reader(self, source: Source, data: Data) -> Reader:
        return AudioReader.fit(source, ReaderOptions.of(data.options))

    def load_reader(self, folder: Path) -> Reader:
        return AudioReader.load(folder)

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        samples.write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        return samples.DEFAULT_COUNT

    def draw(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        from ssl_audio.pictures import draw

        return draw(data)

    def example(self, spec: Mapping[str, Any]) -> Any:
        """Two inputs of noise: waves `[2, T]` after views "wave", else `[2, 1, mels, frames]`."""
        import torch

        from ssl_core.rng import generator

        shape = (1, int(spec["mels"]), int(spec["frames"]))
        shape = (int(spec["wave"]),) if "wave" in spec else shape
        return torch.from_numpy(generator("export example").standard_normal((2, *shape), "float32"))

    def loading(self, format: str, path: Path) -> str | None:
        from ssl_audio.exporting import loading

        return loading(format, path)

    def abilities(self) -> Mapping[str, str]:
        import shutil

        import soundfile

        formats = soundfile.available_formats()
        subtypes = soundfile.available_subtypes()
        found = {name: name in formats for name in ("WAV", "FLAC", "OGG", "AIFF", "CAF")}
        found["MP3"] = "MPEG_LAYER_III" in subtypes
        found["Opus"] = "OPUS" in subtypes
        old = "missing; its libsndfile is old: pip install --upgrade soundfile"
        words = {name: "libsndfile" if has else old for name, has in found.items()}
        speech = shutil.which("espeak-ng")
        return {
            **words,
            "spoken samples": "espeak-ng" if speech else "missing; apt-get install espeak-ng",
        }


AUDIO = AudioDomain()
