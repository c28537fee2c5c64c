"""Artificial URLs in eight families, half of them harmless: what URLBERT's laptop recipe learns on.

Families come in pairs that arrange the same parts in two ways: a bank's own address that names
a partner, and one of a stranger that carries the bank's name in front of its own; a shop that is
asked for a misspelt name, and the misspelt copy of a shop; a news page that passes a link on, and
a link that passes on to a news page; an archive's folder with a name made by chance, and a host
with such a name. Within a pair the order of the parts alone tells: a bag of tokens knows the pair
and has to toss a coin. Names are made up; no two sides of the hold-out share a registered domain
(`group`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator

TEST_SHARE = 0.2
_ONSETS = "b br c cl d dr f fl g gr h k l m n p pl r s st t tr v w z"
_VOWELS = "a e i o u ai ea io ou"
_CODAS = "n r l s t x m nd rk"
_ENDS = "com org net de co.uk eu fr io top xyz info online"
_ACCOUNT = "login account secure verify update signin session customer online service"
_GOODS = "shoes jacket lamp phone chair camera watch garden kitchen sale color size men women"
_TOPICS = "world sport science election market weather culture health travel report review"
_FILES = "setup update driver invoice archive player reader patch manual backup"
_DIGITS = {"o": "0", "i": "1", "l": "1", "e": "3", "a": "4", "s": "5"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _one(rng: np.random.Generator, words: str) -> str:
    """One of the words parted by blanks."""
    return str(rng.choice(words.split()))


def _some(rng: np.random.Generator, words: str, least: int, most: int) -> list[str]:
    """From `least` to `most` different ones."""
    count = int(rng.integers(least, most + 1))
    return [str(word) for word in rng.choice(words.split(), size=count, replace=False)]


def _name(rng: np.random.Generator, syllables: int = 2) -> str:
    """A name one can say."""
    return "".join(_syllable(rng) for _ in range(syllables))


def _syllable(rng: np.random.Generator) -> str:
    coda = _one(rng, _CODAS) if rng.random() < 0.6 else ""
    return f"{_one(rng, _ONSETS)}{_one(rng, _VOWELS)}{coda}"


def _query(rng: np.random.Generator, before: str) -> str:
    """Parameters that say nothing, in two of five addresses."""
    if rng.random() < 0.6:
        return ""
    names = _some(rng, "id ref page lang s q v", 1, 2)
    first = "&" if "?" in before else "?"
    return first + "&".join(f"{name}={int(rng.integers(1, 9999))}" for name in names)


def _site(rng: np.random.Generator) -> str:
    """A registered domain."""
    return f"{_name(rng)}.{_one(rng, _ENDS)}"


def _account(rng: np.random.Generator) -> tuple[tuple[str, str], tuple[str, str]]:
    """A bank's page about a partner; a page of the partner's that begins with the bank's name."""
    bank = f"{_name(rng)}{rng.choice(['bank', 'pay', 'credit', ''])}.{_one(rng, _ENDS)}"
    other, (front, page) = _site(rng), _some(rng, _ACCOUNT, 2, 2)
    return (f"{front}.{bank}/{page}/{other}", bank), (f"{bank}.{other}/{front}/{page}", other)


def _goods(rng: np.random.Generator) -> tuple[tuple[str, str], tuple[str, str]]:
    """A shop asked for a misspelt name; a shop of that name asked for the right one."""
    name, end = _name(rng), _one(rng, _ENDS)
    place = int(rng.integers(len(name)))
    digit = _DIGITS.get(name[place], str(rng.integers(10)))
    wrong = f"{name[:place]}{digit}{name[place + 1 :]}"
    goods = "-".join(_some(rng, _GOODS, 2, 4))
    return (
        (f"{name}.{end}/{goods}/{wrong}", f"{name}.{end}"),
        (f"{wrong}.{end}/{goods}/{name}", f"{wrong}.{end}"),
    )


def _link(rng: np.random.Generator) -> tuple[tuple[str, str], tuple[str, str]]:
    """A news page that counts where its readers go; a counter that sends them to the page."""
    paper, other = _site(rng), _site(rng)
    day = f"{rng.integers(2015, 2025)}/{rng.integers(1, 13):02}/{rng.integers(1, 29):02}"
    page = f"{paper}/{day}/{'-'.join(_some(rng, _TOPICS, 2, 4))}"
    hop, name = f"{other}/{_one(rng, 'click out r go track')}", _one(rng, "url u to goto")
    return (f"{page}?{name}={hop}", paper), (f"{hop}?{name}={page}", other)


def _file(rng: np.random.Generator) -> tuple[tuple[str, str], tuple[str, str]]:
    """A named host's folder with a name made by chance, and the other way round."""
    letters = "".join(rng.choice(list(_LETTERS), size=rng.integers(8, 16)))
    name, end = _name(rng), _one(rng, _ENDS)
    version = ".".join(str(int(n)) for n in rng.integers(0, 20, size=3))
    packed = f"{'-'.join(_some(rng, _FILES, 1, 2))}-{version}.{_one(rng, 'zip exe tar.gz msi')}"
    return (
        (f"{name}.{end}/{letters}/{packed}", f"{name}.{end}"),
        (f"{letters}.{end}/{name}/{packed}", f"{letters}.{end}"),
    )


PAIRS: dict[tuple[str, str], Callable[[np.random.Generator], tuple[tuple[str, str], ...]]] = {
    ("bank", "phishing"): _account,
    ("shop", "misspelt"): _goods,
    ("news", "redirection"): _link,
    ("download", "generated"): _file,
}
"""Labels -> what arranges the same parts in both ways: what follows the scheme, and its domain."""

FAMILIES = tuple(name for pair in PAIRS for name in pair)
"""Labels; the first of each pair is harmless."""


def write_urls(folder: Path, *, count: int, seed: int = 0) -> None:
    """Writes `train/urls.jsonl` and `test/urls.jsonl`; same arguments, same bytes.

    Each line holds `text` (a URL), `label` (its family) and `group` (its domain). Families get
    equal shares of `count`. Raises `UserError` for a count below 16 or a folder with content.
    """
    folder = Path(folder)
    if count < 2 * len(FAMILIES):
        raise UserError(f"count: {count} is too few; write at least {2 * len(FAMILIES)} URLs")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder: {str(folder)!r} is not empty; name a new one")
    tests = max(len(FAMILIES), round(count * TEST_SHARE))
    taken: set[str] = set()
    for side, total in (("train", count - tests), ("test", tests)):
        rows = [_row(number, side, seed, taken) for number in range(total)]
        taken |= {row["group"] for row in rows}
        (folder / side).mkdir(parents=True)
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / side / "urls.jsonl").write_text("".join(lines), encoding="utf-8")


def _row(number: int, side: str, seed: int, taken: set[str]) -> dict[str, str]:
    """One URL, of a domain the other side does not have."""
    label = FAMILIES[number % len(FAMILIES)]
    pair = next(pair for pair in PAIRS if label in pair)
    rng = generator("url", seed, side, number)
    while True:
        text, domain = PAIRS[pair](rng)[pair.index(label)]
        if domain not in taken:
            scheme = "https" if rng.random() < 0.6 else "http"
            return {
                "text": f"{scheme}://{text}{_query(rng, text)}",
                "label": label,
                "group": domain,
            }
