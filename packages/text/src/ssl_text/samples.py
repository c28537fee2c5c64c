"""A small labelled corpus that is on every machine: what the standard library says about itself.

Documents are short runs of docstrings and comments from the modules of the running Python; the
label is what a module is for. All documents of one file stand on one side, so that a score on
held-out text cannot come from names that occur in a single file. Common words carry most of a
document's length, which makes the bag of tokens a weak feature, though far from a useless one.
"""

from __future__ import annotations

import inspect
import io
import json
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import Label, generator

DEFAULT_COUNT = 3600
TEST_SHARE = 0.2
LEAST_CHARACTERS = 300
"""A document ends with the line that reaches this length."""
_LINE = 80

TOPICS = {
    "archives": "zipfile tarfile gzip bz2 lzma shutil zipimport",
    "asynchrony": "asyncio",
    "code": "ast dis inspect tokenize pdb bdb traceback symtable",
    "imports": "importlib pkgutil runpy modulefinder",
    "mail": "email mailbox smtplib imaplib poplib mimetypes",
    "markup": "xml html plistlib",
    "numbers": "_pydecimal fractions statistics random numbers colorsys",
    "options": "logging argparse optparse configparser",
    "processes": "multiprocessing concurrent threading queue subprocess",
    "testing": "unittest doctest",
    "time": "datetime _pydatetime calendar zoneinfo _strptime",
    "web": "http urllib wsgiref xmlrpc webbrowser ftplib",
}
"""Label -> modules and packages; those a Python version lacks are passed over."""


def write_samples(folder: Path, *, count: int = DEFAULT_COUNT, seed: int = 0) -> None:
    """Writes `train/documents.jsonl` and `test/documents.jsonl`; same arguments, same bytes.

    Each line holds `text`, `label` and `group` (the file it is from). The topics get equal shares
    of `count`; what a topic with little text lacks, the others give. Raises `UserError` for a
    count below 24 or beyond the text there is, a folder with content, or a Python without sources.
    """
    folder = Path(folder)
    if count < 2 * len(TOPICS):
        raise UserError(f"count: {count} is too few; write at least {2 * len(TOPICS)} documents")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder: {str(folder)!r} is not empty; name a new one")
    divided = {topic: _divide(_documents(topic), "samples", seed, topic) for topic in TOPICS}
    tests = max(len(TOPICS), round(count * TEST_SHARE))
    for place, (side, total) in enumerate((("train", count - tests), ("test", tests))):
        there = {topic: parts[place] for topic, parts in divided.items()}
        shares = even_shares(total, [len(rows) for rows in there.values()])
        rows = [
            row
            for (topic, documents), share in zip(there.items(), shares, strict=True)
            for row in _draw(documents, share, side, seed, topic)
        ]
        (folder / side).mkdir(parents=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / side / "documents.jsonl").write_text("".join(lines), encoding="utf-8")


def even_shares(total: int, caps: Sequence[int]) -> list[int]:
    """Numbers that sum to `total`, as equal as `caps` allow; `UserError` where those are too low.

    The smallest cap is served first; each takes an equal part of what is left for it and the rest.
    """
    if total > sum(caps):
        raise UserError(f"count: {total} documents of one side, of {sum(caps)} there are; ask less")
    shares = [0] * len(caps)
    for done, place in enumerate(sorted(range(len(caps)), key=lambda i: caps[i])):
        shares[place] = min(caps[place], total // (len(caps) - done))
        total -= shares[place]
    return shares


def _documents(topic: str) -> dict[str, list[dict[str, str]]]:
    """The documents of a topic, by the file they are from."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [file for module in TOPICS[topic].split() for file in _files(root, module)]
    found = {}
    for file in files:
        name = file.relative_to(root).as_posix()
        texts = documents(file.read_text(encoding="utf-8"))
        if texts:
            found[name] = [{"text": text, "label": topic, "group": name} for text in texts]
    if len(found) < 2:
        raise UserError(
            f"samples: {str(root)!r} has no sources of {TOPICS[topic]}; "
            "install Python with its standard library, or give --data"
        )
    return found


def _files(root: Path, module: str) -> Iterator[Path]:
    """The source files of a module or package, its tests left out."""
    if (root / f"{module}.py").is_file():
        yield root / f"{module}.py"
    for file in sorted((root / module).rglob("*.py")):
        if not {"test", "tests"} & set(file.relative_to(root).parts):
            yield file


def documents(source: str) -> list[str]:
    """The docstrings and comments of a Python source, in runs of at least `LEAST_CHARACTERS`."""
    found, run = [], ""
    for line in _prose(source):
        run = f"{run}\n{line}" if run else line
        if len(run) >= LEAST_CHARACTERS:
            found.append(run)
            run = ""
    return found


def _prose(source: str) -> Iterator[str]:
    """Lines of comments and of strings in triple quotes, in order, none long and none empty."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("#:! ")
        elif token.type == tokenize.STRING and token.string.endswith(('"""', "'''")):
            text = inspect.cleandoc(token.string.lstrip("rRuUbB")[3:-3])
        else:
            continue
        for line in text.splitlines():
            yield from textwrap.wrap(line, _LINE)


def _divide(
    by_file: dict[str, list[dict[str, str]]], *labels: Label
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Whole files to either side, in a keyed order, until the test side has its share.

    A file that would bring the test side above twice its share goes to training.
    """
    names = sorted(by_file)
    wanted = TEST_SHARE * sum(len(rows) for rows in by_file.values())
    held: set[str] = set()
    size = 0
    for place in generator(*labels).permutation(len(names)):
        rows = len(by_file[names[place]])
        if size < wanted and size + rows <= 2 * wanted:
            held.add(names[place])
            size += rows
    if not held:  # one file outweighs the others: the smallest still goes to the test side
        held.add(min(names, key=lambda name: len(by_file[name])))
    train = [row for name in names if name not in held for row in by_file[name]]
    return train, [row for name in names if name in held for row in by_file[name]]


def _draw(rows: Sequence[dict[str, str]], count: int, *labels: Label) -> list[dict[str, str]]:
    """`count` of the rows, drawn by key, in their order."""
    chosen = generator("draw", *labels).permutation(len(rows))[:count]
    return [rows[i] for i in np.sort(chosen)]
