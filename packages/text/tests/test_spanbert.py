"""SpanBERT: borders by hand, a boundary head that never looks inside, the collapsed value."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.networks.masks import Mask
from ssl_text.methods.spanbert import BoundaryHead, borders
from token_batches import SIZE, batch_of, documents, keys, method_of

NONE = {**SIZE, "dropout": 0.0, "attention_dropout": 0.0}


def test_borders_by_hand():
    hidden = torch.tensor([[0, 1, 1, 0, 1, 0], [0, 0, 1, 1, 1, 0]]).bool()
    left, right = borders(hidden)
    assert left[hidden].tolist() == [0, 0, 3, 1, 1, 1]
    assert right[hidden].tolist() == [3, 3, 5, 5, 5, 5]


def test_the_head_sees_borders_and_places_alone():
    embedding = torch.nn.Embedding(50, 16).double()
    head, matrix = BoundaryHead(embedding, places=8).double(), embedding.weight
    hidden = torch.tensor([[0, 1, 1, 1, 0, 0]]).bool()
    states = torch.randn(1, 6, 16, dtype=torch.double, requires_grad=True)
    logits = head(Features(states[:, 0], states), Mask(hidden, "replace"), matrix)
    assert logits.shape == (3, 50)
    (gradient,) = torch.autograd.grad(logits.square().sum(), states)
    assert gradient.abs().sum(2)[0].gt(0).tolist() == [True, False, False, False, True, False]
    # Equal borders are told apart by the place in the span, and only by it.
    assert not torch.allclose(logits[0], logits[1])
    with torch.no_grad():
        head.place.weight.copy_(head.place.weight[:1].expand_as(head.place.weight))
    same = head(Features(states[:, 0], states), Mask(hidden, "replace"), matrix)
    torch.testing.assert_close(same[0], same[1])
    torch.testing.assert_close(same[0], same[2])


def test_without_knowledge_each_part_costs_log_of_the_vocabulary():
    method = method_of("spanbert", size=NONE, boundary=0.5)
    with torch.no_grad():
        method.encoder.vocabulary.weight.zero_()
    data = batch_of(documents())
    loss = method(method.views(data, keys(4)))
    assert float(loss.parts["mlm"]) == pytest.approx(math.log(60), rel=1e-6)
    assert float(loss.parts["boundary"]) == pytest.approx(0.5 * math.log(60), rel=1e-6)


def test_both_parts_ask_for_the_same_tokens_and_their_borders_are_shown():
    method = method_of("spanbert", size=NONE)
    data = batch_of(documents())
    words, around, ids, mask = method.encode(method.views(data, keys(4, step=2)))
    assert words.shape == around.shape == (int(mask.hidden.sum()), 60)
    assert torch.equal(ids, data.data.ids)
    left, right = borders(mask.hidden)
    rows, _ = mask.hidden.nonzero(as_tuple=True)
    assert not mask.hidden[rows, left[mask.hidden]].any()
    assert not mask.hidden[rows, right[mask.hidden]].any()


def test_it_needs_to_know_where_words_begin():
    data = batch_of(documents())
    data = replace(data, data=replace(data.data, starts=None))
    method = method_of("spanbert", size=NONE)
    with pytest.raises(UserError, match=r"data\.options\.words: true"):
        method(method.views(data, keys(4)))


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("mlm", "none"),
        ("spanbert", "none"),
        ("curriculum_mlm", "none"),
        ("electra", "none"),
        ("tsdae", "deletion"),
    ],
)
def test_untied_outputs_leave_embeddings_of_unseen_pieces_alone(name, views):
    found = {}
    for tied in (True, False):
        method = method_of(name, views, size=NONE, tied=tied)
        loss = method(method.views(batch_of(documents()), keys(4)))
        loss.total.backward()
        found[tied] = method.encoder.vocabulary.weight.grad.abs().sum(1).gt(0)
    assert found[True].all()
    assert not found[False].all()
