"""The text domain: everything the core's commands and contract tests need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ssl_core.batch import Source
from ssl_core.domain import Domain
from ssl_core.methods import pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry

if TYPE_CHECKING:
    from ssl_text.reader import TextReader


class TextDomain(Domain):
    """Documents in plain text, JSON lines or tables; tokens; Transformers."""

    name = "text"
    package = "ssl_text"
    sample_kind = "documents"
    views = Registry(
        "views",
        {
            "spans": "ssl_text.views.policies:spans",
            "dropout": "ssl_text.views.policies:dropout",
            "none": "ssl_text.views.policies:none",
        },
    )
    encoders = Registry(
        "encoder",
        {
            name: f"ssl_text.encoders.create:{name}"
            for name in ("bert_tiny", "bert_mini", "bert_small", "bert_medium", "bert_base")
        },
    )
    methods = Registry(
        "method",
        {
            **pick("simclr", "byol", "barlow_twins", "vicreg"),
            "mlm": "ssl_text.methods.mlm:MLM",
        },
    )

    def open(self, data: Data) -> Source:
        """Text files by their suffix; Hugging Face data sets and tar shards through the core."""
        from ssl_text.options import TextOptions
        from ssl_text.sources.opening import FORMATS, PLAIN, is_manifest, open_text

        assert data.path is not None, "the embedded data is written to a folder first"
        options = TextOptions.of(data.options)
        path = Path(data.path)
        ours = data.format in FORMATS and not data.path.startswith("hf:")
        if ours and path.suffix != ".tar" and not is_manifest(path, options):
            return open_text(path, format=data.format, options=options)
        from ssl_core.data import open_source

        return open_source(data.path, suffixes=PLAIN, format=data.format)

    def fit_reader(self, source: Source, data: Data) -> TextReader:
        """Trains the tokenizer on these documents, unless the options name one."""
        from ssl_text.options import TextOptions
        from ssl_text.reader import TextReader

        return TextReader.fit(source, TextOptions.of(data.options))

    def load_reader(self, folder: Path) -> TextReader:
        """The reader saved in a run folder."""
        from ssl_text.reader import TextReader

        return TextReader.load(folder)

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        """Passages of the Python standard library, labelled by what they are about."""
        from ssl_text.samples import write_samples

        write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        """Passages of the embedded data."""
        return 6000

    def create_encoder(
        self, name: str, spec: Mapping[str, Any], options: Mapping[str, Any]
    ) -> nn.Module:
        """A BERT by its size, or `hf:<model type>` with fields of its configuration."""
        if name.startswith("hf:"):
            from ssl_text.encoders.create import from_config

            return from_config(name, spec, **options)
        return super().create_encoder(name, spec, options)


TEXT = TextDomain()
