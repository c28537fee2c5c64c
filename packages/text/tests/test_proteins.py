"""TAPE on proteins of two made-up families: what masked residues add to a random start."""

from __future__ import annotations

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


def test_families_are_told_apart_after_training_and_not_by_composition(tmp_path):
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

    def accuracy(features: torch.Tensor) -> float:
        return linear_probe(features[:40], labels[:40]).accuracy(features[200:], labels[200:])

    with torch.no_grad():
        before = accuracy(encoder(data).pooled)
    optimizer = torch.optim.Adam(method.parameters(), lr=5e-3)
    for step in range(60):
        chosen = Rng.at(0, step, torch.zeros(1, dtype=torch.int64)).permutation("rows", 400)[0, :64]
        batch = Batch(data[chosen], rows[chosen], rows[chosen])
        optimizer.zero_grad()
        method(method.views(batch, Rng.at(1, step, batch.ids))).total.backward()
        optimizer.step()
    with torch.no_grad():
        after = accuracy(encoder(data).pooled)
    assert accuracy(reader.raw(data)) < 0.65
    assert after > before + 0.05
