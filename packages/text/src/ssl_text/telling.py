"""Documents in words for the report: what a method hides of them, and what it guesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssl_core.encoder import Tokens
from ssl_core.networks.masks import Mask

if TYPE_CHECKING:
    from ssl_text.reader import TextReader

HIDDEN = "▢"


@dataclass(frozen=True)
class Told:
    """Documents, and what a method puts in the place of some of their tokens."""

    ids: Tensor
    """int64 `[B, L]`: what the documents say."""
    valid: Tensor
    """bool `[B, L]`, False on padding."""
    instead: Tensor
    """int64 `[B, L]`: what stands where `marked` is True."""
    marked: Tensor


def as_hidden(tokens: Tokens, mask: Mask, shown: Tensor, mask_id: int) -> Told:
    """What an encoder sees that gets the ids `shown` `[B, L]`, [MASK] where the mask says so."""
    assert tokens.valid is not None, "text encoders say what is padding"
    seen = shown.masked_fill(mask.at_mask_token, mask_id)
    return Told(tokens.values, tokens.valid, seen, mask.hidden)


def as_guessed(tokens: Tokens, mask: Mask, guesses: Tensor) -> Told:
    """Guesses int64 `[M]` of the hidden tokens, in row-major order."""
    assert tokens.valid is not None, "text encoders say what is padding"
    filled = tokens.values.masked_scatter(mask.hidden, guesses)
    return Told(tokens.values, tokens.valid, filled, mask.hidden)


def words(told: Told, reader: TextReader) -> list[str]:
    """One text a document, marked as `Domain.words` says.

    A token shown as [MASK] is a white square; one that stands for itself is marked, and one in
    the place of another is marked with that one behind it.
    """
    rows = zip(told.ids, told.valid, told.instead, told.marked, strict=True)
    return [
        _line(reader, *(x[valid].cpu() for x in (ids, instead, marked)))
        for ids, valid, instead, marked in rows
    ]


def _line(reader: TextReader, ids: Tensor, instead: Tensor, marked: Tensor) -> str:
    parts: list[str] = []
    for place, part in enumerate(_parts(reader, ids)):
        if not marked[place]:
            parts.append(part)
            continue
        bare = part.strip() or _piece(reader, int(ids[place]))
        room = part[: len(part) - len(part.lstrip())]
        other = int(instead[place])
        if other == reader.special.mask:
            parts.append(room + HIDDEN)
        elif other == int(ids[place]):
            parts.append(f"{room}⟨{bare}⟩")
        else:
            parts.append(f"{room}⟨{_piece(reader, other)}|{bare}⟩")
    return " ".join("".join(parts).split())


def _parts(reader: TextReader, ids: Tensor) -> list[str]:
    """What each token adds to the text, spaces before it included.

    A letter that several tokens make up is added by the last of them: before, it decodes to a
    stand-in.
    """
    parts: list[str] = []
    before = ""
    for end in range(1, len(ids) + 1):
        whole = reader.text(ids[:end])
        if whole.endswith("\ufffd") and end < len(ids):
            parts.append("")
            continue
        parts.append(whole[len(before) :])
        before = whole
    return parts


def _piece(reader: TextReader, number: int) -> str:
    """One token alone; a special by its name, one of nothing but space as an open box."""
    if number in reader.special.every:
        return str(reader.tokenizer.id_to_token(number))
    return reader.text(torch.tensor([number])).strip().removeprefix("##") or "␣"
