"""Views: spans of their documents, the same whatever stands beside them in a batch."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_text.domain import TEXT
from ssl_text.tokens import TokenBatch
from ssl_text.views.spans import SpanCrop, TokenDeletion

LENGTHS = (1, 2, 3, 5, 8, 13, 21, 30)


def documents(lengths=LENGTHS, *, copies: int = 1) -> TokenBatch:
    """Documents whose tokens count up from 10, so that a span shows where it is from."""
    rows = [
        torch.cat([torch.tensor([1]), 10 + torch.arange(n), torch.tensor([2])]) for n in lengths
    ]
    return TokenBatch.stack(rows * copies, pad_id=0)


def keys(n: int, *, step: int = 0) -> Rng:
    return Rng.at(3, step, torch.arange(n))


def batch_of(data: TokenBatch, first: int = 0) -> Batch:
    rows = torch.arange(first, first + len(data))
    return Batch(data, rows, rows)


def inner(data: TokenBatch) -> list[list[int]]:
    """The tokens between [CLS] and [SEP]; checks that those and the padding are in place."""
    out = []
    for ids, valid, length in zip(data.ids, data.valid, data.lengths.tolist(), strict=True):
        assert ids[0] == 1
        assert ids[length - 1] == 2
        assert valid.tolist() == [i < length for i in range(len(ids))]
        assert (ids[length:] == 0).all()
        out.append(ids[1 : length - 1].tolist())
    return out


def test_a_crop_is_a_span_of_its_document():
    data = documents(copies=50)
    crop = SpanCrop((0.3, 0.8))
    params = crop.sample(keys(len(data)), data)
    found = inner(crop.apply(data, params))
    for row, span in enumerate(found):
        whole = LENGTHS[row % len(LENGTHS)]
        start, length = int(params["crop_start"][row]), int(params["crop_length"][row])
        assert span == list(range(10 + start, 10 + start + length))
        assert start + length <= whole
        assert min(4, whole) <= length <= max(4, round(0.8 * whole))


def test_crop_lengths_and_places_are_uniform():
    data = documents((100,), copies=4000)
    params = SpanCrop((0.2, 0.6)).sample(keys(4000), data)
    length, start = params["crop_length"].numpy(), params["crop_start"].numpy()
    assert stats.kstest((length + 0.5) / 100, "uniform", (0.205, 0.4)).pvalue > 1e-3
    assert stats.kstest((start + 0.5) / (101 - length), "uniform").pvalue > 1e-3


def test_deletion_keeps_order_and_at_least_one_token():
    data = documents(copies=200)
    delete = TokenDeletion(0.9)
    params = delete.sample(keys(len(data)), data)
    for row, (kept, mask) in enumerate(
        zip(inner(delete.apply(data, params)), params["kept"], strict=True)
    ):
        assert kept == (9 + mask.nonzero().flatten()).tolist()  # token 10 stands at place 1
        assert max(kept) < 10 + LENGTHS[row % len(LENGTHS)]
        assert kept
    all_kept = TokenDeletion(0.0)
    assert inner(all_kept.apply(data, all_kept.sample(keys(len(data)), data))) == inner(data)


def test_the_share_deleted():
    data = documents((30,), copies=1000)
    kept = TokenDeletion(0.2).sample(keys(1000), data)["kept"].sum().item()
    assert stats.binomtest(kept, 30_000, 0.8).pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "options"),
    [("spans", {"crop": [0.2, 0.7], "delete": 0.3}), ("dropout", {}), ("none", {})],
)
def test_views_do_not_depend_on_the_batch(name, options):
    policy = TEXT.create_views(name, {}, options)
    data = documents()
    whole = policy(batch_of(data), keys(len(data)))
    for rows in (slice(0, 3), slice(3, 8)):
        narrow = documents(LENGTHS[rows])  # padded to its own longest
        part = policy(batch_of(narrow, rows.start), keys(len(data))[rows])
        for all_, few in zip(whole, part, strict=True):
            assert torch.equal(all_.rng.key[rows], few.rng.key)
            assert inner(all_.data[rows]) == inner(few.data)
    assert policy.plain(batch_of(data)) is data


def test_two_views_differ_and_steps_differ():
    data = documents((30,), copies=4)
    spans = TEXT.create_views("spans", {}, {})
    first, second = spans(batch_of(data), keys(4))
    later, _ = spans(batch_of(data), keys(4, step=1))
    assert inner(first.data) != inner(second.data)
    assert inner(first.data) != inner(later.data)
    assert set(first.params) == {"crop_start", "crop_length", "kept"}
    assert all(len(value) == 4 for value in first.params.values())


def test_dropout_views_share_the_document_and_not_the_keys():
    data = documents()
    first, second = TEXT.create_views("dropout", {}, {})(batch_of(data), keys(len(data)))
    assert first.data is data
    assert second.data is data
    assert not (first.rng.key == second.rng.key).any()


@pytest.mark.parametrize("options", [{"crop": [0.5, 0.2]}, {"crop": [0, 1]}, {"delete": 1.0}])
def test_wrong_options_are_the_users_error(options):
    from ssl_core.errors import UserError

    with pytest.raises(UserError, match="views spans"):
        TEXT.create_views("spans", {}, options)
