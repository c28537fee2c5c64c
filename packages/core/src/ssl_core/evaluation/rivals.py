"""Measures one representation against its rivals: the raw input and the untrained encoder.

With labels the score is weighted k-NN accuracy of held-out records in the bank of training
records. Without labels it is view retrieval: the share of held-out records of which one random
view finds the other among all others' views. Where the views are not random either, it is the
effective rank, which tells collapse from spread and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core import recipe
from ssl_core.batch import Batch, Reader, Source
from ssl_core.data import Failure, decode_all
from ssl_core.data.heads import head_of
from ssl_core.evaluation.embed import Embedding, embed, sample_rows
from ssl_core.evaluation.geometry import alignment, effective_rank, feature_std, uniformity
from ssl_core.evaluation.knn import knn_accuracy
from ssl_core.evaluation.probe import linear_probe
from ssl_core.evaluation.retrieval import instance_recall, recall_at_k
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy

KNN, VIEWS, RANK = "knn_accuracy", "view_retrieval", "effective_rank"
_GEOMETRY_ROWS = 1024
_VIEW_ROWS = 1024
_VIEW_NUMBERS = 4096


@dataclass(frozen=True)
class Rival:
    """Features of the bank and of the queries under one representation."""

    bank: Tensor
    bank_labels: Tensor
    queries: Tensor
    query_labels: Tensor
    pairs: tuple[Tensor, Tensor] | None = None
    """Features of two random views of the same records, `[V, D]` each."""
    query_index: Tensor | None = None
    """The queries' rows in their source (the held-out part, or the training part without one)."""

    def labelled(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(bank, labels, queries, labels), rows without a label left out."""
        known, asked = self.bank_labels >= 0, self.query_labels >= 0
        return (
            self.bank[known],
            self.bank_labels[known],
            self.queries[asked],
            self.query_labels[asked],
        )

    def chance(self) -> float:
        """Accuracy of always naming the queries' most frequent class."""
        labels = self.query_labels[self.query_labels >= 0]
        return float(labels.bincount().max()) / len(labels)


class Evaluator:
    """Bank and queries of one split, measured the same way for every encoder.

    With an empty hold-out the queries are the bank, each without itself (leave-one-out).
    """

    def __init__(
        self,
        train: Source,
        heldout: Source,
        reader: Reader,
        views: ViewPolicy,
        settings: recipe.Evaluation,
        *,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        self.train, self.heldout = train, heldout
        self.reader, self.views, self.settings = reader, views, settings
        self.batch_size, self.workers = batch_size, workers
        self.device, self.seed = device, seed
        self.bank_rows = sample_rows(len(train), settings.limit, "bank")
        self.query_rows = sample_rows(len(heldout), settings.limit, "queries")
        self.leave_one_out = len(heldout) == 0
        self.corrupt: dict[str, str] = {}
        """Records that could not be read so far: key -> reason."""
        self.labelled = self._labelled()

    def _labelled(self) -> bool:
        """Two classes in the bank and a labelled query: enough for an accuracy."""
        bank = {head_of(self.train, int(row)).label for row in self.bank_rows}
        queries = (head_of(self.heldout, int(row)).label for row in self.query_rows)
        some = self.leave_one_out or any(label is not None for label in queries)
        return len(bank - {None}) >= 2 and some

    def embed(self, encoder: nn.Module, *, raw: bool = False) -> tuple[Rival, Rival | None]:
        """The encoder's features, and with `raw` those of the input, from one decoding."""
        bank = self._pass(encoder, self.train, self.bank_rows, raw)
        queries = (
            bank if self.leave_one_out else self._pass(encoder, self.heldout, self.query_rows, raw)
        )
        pairs = None if self.labelled else self._pairs(encoder)
        learned = Rival(
            bank.features,
            bank.labels,
            queries.features,
            queries.labels,
            pairs and pairs[0],
            queries.index,
        )
        if bank.raw is None or queries.raw is None:
            return learned, None
        return learned, replace(
            learned, bank=bank.raw, queries=queries.raw, pairs=pairs and pairs[1]
        )

    def queries(self, encoder: nn.Module) -> Embedding:
        """The encoder's features of the queries alone."""
        source = self.train if self.leave_one_out else self.heldout
        rows = self.bank_rows if self.leave_one_out else self.query_rows
        return self._pass(encoder, source, rows, False)

    def _pass(self, encoder: nn.Module, source: Source, rows: np.ndarray, raw: bool) -> Embedding:
        return embed(
            encoder,
            self.views,
            self._decoded(source, rows),
            raw=self.reader if raw else None,
        )

    def _decoded(self, source: Source, rows: np.ndarray) -> Iterator[Batch]:
        def note(failure: Failure) -> None:
            self.corrupt[failure.key] = failure.reason

        return decode_all(
            source,
            self.reader,
            rows,
            batch_size=self.batch_size,
            device=self.device,
            workers=self.workers,
            on_corrupt=note,
        )

    def few(self, count: int) -> Batch | None:
        """A batch of the first readable held-out records (training ones without any), or None."""
        source = self.train if self.leave_one_out else self.heldout
        rows = self.bank_rows if self.leave_one_out else self.query_rows
        picked = rows[:: max(1, len(rows) // count)][:count]
        return next(iter(self._decoded(source, picked)), None)

    def query_batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """Readable queries by `Rival.query_index`, in order, as batches on the device."""
        return self._decoded(self.train if self.leave_one_out else self.heldout, rows)

    def view_pairs(self, encoder: nn.Module) -> tuple[Tensor, Tensor] | None:
        """Features of two random views of held-out records; None where views are not random."""
        pairs = self._pairs(encoder)
        return None if pairs is None else pairs[0]

    @torch.no_grad()
    def _pairs(
        self, encoder: nn.Module
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """(features, raw features) of two random views of each record."""
        source = self.train if self.leave_one_out else self.heldout
        training = encoder.training
        encoder.eval()
        sides: tuple[list[Tensor], ...] = ([], [], [], [])
        try:
            for batch in self._view_batches(source):
                rng = Rng.at(self.seed, 0, batch.ids)
                for side, name in enumerate(("query", "gallery")):
                    view = _first_global(self.views(batch, rng.fold(name)))
                    sides[side].append(encoder(view.data).pooled.float().cpu())
                    sides[2 + side].append(self._raw_view(view))
        finally:
            encoder.train(training)
        if not sides[0]:
            return None
        f0, f1, r0, r1 = (torch.cat(side) for side in sides)
        return None if torch.equal(f0, f1) else ((f0, f1), (r0, r1))

    def _view_batches(self, source: Source) -> Iterator[Batch]:
        rows = sample_rows(len(source), min(_VIEW_ROWS, self.settings.limit), "views")
        return self._decoded(source, rows)

    def _raw_view(self, view: View) -> Tensor:
        """The view's own numbers as features (evenly thinned where there are very many)."""
        if not isinstance(view.data, Tensor):
            return self.reader.raw(view.data).float().cpu()
        flat = view.data.flatten(1).float()
        return flat[:, :: math.ceil(flat.shape[1] / _VIEW_NUMBERS)].cpu()

    def score_name(self, rival: Rival) -> str:
        """What `score` measures for this data and these views."""
        if self.labelled:
            return KNN
        return RANK if rival.pairs is None else VIEWS

    def score(self, rival: Rival) -> float:
        """The one number that compares rivals, higher is better; nan for non-finite features."""
        if not _finite(rival):
            return math.nan
        name = self.score_name(rival)
        if name == KNN:
            return self._knn(rival)
        if name == VIEWS and rival.pairs is not None:
            return instance_recall(*rival.pairs)[1]
        return effective_rank(rival.queries[:_GEOMETRY_ROWS])

    def score_of(self, encoder: nn.Module) -> float:
        """Embeds and scores: what training monitors."""
        return self.score(self.embed(encoder)[0])

    def _knn(self, rival: Rival) -> float:
        bank, bank_labels, queries, labels = rival.labelled()
        if len(queries) == 0 or len(bank) == 0:  # every labelled record was unreadable
            return math.nan
        return knn_accuracy(
            bank,
            bank_labels,
            queries,
            labels,
            k=self.settings.k,
            temperature=self.settings.temperature,
            exclude_self=self.leave_one_out,
        )

    def geometry(self, rival: Rival) -> dict[str, float]:
        """Effective rank, spread and uniformity of the queries."""
        rows = rival.queries[:_GEOMETRY_ROWS]
        out = {
            "dim": float(rows.shape[1]),
            "effective_rank": effective_rank(rows),
            "feature_std": feature_std(rows),
            "uniformity": uniformity(rows) if len(rows) > 1 else math.nan,
        }
        if rival.pairs is not None:
            out["alignment"] = alignment(*rival.pairs)
        return out

    def probe(self, rival: Rival) -> dict[str, Any]:
        """Linear probe: fitted on the bank, asked on the queries (never on test labels).

        Its numbers are nan for non-finite features, as the score is.
        """
        if not _finite(rival):
            return {"accuracy": math.nan, "validation": math.nan, "c": math.nan, "converged": False}
        bank, bank_labels, queries, labels = rival.labelled()
        fitted = linear_probe(bank, bank_labels, seed=self.seed)
        return {
            "accuracy": None if self.leave_one_out else fitted.accuracy(queries, labels),
            "validation": fitted.validation,
            "c": fitted.c,
            "converged": fitted.converged,
        }

    def recall(self, rival: Rival) -> dict[str, float]:
        """R@1, R@5, R@10: whether the nearest bank records share the query's class."""
        bank, bank_labels, queries, labels = rival.labelled()
        found = recall_at_k(queries, bank, labels, bank_labels, exclude_self=self.leave_one_out)
        return {f"R@{k}": value for k, value in found.items()}


def _finite(rival: Rival) -> bool:
    return bool(torch.isfinite(rival.queries).all() & torch.isfinite(rival.bank).all())


def _first_global(views: list[View]) -> View:
    return next((view for view in views if view.role == "global"), views[0])
