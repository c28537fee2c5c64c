"""Contacts of residues as a measure: closed cases, the three rivals, wrong files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core import api
from ssl_core.errors import UserError
from ssl_core.runs.folder import Run
from ssl_text.domain import TEXT
from ssl_text.evaluation.contacts import (
    Protein,
    _by_distance,
    _learned,
    _logits,
    _precision,
    contacts,
    read_proteins,
)

CPU = torch.device("cpu")
LETTERS = np.array(list("ADEFGHIK"))


def bridged(seed: int) -> dict[str, object]:
    """A sequence in which cysteines touch each other, and nothing else does."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(LETTERS, 30)
    places = sorted(rng.choice(30, 4, replace=False).tolist())
    letters[places] = "C"
    pairs = [[a, b] for a in places for b in places if a < b]
    return {"sequence": "".join(letters), "contacts": pairs}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("contacts")
    for side, seeds in (("train", range(30)), ("test", range(30, 42))):
        lines = [json.dumps(bridged(seed)) + "\n" for seed in seeds]
        (place / f"{side}.jsonl").write_text("".join(lines))
        texts = [str(bridged(seed)["sequence"]) + "\n" for seed in seeds]
        (place / f"{side}.txt").write_text("".join(texts))
    return place


def trained(folder: Path, **options: object) -> Run:
    settings = {
        "encoder.depth": 1,
        "encoder.dim": 16,
        "encoder.heads": 2,
        "data.options": {"max_length": 32, **options},
        "data.workers": 0,
        "data.holdout": 0.2,
    }
    out = folder / "-".join(["run", *map(str, options.values())])
    data = folder / "train.txt"
    return api.pretrain(
        TEXT, "mlm", data=data, steps=2, batch_size=8, out=out, settings=settings, progress=False
    )


def test_bridges_are_found_where_states_name_the_residue(folder: Path) -> None:
    sides = [read_proteins(folder / f"{side}.jsonl") for side in ("train", "test")]
    letters = sorted({letter for protein in sides[0] for letter in protein.sequence})
    states = [
        [torch.eye(len(letters))[[letters.index(x) for x in p.sequence]] for p in side]
        for side in sides
    ]
    head = _learned(states[0], sides[0], epochs=4, lr=0.1, seed=0)
    found = _precision([_logits(head, rows) for rows in states[1]], sides[1], 6, 5)
    truth = [torch.stack([1.0 - p.contact, p.contact], -1) for p in sides[1]]
    assert found == _precision(truth, sides[1], 6, 5) > 0.5
    assert found > 2 * _precision(_by_distance(*sides), sides[1], 6, 5)


def test_all_rivals_are_asked_and_no_global_state_is_drawn(folder: Path) -> None:
    run = trained(folder, kind="amino")
    files = {side: str(folder / f"{side}.jsonl") for side in ("train", "test")}
    state = torch.get_rng_state()
    found = contacts(run, TEXT, CPU, **files, epochs=1)
    assert torch.equal(state, torch.get_rng_state())
    assert list(found["precision"]) == ["raw", "untrained", "trained"]
    assert all(0 <= value <= 1 for value in found["precision"].values())
    assert found["residues_left_out"] == 0
    assert found["words"].startswith("Contacts of 12 proteins, precision at L/5 (x 100): raw ")
    assert contacts(run, TEXT, CPU, **files, epochs=1) == found


def test_a_run_without_a_token_a_residue_is_refused(folder: Path) -> None:
    run = trained(folder, vocab_size=300)
    files = {side: str(folder / f"{side}.jsonl") for side in ("train", "test")}
    with pytest.raises(UserError, match="needs a token a residue"):
        contacts(run, TEXT, CPU, **files)


def test_distance_alone_is_the_share_of_touching_pairs() -> None:
    place = torch.arange(9)
    far = (place[:, None] - place[None]).abs()
    contact = (far == 7).long().masked_fill(far == 8, -1)
    protein = Protein("A" * 9, contact)
    (logits,) = _by_distance([protein], [protein])
    odds = logits.softmax(-1)[..., 1]
    torch.testing.assert_close(odds[0, 7], torch.tensor(4.5 / 5).double())  # 2 pairs, both ways
    torch.testing.assert_close(odds[0, 6], torch.tensor(0.5 / 7).double())
    torch.testing.assert_close(odds[0, 8], torch.tensor(0.5).double())  # nothing known
    assert _precision([logits], [protein], 6, 4) == 1.0


def test_coordinates_touch_below_eight(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    row = {"sequence": "ACD", "coordinates": [[0, 0, 0], [7.9, 0, 0], None]}
    path.write_text(json.dumps(row) + "\n")
    (found,) = read_proteins(path)
    assert found.contact.tolist() == [[1, 1, -1], [1, 1, -1], [-1, -1, -1]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2 .* is not JSON"),
        ("[]", "no `sequence` of letters"),
        ('{"sequence": "AC1", "contacts": []}', "no `sequence` of letters"),
        ('{"sequence": "ACD"}', "neither `contacts` nor `coordinates`"),
        ('{"sequence": "ACD", "contacts": [[0, 3]]}', r"\[0, 3\] are no two places of 3"),
        ('{"sequence": "ACD", "coordinates": [[0, 0, 0]]}', "or null for each of 3 residues"),
        ('{"sequence": "ACD", "coordinates": 7}', "or null for each of 3 residues"),
    ],
)
def test_wrong_files_are_told_with_the_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"sequence": "ACD", "contacts": []}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=reason):
        read_proteins(path)


def test_an_empty_or_missing_file_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no proteins"):
        read_proteins(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="No such file"):
        read_proteins(tmp_path / "q.jsonl")
