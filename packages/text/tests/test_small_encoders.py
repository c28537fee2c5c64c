"""Recurrent and convolutional encoders: padding changes nothing, dropout is keyed, methods run."""

from __future__ import annotations

import pytest
import torch

from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys
from ssl_text.domain import TEXT
from ssl_text.tokens import TokenBatch
from token_batches import SPEC, batch_of, documents, keys

SMALL = {
    "gru": {"dim": 12, "depth": 2, "dropout": 0.3},
    "lstm": {"dim": 12, "depth": 2, "dropout": 0.3},
    "cnn": {"dim": 12, "depth": 4, "kernel": 3, "dropout": 0.3},
}


def made(name: str, **options):
    torch.manual_seed(0)
    return TEXT.create_encoder(name, SPEC, {**SMALL[name], **options})


@pytest.mark.parametrize("name", SMALL)
def test_padding_changes_nothing(name):
    encoder = made(name).double().eval()
    data = documents()
    features = encoder(data)
    assert features.pooled.shape == (4, 12)
    for row in range(4):
        length = int(data.lengths[row])
        alone = encoder(
            TokenBatch(data.ids[row : row + 1, :length], data.valid[row : row + 1, :length])
        )
        torch.testing.assert_close(alone.tokens[0], features.tokens[row, :length])
        torch.testing.assert_close(alone.pooled[0], features.pooled[row])


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_it_is_torchs_own_network_on_one_document(name):
    encoder = made(name).double().eval()
    theirs = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[name](
        12, 6, num_layers=2, bidirectional=True, batch_first=True
    ).double()
    own = dict(encoder.layers.named_parameters())
    theirs.load_state_dict(
        {
            key: own[f"{key.partition('_l')[2][0]}.{key.replace('_l1', '_l0')}"]
            for key in theirs.state_dict()
        }
    )
    ids = documents().ids[3:]
    expected, _ = theirs(encoder.embedding(ids))
    data = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(encoder(data).tokens, expected)


def test_a_convolution_sees_as_far_as_its_dilations():
    encoder = made("cnn", dropout=0.0).double().eval()
    ids = torch.full((1, 40), 9)
    changed = ids.clone()
    changed[0, 20] = 10
    valid = torch.ones_like(ids, dtype=torch.bool)
    before, after = (encoder(TokenBatch(x, valid)).tokens[0] for x in (ids, changed))
    moved = (before != after).any(1).nonzero().flatten()
    reach = 1 + 2 + 4 + 1  # dilations of four blocks in cycles of three, kernels of three
    assert (int(moved.min()), int(moved.max())) == (20 - reach, 20 + reach)


@pytest.mark.parametrize("name", SMALL)
def test_dropout_is_keyed_by_sample_and_nothing_else_is_drawn(name):
    encoder = made(name).train()
    data = documents()
    before = torch.get_rng_state()
    with dropout_keys(keys(4)):
        whole = encoder(data).tokens
    with dropout_keys(keys(4)[2:]):
        part = encoder(TokenBatch(data.ids[2:], data.valid[2:])).tokens
    with dropout_keys(keys(4, step=1)):
        other = encoder(data).tokens
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(whole[2:][data.valid[2:]], part[data.valid[2:]])
    assert not torch.allclose(whole, other)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("method", ["mlm", "simclr", "urlbert"])
def test_methods_train_them(name, method):
    encoder = made(name)
    options = {"simclr": {"hidden": 16, "dim": 8}}.get(method, {})
    views = TEXT.create_views("dropout" if method == "simclr" else "none", SPEC, {})
    trained = TEXT.methods.build(method, encoder, views, options=options).train()
    batch = batch_of(documents())
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = trained(trained.views(batch, keys(4))).total
        loss.backward()
        assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gru", {"dim": 7}, "even dim"),
        ("cnn", {"kernel": 4}, "odd kernel"),
        ("lstm", {"pooling": "max"}, "pooling must be"),
    ],
)
def test_wrong_sizes_are_the_users_error(name, options, message):
    with pytest.raises(UserError, match=message):
        made(name, **options)
