"""Artificial URLs in eight families, half of them harmless: what URLBERT's laptop recipe learns on.

Families come in pairs that use the same words in other places: a bank's own address and one that
carries the bank's name below a foreign domain, a shop and a misspelt copy of it, a news page and a
redirection to one, an archive's download and one from a name made by chance. The order of the
parts tells them apart better than a count of them. Names are made up; no two sides of the hold-out
share a registered domain (`group`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator

TEST_SHARE = 0.2
_ONSETS = "b br c cl d dr f fl g gr h k l m n p pl r s st t tr v w z"
_VOWELS = "a e i o u ai ea io ou"
_CODAS = "n r l s t x m nd rk"
_GOOD = "com org net de co.uk eu fr io"
_CHEAP = "top xyz info tk click com net online"
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


def _query(rng: np.random.Generator) -> str:
    """Parameters that say nothing, in two of five addresses."""
    if rng.random() < 0.6:
        return ""
    names = _some(rng, "id ref page lang s q v", 1, 2)
    return "?" + "&".join(f"{name}={int(rng.integers(1, 9999))}" for name in names)


def _own(rng: np.random.Generator) -> str:
    return f"{_name(rng)}.{_one(rng, _GOOD)}"


def _kind(rng: np.random.Generator) -> str:
    """What banks' names end in."""
    return str(rng.choice(["bank", "pay", "credit", ""]))


def _bank(rng: np.random.Generator) -> tuple[str, str]:
    domain = f"{_name(rng)}{_kind(rng)}.{_one(rng, _GOOD)}"
    front = _one(rng, "www online my secure")
    return f"https://{front}.{domain}/{'/'.join(_some(rng, _ACCOUNT, 1, 3))}{_query(rng)}", domain


def _phishing(rng: np.random.Generator) -> tuple[str, str]:
    bait = f"{_name(rng)}{_kind(rng)}.{_one(rng, _GOOD)}"
    domain = f"{'-'.join([_name(rng, 1), *_some(rng, _ACCOUNT, 0, 1)])}.{_one(rng, _CHEAP)}"
    path = "/".join(_some(rng, _ACCOUNT, 1, 2))
    return f"{_scheme(rng)}://{bait}.{domain}/{path}{_query(rng)}", domain


def _shop(rng: np.random.Generator) -> tuple[str, str]:
    domain = _own(rng)
    goods = _some(rng, _GOODS, 2, 4)
    number = int(rng.integers(100, 99999))
    return f"https://www.{domain}/{goods[0]}/{'-'.join(goods[1:])}-{number}{_query(rng)}", domain


def _misspelt(rng: np.random.Generator) -> tuple[str, str]:
    name = _name(rng)
    place = int(rng.integers(len(name)))
    digit = _DIGITS.get(name[place], "-")
    wrong = f"{name[:place]}{digit}{name[place + (digit != '-') :]}".strip("-")
    domain = f"{wrong}{rng.choice(['', '-shop', '-outlet'])}.{_one(rng, _CHEAP)}"
    goods = _some(rng, _GOODS, 2, 4)
    return f"{_scheme(rng)}://{domain}/{'-'.join(goods)}.html{_query(rng)}", domain


def _news(rng: np.random.Generator) -> tuple[str, str]:
    domain = _own(rng)
    day = f"{rng.integers(2015, 2025)}/{rng.integers(1, 13):02}/{rng.integers(1, 29):02}"
    topics = _some(rng, _TOPICS, 2, 4)
    return f"https://{domain}/{day}/{topics[0]}/{'-'.join(topics)}{_query(rng)}", domain


def _redirection(rng: np.random.Generator) -> tuple[str, str]:
    domain = f"{_name(rng)}.{_one(rng, _CHEAP)}"
    inner, _ = _news(rng)
    name = _one(rng, "url u to goto")
    path = _one(rng, "click out r go track")
    return f"{_scheme(rng)}://{domain}/{path}?{name}={quote(inner, safe='')}", domain


def _download(rng: np.random.Generator) -> tuple[str, str]:
    domain = _own(rng)
    version = ".".join(str(int(n)) for n in rng.integers(0, 20, size=3))
    name = "-".join(_some(rng, _FILES, 1, 2))
    end = _one(rng, "zip exe tar.gz msi")
    return f"https://{_one(rng, 'dl files www')}.{domain}/{name}-{version}.{end}", domain


def _generated(rng: np.random.Generator) -> tuple[str, str]:
    letters = rng.choice(list(_LETTERS), size=rng.integers(8, 16))
    domain = f"{''.join(letters)}.{_one(rng, _CHEAP)}"
    where = domain if rng.random() < 0.7 else ".".join(str(int(n)) for n in rng.integers(1, 255, 4))
    name = "-".join(_some(rng, _FILES, 1, 2))
    end = _one(rng, "zip exe php msi")
    return f"{_scheme(rng)}://{where}/{name}.{end}{_query(rng)}", where


def _scheme(rng: np.random.Generator) -> str:
    return "https" if rng.random() < 0.6 else "http"


FAMILIES: dict[str, Callable[[np.random.Generator], tuple[str, str]]] = {
    "bank": _bank,
    "phishing": _phishing,
    "shop": _shop,
    "misspelt": _misspelt,
    "news": _news,
    "redirection": _redirection,
    "download": _download,
    "generated": _generated,
}
"""Label -> what makes a URL and its registered domain."""


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
    label = list(FAMILIES)[number % len(FAMILIES)]
    rng = generator("url", seed, side, number)
    while True:
        text, domain = FAMILIES[label](rng)
        if domain not in taken:
            return {"text": text, "label": label, "group": domain}
