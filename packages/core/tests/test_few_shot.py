"""Few labels: which records are taken, and what accuracy that gives."""

import numpy as np
import pytest
import torch

from ssl_core.errors import UserError
from ssl_core.evaluation.few_shot import chosen, few_shot


def clusters(count: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(count) % 4
    centres = torch.eye(4).repeat(1, 2) * 3
    noise = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
    return centres[labels] + spread * noise, labels


def test_the_chosen_rows_are_keyed_and_balanced():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 10)
    rows = chosen(labels, 5, 0, 0)
    assert np.bincount(labels[rows]).tolist() == [5, 3, 5]
    assert np.array_equal(rows, chosen(labels, 5, 0, 0))
    assert not np.array_equal(rows, chosen(labels, 5, 0, 1))
    assert len(set(rows.tolist())) == len(rows)


def test_clear_classes_need_one_label_and_noisy_ones_more():
    clear = few_shot(*clusters(200, 0.1), *clusters(100, 0.1), shots=1)
    assert clear.mean == 1
    assert clear.std == 0
    one, many = (few_shot(*clusters(200, 1.5), *clusters(100, 1.5), shots=s) for s in (1, 20))
    assert 0.25 < one.mean < many.mean < 1
    assert one.std > many.std


def test_scale_and_offset_of_features_change_nothing():
    bank, labels = clusters(80, 1.0)
    queries, known = clusters(60, 1.0)
    scale, offset = torch.logspace(-3, 3, 8), torch.linspace(-50, 50, 8)
    plain = few_shot(bank.double(), labels, queries.double(), known, shots=3)
    moved = few_shot(
        bank.double() * scale + offset, labels, queries.double() * scale + offset, known, shots=3
    )
    assert moved.mean == pytest.approx(plain.mean, abs=1e-9)


def test_one_draw_has_no_spread():
    assert few_shot(*clusters(40, 1.0), *clusters(40, 1.0), shots=2, draws=1).std == 0


def test_wrong_input():
    bank, labels = clusters(40, 1.0)
    with pytest.raises(UserError, match="two classes"):
        few_shot(bank, torch.zeros_like(labels), bank, labels, shots=1)
    with pytest.raises(ValueError, match="at least 1"):
        few_shot(bank, labels, bank, labels, shots=0)
