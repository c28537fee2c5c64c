"""Documents one after another without padding: the states, gradients and dropout of padded ones."""

from __future__ import annotations

import pytest
import torch

from ssl_core.errors import UserError
from ssl_core.networks.block_outputs import block_outputs
from ssl_core.networks.dropout import dropout_keys, same_keys
from ssl_core.networks.packing import Packing, current_packing, packed
from ssl_text.domain import TEXT
from ssl_text.encoders import transformer
from ssl_text.tokens import TokenBatch
from token_batches import SPEC, documents, keys

MODELS = {
    "bert": (
        "bert_tiny",
        {"depth": 2, "dim": 16, "heads": 2, "dropout": 0.2, "attention_dropout": 0.2},
    ),
    "roberta": (
        "hf:roberta",
        {
            "num_hidden_layers": 2,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        },
    ),
    "modernbert": (
        "hf:modernbert",
        {
            "num_hidden_layers": 3,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "local_attention": 4,
            "mlp_dropout": 0.2,
            "attention_dropout": 0.2,
            "embedding_dropout": 0.2,
        },
    ),
}


def both(name: str, **options):
    """One encoder that packs, and the same that pads, in float64."""
    encoder, given = MODELS[name]
    made = []
    for flag in (True, False):
        torch.manual_seed(0)
        made.append(
            TEXT.create_encoder(encoder, SPEC, {**given, **options, "packed": flag}).double()
        )
    return made


def data() -> TokenBatch:
    batch = documents()
    return TokenBatch(batch.ids, batch.valid, batch.pad_id)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_states_and_gradients_are_those_of_padded_documents(name, training, monkeypatch):
    passes: list[float] = []
    of = Packing.of
    monkeypatch.setattr(
        transformer.Packing, "of", lambda valid: passes.append(1.0) or of(valid), raising=True
    )
    batch = data()
    found = []
    for encoder in both(name):
        encoder.train(training)
        with dropout_keys(keys(4)):
            features = encoder(batch)
        weight = torch.linspace(-1, 1, 16, dtype=torch.double)
        (features.pooled @ weight + (features.tokens * batch.valid[..., None]).sum(1) @ weight**2)[
            :3
        ].sum().backward()
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        found.append((features.tokens[batch.valid], features.pooled, gradients))
    assert len(passes) >= 1
    (states, pooled, gradients), (padded_states, padded_pooled, padded_gradients) = found
    torch.testing.assert_close(states, padded_states, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(pooled, padded_pooled, rtol=1e-10, atol=1e-12)
    assert len(gradients) == len(padded_gradients)
    for one, other in zip(gradients, padded_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_a_document_does_not_see_its_neighbours(name):
    encoder = both(name)[0].eval()
    batch = data()
    before = encoder(batch).tokens
    changed = batch.ids.clone()
    changed[2, 1:10] = 7
    after = encoder(TokenBatch(changed, batch.valid, 0)).tokens
    assert torch.equal(before[[0, 1, 3]], after[[0, 1, 3]])
    assert not torch.allclose(before[2], after[2])


def test_embeddings_in_place_of_ids_are_packed_too():
    encoder, padded = (model.eval() for model in both("bert"))
    batch = data()
    tokens = encoder.tokenize(batch)
    one = encoder.encode_embedded(encoder.embed_ids(batch.ids) + 0.1, tokens)
    other = padded.encode_embedded(padded.embed_ids(batch.ids) + 0.1, tokens)
    torch.testing.assert_close(one.tokens[batch.valid], other.tokens[batch.valid])


def test_outputs_of_blocks_come_back_padded():
    encoder, padded = (model.eval() for model in both("bert"))
    batch = data()
    _, ours = block_outputs(encoder, encoder.tokenize(batch))
    _, theirs = block_outputs(padded, padded.tokenize(batch))
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one[batch.valid], other[batch.valid])


def test_full_batches_are_not_packed():
    encoder = both("bert")[0].eval()
    encoder._packed_states = None  # would fail if called
    encoder(TokenBatch(torch.full((2, 6), 9), torch.ones(2, 6, dtype=torch.bool)))


def test_compiled_blocks_and_other_attention_are_padded():
    encoder = both("bert")[0].eval()
    assert not encoder._must_pad()
    encoder.model.encoder.layer[1].compile()
    assert encoder._must_pad()
    other = both("bert")[0].eval()
    other.model.set_attn_implementation("sdpa")
    assert other._must_pad()
    batch = data()
    expected = both("bert")[1].eval()(batch).tokens[batch.valid]
    torch.testing.assert_close(other(batch).tokens[batch.valid], expected)


def test_models_that_cannot_be_packed_say_so():
    size = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    size["intermediate_size"] = 16
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = TEXT.create_encoder("hf:deberta-v2", SPEC, {**size, **rates})
    assert not encoder.packed
    with pytest.raises(UserError, match=r"encoder\.packed: DebertaV2Model gives other states"):
        TEXT.create_encoder("hf:deberta-v2", SPEC, {**size, **rates, "packed": True})


def test_work_done_again_sees_the_same_packing():
    valid = torch.tensor([[True, True, False], [True, True, True]])
    packing = Packing.of(valid)
    x = torch.arange(12.0).view(2, 3, 2)
    assert packing.pack(x).shape == (1, 5, 2)
    torch.testing.assert_close(packing.unpack(packing.pack(x)), x * valid[..., None])
    assert packing.rows.tolist() == [0, 0, 1, 1, 1]
    assert packing.places.tolist() == [0, 1, 0, 1, 2]
    with packed(packing), dropout_keys(keys(2)):
        again = same_keys()
    assert current_packing() is None
    with again:
        assert current_packing() is packing
