"""TAPE's contact prediction (Rao et al., NeurIPS 2019) as a measure: which residues touch?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.rng import generator
from ssl_core.runs.folder import Run
from ssl_core.runs.rivals import told
from ssl_text.evaluation.proteins import ContactHead, contact_loss, contact_precision
from ssl_text.evaluation.rivals import TextRivals
from ssl_text.reader import TextReader
from ssl_text.token_vectors import token_states

TOUCH = 8.0
"""Angstrom between two residues' atoms (C-beta in TAPE) below which they touch."""


_BATCH = 32


@dataclass(frozen=True)
class Protein:
    """A sequence of N letters and `contact`, int64 `[N, N]`: 1 touching, 0 not, -1 unknown."""

    sequence: str
    contact: Tensor


def contacts(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    train: str,
    test: str,
    epochs: int = 10,
    lr: float = 1e-2,
    apart: int = 6,
    share: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Precision of the L / `share` likeliest contacts, of residues `apart` or more from each other.

    TAPE's head (linear in the product and difference of two states) learns on frozen states of
    the proteins in `train`, one at a time, `epochs` times over; the last epoch is scored on `test`.
    Files as in `read_proteins`. The raw rival takes pairs as near to each other in the sequence as
    those that touch most often in `train`. TAPE itself trains the encoder as well.
    """
    sides = [read_proteins(Path(file)) for file in (train, test)]
    rivals = TextRivals(run, domain, device)
    room = rivals.reader.max_length - 2
    known = [[_cut(protein, room) for protein in side] for side in sides]
    left = sum(max(0, len(protein.sequence) - room) for side in sides for protein in side)
    scores = {"raw": _precision(_by_distance(*known), known[1], apart, share)}
    for name, encoder in rivals.encoders.items():
        states = [_states(encoder, rivals.reader, side, device) for side in known]
        head = _learned(states[0], known[0], epochs=epochs, lr=lr, seed=seed)
        with torch.no_grad():
            logits = [_logits(head, rows) for rows in states[1]]
        scores[name] = _precision(logits, known[1], apart, share)
    asked = f"Contacts of {len(known[1])} proteins, precision at L/{share} (x 100)"
    words = f"{asked}: {told(scores)}."
    return {"precision": scores, "residues_left_out": left, "words": words}


def read_proteins(path: Path) -> list[Protein]:
    """Proteins of JSON lines: `sequence`, and `contacts` or `coordinates`.

    `contacts` lists pairs of places that touch, from 0; `coordinates` has a place [x, y, z] in
    Angstrom for each residue, or null where it is not known. `UserError` names a wrong line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"contacts: {str(path)!r}: {error}") from error
    found = [
        _protein(line, f"line {number} of {path}") for number, line in enumerate(lines, 1) if line
    ]
    if not found:
        raise UserError(f"contacts: {str(path)!r} holds no proteins")
    return found


def _protein(line: str, where: str) -> Protein:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"contacts: {where} is not JSON: {error}") from error
    sequence = row.get("sequence") if isinstance(row, Mapping) else None
    if not isinstance(sequence, str) or not sequence.isalpha():
        raise UserError(f"contacts: {where} has no `sequence` of letters")
    if "coordinates" in row:
        return Protein(sequence, _near(row["coordinates"], len(sequence), where))
    if "contacts" not in row:
        raise UserError(f"contacts: {where} has neither `contacts` nor `coordinates`")
    contact = torch.zeros(len(sequence), len(sequence), dtype=torch.int64)
    for pair in row["contacts"]:
        if len(pair) != 2 or not all(isinstance(i, int) and 0 <= i < len(sequence) for i in pair):
            raise UserError(f"contacts: {where}: {pair} are no two places of {len(sequence)}")
        contact[pair[0], pair[1]] = contact[pair[1], pair[0]] = 1
    return Protein(sequence, contact)


def _near(coordinates: Any, count: int, where: str) -> Tensor:
    """Which residues lie within `TOUCH`; -1 for pairs with an unknown place."""
    try:
        places = [[torch.nan] * 3 if place is None else list(place) for place in coordinates]
        xyz = torch.tensor(places, dtype=torch.float64).view(count, 3)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"contacts: {where} needs three `coordinates` or null for each of {count} residues"
        ) from error
    near = (torch.cdist(xyz, xyz) < TOUCH).long()
    unknown = xyz.isnan().any(1)
    return near.masked_fill(unknown[:, None] | unknown[None], -1)


def _cut(protein: Protein, room: int) -> Protein:
    return Protein(protein.sequence[:room], protein.contact[:room, :room])


def _states(
    encoder: nn.Module, reader: TextReader, side: Sequence[Protein], device: torch.device
) -> list[Tensor]:
    """A state a residue, `[N, D]` for each protein."""
    found: list[Tensor] = []
    for first in range(0, len(side), _BATCH):
        sequences = [protein.sequence for protein in side[first : first + _BATCH]]
        found += token_states(encoder, reader, sequences, device)
    for rows, protein in zip(found, side, strict=True):
        if len(rows) != len(protein.sequence):
            raise UserError(
                f"contacts: {len(rows)} tokens for {len(protein.sequence)} residues; the run needs "
                "a token a residue, as with data.options.kind=amino"
            )
    return found


def _logits(head: ContactHead, states: Tensor) -> Tensor:
    """`[N, N, 2]` of states `[N, D]`; the head cuts off a place for [CLS] and one for [SEP]."""
    logits: Tensor = head(F.pad(states, (0, 0, 1, 1))[None])[0]
    return logits


def _learned(
    states: Sequence[Tensor], side: Sequence[Protein], *, epochs: int, lr: float, seed: int
) -> ContactHead:
    """A head that begins at zero, after `epochs` passes with Adam in a keyed order."""
    with torch.random.fork_rng(devices=[]):
        head = ContactHead(states[0].shape[1])
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    for epoch in range(epochs):
        for number in generator("contacts", seed, epoch).permutation(len(side)):
            optimizer.zero_grad()
            loss = contact_loss(_logits(head, states[number])[None], side[number].contact[None])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return head


def _by_distance(bank: Sequence[Protein], side: Sequence[Protein]) -> list[Tensor]:
    """Logits `[N, N, 2]` of `side` from how often residues so far apart touch in `bank`."""
    longest = max(len(protein.sequence) for protein in (*bank, *side))
    touching, seen = torch.zeros(longest).double(), torch.zeros(longest).double()
    for protein in bank:
        known = protein.contact >= 0
        distance = _distances(protein)[known]
        seen += distance.bincount(minlength=longest)
        touching += distance[protein.contact[known] == 1].bincount(minlength=longest)
    share = (touching + 0.5) / (seen + 1)
    logits = torch.stack([(1 - share).log(), share.log()], dim=1)
    return [logits[_distances(protein)] for protein in side]


def _distances(protein: Protein) -> Tensor:
    place = torch.arange(len(protein.sequence))
    return (place[:, None] - place[None]).abs()


def _precision(logits: Sequence[Tensor], side: Sequence[Protein], apart: int, share: int) -> float:
    """`contact_precision` of proteins of several lengths."""
    lengths = torch.tensor([len(protein.sequence) for protein in side])
    longest = int(lengths.max())
    spare = [longest - int(n) for n in lengths]
    return contact_precision(
        torch.stack([F.pad(x, (0, 0, 0, n, 0, n)) for x, n in zip(logits, spare, strict=True)]),
        torch.stack(
            [F.pad(p.contact, (0, n, 0, n), value=-1) for p, n in zip(side, spare, strict=True)]
        ),
        lengths,
        apart=apart,
        share=share,
    )
