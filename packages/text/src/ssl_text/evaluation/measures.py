"""What `evaluate --more` can measure of a text run: similarity, retrieval, clustering.

Each names the run's rivals side by side: bag of tokens, TF-IDF, the untrained and the trained
encoder. Nothing is trained on what is asked about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_core.data import head_of
from ssl_core.domain import Domain
from ssl_core.errors import CorruptSample, UserError
from ssl_core.evaluation.clusters import agreement, cluster
from ssl_core.evaluation.embed import sample_rows
from ssl_core.runs.assessing import rivals_of
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import split_data
from ssl_text.evaluation import similarity
from ssl_text.evaluation.rivals import TextRivals, described, tf_idf
from ssl_text.sources.passage import text_of


def sts(run: Run, domain: Domain, device: torch.device, *, pairs: str) -> dict[str, Any]:
    """Spearman's rank correlation of cosines with the scores of a file of sentence pairs.

    `pairs` holds `score<TAB>sentence<TAB>sentence` lines (or the score last).
    """
    first, second, gold = similarity.read_pairs(Path(pairs))
    vectors = TextRivals(run, domain, device).vectors([*first, *second])
    vectors["tfidf"] = tf_idf(vectors["raw"])[0]
    n = len(gold)
    scores = {name: similarity.sts(x[:n], x[n:], gold) for name, x in vectors.items()}
    words = described(f"Spearman correlation with {n} similarities", scores)
    return {"spearman": scores, "pairs": n, "words": words}


def retrieval(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    folder: str | None = None,
    k: int = 10,
    limit: int = 1000,
    path: str | None = None,
) -> dict[str, Any]:
    """nDCG@k, MRR@k and recall@k by cosine.

    `folder` holds BEIR's layout: corpus.jsonl and queries.jsonl (`_id`, `title`, `text`) and
    qrels/test.tsv (query, document, relevance). Without it, the first half of each held-out
    document asks for the second, of at most `limit` documents of the run's own data (or `path`).
    """
    if folder is None:
        queries, documents, relevant = _halves(run, domain, path, limit)
    else:
        queries, documents, relevant = read_beir(Path(folder))
    rivals = TextRivals(run, domain, device)
    asked, there = rivals.vectors(queries), rivals.vectors(documents)
    there["tfidf"], asked["tfidf"] = tf_idf(there["raw"], asked["raw"])
    found = {name: similarity.retrieval(asked[name], there[name], relevant, k=k) for name in there}
    scores = {name: values[f"ndcg@{k}"] for name, values in found.items()}
    size = f"{len(queries)} queries, {len(documents)} documents"
    return {**found, "words": described(f"Retrieval nDCG@{k} ({size})", scores)}


def clustering(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    seed: int = 0,
    path: str | None = None,
) -> dict[str, Any]:
    """k-means of held-out documents, as many clusters as classes, against their labels.

    V-measure (the NMI with the arithmetic mean), accuracy under the best matching, and ARI.
    """
    compared = rivals_of(run, domain, path=path, device=device)
    if not compared.evaluator.labelled:
        return {"words": "Clusters were not measured: there are no labels."}
    parts = {name: rival.labelled() for name, rival in compared.rivals.items()}
    bank, _, bags, labels = parts["raw"]
    features: dict[str, Tensor] = {name: part[2] for name, part in parts.items()}
    features["tfidf"] = tf_idf(bank, bags)[1]
    count = len(labels.unique())
    found: dict[str, Any] = {}
    for name, rows in features.items():
        unit = torch.nn.functional.normalize(rows, dim=1)
        found[name] = vars(agreement(cluster(unit, count, starts=5, seed=seed), labels))
    scores = {name: values["nmi"] for name, values in found.items()}
    return {**found, "words": described(f"V-measure of {count} clusters", scores)}


def _halves(
    run: Run, domain: Domain, path: str | None, limit: int
) -> tuple[list[str], list[str], list[list[int]]]:
    data = run.recipe.data
    data = data.at(path)
    split = split_data(domain, data)
    source = split.heldout if len(split.heldout) else split.train
    first, second = [], []
    for row in sample_rows(len(source), limit, "halves"):
        try:
            record = source[int(row)]
            words = text_of(record.payload, head_of(source, int(row)).key).split()
        except CorruptSample:
            continue  # reported by the run itself
        if len(words) > 3:
            first.append(" ".join(words[: len(words) // 2]))
            second.append(" ".join(words[len(words) // 2 :]))
    if len(first) < 2:
        raise UserError("retrieval: fewer than two documents of four words or more; give `folder`")
    return first, second, [[row] for row in range(len(first))]


def read_beir(folder: Path) -> tuple[list[str], list[str], list[list[int]]]:
    """Queries with an answer, documents, and for each query the rows of its answers."""
    documents = {entry["_id"]: entry for entry in _entries(folder / "corpus.jsonl")}
    queries = {entry["_id"]: entry for entry in _entries(folder / "queries.jsonl")}
    rows = {name: row for row, name in enumerate(documents)}
    answers: dict[str, list[int]] = {}
    judged = folder / "qrels" / "test.tsv"
    for number, line in enumerate(_read(judged).splitlines(), 1):
        cells = line.split("\t")
        if number == 1 and cells[-1] == "score":
            continue
        if len(cells) != 3 or cells[0] not in queries or cells[1] not in rows:
            raise UserError(f"retrieval: line {number} of {judged} names no query and document")
        if float(cells[2]) > 0:
            answers.setdefault(cells[0], []).append(rows[cells[1]])
    if not answers:
        raise UserError(f"retrieval: {judged} has no relevant document")
    texts = [f"{e.get('title', '')} {e['text']}".strip() for e in documents.values()]
    return [queries[name]["text"] for name in answers], texts, list(answers.values())


def _entries(path: Path) -> list[Mapping[str, Any]]:
    found = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise UserError(f"retrieval: line {number} of {path} is not JSON: {error}") from error
        if not isinstance(entry, dict) or not {"_id", "text"} <= entry.keys():
            raise UserError(f"retrieval: line {number} of {path} has no _id and text")
        found.append(entry)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"retrieval: {str(path)!r}: {error}") from error
