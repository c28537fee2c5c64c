"""A domain: the one object a package exports. Commands, contract tests and experiments walk it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ssl_core.batch import Reader, Source
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_core.registry import Registry
from ssl_core.views import ViewPolicy


class Domain(ABC):
    """Files, views, encoders and own methods of one kind of data.

    A subclass sets `name`, `package` and the three registries, and implements the five abstract
    methods. Factories in the registries are called as

        views:    factory(spec, **options) -> ViewPolicy
        encoders: factory(spec, **options) -> nn.Module with `embed_dim`, returning `Features`
        methods:  factory(encoder, views, **options) -> Method
        towers:   factory(spec, **options) -> nn.Module, as encoders, for a view's second kind of
                  data (captions); a method option `tower` names one

    where `spec` is `Reader.spec`, JSON facts of the data.
    """

    name: str
    """The word in `ssl-<name>`."""
    package: str
    """The import name, whose `recipes/` folder holds the YAML recipes."""
    sample_kind: str = "samples"
    """What one record is called in messages: images, graphs, documents."""
    libraries: tuple[str, ...] = ()
    """Distributions the domain stands on, whose versions `doctor` and reports name."""
    double: float | None = None
    """Cosine of centred raw features from which two records count as the same for `inspect`; None
    where raw features are too coarse to tell."""
    more_samples: Mapping[str, str] = {}
    """Example data besides the default's, for `samples --kind`: name -> "module:function", called
    as `samples` below is."""
    corruptions: Mapping[str, Sequence[int]] = {}
    """Ways to spoil an input that `evaluate --corruptions` tries: name -> severities."""
    tasks: Mapping[str, str] = {}
    """What `finetune --task` trains besides a classifier: name -> "module:function", called as
    `runs.finetuning.finetune_run` is."""
    measures: Mapping[str, str] = {}
    """What `evaluation.more` of a recipe may ask for after training: name -> "module:function",
    called as `function(run, domain, device, **options)`. The found mapping goes into
    `summary.json`, its `words` into the verdict, which begins with those that have a `score`."""
    exporters: Mapping[str, str] = {}
    """Formats that `export` knows besides the core's: name -> "module:function", called with the
    loaded `Model` and the folder to write, which it returns."""
    card: Mapping[str, Any] = {}
    """Front matter of model cards that only this domain knows (`pipeline_tag`)."""
    views: Registry
    encoders: Registry
    methods: Registry
    towers: Registry = Registry("tower", {})

    @abstractmethod
    def open(self, data: Data) -> Source:
        """The source behind `data.path` (never None here); raises `UserError` on bad input."""

    @abstractmethod
    def fit_reader(self, source: Source, data: Data) -> Reader:
        """A reader for this source: measures channels and sizes, trains a tokenizer."""

    @abstractmethod
    def load_reader(self, folder: Path) -> Reader:
        """The reader that `Reader.save` wrote into a run folder."""

    def prepared(self, source: Source, reader: Reader, data: Data) -> Source:
        """`source` as training reads it with this reader: decoded once and kept, for instance.

        Called on every rank, on rank 0 before the others. What it makes must be whole or absent.
        """
        return source

    @abstractmethod
    def samples(self, folder: Path, *, count: int, seed: int) -> None:
        """Writes a small labelled set of real files into an empty folder."""

    @property
    @abstractmethod
    def default_count(self) -> int:
        """How many samples the embedded default data has."""

    def called(self, spec: Mapping[str, Any]) -> str:
        """What records of a reader with these facts are called in messages."""
        return self.sample_kind

    def abilities(self) -> Mapping[str, str]:
        """What this installation can read or do (codecs, backends), for `doctor`."""
        return {}

    def corrupted(
        self, views: ViewPolicy, spec: Mapping[str, Any], name: str, severity: int
    ) -> ViewPolicy:
        """`views` with a plain view of spoiled input, for each name in `corruptions`."""
        raise UserError(f"ssl-{self.name} has no corruption {name!r}")

    def facts(self, source: Source, rows: Sequence[int]) -> Mapping[str, Any]:
        """What only this kind of data has to tell about these records (durations, sound), for
        `inspect`: name -> number, text or mapping of them. Unreadable records are passed over."""
        return {}

    def example(self, spec: Mapping[str, Any]) -> Any:
        """A made-up batch of two inputs of the encoder (a float tensor), by which exports are
        proven; None where inputs are no plain tensors."""
        return None

    def loading(self, format: str, path: Path) -> str | None:
        """Python lines that load an export, for its model card; None leaves it to the core."""
        return None

    def draw(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        """A batch of view data as pictures for the report, or none for data that has no look.

        Returns one NumPy array a sample, uint8 `[H, W]` or `[H, W, 3]`. NaN in `data` marks what
        a method hides. `spec` is the reader's, with what the views changed.
        """
        return []

    def thumbnails(self, data: Any, spec: Mapping[str, Any]) -> list[Any]:
        """`draw`, for pictures that will be shown small: a few frames instead of all."""
        return self.draw(data, spec)

    def words(self, data: Any, reader: Reader) -> list[str]:
        """A batch of view data in words for the report, or none for data better looked at.

        One text a sample. ⟨a⟩ marks a part, ⟨a|b⟩ an a that stands in the place of b.
        """
        return []

    def create_views(
        self, name: str, spec: Mapping[str, Any], options: Mapping[str, Any]
    ) -> ViewPolicy:
        """A registered view policy for data with these facts."""
        policy: ViewPolicy = self.views.build(name, spec, options=options)
        return policy

    def create_encoder(
        self, name: str, spec: Mapping[str, Any], options: Mapping[str, Any]
    ) -> nn.Module:
        """A registered encoder for data with these facts."""
        encoder: nn.Module = self.encoders.build(name, spec, options=options)
        return encoder

    def encoder_names(self) -> list[str]:
        """Every name `create_encoder` takes, for listings and did-you-mean."""
        return sorted(self.encoders)
