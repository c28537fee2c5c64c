"""Similarity, retrieval, choices, specificity, protein heads: released values and limits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import transformers
from scipy import stats

from reference import golden
from ssl_core.batch import Batch
from ssl_core.data import ArraySource
from ssl_core.errors import UserError
from ssl_core.rng import Rng
from ssl_core.runs.model import Model
from ssl_text.domain import TEXT
from ssl_text.evaluation.choices import (
    MultipleChoice,
    choice_loss,
    domain_specificity,
    macro_f1,
    mlm_loss,
)
from ssl_text.evaluation.proteins import (
    ContactHead,
    TagHead,
    contact_loss,
    contact_precision,
    tag_probe,
    token_accuracy,
)
from ssl_text.evaluation.similarity import read_pairs, retrieval, spearman, sts
from ssl_text.exporting import export_sentence_transformers, export_transformers
from ssl_text.options import TextOptions
from ssl_text.reader import TextReader

SIZE = {"depth": 1, "dim": 16, "heads": 2}
CORPUS = ["The cat sat on the mat.", "A cat and a dog", "mats and cats", "dogs sat"] * 4


def test_tape_contacts_are_the_released_ones():
    g = golden("tape/metrics_contact")
    head = ContactHead(4).double()
    with torch.no_grad():
        head.linear.weight.copy_(g["head_weight"])
        head.linear.bias.copy_(g["head_bias"])
    states = g["residue_vectors"].clone().requires_grad_()
    logits = head(states)
    torch.testing.assert_close(logits, g["logits"], rtol=1e-9, atol=1e-12)
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 2), g["contact"].reshape(-1), ignore_index=-1
    )
    torch.testing.assert_close(loss, g["contact_loss"], rtol=1e-9, atol=0)
    torch.testing.assert_close(contact_loss(logits, g["contact"]).double(), loss, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(loss, states)
    torch.testing.assert_close(gradient, g["grad_vectors"], rtol=1e-9, atol=1e-12)
    found = contact_precision(logits, g["contact"], g["lengths"])
    assert found == pytest.approx(g["precision_l5"].item(), abs=1e-6)


def test_tape_measures_are_the_released_ones():
    g = golden("tape/metrics_contact")
    found = token_accuracy(g["token_scores"], g["token_labels"])
    assert found == pytest.approx(g["token_accuracy"].item())
    assert spearman(g["spearman_a"], g["spearman_b"]) == pytest.approx(g["spearman"].item())
    with pytest.raises(UserError, match="not one token has a label"):
        token_accuracy(g["token_scores"], torch.full_like(g["token_labels"], -1))


def test_spearman_shares_ranks_of_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(b, np.exp(b)) == pytest.approx(1.0)
    assert math.isnan(spearman(np.ones(5), np.arange(5)))


def test_sts_ranks_pairs_by_cosine(tmp_path):
    angle = torch.linspace(0, 3, 12)
    first = torch.stack([torch.ones(12), torch.zeros(12)], 1)
    second = 7 * torch.stack([angle.cos(), angle.sin()], 1)
    assert sts(first, second, (-angle).tolist()) == pytest.approx(1.0)
    path = tmp_path / "pairs.tsv"
    path.write_text("4.5\ta cat\ta kitten\n\n0.1\ta cat\ta car\n", encoding="utf-8")
    assert read_pairs(path) == (["a cat", "a cat"], ["a kitten", "a car"], [4.5, 0.1])
    path.write_text("a\tb\t1\nc\td\t2\n")
    assert read_pairs(path)[2] == [1.0, 2.0]
    path.write_text("a\tb\n")
    with pytest.raises(UserError, match=r"line 1 .* has 2 columns"):
        read_pairs(path)
    path.write_text("a\tb\tc\nc\td\te\n")
    with pytest.raises(UserError, match="neither the first nor the last"):
        read_pairs(path)


def test_retrieval_in_closed_form():
    documents = torch.eye(4)
    queries = torch.tensor([[1.0, 0.5, 0.2, 0.1], [0.1, 0.2, 0.5, 1.0]])
    found = retrieval(queries, documents, [[0, 2], [0]], k=3)
    gains = 1 / np.log2(np.arange(3) + 2)
    assert found["ndcg@3"] == pytest.approx((gains[0] + gains[2]) / (gains[0] + gains[1]) / 2)
    assert found["mrr@3"] == pytest.approx(0.5)
    assert found["recall@3"] == pytest.approx(0.5)
    with pytest.raises(UserError, match="every query needs"):
        retrieval(queries, documents, [[0], []])


def test_tags_are_probed_on_frozen_states():
    generator = torch.Generator().manual_seed(0)
    tags = torch.randint(0, 3, (12, 9), generator=generator)
    states = torch.nn.functional.one_hot(tags, 3) + 0.1 * torch.randn(12, 9, 3, generator=generator)
    tags[:, 0] = -1
    assert tag_probe(states[:8], tags[:8], states[8:], tags[8:]) > 0.95
    assert TagHead(3, 5)(states).shape == (12, 9, 5)


# CaseHOLD -------------------------------------------------------------------------------------


def text_model(kind: str = "bpe", pooling: str = "mean"):
    options = TextOptions(vocab_size=320, max_length=20, kind=kind)
    reader = TextReader.fit(ArraySource(CORPUS), options)
    torch.manual_seed(0)
    encoder = TEXT.create_encoder("bert_tiny", reader.spec, {**SIZE, "pooling": pooling}).eval()
    views = TEXT.create_views("none", reader.spec, {})
    return Model(TEXT, None, reader, views, encoder, torch.device("cpu"))


def test_equal_scores_cost_log_five_in_any_order():
    answers = torch.tensor([3, 0, 4])
    assert choice_loss(torch.zeros(3, 5), answers).item() == pytest.approx(math.log(5))
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([2, 0, 4, 1, 3])
    place = order.argsort()
    torch.testing.assert_close(
        choice_loss(scores, answers), choice_loss(scores[:, order], place[answers])
    )
    assert macro_f1(answers, answers) == 1.0
    model = text_model()
    head = MultipleChoice(model.encoder)
    rows = model.reader.collate([model.reader.encode(text) for text in CORPUS[:10]])
    assert head(rows, 5).shape == (2, 5)
    with pytest.raises(ValueError, match="no multiple"):
        head(rows, 4)


def test_specificity_is_antisymmetric_and_sees_what_was_learned():
    model = text_model()
    views = model.views
    rows = torch.arange(8)
    batch = Batch(model.reader.collate([model.reader.encode(t) for t in CORPUS[:8]]), rows, rows)
    methods = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = TEXT.create_encoder(
            "bert_tiny", model.reader.spec, {**SIZE, "dropout": 0.0, "attention_dropout": 0.0}
        )
        methods.append(TEXT.methods.build("mlm", encoder, views, options={}))
    general, domain = methods
    before = mlm_loss(general, [batch])
    assert before.shape == (8,)
    assert domain_specificity(before, before) == 0
    assert torch.equal(before, mlm_loss(domain, [batch]))
    optimizer = torch.optim.Adam(domain.parameters(), lr=3e-2)

    for step in range(25):
        optimizer.zero_grad()
        domain(domain.views(batch, Rng.at(1, step, rows))).total.backward()
        optimizer.step()
    after = mlm_loss(domain, [batch])
    assert domain_specificity(before, after) > 0.5
    assert domain_specificity(after, before) == -domain_specificity(before, after)


# Export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_transformers_loads_what_is_exported(tmp_path, kind):
    model = text_model(kind)
    export_transformers(model, tmp_path / "out")
    network = transformers.AutoModel.from_pretrained(
        tmp_path / "out", add_pooling_layer=False
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = CORPUS[:3]
    found = tokenizer(texts, padding=True, return_tensors="pt")
    data = model.reader.collate([model.reader.encode(text) for text in texts])
    assert torch.equal(found["input_ids"], data.ids)
    with torch.no_grad():
        states = network(**found).last_hidden_state
        own = model.encoder(data).tokens
    torch.testing.assert_close(states[data.valid], own[data.valid], rtol=1e-5, atol=1e-5)


def test_sentence_transformers_layout_is_exact_or_refused(tmp_path):

    with pytest.raises(UserError, match="pooling=mean_all"):
        export_sentence_transformers(text_model(), tmp_path / "no")
    for pooling, key in (("mean_all", "mean_tokens"), ("cls", "cls_token")):
        folder = export_sentence_transformers(text_model(pooling=pooling), tmp_path / pooling)
        modes = json.loads((folder / "1_Pooling" / "config.json").read_text())
        assert modes.pop("word_embedding_dimension") == 16
        assert [name for name, on in modes.items() if on] == [f"pooling_mode_{key}"]
        paths = [m["path"] for m in json.loads((folder / "modules.json").read_text())]
        assert all((folder / path).is_dir() for path in paths)
    model = text_model(pooling="mean_all")
    data = model.reader.collate([model.reader.encode(text) for text in CORPUS[:3]])
    features = model.encoder(data)
    weight = data.valid[..., None]
    want = (features.tokens * weight).sum(1) / weight.sum(1)
    torch.testing.assert_close(features.pooled, want)


@pytest.mark.parametrize("pooling", ["mean_all", "cls"])
def test_sentence_transformers_gives_the_runs_vectors(tmp_path, pooling):
    library = pytest.importorskip("sentence_transformers")
    model = text_model(pooling=pooling)
    folder = export_sentence_transformers(model, tmp_path / "out")
    loaded = library.SentenceTransformer(str(folder), device="cpu")
    assert loaded.get_max_seq_length() == 20
    texts = [*CORPUS[:4], "A cat sat on a dog, and the dog sat on the mat with all the cats."]
    theirs = loaded.encode(texts, batch_size=2)
    np.testing.assert_allclose(theirs, model.embed(texts), rtol=1e-5, atol=1e-5)
