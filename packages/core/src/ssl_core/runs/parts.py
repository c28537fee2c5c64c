"""Builds what a recipe names: source, split, reader, views, encoder, method."""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_core.batch import Reader, Source
from ssl_core.data.subset import Subset
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.files import atomic_folder, cache_folder
from ssl_core.methods.base import Method
from ssl_core.networks.weights import load_best
from ssl_core.recipe import Data, Named, Recipe, named
from ssl_core.registry import Registry, is_place
from ssl_core.rng import key_of
from ssl_core.views import ViewPolicy


def embedded_data(domain: Domain, *, seed: int = 0) -> Path:
    """The folder of the domain's own sample data, written when it is not there yet.

    The folder's name holds a hash of the code that makes the data, so that another version of
    the package never trains on old files.
    """
    folder = cache_folder() / f"{domain.name}-samples-{_sample_version(domain)}-{seed}"
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            domain.samples(temporary, count=domain.default_count, seed=seed)
    return folder


def write_samples(
    domain: Domain, folder: Path, *, count: int | None, seed: int, kind: str | None = None
) -> int:
    """Writes the domain's samples into a new or empty folder; returns how many were asked for.

    `kind` names one of `domain.more_samples`; None is the data that runs without a path use.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"folder: {str(folder)!r} is not empty; give a new one")
    write = domain.samples
    if kind is not None:
        if not domain.more_samples:
            raise UserError(f"kind: ssl-{domain.name} has one kind of samples; leave it out")
        write = Registry("kind", domain.more_samples).load(kind)
    count = domain.default_count if count is None else count
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, count=count, seed=seed)
    return count


def _sample_version(domain: Domain) -> str:
    code = hashlib.blake2b(digest_size=6)
    code.update(f"{domain.default_count} {sys.version_info[:2]}".encode())
    code.update(str(getattr(import_module(domain.package), "__version__", "")).encode())
    for file in sorted(resources.files(domain.package).iterdir(), key=lambda f: f.name):
        if file.name.startswith("samples") and file.name.endswith(".py"):
            code.update(file.read_bytes())
    return code.hexdigest()


def open_data(domain: Domain, data: Data) -> Source:
    """The source of a recipe; the embedded data where it names no path."""
    from ssl_core.data import limited
    from ssl_core.data.packed import PackedSource, is_packed

    if data.path is None:
        data = data.model_copy(update={"path": str(embedded_data(domain))})
    elif is_packed(Path(data.path)):
        return limited(PackedSource(Path(data.path)), data.limit)
    return domain.open(data)


def fitted_reader(domain: Domain, source: Source, data: Data) -> Reader:
    """A reader for a source: the one that packed it, or one measured on it.

    Raises `UserError` where `data.options` would ask packed samples for another reading.
    """
    from ssl_core.data.packed import PackedSource

    whole = source
    while isinstance(whole, Subset):
        whole = whole.source
    if not isinstance(whole, PackedSource):
        return domain.fit_reader(source, data)
    if data.options:
        raise UserError(
            f"data.options: {', '.join(data.options)} cannot change packed samples; "
            "pack the files again with these options"
        )
    return domain.load_reader(whole.reader_folder)


@dataclass(frozen=True)
class Split:
    """A source, and which of its records train and which are held out."""

    source: Source
    train: Subset
    heldout: Subset

    def facts(self) -> dict[str, Any]:
        """Counts, classes and the fingerprint of the training part, for `run.json`."""
        classes = self.source.classes
        return {
            "records": len(self.source),
            "train": len(self.train),
            "heldout": len(self.heldout),
            "classes": None if classes is None else list(classes),
            "fingerprint": self.train.fingerprint(),
        }


def split_data(domain: Domain, data: Data, source: Source | None = None) -> Split:
    """Opens the data (or takes `source`) and sets the hold-out apart."""
    from ssl_core.data import split_holdout

    found = open_data(domain, data) if source is None else source
    train, heldout = split_holdout(found, data.holdout)
    return Split(found, train, heldout)


@dataclass(frozen=True)
class Parts:
    """The networks and views of a recipe, freshly initialised from its seed."""

    reader: Reader
    spec: Mapping[str, Any]
    views: ViewPolicy
    method: Method

    @property
    def encoder(self) -> nn.Module:
        return self.method.encoder


def build_parts(
    domain: Domain,
    recipe: Recipe,
    reader: Reader,
    *,
    training: bool = True,
    records: int = 1,
    start: Path | None = None,
) -> Parts:
    """Views, encoder and method; a pure function of the recipe and the reader's facts.

    A method option `teacher` names a finished run, whose encoder the method gets, frozen. Without
    `training` another network stands in for it: using a run must not need its teacher's folder.
    A method option `tower` names a network of `domain.towers`, with its options, which the method
    gets built. A method option `bank: auto` becomes `records`, how many samples train.

    `start` is a file of weights for the encoder, loaded before the method sees it (a teacher is
    a copy of it then); `encoder.weight_report` says what matched.

    Other weights come from torch's generator started at the recipe's seed; the caller's generator
    is left as it was. A view policy with a `spec` tells the encoder what it changes (`view_size`).
    """
    views = domain.create_views(recipe.views.name, reader.spec, recipe.views.options)
    spec = {**reader.spec, **getattr(views, "spec", {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of("initialisation", recipe.train.seed) % (1 << 63))
        encoder = _encoder(domain, recipe.encoder, spec)
        if start is not None and start.is_file():
            report = load_best(encoder, start, minimum=recipe.start.minimum)
            encoder.weight_report = report  # type: ignore[assignment]
        options = recipe.method.options
        if "teacher" in options:
            place = Path(str(options["teacher"]))
            frozen = frozen_encoder(domain, place, reader) if training else copy.deepcopy(encoder)
            options = {**options, "teacher": frozen}
        if "tower" in options:
            tower = named(options["tower"])
            built = domain.towers.build(tower.name, spec, options=tower.options)
            options = {**options, "tower": built}
        if options.get("bank") == "auto":
            options = {**options, "bank": records}
        method: Method = domain.methods.build(recipe.method.name, encoder, views, options=options)
    if not isinstance(method, Method):
        raise UserError(f"method: {recipe.method.name} makes a {type(method).__name__}, no Method")
    return Parts(reader, spec, views, method)


def _encoder(domain: Domain, asked: Named, spec: Mapping[str, Any]) -> nn.Module:
    """An encoder of the domain's, or one of the user's own by "module:attribute"."""
    if not is_place(asked.name):
        return domain.create_encoder(asked.name, spec, asked.options)
    encoder: nn.Module = Registry("encoder", {}).build(asked.name, spec, options=asked.options)
    if not isinstance(getattr(encoder, "embed_dim", None), int):
        raise UserError(
            f"encoder: {asked.name} makes a {type(encoder).__name__} without `embed_dim`, the "
            "width of the features it returns"
        )
    return encoder


# Facts in which a teacher's data may differ from its student's.
_FREE_FACTS = frozenset({"size", "height", "width", "mean", "std"})


def frozen_encoder(domain: Domain, folder: Path, reader: Reader) -> nn.Module:
    """The encoder of a finished run, to be distilled on data that `reader` reads.

    Raises `UserError` where that run is of another domain or reads another kind of input.
    """
    from ssl_core.runs.folder import Run
    from ssl_core.runs.model import load_model

    run = Run.load(str(folder))
    if run.recipe.domain != domain.name:
        raise UserError(f"method.teacher: {folder} is a run of ssl-{run.recipe.domain}")
    model = load_model(run, domain, device=torch.device("cpu"))
    theirs, ours = dict(model.reader.spec), dict(reader.spec)
    for name in sorted((theirs.keys() & ours.keys()) - _FREE_FACTS):
        if theirs[name] != ours[name]:
            raise UserError(
                f"method.teacher: {folder} reads data with {name} {theirs[name]!r:.60}, the "
                f"student's data has {ours[name]!r:.60}"
            )
    return model.encoder.requires_grad_(False)
