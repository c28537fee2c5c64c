"""The text domain: everything the core's commands and contract tests need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from ssl_core.batch import Reader, Source
from ssl_core.domain import Domain
from ssl_core.methods import PAIRED, pick
from ssl_core.recipe import Data
from ssl_core.registry import Registry

if TYPE_CHECKING:
    from ssl_text.reader import TextReader


class TextDomain(Domain):
    """Documents in plain text, JSON lines or tables; tokens; Transformers."""

    name = "text"
    package = "ssl_text"
    sample_kind = "documents"
    libraries = ("transformers", "tokenizers")
    more_samples: ClassVar[dict[str, str]] = {"urls": "ssl_text.urls:write_urls"}
    exporters: ClassVar[dict[str, str]] = {
        "transformers": "ssl_text.exporting:export_transformers",
        "sentence_transformers": "ssl_text.exporting:export_sentence_transformers",
    }
    measures: ClassVar[dict[str, str]] = {
        "tfidf": "ssl_text.evaluation.tfidf:tfidf",
        "sts": "ssl_text.evaluation.measures:sts",
        "retrieval": "ssl_text.evaluation.measures:retrieval",
        "clustering": "ssl_text.evaluation.measures:clustering",
        "tagging": "ssl_text.evaluation.tagging:tagging",
        "contacts": "ssl_text.evaluation.contacts:contacts",
        "choices": "ssl_text.evaluation.casehold:multiple_choice",
        "specificity": "ssl_text.evaluation.casehold:specificity",
    }
    views = Registry(
        "views",
        {
            "spans": "ssl_text.views.policies:spans",
            "dropout": "ssl_text.views.policies:dropout",
            "none": "ssl_text.views.policies:none",
            "declutr": "ssl_text.views.anchors:declutr",
            "deletion": "ssl_text.views.noise:deletion",
        },
    )
    encoders = Registry(
        "encoder",
        {
            name: f"ssl_text.encoders.create:{name}"
            for name in (
                *("bert_tiny", "bert_mini", "bert_small", "bert_medium", "bert_base"),
                *("gru", "lstm", "cnn"),
            )
        },
    )
    methods = Registry(
        "method",
        {
            **pick(*PAIRED, "data2vec"),
            "mlm": "ssl_text.methods.mlm:MLM",
            "curriculum_mlm": "ssl_text.methods.curriculum:CurriculumMLM",
            "spanbert": "ssl_text.methods.spanbert:SpanBERT",
            "electra": "ssl_text.methods.electra:ELECTRA",
            "declutr": "ssl_text.methods.declutr:DeCLUTR",
            "tsdae": "ssl_text.methods.tsdae:TSDAE",
            "urlbert": "ssl_text.methods.urlbert:URLBERT",
        },
    )

    def open(self, data: Data) -> Source:
        """Text files by their suffix; tar shards, lists of files and data sets through the core."""
        from ssl_text.options import TextOptions
        from ssl_text.sources.opening import open_any

        assert data.path is not None, "the embedded data is written to a folder first"
        options = TextOptions.of(data.options)
        return open_any(data.path, format=data.format, options=options, limit=data.limit)

    def fit_reader(self, source: Source, data: Data) -> TextReader:
        """Trains the tokenizer on these documents, unless the options name one."""
        from ssl_text.options import TextOptions
        from ssl_text.reader import TextReader

        return TextReader.fit(source, TextOptions.of(data.options))

    def load_reader(self, folder: Path) -> TextReader:
        """The reader saved in a run folder."""
        from ssl_text.reader import TextReader

        return TextReader.load(folder)

    def prepared(self, source: Source, reader: Reader, data: Data) -> Source:
        """The documents themselves, or their token ids from a memory-mapped cache."""
        from ssl_text.options import TextOptions
        from ssl_text.sources.tokens import cached_tokens

        options = TextOptions.of(data.options)
        return cached_tokens(source, reader, options) if options.token_cache else source

    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        """Passages of the Python standard library, labelled by what they are about."""
        from ssl_text.samples import write_samples

        write_samples(folder, count=count, seed=seed)

    @property
    def default_count(self) -> int:
        """Documents of the embedded data, where the standard library has as many."""
        from ssl_text.samples import DEFAULT_COUNT

        return DEFAULT_COUNT

    def words(self, data: Any, reader: Reader) -> list[str]:
        """Documents as their tokens read; a hidden token is a white square, guesses are marked."""
        from ssl_text.reader import TextReader
        from ssl_text.telling import HIDDEN, Told, words
        from ssl_text.tokens import TokenBatch

        assert isinstance(reader, TextReader)
        if isinstance(data, Told):
            return words(data, reader)
        if not isinstance(data, TokenBatch):
            return []
        rows = zip(data.ids.cpu(), data.valid.cpu(), strict=True)
        return [" ".join(reader.text(ids[valid], hidden=HIDDEN).split()) for ids, valid in rows]

    def create_encoder(
        self, name: str, spec: Mapping[str, Any], options: Mapping[str, Any]
    ) -> nn.Module:
        """A BERT by its size, or `hf:<model type>` with fields of its configuration."""
        if name.startswith("hf:"):
            from ssl_text.encoders.create import from_config

            return from_config(name, spec, **options)
        return super().create_encoder(name, spec, options)

    def encoder_names(self) -> list[str]:
        """The sizes of BERT, and how to name any other model."""
        return [*super().encoder_names(), "hf:<model type>"]


TEXT = TextDomain()
