"""Near duplicates: the right pairs, whatever records have in common."""

import pytest
import torch

from ssl_core.evaluation.duplicates import near_duplicates


def test_copies_are_found_and_nothing_else():
    features = torch.randn(1500, 40)
    features[1300] = features[20]
    features[700] = features[20] + 0.001 * torch.randn(40)
    pairs = near_duplicates(features, threshold=0.99)
    assert {(i, j) for i, j, _ in pairs} == {(20, 700), (20, 1300), (700, 1300)}
    assert pairs[0][:2] == (20, 1300)
    assert pairs[0][2] == pytest.approx(1)


def test_what_all_records_share_is_no_likeness():
    features = torch.randn(50, 30, dtype=torch.float64)
    shared = features + 1000 * torch.ones(30)
    assert near_duplicates(shared, threshold=0.99) == []
    expected = near_duplicates(features, threshold=0.2)
    found = near_duplicates(shared, threshold=0.2)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]


def test_equal_records_alone_are_equal():
    assert [pair[:2] for pair in near_duplicates(torch.ones(3, 4), threshold=0.9)] == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]


def test_one_record_has_no_double():
    assert near_duplicates(torch.randn(1, 4), threshold=0.9) == []


def test_a_threshold_is_a_positive_cosine():
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(torch.randn(2, 2), threshold=0.0)
