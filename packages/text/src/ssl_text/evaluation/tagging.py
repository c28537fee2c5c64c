"""Tags of words (parts of speech, entities, secondary structure) from frozen token states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.evaluation.probe import linear_probe
from ssl_core.runs.folder import Run
from ssl_text.evaluation.rivals import TextRivals, described
from ssl_text.reader import TextReader
from ssl_text.token_vectors import token_states

Sentence = tuple[list[str], list[str]]
_BATCH = 64


def tagging(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    train: str,
    test: str,
    limit: int = 20_000,
) -> dict[str, Any]:
    """Accuracy of a linear probe on the state of each word's first token.

    `train` and `test` are files in CoNLL's layout (`read_tags`); at most `limit` words of each
    count. The raw rival names the tag a word most often has in `train`. Words beyond the run's
    `max_length` are left out.
    """
    sides = [read_tags(Path(file)) for file in (train, test)]
    rivals = TextRivals(run, domain, device)
    names = sorted({tag for side in sides for _, tags in side for tag in tags})
    code = {tag: number for number, tag in enumerate(names)}
    placed = [_placed(side, rivals.reader, limit) for side in sides]
    seen = [_seen(side, places) for side, places in zip(sides, placed, strict=True)]
    words, tags = [found[0] for found in seen], [found[1] for found in seen]
    truth = [torch.tensor([code[tag] for tag in side]) for side in tags]
    scores = {"raw": _most_frequent(words[0], tags[0], words[1], tags[1])}
    for name, encoder in rivals.encoders.items():
        states = [
            _states(encoder, side, places, rivals.reader, device)
            for side, places in zip(sides, placed, strict=True)
        ]
        probe = linear_probe(states[0], truth[0])
        scores[name] = probe.accuracy(states[1], truth[1])
    total = sum(len(found) for found, _ in sides[1])
    words_of = described(f"Tags of {len(truth[1])} words, accuracy", scores)
    left = total - len(truth[1])
    return {"accuracy": scores, "words_left_out": left, "tags": names, "words": words_of}


def read_tags(path: Path) -> list[Sentence]:
    """Sentences of words and tags: a word a line, its tag in the last column, blank lines between.

    Columns are parted by tabs or spaces; lines that begin with "# " are comments, as in CoNLL-U. A
    word without a tag raises `UserError` naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"tags: {str(path)!r}: {error}") from error
    found: list[Sentence] = [([], [])]
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0] == "-DOCSTART-":
            found.append(([], []))
        elif line.startswith("# "):
            continue  # CoNLL-U's comments
        elif len(cells) < 2:
            raise UserError(f"tags: line {number} of {path} has a word and no tag")
        else:
            found[-1][0].append(cells[0])
            found[-1][1].append(cells[-1].strip())
    sentences = [sentence for sentence in found if sentence[0]]
    if not sentences:
        raise UserError(f"tags: {str(path)!r} holds no words")
    return sentences


def first_tokens(words: Sequence[str], reader: TextReader) -> list[int]:
    """For each word the number of its first token in the joined text, -1 where it was cut off."""
    starts, position = [], 0
    for word in words:
        starts.append(position)
        position += len(word) + 1
    spans = reader.tokenizer.encode(" ".join(words), add_special_tokens=False).offsets
    spans = spans[: reader.max_length - 2]
    return [
        next((n for n, (a, b) in enumerate(spans) if a < start + len(word) and b > start), -1)
        for word, start in zip(words, starts, strict=True)
    ]


def _placed(side: Sequence[Sentence], reader: TextReader, limit: int) -> list[list[int]]:
    """The first tokens of each sentence's words; -1 beyond `limit` words, too."""
    placed, seen = [], 0
    for words, _ in side:
        tokens = first_tokens(words, reader)
        tokens = [n if seen + i < limit else -1 for i, n in enumerate(tokens)]
        seen += len(words)
        placed.append(tokens)
    return placed


def _seen(side: Sequence[Sentence], placed: Sequence[list[int]]) -> tuple[list[str], list[str]]:
    kept = [
        (word, tag)
        for (words, tags), numbers in zip(side, placed, strict=True)
        for word, tag, number in zip(words, tags, numbers, strict=True)
        if number >= 0
    ]
    return [word for word, _ in kept], [tag for _, tag in kept]


def _states(
    encoder: torch.nn.Module,
    side: Sequence[Sentence],
    placed: Sequence[list[int]],
    reader: TextReader,
    device: torch.device,
) -> Tensor:
    """The state of each word's first token, `[words, D]`."""
    found = []
    for first in range(0, len(side), _BATCH):
        texts = [" ".join(words) for words, _ in side[first : first + _BATCH]]
        rows = token_states(encoder, reader, texts, device)
        for states, tokens in zip(rows, placed[first : first + _BATCH], strict=True):
            found.append(states[[n for n in tokens if n >= 0]])
    return torch.cat(found)


def _most_frequent(
    words: Sequence[str], tags: Sequence[str], asked: Sequence[str], truth: Sequence[str]
) -> float:
    by_word: dict[str, Counter[str]] = {}
    for word, tag in zip(words, tags, strict=True):
        by_word.setdefault(word, Counter())[tag] += 1
    usual = {word: max(sorted(seen), key=seen.__getitem__) for word, seen in by_word.items()}
    other = Counter(tags).most_common(1)[0][0]
    right = sum(usual.get(word, other) == tag for word, tag in zip(asked, truth, strict=True))
    return right / max(1, len(truth))
