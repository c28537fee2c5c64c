"""A byte-level BPE trained on the corpus, or one from a `tokenizer.json` file.

BPE over bytes (Sennrich et al. 2016; Radford et al. 2019) has no unknown words, and its training
breaks ties by piece, so that the same documents in the same order give the same vocabulary in
every process. The library is an extra of this package (`ssl-core[words]`), loaded when used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_core.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
"""The special pieces of a trained tokenizer, ids 0 to 4."""

_ALIASES = {
    "pad": ("[PAD]", "<pad>", "<|padding|>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}

# Loader threads already tokenize side by side; a second pool inside the library would only add
# contention, and does not survive the fork of a loader process.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the pieces with a meaning of their own; `every` lists all of them, sorted."""

    pad: int
    cls: int
    sep: int
    mask: int
    every: tuple[int, ...]


def train_tokenizer(
    documents: Iterable[str], *, vocab_size: int, lowercase: bool = True
) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` pieces, the specials first; deterministic."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(counted(documents), trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from a `tokenizer.json`; raises `UserError` when it is none."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise UserError(f"data.options.tokenizer: {str(path)!r} is not a file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every kind of bad file
        raise UserError(f"data.options.tokenizer: {str(path)!r}: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenizer_from(text: str) -> Tokenizer:
    """A tokenizer from what its `to_str` gave, to cross into another process."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The ids of padding, start, end and mask; raises `UserError` where a tokenizer lacks one."""
    found = {}
    for role, names in _ALIASES.items():
        ids = [tokenizer.token_to_id(name) for name in names]
        known = [id_ for id_ in ids if id_ is not None]
        if not known:
            raise UserError(f"data.options.tokenizer: no {role} piece; add one of {names}")
        found[role] = known[0]
    added = tokenizer.get_added_tokens_decoder()
    special = {id_ for id_, token in added.items() if token.special}
    return SpecialIds(**found, every=tuple(sorted(special | set(found.values()))))


def counted(documents: Iterable[str]) -> Iterator[str]:
    """The documents; `UserError` at their end where there were none."""
    count = 0
    for count, document in enumerate(documents, start=1):  # noqa: B007 - counts what was read
        yield document
    if count == 0:
        raise UserError("data: no readable document to train a tokenizer on")
