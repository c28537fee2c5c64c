"""What the report tells of masked documents."""

import pytest
import torch

from ssl_core.data import ArraySource
from ssl_core.encoder import Tokens
from ssl_core.networks.masks import Mask
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_text.domain import TEXT
from ssl_text.telling import Told, as_guessed, as_hidden, words

TEXTS = ["the quick brown fox jumps over the lazy dog", "naïve café ☕ dogs jump over foxes"]
KINDS = ("bpe", "wordpiece", "unigram")


def reader_of(kind: str = "bpe", **options):
    data = Data(options={"vocab_size": 500, "max_length": 60, "kind": kind, **options})
    return TEXT.fit_reader(ArraySource(TEXTS * 20), data)


def batch_of(reader):
    return reader.collate([reader.encode(text) for text in TEXTS])


@pytest.mark.parametrize("kind", KINDS)
def test_without_marks_a_document_reads_as_it_is(kind):
    reader = reader_of(kind)
    batch = batch_of(reader)
    none = torch.zeros_like(batch.valid)
    assert TEXT.words(Told(batch.ids, batch.valid, batch.ids, none), reader) == TEXT.words(
        batch, reader
    )


def test_hidden_kept_and_swapped_tokens_are_told_apart():
    reader = reader_of()
    batch = batch_of(reader)
    tokens = Tokens(batch.ids, (batch.ids.shape[1],), valid=batch.valid)
    parts = [reader.text(torch.tensor([i])) for i in batch.ids[0].tolist()]
    quick, brown, fox = (parts.index(f" {word}") for word in ("quick", "brown", "fox"))
    hidden = torch.zeros_like(batch.valid)
    hidden[0, [quick, brown, fox]] = True
    replaced = hidden.clone()
    replaced[0, [brown, fox]] = False
    mask = Mask(hidden, "replace", replaced=replaced)
    swapped = batch.ids.clone()
    swapped[0, fox] = batch.ids[0, quick]
    (first, _) = words(as_hidden(tokens, mask, swapped, reader.special.mask), reader)
    assert first == "the ▢ ⟨brown⟩ ⟨quick|fox⟩ jumps over the lazy dog"
    guesses = batch.ids[0, [quick, quick, fox]]
    (first, _) = words(as_guessed(tokens, mask, guesses), reader)
    assert first == "the ⟨quick⟩ ⟨quick|brown⟩ ⟨fox⟩ jumps over the lazy dog"


@pytest.mark.parametrize(
    ("method", "views", "options", "captions"),
    [
        ("mlm", "none", {"static": 2}, ["hidden", "predicted"]),
        ("mlm", "none", {"unit": "span", "mask_ratio": 0.3}, ["hidden", "predicted"]),
        ("curriculum_mlm", "none", {}, ["hidden", "predicted"]),
        ("spanbert", "none", {"places": 3}, ["hidden", "predicted"]),
        ("urlbert", "none", {}, ["hidden", "predicted"]),
        ("electra", "none", {"generator": 0.5}, ["hidden", "generated", "taken for replaced"]),
        ("tsdae", "deletion", {}, ["rebuilt"]),
        (
            "data2vec",
            "none",
            {"decoder": "linear", "mask": "random", "mask_block": 1, "masks": 1},
            ["hidden"],
        ),
    ],
)
def test_methods_tell_what_they_hide_and_guess(method, views, options, captions):
    reader = reader_of(words=True)
    size = {"depth": 1, "dim": 16, "heads": 2}
    made = TEXT.methods.build(
        method,
        TEXT.create_encoder("bert_tiny", reader.spec, size),
        TEXT.create_views(views, reader.spec, {}),
        options=options,
    ).eval()
    batch = batch_of(reader)
    rng = Rng.at(0, 0, torch.arange(2))
    seen = [View(batch, rng)] * 2
    before = torch.get_rng_state()
    with torch.no_grad():
        found = made.shown(seen)
        again = made.shown(seen)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(found) == captions
    for caption, told in found.items():
        texts = TEXT.words(told, reader)
        assert texts == TEXT.words(again[caption], reader)
        assert len(texts) == 2
        if caption == "hidden":
            assert told.marked.any()
            assert not (told.marked & ~batch.valid).any()
            same = told.instead[~told.marked] == batch.ids[~told.marked]
            assert bool(same.all())
