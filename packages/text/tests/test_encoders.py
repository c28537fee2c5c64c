"""Encoders: padding changes nothing, dropout is keyed, no global random state is used."""

from __future__ import annotations

import copy

import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask
from ssl_core.rng import Rng
from ssl_text.domain import TEXT
from ssl_text.tokens import TokenBatch

SPEC = {
    "vocab_size": 50,
    "max_length": 24,
    "pad_id": 0,
    "cls_id": 1,
    "sep_id": 2,
    "mask_id": 3,
    "special_ids": [0, 1, 2, 3, 4],
}
SMALL = {"depth": 2, "dim": 16, "heads": 2}


def tiny(**options):
    return TEXT.create_encoder("bert_tiny", SPEC, {**SMALL, **options})


def documents(lengths=(3, 9, 20)) -> TokenBatch:
    numbers = torch.Generator().manual_seed(1)
    ids = [torch.randint(5, 50, (n,), generator=numbers) for n in lengths]
    cls, sep = torch.tensor([1]), torch.tensor([2])
    return TokenBatch.stack([torch.cat([cls, row, sep]) for row in ids], pad_id=0)


def keys(n: int = 3, step: int = 0) -> Rng:
    return Rng.at(0, step, torch.arange(n))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_changes_nothing(pooling):
    encoder = tiny(pooling=pooling).double().eval()
    data = documents()
    features = encoder(data)
    for row in range(3):
        length = int(data.lengths[row])
        alone = TokenBatch(data.ids[row : row + 1, :length], data.valid[row : row + 1, :length])
        few = encoder(alone)
        torch.testing.assert_close(few.tokens[0], features.tokens[row, :length])
        torch.testing.assert_close(few.pooled[0], features.pooled[row])


def test_mean_pooling_is_over_the_documents_own_tokens():
    encoder = tiny().double().eval()
    data = documents()
    features = encoder(data)
    for row in range(3):
        own = features.tokens[row, 1 : data.lengths[row] - 1]
        torch.testing.assert_close(features.pooled[row], own.mean(0))
    assert encoder.embed_dim == 16
    assert torch.equal(features.valid, data.valid)


def test_without_dropout_it_is_the_librarys_model():
    from transformers import BertModel

    encoder = tiny().double().eval()
    config = copy.deepcopy(encoder.model.config)
    theirs = BertModel(config, add_pooling_layer=False).double().eval()
    theirs.set_attn_implementation("eager")
    theirs.load_state_dict(encoder.model.state_dict())
    data = documents()
    states = theirs(input_ids=data.ids, attention_mask=data.valid.long()).last_hidden_state
    torch.testing.assert_close(encoder(data).tokens[data.valid], states[data.valid])


def test_larger_first_weights_let_neighbours_be_heard():
    shares = []
    for init in (0.02, 0.088):
        encoder = tiny(depth=1, dim=128, init=init).eval()
        attention, met = encoder.model.encoder.layer[0].attention, {}
        attention.register_forward_hook(lambda _, given, __, met=met: met.update(state=given[0]))
        attention.output.dense.register_forward_hook(
            lambda _, __, added, met=met: met.update(added=added)
        )
        with torch.no_grad():
            encoder(documents((20, 20, 20)))
        shares.append(float(met["added"].norm() / met["state"].norm()))
    assert shares[0] < 0.06 < 0.4 < shares[1]


def test_hidden_tokens_show_the_mask_piece():
    encoder = tiny().double().eval()
    data = documents()
    hidden = torch.zeros_like(data.valid)
    hidden[1, 4] = hidden[2, 1] = True
    shown = torch.zeros_like(hidden)
    shown[1, 4] = True
    before = data.ids.clone()
    features = encoder.encode(encoder.tokenize(data), Mask(hidden, "replace", replaced=shown))
    replaced = TokenBatch(data.ids.masked_fill(shown, 3), data.valid)
    plain = encoder.encode(encoder.tokenize(data), None)
    torch.testing.assert_close(features.tokens, encoder(replaced).tokens)
    assert not torch.equal(features.tokens[1], plain.tokens[1])
    assert torch.equal(features.tokens[2], plain.tokens[2])
    assert torch.equal(data.ids, before)
    with pytest.raises(ValueError, match='mode "replace"'):
        encoder.encode(encoder.tokenize(data), Mask(hidden, "drop"))


def test_only_real_tokens_may_be_hidden():
    data = documents()
    data.ids[1, 3] = 3  # a document that spells [MASK]
    maskable = tiny().tokenize(data).maskable
    assert maskable[1].nonzero().flatten().tolist() == [1, 2, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout"])
def test_dropout_is_keyed_by_sample(kind):
    rates = {"dropout": 0.0, "attention_dropout": 0.0, kind: 0.3}
    encoder = tiny(**rates).double().train()
    data = documents()

    def states(rows: slice, rng: Rng) -> torch.Tensor:
        longest = int(data.lengths[rows].max())
        part = TokenBatch(data.ids[rows, :longest], data.valid[rows, :longest])
        with dropout_keys(rng):
            return encoder(part).tokens[part.valid]

    before = torch.get_rng_state()
    whole = states(slice(0, 3), keys())
    assert torch.equal(whole, states(slice(0, 3), keys()))
    assert not torch.allclose(whole, states(slice(0, 3), keys(step=1)))
    parts = [states(slice(0, 2), keys()[:2]), states(slice(2, 3), keys()[2:])]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(RuntimeError, match="one key per row"):
        encoder(data)
    encoder.eval()
    assert torch.equal(encoder(data).tokens, encoder(data).tokens)


def test_dropout_views_without_dropout_are_one_view():
    batch = Batch(documents(), torch.arange(3), torch.arange(3))
    views = TEXT.create_views("dropout", SPEC, {})(batch, keys())

    def pooled(encoder) -> list[torch.Tensor]:
        out = []
        for view in views:
            with dropout_keys(view.rng):
                out.append(encoder.train()(view.data).pooled)
        return out

    none, some = tiny(dropout=0.0, attention_dropout=0.0), tiny()
    assert torch.equal(*pooled(none))
    first, second = pooled(some)
    assert not torch.isclose(first, second).all(1).any()


def test_attention_keeps_the_share_it_should():
    from ssl_text.encoders.attention import _kept

    with dropout_keys(keys(50)):
        kept = _kept(torch.zeros(50, 2, 20, 20), 0.3, "layer")
        other = _kept(torch.zeros(50, 2, 20, 20), 0.3, "other layer")
        wide = _kept(torch.zeros(50, 2, 24, 24), 0.3, "layer")
    assert abs(kept.mean() - 0.7) < 4 * (0.21 / kept.numel()) ** 0.5
    assert torch.equal(wide[:, :, :20, :20], kept)  # longer padding keeps the draw
    assert abs((kept * other).mean() - 0.49) < 0.01  # layers are independent
    assert abs((kept[:, 0] * kept[:, 1]).mean() - 0.49) < 0.02  # and so are heads


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hf:roberta", {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}),
        ("hf:distilbert", {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 32}),
    ],
)
def test_other_models_of_the_library(name, options):
    encoder = TEXT.create_encoder(name, SPEC, options).eval()
    assert encoder.embed_dim == 16
    data = documents((3, 22))
    alone = TokenBatch(data.ids[:1, :5], data.valid[:1, :5])
    torch.testing.assert_close(encoder(data).pooled[:1], encoder(alone).pooled)
    encoder.train()
    before = torch.get_rng_state()
    with dropout_keys(keys(2)):
        encoder(data)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bert_tinny", {}, "did you mean 'bert_tiny'"),
        ("bert_tiny", {"dimm": 4}, "did you mean 'dim'"),
        ("bert_tiny", {"dim": 17}, "dim 17 is not a multiple of heads 2"),
        ("bert_tiny", {"pooling": "max"}, "pooling"),
        ("hf:bertt", {}, "did you mean 'bert'"),
        ("hf:bert", {"hiden_size": 4}, "did you mean 'hidden_size'"),
        ("hf:t5", {}, "encoder with a decoder"),
    ],
)
def test_wrong_names_and_options_are_the_users_error(name, options, message):
    with pytest.raises(UserError, match=message):
        TEXT.create_encoder(name, SPEC, options)


def test_a_model_that_draws_on_its_own_is_refused():
    from ssl_text.encoders.transformer import check_keyed

    encoder = tiny()
    layer = encoder.model.encoder.layer[0].attention.output

    def noisy(x, residual):
        return torch.nn.functional.dropout(x, 0.1) + residual

    layer.forward = noisy
    state = torch.get_rng_state()
    with pytest.raises(UserError, match="draws from torch's global generator"):
        check_keyed(encoder, length=8, name="noisy")
    assert torch.equal(state, torch.get_rng_state())
