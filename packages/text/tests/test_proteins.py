"""TAPE's masked residues on proteins of two made-up families, whose composition says nothing."""

from __future__ import annotations

import math

import numpy as np
import torch

from ssl_core.batch import Batch
from ssl_core.evaluation.probe import linear_probe
from ssl_core.rng import Rng
from ssl_text.domain import TEXT
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader
from ssl_text.sources.opening import open_any

LETTERS = np.array(list("ACDEFGHI"))


def sequence(family: int, rng: np.random.Generator) -> str:
    """A walk over eight residues, half of its steps forward in one family, backward in the other.

    Both families hold every residue equally often, so that their composition tells nothing.
    """
    steps = np.where(rng.random(40) < 0.5, 1 if family else -1, rng.integers(0, 8, 40))
    return "".join(LETTERS[(rng.integers(8) + steps.cumsum()) % 8])


def test_hidden_residues_are_predicted_beyond_composition(tmp_path):
    rng = np.random.default_rng(0)
    families = rng.integers(0, 2, 400)
    entries = [f">p{i}\n{sequence(int(f), rng)}\n" for i, f in enumerate(families)]
    path = tmp_path / "families.fasta"
    path.write_text("".join(entries))
    options = TextOptions(kind="amino", max_length=42)
    source = open_any(str(path), format="auto", options=options, limit=None)
    reader = TextReader.fit(source, options)
    assert reader.spec["vocab_size"] == 30
    rows = torch.arange(len(source))
    data = reader.collate([reader.decode(source[i]) for i in range(len(source))])
    labels = torch.from_numpy(families)
    torch.manual_seed(0)
    encoder = TEXT.create_encoder(
        "cnn", reader.spec, {"dim": 32, "depth": 2, "kernel": 3, "dropout": 0.0}
    )
    views = TEXT.create_views("none", reader.spec, {})
    method = TEXT.methods.build("mlm", encoder, views, options={"random_specials": False})

    def step(number: int, chosen: torch.Tensor) -> torch.Tensor:
        part = Batch(data[chosen], rows[chosen], rows[chosen])
        return method(method.views(part, Rng.at(1, number, part.ids))).total

    def accuracy(features: torch.Tensor) -> float:
        return linear_probe(features[:200], labels[:200]).accuracy(features[200:], labels[200:])

    optimizer = torch.optim.Adam(method.parameters(), lr=5e-3)
    for number in range(60):
        order = Rng.at(0, number, torch.zeros(1, dtype=torch.int64)).permutation("rows", 200)
        optimizer.zero_grad()
        step(number, order[0, :64]).backward()
        optimizer.step()
    with torch.no_grad():
        heldout = float(step(60, rows[200:]))
        trained = accuracy(encoder(data).pooled)
    # Eight residues, equally often: who knows only that pays log 8 for each.
    assert heldout < math.log(8) - 0.3
    assert accuracy(reader.raw(data)) < 0.65
    assert trained > 0.8
