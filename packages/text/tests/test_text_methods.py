"""ELECTRA, DeCLUTR, TSDAE, URLBERT, BIOptimus: released values, limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from reference import assert_gradients, golden
from ssl_core.batch import Batch
from ssl_core.data import ArraySource
from ssl_core.errors import UserError
from ssl_core.objectives import nt_xent
from ssl_core.objectives.adversarial import adversarial_noise, divergence, virtual_adversarial
from ssl_core.rng import Rng
from ssl_text.domain import TEXT
from ssl_text.encoders.swap import distilled_embeddings
from ssl_text.methods.curriculum import STAGES, CurriculumMLM
from ssl_text.methods.electra import detection, sampled
from ssl_text.methods.mlm import MLM
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader
from ssl_text.tokens import TokenBatch
from ssl_text.views.anchors import AnchorViews, beta
from token_batches import SIZE, SPEC, batch_of, documents, keys, method_of

# ELECTRA --------------------------------------------------------------------------------------


def test_electra_detection_is_the_released_formula():
    g = golden("electra/discriminator")
    logits = g["logits"].clone().requires_grad_()
    loss = detection(logits, g["labels"] > 0, g["input_mask"] > 0)
    torch.testing.assert_close(loss, g["loss"], rtol=1e-6, atol=0)  # the release adds 1e-6
    total = g["generator_loss"] + 50 * loss
    torch.testing.assert_close(total, g["total_weight50"], rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, g["grad"], rtol=1e-6, atol=1e-12)
    zero = detection(torch.zeros(3, 7), g["labels"] > 0, g["input_mask"] > 0)
    assert zero.item() == pytest.approx(math.log(2))


def test_electra_labels_are_what_differs_and_no_gradient_crosses():
    data = documents()
    method = method_of("electra", generator=0.5)
    costs, hidden, scores, replaced, valid = method.encode(method.views(batch_of(data), keys(4)))
    assert not (replaced & ~hidden).any()
    assert torch.equal(valid, data.valid)
    method.loss((costs.detach(), hidden, scores, replaced, valid)).total.backward()
    assert all(p.grad is None for p in method.generator.parameters())
    assert method.encoder.vocabulary.weight.grad.abs().sum() > 0
    assert costs[hidden].mean().item() == pytest.approx(math.log(60), abs=0.5)
    small = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    other = TEXT.create_encoder("hf:roberta", SPEC, {**small, "intermediate_size": 16})
    with pytest.raises(UserError, match="electra needs a BERT"):
        TEXT.methods.build("electra", other, TEXT.create_views("none", SPEC, {}), options={})


def test_sampled_pieces_follow_their_distribution():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, -1)
    hidden = torch.ones(20_000, 1, dtype=torch.bool)
    counts = torch.bincount(sampled(logits, keys(20_000), hidden), minlength=3) / 20_000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.2]), atol=0.015, rtol=0)


# DeCLUTR --------------------------------------------------------------------------------------


def test_beta_numbers_have_betas_moments():
    x = beta(keys(40_000), "x", 4, 2)
    assert x.mean().item() == pytest.approx(4 / 6, abs=0.01)
    assert x.var().item() == pytest.approx(4 * 2 / (36 * 7), abs=0.003)


def test_positives_lie_near_their_anchor_inside_the_document():
    data = documents((1, 4, 18, 30) * 20)
    policy = AnchorViews(anchors=2, positives=2, least=3, most=12)
    views = policy(batch_of(data), keys(len(data)))
    assert [view.role for view in views] == ["anchor", "positive", "positive"] * 2
    inner = data.lengths - 2
    for n in (0, 3):
        anchor = views[n].params
        a, b = anchor["crop_start"], anchor["crop_start"] + anchor["crop_length"]
        assert (b <= inner).all()
        assert (anchor["crop_length"] >= inner.clamp(max=3)).all()
        for other in views[n + 1 : n + 3]:
            c = other.params["crop_start"]
            d = c + other.params["crop_length"]
            assert ((c >= 0) & (d <= inner)).all()
            assert ((c <= b) & (d >= a)).all()  # overlaps or touches
    row = 3
    view = views[0]
    start, length = (int(view.params[k][row]) for k in ("crop_start", "crop_length"))
    assert torch.equal(
        view.data.ids[row, 1 : length + 1], data.ids[row, start + 1 : start + length + 1]
    )


def test_declutr_without_mlm_is_nt_xent():
    data = documents((18, 30, 25))
    method = method_of(
        "declutr", "declutr", size={**SIZE, "dropout": 0.0, "attention_dropout": 0.0}, mlm=0.0
    )
    views = method.views(batch_of(data), keys(3))
    pooled = [method.encoder(view.data).pooled for view in views]
    want = nt_xent(pooled[0], (pooled[1] + pooled[2]) / 2, temperature=0.05)
    torch.testing.assert_close(method(views).total, want)


# TSDAE ----------------------------------------------------------------------------------------


def test_tsdae_decoder_is_causal_and_reads_the_vector():
    method = method_of("tsdae", "deletion").eval()
    data = documents((20, 30))
    vector = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))

    def logits(ids, sentence):
        embedded = method.encoder.embed_ids(ids)
        return method.decoder(embedded, data.valid, sentence)

    plain = logits(data.ids, vector)
    later = data.ids.clone()
    later[:, 9:] = 7
    torch.testing.assert_close(logits(later, vector)[:, :9], plain[:, :9])
    assert not torch.allclose(logits(data.ids, vector + 1), plain)
    loss = method(method.views(batch_of(data), keys(2)))
    assert loss.total.item() == pytest.approx(math.log(60), abs=0.7)


def test_tsdae_shows_the_encoder_only_the_remains():
    data = documents((20, 30))
    method = method_of("tsdae", "deletion")
    noisy, original = method.views(batch_of(data), keys(2))
    assert torch.equal(original.data.ids, data.ids)
    assert (noisy.data.lengths < 0.7 * data.lengths).all()


# URLBERT --------------------------------------------------------------------------------------


def test_adversarial_loss_is_the_released_one():
    g = golden("urlbert/vat_ntxent")
    w1, w2 = (g[n].clone().requires_grad_() for n in ("w1", "w2"))

    def logits_of(e):
        mixed = e @ w1
        return torch.tanh(mixed + mixed.mean(1, keepdim=True)) @ w2

    start = 1e-5 * g["start_noise_unit"]
    clean = logits_of(g["embeddings"])
    noise = adversarial_noise(logits_of, g["embeddings"], clean.detach(), start)
    torch.testing.assert_close(noise, g["noise_final"], rtol=1e-6, atol=1e-8)
    loss = 3 * virtual_adversarial(logits_of, g["embeddings"], start)  # the release adds up samples
    torch.testing.assert_close(loss, g["vat_loss"], rtol=1e-7, atol=0)
    for got, want in zip(
        torch.autograd.grad(loss, [w1, w2]), [g["grad_w1"], g["grad_w2"]], strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
    z1, z2 = (g[n].clone().requires_grad_() for n in ("z1", "z2"))
    contrast = nt_xent(z1, z2, temperature=0.1)
    torch.testing.assert_close(contrast, g["ntxent"], rtol=1e-9, atol=0)
    assert_gradients(contrast, [z1, z2], [g["grad_z1"], g["grad_z2"]])


def test_no_noise_costs_nothing_and_an_ascent_beats_chance():
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    e = torch.randn(8, 5, 6, generator=generator, dtype=torch.float64)

    def logits_of(x):
        return torch.tanh(x) @ w

    clean = logits_of(e)
    assert divergence(clean, clean).item() == 0
    gains = []
    for seed in range(5):
        start = torch.randn(8, 5, 6, generator=generator.manual_seed(seed), dtype=torch.float64)
        unit = start / start.norm(dim=-1, keepdim=True)
        found = adversarial_noise(logits_of, e, clean, 1e-5 * start, steps=(1e3,))
        gains.append(
            divergence(clean, logits_of(e + found)) - divergence(clean, logits_of(e + unit))
        )
    assert torch.stack(gains).mean() > 0


def test_urlbert_does_not_see_padding():
    size = {**SIZE, "dropout": 0.0, "attention_dropout": 0.0}
    method = method_of("urlbert", size=size)
    short = documents((6, 9, 12))
    wide = TokenBatch.cat([short, documents((30,))])[:3]
    one = method(method.views(batch_of(short), keys(3)))
    two = method(method.views(batch_of(wide), keys(3)))
    for name, part in one.parts.items():
        torch.testing.assert_close(part, two.parts[name], rtol=1e-3, atol=1e-4)


# BIOptimus ------------------------------------------------------------------------------------


def test_the_curriculum_moves_through_its_stages():
    data = documents((30,) * 200)
    method = method_of("curriculum_mlm")
    tokens = method.encoder.tokenize(data)
    shares, replaced = [], []
    for step in (0, 25, 50, 99):
        method.before_step(step, 100)
        assert method.stage == step // 25
        mask = method.mask(keys(200, step), tokens)
        shares.append(mask.hidden.sum().item() / (200 * 32))
        replaced.append((mask.replaced & mask.hidden).sum().item() / mask.hidden.sum().item())
    assert shares[0] == pytest.approx(5 / 32)  # round(0.15 * 32)
    assert shares[2] > shares[1]
    assert replaced[3] == 1.0
    assert all(0.7 < share < 0.9 for share in replaced[:3])
    with pytest.raises(UserError, match="until"):
        method_of("curriculum_mlm", stages=[{**STAGES[0], "until": 0.5}])
    assert isinstance(method, MLM)
    assert isinstance(method, CurriculumMLM)


def test_new_pieces_start_from_contextual_vectors():
    options = TextOptions(kind="wordpiece", vocab_size=80, max_length=24)
    corpus = ["The cat sat on the mat.", "A cat and a dog", "mats and cats"] * 3
    reader = TextReader.fit(ArraySource(corpus), options)
    encoder = TEXT.create_encoder("bert_tiny", reader.spec, SIZE).eval()
    new = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1, "dog": 2, "zebra": 3}, "[UNK]"))
    new.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = ["dog", "the cat sat"]
    made, count = distilled_embeddings(encoder, reader, new, texts, batch_size=1, scaled=False)
    assert count[1:].tolist() == [1, 1, 0]
    batch = reader.collate([reader.encode("dog")])
    states = encoder(batch).tokens[0, 1:-1]
    torch.testing.assert_close(made[2], states.mean(0))
    torch.testing.assert_close(made[3], encoder.vocabulary.weight.mean(0))
    moved, _ = distilled_embeddings(encoder, reader, new, texts)
    between = made[:3] - made[:3].mean(0)  # [UNK] stands for the other words
    length = encoder.vocabulary.weight.norm(dim=1).mean()
    torch.testing.assert_close(
        moved[:3], torch.nn.functional.normalize(between, dim=1) * length, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(moved[3], made[3])


def test_a_contextual_start_predicts_better_than_a_random_one():
    rng = np.random.default_rng(0)
    nouns, verbs = ["cat", "dog", "hen", "cow"], ["sees", "hears", "likes", "feeds"]
    corpus = [
        " ".join(
            f"the {rng.choice(nouns)} {rng.choice(verbs)} a {rng.choice(nouns)}" for _ in "abc"
        )
        for _ in range(64)
    ]
    small = {"depth": 1, "dim": 32, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
    readers = {}
    for kind, size in (("character", 60), ("wordpiece", 80)):
        options = TextOptions(kind=kind, vocab_size=size, max_length=72)
        readers[kind] = TextReader.fit(ArraySource(corpus), options)
    old, new = readers["character"], readers["wordpiece"]
    rows = torch.arange(64)

    def built(reader):
        torch.manual_seed(0)
        encoder = TEXT.create_encoder("bert_tiny", reader.spec, small)
        views = TEXT.create_views("none", reader.spec, {})
        batch = Batch(reader.collate([reader.encode(text) for text in corpus]), rows, rows)
        return TEXT.methods.build("mlm", encoder, views, options={}), batch

    learned, batch = built(old)
    optimizer = torch.optim.Adam(learned.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        learned(learned.views(batch, Rng.at(0, step, rows))).total.backward()
        optimizer.step()

    def first_loss(embeddings):
        method, batch = built(new)
        kept = method.encoder.vocabulary.weight.detach().clone()
        kept = kept if embeddings is None else embeddings
        state = {
            name: value
            for name, value in learned.state_dict().items()
            if value.shape == method.state_dict()[name].shape
        }
        method.load_state_dict({**method.state_dict(), **state})
        with torch.no_grad():
            method.encoder.vocabulary.weight.copy_(kept)
            return float(method(method.views(batch, Rng.at(1, 0, rows))).total)

    starts = {
        scaled: distilled_embeddings(learned.encoder, old, new.tokenizer, corpus, scaled=scaled)[0]
        for scaled in (True, False)
    }
    assert first_loss(starts[True]) < first_loss(None) < first_loss(starts[False])
