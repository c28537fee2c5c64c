"""Clusters against labels, and cross-validated classifiers that never choose on a test fold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_core.errors import UserError
from ssl_core.evaluation.clusters import agreement, cluster
from ssl_core.evaluation.folds import cross_validate


def test_renamed_clusters_agree_perfectly() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, -1])
    found = agreement(np.array([2, 2, 0, 0, 1, 1, 0]), torch.from_numpy(labels))
    assert (found.accuracy, found.nmi, found.ari, found.f1) == pytest.approx((1, 1, 1, 1))


def test_agreement_in_closed_form() -> None:
    labels, clusters = np.array([0] * 4 + [1] * 4), np.array([0, 0, 0, 1, 1, 1, 1, 0])
    found = agreement(clusters, labels)
    assert found.accuracy == pytest.approx(0.75)
    # pairs: 28 in all, 12 together by labels, 12 by clusters, 6 by both
    expected = 12 * 12 / 28
    assert found.ari == pytest.approx((6 - expected) / (12 - expected))
    joint = np.array([[3, 1], [1, 3]]) / 8
    information = float((joint * np.log(joint / 0.25)).sum())
    assert found.nmi == pytest.approx(information / np.log(2))
    assert found.f1 == pytest.approx(0.75)


def test_surplus_clusters_are_wrong_and_one_cluster_knows_nothing() -> None:
    labels = np.array([0] * 6 + [1] * 6)
    split = np.array([0, 0, 0, 2, 2, 2] + [1] * 6)
    assert agreement(split, labels).accuracy == pytest.approx(0.75)
    flat = agreement(np.zeros(12, dtype=np.int64), labels)
    assert (flat.accuracy, flat.nmi, flat.ari) == pytest.approx((0.5, 0.0, 0.0))
    with pytest.raises(UserError, match="not one sample has a label"):
        agreement(labels, np.full(12, -1))
    with pytest.raises(UserError, match="13 clusters of 12 samples"):
        cluster(torch.zeros(12, 2), 13)


def blobs(count: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    return centres[labels] + torch.randn(count, 2, generator=generator), labels


def test_kmeans_finds_blobs() -> None:
    features, labels = blobs()
    found = cluster(features, 3)
    assert agreement(found, labels).accuracy > 0.97
    assert np.array_equal(found, cluster(features, 3))


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_folds_score_what_can_be_told_and_nothing_else(classifier: str) -> None:
    features, labels = blobs()
    known = cross_validate(
        features, labels, classifier=classifier, folds=4, inner=3, grid=(0.1, 1.0)
    )  # type: ignore[arg-type]
    assert known.mean > 0.95
    assert len(known.accuracies) == len(known.chosen) == 4
    random = torch.randn(120, 20, generator=torch.Generator().manual_seed(1))
    chance = cross_validate(
        random, labels, classifier=classifier, folds=4, inner=3, grid=(0.1, 1.0)
    )  # type: ignore[arg-type]
    assert abs(chance.mean - 1 / 3) < 0.15
    with pytest.raises(UserError, match="the smallest with 40 samples"):
        cross_validate(features, labels, folds=41)
