"""Probes on a share of the labels: which rows, and that more labels help."""

import pytest
import torch

from ssl_core.evaluation.label_share import probe_on_share, share_rows


def test_each_class_gives_its_share_and_smaller_shares_lie_in_larger_ones():
    labels = torch.tensor([0] * 40 + [1] * 10 + [2])
    small, large = (set(share_rows(labels, s).tolist()) for s in (0.1, 0.5))
    assert labels[sorted(large)].bincount().tolist() == [20, 5, 1]
    assert labels[sorted(small)].bincount().tolist() == [4, 1, 1]
    assert small < large
    assert share_rows(labels, 1.0).tolist() == list(range(51))
    assert share_rows(labels, 0.5, seed=1).tolist() != sorted(large)


def test_more_labels_help():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    features = torch.eye(3).repeat(1, 8)[labels] + 1.5 * torch.randn(600, 24, generator=generator)
    bank, asked = slice(0, 400), slice(400, 600)
    few, all_of_them = (
        probe_on_share(features[bank], labels[bank], features[asked], labels[asked], share=share)
        for share in (0.02, 1.0)
    )
    assert 1 / 3 < few < all_of_them


@pytest.mark.parametrize("share", [0, 1.1])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="share"):
        share_rows(torch.zeros(3, dtype=torch.int64), share)
