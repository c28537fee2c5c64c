"""CaseHOLD's protocols on a run (Zheng et al., ICAIL 2021): multiple choice, domain specificity."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core.data import decode_all
from ssl_core.domain import Domain
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys
from ssl_core.rng import Rng, generator
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import build_parts, split_data
from ssl_core.tensors import read_tensors
from ssl_text.evaluation.choices import (
    MultipleChoice,
    choice_loss,
    domain_specificity,
    macro_f1,
    mlm_loss,
)
from ssl_text.evaluation.rivals import TextRivals, described, tf_idf
from ssl_text.methods.mlm import MLM
from ssl_text.reader import TextReader
from ssl_text.tokens import TokenBatch


@dataclass(frozen=True)
class Question:
    """A context, its possible continuations, and the number of the right one."""

    context: str
    choices: tuple[str, ...]
    label: int


def multiple_choice(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    train: str,
    test: str,
    epochs: int = 3,
    lr: float = 1e-4,
    batch_size: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Macro F1 after training encoder and a linear score on `train`, from both starts.

    Files are JSON lines (`context`, `choices`, `label`) or CaseHOLD's CSV (`citing_prompt`,
    `holding_0`..., `label`). The rivals that need no training take the choice most alike. The last
    epoch is scored, never the best.
    """
    asked = [read_questions(Path(file)) for file in (train, test)]
    rivals = TextRivals(run, domain, device)
    answers = torch.tensor([question.label for question in asked[1]])
    scores = {name: macro_f1(guess, answers) for name, guess in _alike(rivals, asked[1]).items()}
    for name, encoder in rivals.encoders.items():
        with torch.random.fork_rng(devices=[]):
            model = MultipleChoice(copy.deepcopy(encoder).requires_grad_(True)).to(device)
        nn.init.zeros_(model.score.weight)
        nn.init.zeros_(model.score.bias)
        for step, questions in enumerate(_batches(asked[0], epochs, batch_size, seed)):
            if step == 0:
                optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
            optimizer.zero_grad()
            data = pairs(questions, rivals.reader).to(device)
            keys = Rng.at(seed, step, torch.arange(len(data), device=device))
            model.train()
            with dropout_keys(keys):
                out = model(data, len(questions[0].choices))
            choice_loss(out, torch.tensor([q.label for q in questions], device=device)).backward()
            optimizer.step()
        scores[name] = macro_f1(_answers(model, asked[1], rivals.reader, device), answers)
    words = described(f"Multiple choice, macro F1 of {len(answers)} questions", scores)
    return {"macro_f1": scores, "questions": len(answers), "words": words}


def specificity(
    run: Run, domain: Domain, device: torch.device, *, against: str, path: str | None = None
) -> dict[str, Any]:
    """The domain specificity score of held-out texts: how much less they surprise this run's masked
    language model than that of the run `against`, trained as long on general text.

    Texts are the held-out ones of this run, or those at `path`.
    """
    data = run.recipe.data
    data = data.at(path)
    split = split_data(domain, data)
    texts = split.heldout if len(split.heldout) else split.train
    losses = []
    for each in (Run.load(against), run):
        reader = domain.load_reader(each.reader_folder)
        model = _language_model(each, domain, reader).to(device)
        batches = decode_all(texts, reader, device=device, on_corrupt=lambda _: None)
        losses.append(mlm_loss(model, batches))
    score = domain_specificity(*losses)
    words = f"Domain specificity of {len(losses[0])} texts against {against}: {score:+.3f} nats."
    return {"specificity": score, "texts": len(losses[0]), "words": words}


def _language_model(run: Run, domain: Domain, reader: Any) -> MLM:
    """The masked language model of a run with its output layer, from the last checkpoint."""
    method = build_parts(domain, run.recipe, reader).method
    place = Checkpoints(run.checkpoints).path(run.recipe.train.steps) / "state.safetensors"
    model = method if isinstance(method, MLM) else getattr(method, "language", None)
    if not isinstance(model, MLM) or not place.is_file():
        raise UserError(
            f"specificity: {str(run.path)!r} has no masked language model and last checkpoint of "
            "one process; give runs of mlm, curriculum_mlm, spanbert, declutr or urlbert"
        )
    start = "method/"
    tensors = read_tensors(place)
    method.load_state_dict(
        {name.removeprefix(start): x for name, x in tensors.items() if name.startswith(start)}
    )
    return model


def read_questions(path: Path) -> list[Question]:
    """Questions of a file, all with as many choices; raises `UserError` naming the line."""
    found = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: Iterator[Mapping[str, Any]]
            table = path.suffix.lower() == ".csv"
            rows = csv.DictReader(file) if table else map(json.loads, filter(str.strip, file))
            for number, row in enumerate(rows, 1):
                found.append(_question(row, f"question {number} of {path}"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"choices: {str(path)!r}: {error}") from error
    if not found or len({len(question.choices) for question in found}) != 1:
        raise UserError(f"choices: {str(path)!r} needs questions with one number of choices")
    return found


def _question(row: Any, where: str) -> Question:
    if not isinstance(row, Mapping):
        raise UserError(f"choices: {where} is no JSON object")
    context = row.get("context", row.get("citing_prompt"))
    choices = row.get("choices")
    if choices is None:
        names = sorted(name for name in row if str(name).startswith("holding_"))
        choices = [row[name] for name in names]
    try:
        label = int(row["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"choices: {where} has no label that is a number") from error
    if not isinstance(context, str) or len(choices) < 2 or not 0 <= label < len(choices):
        raise UserError(f"choices: {where} needs a context, two choices or more and a label")
    return Question(context, tuple(map(str, choices)), label)


def pairs(questions: Sequence[Question], reader: TextReader) -> TokenBatch:
    """[CLS] context [SEP] choice [SEP] for every choice, one question after another.

    Of what does not fit, the longer part is cut first.
    """
    special, room = reader.special, reader.max_length - 3
    rows = []
    for question in questions:
        context = _ids(question.context, reader)
        for choice in question.choices:
            own = _ids(choice, reader)
            second = min(len(own), max(room - len(context), room // 2))
            first = context[: room - second]
            row = [special.cls, *first, special.sep, *own[:second], special.sep]
            rows.append(torch.tensor(row, dtype=torch.int32))
    return TokenBatch.stack(rows, pad_id=special.pad)


def _ids(text: str, reader: TextReader) -> list[int]:
    ids: list[int] = reader.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _batches(
    questions: Sequence[Question], epochs: int, size: int, seed: int
) -> Iterator[list[Question]]:
    for epoch in range(epochs):
        order = generator("questions", seed, epoch).permutation(len(questions))
        for part in np.array_split(order, -(-len(order) // size)):
            yield [questions[i] for i in part]


@torch.no_grad()
def _answers(
    model: MultipleChoice, questions: Sequence[Question], reader: TextReader, device: torch.device
) -> Tensor:
    model.eval()
    parts = [questions[i : i + 32] for i in range(0, len(questions), 32)]
    scores = [model(pairs(part, reader).to(device), len(part[0].choices)) for part in parts]
    return torch.cat(scores).argmax(1).cpu()


def _alike(rivals: TextRivals, questions: Sequence[Question]) -> dict[str, Tensor]:
    """The choice whose bag of tokens, or TF-IDF, is most like that of the context."""
    contexts = rivals.vectors([q.context for q in questions])["raw"]
    choices = rivals.vectors([choice for q in questions for choice in q.choices])["raw"]
    weighted = tf_idf(choices, contexts)
    sides = {"raw": (choices, contexts), "tfidf": weighted}
    count = len(questions[0].choices)
    return {
        name: torch.einsum("qcv,qv->qc", own.unflatten(0, (-1, count)), asked).argmax(1)
        for name, (own, asked) in sides.items()
    }
