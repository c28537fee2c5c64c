"""TF-IDF beside the bag of tokens: the rival that text encoders have to be honest about."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Reader, Source
from ssl_core.data import decode_all
from ssl_core.domain import Domain
from ssl_core.evaluation.embed import sample_rows
from ssl_core.evaluation.knn import knn_accuracy
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import split_data
from ssl_core.runs.summary import percent
from ssl_text.evaluation.rivals import tf_idf
from ssl_text.sources.passage import text_of


def tfidf(
    run: Run, domain: Domain, device: torch.device | str, *, path: str | None = None
) -> dict[str, Any]:
    """k-NN accuracy of TF-IDF on the same records, split and settings as the run's score.

    "pieces" weighs the very tokens that the encoder sees; "words" all words of the whole
    documents, which may be longer. Data without labels has nothing to measure, and the words say
    so.
    """
    recipe = run.recipe
    data = recipe.data
    data = data.at(path)
    split = split_data(domain, data)
    limit = recipe.evaluation.limit
    reader = domain.load_reader(run.reader_folder)
    bank = _side(split.train, reader, limit, "bank")
    alone = len(split.heldout) == 0
    queries = bank if alone else _side(split.heldout, reader, limit, "queries")
    if len(bank[1].unique()) < 2 or len(queries[1]) == 0:
        return {"words": "TF-IDF was not measured: there are no labels."}

    def score(one: Tensor, other: Tensor) -> float:
        settings = {"k": recipe.evaluation.k, "temperature": recipe.evaluation.temperature}
        return knn_accuracy(one, bank[1], other, queries[1], exclude_self=alone, **settings)

    found = {
        "pieces": score(*tf_idf(bank[0], queries[0])),
        "words": score(*_words(bank[2], queries[2])),
    }
    text = (
        f"k-NN on TF-IDF: {percent(found['pieces'])} on the same tokens, "
        f"{percent(found['words'])} on all words of the documents."
    )
    return {"accuracy": found, "words": text}


def _side(
    source: Source, reader: Reader, limit: int, name: str
) -> tuple[Tensor, Tensor, list[str]]:
    """Bags of tokens, labels and texts of the labelled, readable records of one side."""
    rows = sample_rows(len(source), limit, name)
    bags, labels, kept = [], [], []
    for batch in decode_all(source, reader, rows, on_corrupt=lambda _: None):
        label = torch.full((len(batch),), -1) if batch.label is None else batch.label
        bags.append(reader.raw(batch.data)[label >= 0])
        labels.append(label[label >= 0])
        kept += batch.index[label >= 0].tolist()
    records = (source[row] for row in kept)
    texts = [text_of(record.payload, record.key) for record in records]
    if not bags:
        return torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), []
    return torch.cat(bags), torch.cat(labels), texts


def _words(bank: list[str], queries: list[str]) -> tuple[Tensor, Tensor]:
    """TF-IDF of words by scikit-learn with its defaults, dense."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    vectorizer = TfidfVectorizer(dtype=np.float32, max_features=50_000)
    fitted = vectorizer.fit_transform(bank)
    other = fitted if queries is bank else vectorizer.transform(queries)
    return torch.from_numpy(fitted.toarray()), torch.from_numpy(other.toarray())
