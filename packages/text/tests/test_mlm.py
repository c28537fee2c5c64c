"""The masked language model: who is hidden, by what, and at which cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_core.batch import Batch
from ssl_core.encoder import Tokens
from ssl_core.rng import Rng
from ssl_text.domain import TEXT
from ssl_text.methods.mlm import MLM, BertMasker, RandomPieces
from ssl_text.tokens import TokenBatch

GOLDEN = Path(__file__).parents[3] / "shared/golden/bert_mlm/masking_counts.npz"
SPEC = {
    "vocab_size": 60,
    "max_length": 40,
    "pad_id": 0,
    "cls_id": 1,
    "sep_id": 2,
    "mask_id": 3,
    "special_ids": [0, 1, 2, 3, 4],
}


def documents(lengths=(1, 5, 18, 30)) -> TokenBatch:
    numbers = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, 60, (n,), generator=numbers) for n in lengths]
    cls, sep = torch.tensor([1]), torch.tensor([2])
    return TokenBatch.stack([torch.cat([cls, row, sep]) for row in rows], pad_id=0)


def batch_of(data: TokenBatch) -> Batch:
    return Batch(data, torch.arange(len(data)), torch.arange(len(data)))


def model(**options) -> MLM:
    size = {"depth": 1, "dim": 16, "heads": 2}
    encoder = TEXT.create_encoder("bert_tiny", SPEC, size)
    views = TEXT.create_views("none", SPEC, {})
    method = TEXT.methods.build("mlm", encoder, views, options=options)
    return method.double().train()


def keys(n: int, step: int = 0) -> Rng:
    return Rng.at(5, step, torch.arange(n))


def test_released_masking_counts():
    """google-research/bert, create_pretraining_data.py, create_masked_lm_predictions: 4000 draws
    of ordinary (piece) masking on one sequence of 50 tokens, two of them special."""
    golden = np.load(GOLDEN)
    length, draws = int(golden["length"]), 4000
    special = torch.from_numpy(golden["word_id"] < 0)
    ids = torch.full((draws, length), 7)
    maskable = (~special).expand(draws, length)
    mask = BertMasker(most=20)(keys(draws), length, maskable=maskable)
    rate = mask.hidden.double().mean(0).numpy()
    assert np.abs(rate - golden["piece_position_rate"]).max() < 0.025
    histogram = np.bincount(mask.hidden.sum(1).numpy(), minlength=12)
    assert np.array_equal(histogram, golden["piece_count_hist"])
    shown = RandomPieces(1000)(Tokens(ids), mask, keys(draws)).values
    chosen = mask.hidden.sum()
    shares = [
        mask.replaced.sum() / chosen,
        (mask.hidden & ~mask.replaced & (shown == ids)).sum() / chosen,
        (mask.hidden & (shown != ids)).sum() / chosen,
    ]
    released = golden["piece_mask_keep_random"]
    assert np.abs(np.array([float(share) for share in shares]) - released).max() < 0.01


def test_who_is_hidden():
    data = documents()
    method = model(max_predictions=4)
    tokens = method.encoder.tokenize(data)
    counts = []
    for step in range(20):
        mask = method.masker(keys(4, step), data.ids.shape[1], maskable=tokens.maskable)
        assert not (mask.hidden & ~tokens.maskable).any()
        assert not (mask.replaced & ~mask.hidden).any()
        counts.append(mask.hidden.sum(1).tolist())
    assert counts == [[1, 1, 3, 4]] * 20  # round(0.15 (n + 2)) of n, at least 1, at most 4


def test_four_fifths_one_tenth_one_tenth():
    n, length = 3000, 40
    maskable = torch.ones(n, length, dtype=torch.bool)
    mask = BertMasker()(keys(n), length, maskable=maskable)
    ids = torch.full((n, length), 7)
    shown = RandomPieces(1000)(Tokens(ids), mask, keys(n)).values
    chosen = int(mask.hidden.sum())
    swapped = int((shown != 7).sum())
    assert stats.binomtest(int(mask.replaced.sum()), chosen, 0.8).pvalue > 1e-3
    assert stats.binomtest(swapped, chosen, 0.1 * 0.999).pvalue > 1e-3
    assert (mask.hidden | (shown == 7)).all()
    assert not (mask.replaced & (shown != 7)).any()
    pieces = shown[shown != 7].numpy()
    assert stats.kstest((pieces + 0.5) / 1000, "uniform").pvalue > 1e-3


def test_masks_do_not_depend_on_the_batch_and_change_with_the_step():
    data, method = documents(), model()
    whole = method.masker(keys(4), 32, maskable=method.encoder.tokenize(data).maskable)
    few = TokenBatch(data.ids[1:3, :20], data.valid[1:3, :20])
    part = method.masker(keys(4)[1:3], 20, maskable=method.encoder.tokenize(few).maskable)
    assert torch.equal(whole.hidden[1:3, :20], part.hidden)
    assert torch.equal(whole.replaced[1:3, :20], part.replaced)
    later = method.masker(keys(4, 1), 32, maskable=method.encoder.tokenize(data).maskable)
    assert not torch.equal(whole.hidden, later.hidden)


def test_nothing_given_is_changed_and_no_global_state_used():
    data, method = documents(), model()
    before, state = data.ids.clone(), torch.get_rng_state()
    loss = method(method.views(batch_of(data), keys(4)))
    assert torch.equal(data.ids, before)
    assert torch.equal(torch.get_rng_state(), state)
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_uniform_logits_cost_log_v():
    method = model()
    with torch.no_grad():
        method.encoder.vocabulary.weight.zero_()
    loss = method(method.views(batch_of(documents()), keys(4))).total
    torch.testing.assert_close(loss, torch.tensor(math.log(60), dtype=torch.float64))


def test_the_loss_is_the_cross_entropy_at_hidden_tokens():
    data, method = documents(), model().eval()
    view = method.views(batch_of(data), keys(4))[0]
    found = method([view]).total
    tokens = method.encoder.tokenize(data)
    mask = method.masker(view.rng, data.ids.shape[1], maskable=tokens.maskable)
    shown = method.corrupt(tokens, mask, view.rng).values.masked_fill(mask.replaced, 3)
    states = method.encoder(TokenBatch(shown, data.valid)).tokens
    weight, bias = method.encoder.vocabulary.weight, method.decoder.bias
    logits = method.decoder.transform(states) @ weight.T + bias
    losses = [
        -logits[row, place].log_softmax(0)[data.ids[row, place]]
        for row, place in mask.hidden.nonzero().tolist()
    ]
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-10, atol=1e-10)


def test_the_vocabulary_is_stored_once():
    method = model()
    shapes = [tuple(value.shape) for value in method.state_dict().values()]
    assert shapes.count((60, 16)) == 1
    assert "decoder.bias" in method.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratio": 1.0}, "ratio"),
        ({"random": 0.8, "kept": 0.3}, "random"),
        ({"masks": 3}, "did you mean 'mask_ratio'"),
    ],
)
def test_wrong_options_are_the_users_error(options, message):
    from ssl_core.errors import UserError

    with pytest.raises(UserError, match=message):
        model(**options)


def test_other_encoders_are_refused():
    views = TEXT.create_views("none", SPEC, {})
    with pytest.raises(ValueError, match="mlm needs a text encoder, got Linear"):
        MLM(torch.nn.Linear(2, 2), views)
