"""Word and span masks, static masks, and tokenizers of every kind."""

from __future__ import annotations

import pytest
import torch

from reference import golden
from ssl_core.batch import Record
from ssl_core.data import ArraySource
from ssl_core.errors import UserError
from ssl_text.domain import TEXT
from ssl_text.methods.mlm import content_keys
from ssl_text.methods.word_masks import WholeWords, WordSpans, word_numbers
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader
from ssl_text.tokenizer_kinds import trained
from ssl_text.tokens import TokenBatch
from token_batches import SIZE, SPEC, batch_of, documents, keys, method_of

# Word and span masks --------------------------------------------------------------------------


def test_released_whole_word_counts():
    """google-research/bert, whole-word mode: 4000 draws on one sequence of 50 tokens."""
    g = golden("bert_mlm/masking_counts")
    words = g["word_id"].expand(4000, -1)
    hidden, _ = WholeWords(0.15).choose(keys(4000), words)
    rate = hidden.double().mean(0)
    assert (rate - g["whole_position_rate"]).abs().max() < 0.03
    counts = torch.bincount(hidden.sum(1), minlength=12).double() / 4000
    want = g["whole_count_hist"].double()
    assert (counts - want / want.sum()).abs().max() < 0.03


@pytest.mark.parametrize("chooser", [WholeWords(0.2), WordSpans(0.3)])
def test_words_are_hidden_whole_and_within_the_budget(chooser):
    data = documents((1, 5, 18, 30) * 30)
    encoder = TEXT.create_encoder("bert_tiny", SPEC, SIZE)
    maskable = encoder.tokenize(data).maskable
    words = word_numbers(data.starts, maskable)
    hidden, unit = chooser.choose(keys(len(data)), words)
    assert not (hidden & ~maskable).any()
    budget = ((maskable.sum(1) + 2) * chooser.ratio).round().clamp(min=1)
    for row in range(len(data)):
        chosen = set(words[row][hidden[row]].tolist())
        assert chosen
        whole = torch.isin(words[row], torch.tensor(sorted(chosen)))
        assert torch.equal(whole, hidden[row])
        assert hidden[row].sum() <= budget[row] or len(chosen) == 1
        for number in unit[row][hidden[row]].unique() if isinstance(chooser, WordSpans) else ():
            run = words[row][hidden[row] & (unit[row] == number)].unique()
            assert (run.diff() == 1).all()  # a run of neighbouring words
    alone, _ = chooser.choose(keys(len(data))[slice(60, 63)], words[60:63, :25])
    assert torch.equal(alone, hidden[60:63, :25])


def test_span_lengths_are_truncated_geometric():
    chooser = WordSpans()
    uniform = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:-1]
    lengths = chooser.lengths(uniform)
    assert lengths.min() == 1
    assert lengths.max() == 10
    assert lengths.double().mean().item() == pytest.approx(3.80, abs=0.01)


def test_tokens_of_a_span_share_their_fate():
    data = documents((30,) * 64)
    method = method_of("mlm", unit="span", mask_ratio=0.4, random=0.0, kept=0.5)
    tokens = method.encoder.tokenize(data)
    mask = method.mask(keys(64), tokens)
    for row in range(64):
        for number in mask.unit[row][mask.hidden[row]].unique():
            run = mask.hidden[row] & (mask.unit[row] == number)
            assert mask.replaced[row][run].unique().numel() == 1
    share = mask.replaced.sum() / mask.hidden.sum()
    assert 0.35 < share < 0.65


def test_static_masks_come_in_so_many_versions():
    data = documents((20, 30))
    method = method_of("mlm", static=3)
    seen = set()
    for step in range(30):
        (view,) = method.views(batch_of(data), keys(2, step))
        (rep,) = method.encode([view])
        seen.add(tuple(rep.mask.hidden[1].tolist()))
    assert len(seen) == 3
    wide = TokenBatch.cat([data, documents((38,))])
    assert torch.equal(
        content_keys(wide.ids, wide.valid).key[:2], content_keys(data.ids, data.valid).key
    )


def test_words_need_a_reader_that_keeps_them():
    method = method_of("mlm", unit="word")
    data = documents()
    bare = TokenBatch(data.ids, data.valid)
    with pytest.raises(UserError, match="words: true"):
        method(method.views(batch_of(bare), keys(4)))
    for options, word in (({"unit": "sentence"}, "unit"), ({"static": -1}, "static")):
        with pytest.raises(UserError, match=word):
            method_of("mlm", **options)


# Tokenizers -----------------------------------------------------------------------------------


CORPUS = ["The cat sat on the mat.", "A cat and a dog, the cat's dog", "mats and cats"] * 3


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "character"])
def test_tokenizers_of_every_kind_read_words(kind):
    options = TextOptions(kind=kind, vocab_size=300, max_length=40, words=True)
    reader = TextReader.fit(ArraySource(CORPUS), options)
    if kind != "unigram":  # its trainer may settle a tie in another way each time
        again = TextReader.fit(ArraySource(CORPUS), options)
        assert reader.tokenizer.to_str() == again.tokenizer.to_str()
    sample = reader.decode(Record("a", "The cats sat."))
    assert sample.shape[0] == 2
    ids, starts = sample
    assert ids[0] == reader.special.cls
    assert ids[-1] == reader.special.sep
    assert reader.text(ids).replace(" ", "") == "thecatssat."
    words = 4 if kind != "character" else None
    if words:
        assert starts[1:-1].sum() in (words, words + 1)  # a leading blank may stand alone
    batch = reader.collate([sample, sample[:, :4]])
    assert batch.starts.shape == batch.ids.shape


def test_amino_acids_are_tapes_vocabulary():
    tokenizer = trained("amino", [], vocab_size=0, lowercase=True)
    found = tokenizer.encode("acDEfj k", add_special_tokens=False)
    assert found.ids == [5, 7, 8, 9, 10, 4, 14]  # j is no residue
    assert tokenizer.get_vocab_size() == 30
    assert tokenizer.token_to_id("<mask>") == 1
    reader = TextReader(tokenizer, max_length=16)
    assert reader.special.every == (0, 1, 2, 3, 4)


def test_word_pieces_split_as_bert_does():
    tokenizer = trained("wordpiece", CORPUS, vocab_size=120, lowercase=True)
    tokens = tokenizer.encode("catsat", add_special_tokens=False).tokens
    assert tokens[0] == "cat" or not tokens[0].startswith("##")
    assert all(token.startswith("##") for token in tokens[1:])
    assert "".join(token.removeprefix("##") for token in tokens) == "catsat"
