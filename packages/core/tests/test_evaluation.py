"""Evaluation against closed forms, brute force and the numbers of released code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.evaluation import geometry, knn, probe, retrieval
from ssl_core.evaluation.chunks import row_chunks
from ssl_core.rng import generator

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "knn"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(generator("evaluation test", seed).standard_normal(shape))


def clusters(classes: int, per_class: int, dim: int, *, spread: float, seed: int = 0):
    centres = normal(classes, dim, seed=99)
    labels = torch.arange(classes).repeat_interleave(per_class)
    return centres[labels] + spread * normal(len(labels), dim, seed=seed), labels


@pytest.mark.parametrize("case", ["weighted_k20_T007", "weighted_k20_T010", "weighted_k5_T007"])
def test_knn_equals_released_code(case: str) -> None:
    """DINO's eval_knn.knn_classifier and lightly's knn_predict on the same features."""
    with np.load(GOLDEN / f"{case}.npz") as file:
        data = {name: torch.from_numpy(file[name]) for name in file.files}
    scores = knn.knn_scores(
        data["in_train"],
        data["in_train_label"],
        data["in_test"],
        classes=6,
        k=int(data["in_k"]),
        temperature=float(data["in_T"]),
    )
    assert torch.equal(scores.argmax(dim=1), data["out_prediction"])
    labels = data["in_test_label"]
    assert 100 * knn.top_accuracy(scores, labels, 1) == pytest.approx(
        float(data["out_top1_percent"])
    )
    if int(data["in_k"]) == 20:
        assert 100 * knn.top_accuracy(scores, labels, 5) == pytest.approx(
            float(data["out_top5_percent"])
        )


def test_knn_scores_by_hand() -> None:
    bank = F.normalize(normal(7, 4), dim=1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    query = F.normalize(normal(1, 4, seed=1), dim=1)
    scores = knn.knn_scores(bank, labels, 3 * query, classes=3, k=3, temperature=0.5)
    cosine = (bank @ query[0]).tolist()
    nearest = sorted(range(7), key=lambda i: -cosine[i])[:3]
    weights = [math.exp(cosine[i] / 0.5) for i in nearest]
    expected = torch.zeros(3, dtype=torch.float64)
    for i, weight in zip(nearest, weights, strict=True):
        expected[labels[i]] += weight / sum(weights)
    assert torch.allclose(scores[0], expected, atol=1e-12)


def test_knn_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, labels = clusters(4, 10, 8, spread=1.0)
    queries = normal(33, 8, seed=5)
    whole = knn.knn_scores(bank, labels, queries, classes=4)
    monkeypatch.setattr(
        knn, "row_chunks", lambda rows, columns: row_chunks(rows, columns, entries=3 * columns)
    )
    assert torch.allclose(whole, knn.knn_scores(bank, labels, queries, classes=4), atol=1e-12)
    own = knn.knn_scores(bank, labels, bank, classes=4, k=1, exclude_self=True)
    similarity = F.normalize(bank, dim=1) @ F.normalize(bank, dim=1).T
    similarity.fill_diagonal_(-torch.inf)
    assert torch.equal(own.argmax(dim=1), labels[similarity.argmax(dim=1)])


def test_knn_refuses_an_empty_bank() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        knn.knn_scores(normal(0, 3), torch.zeros(0, dtype=torch.long), normal(2, 3), classes=1)
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="no neighbour"):
        knn.knn_scores(normal(1, 3), one, normal(1, 3), classes=1, exclude_self=True)


def test_small_temperatures_stay_finite() -> None:
    bank, labels = clusters(2, 5, 4, spread=0.1)
    scores = knn.knn_scores(bank, labels, bank, classes=2, temperature=1e-4)
    assert torch.isfinite(scores).all()
    assert knn.knn_accuracy(bank, labels, bank, labels) == 1.0


def test_effective_rank_closed_forms() -> None:
    basis, _ = torch.linalg.qr(normal(12, 6))
    assert geometry.effective_rank(basis) == pytest.approx(6.0)
    assert geometry.effective_rank(torch.ones(10, 4)) == pytest.approx(1.0)
    assert geometry.effective_rank(torch.zeros(10, 4)) == 1.0
    scaled = basis * torch.tensor([3.0, 1.0, 0, 0, 0, 0])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert geometry.effective_rank(scaled) == pytest.approx(expected)
    assert math.isnan(geometry.effective_rank(torch.full((3, 2), torch.nan)))


@pytest.mark.parametrize("smallest", [1.0, 1e-4, 1e-7, 1e-12])
def test_effective_rank_is_that_of_the_singular_values(smallest: float) -> None:
    left, _ = torch.linalg.qr(normal(40, 24).double())
    right, _ = torch.linalg.qr(normal(24, 24).double())
    falling = torch.logspace(0, math.log10(smallest), 24, dtype=torch.float64)
    for features in (left * falling @ right, (left * falling @ right).T):
        p = torch.linalg.svdvals(features)
        p = p / p.sum()
        expected = math.exp(-float(torch.xlogy(p, p).sum()))
        exact = smallest >= 1e-4
        assert geometry.effective_rank(features) == pytest.approx(
            expected, rel=1e-9 if exact else 1e-5
        )


def test_alignment_and_uniformity_closed_forms() -> None:
    z = normal(9, 5)
    assert geometry.alignment(z, 2 * z) == pytest.approx(0.0, abs=1e-12)
    assert geometry.alignment(z, -z) == pytest.approx(4.0)
    assert geometry.uniformity(torch.ones(8, 3)) == pytest.approx(0.0, abs=1e-9)
    pair = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert geometry.uniformity(pair) == pytest.approx(-8.0)
    unit = F.normalize(z, dim=1)
    pairs = torch.pdist(unit).square().mul(-2).exp().mean().log()
    assert geometry.uniformity(z) == pytest.approx(float(pairs))


def test_feature_std_is_zero_when_collapsed_and_one_when_isotropic() -> None:
    assert geometry.feature_std(torch.ones(10, 4)) == pytest.approx(0.0, abs=1e-9)
    assert geometry.feature_std(normal(20_000, 32)) == pytest.approx(1.0, abs=0.01)


def test_recall_at_k_by_brute_force() -> None:
    queries, gallery = normal(20, 6), normal(30, 6, seed=1)
    query_ids, gallery_ids = torch.arange(20) % 5, torch.arange(30) % 7
    found = retrieval.recall_at_k(queries, gallery, query_ids, gallery_ids, ks=(1, 4, 50))
    similarity = F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T
    for k in (1, 4, 50):
        hits = [
            any(
                gallery_ids[j] == query_ids[i]
                for j in similarity[i].argsort(descending=True)[:k].tolist()
            )
            for i in range(20)
        ]
        assert found[k] == pytest.approx(sum(hits) / 20)


def test_instance_recall() -> None:
    z = normal(12, 8)
    assert retrieval.instance_recall(z, z + 1e-3 * normal(12, 8, seed=2)) == {1: 1.0}
    shifted = retrieval.instance_recall(z, z.roll(1, dims=0), ks=(1, 12))
    assert shifted == {1: 0.0, 12: 1.0}


def test_linear_probe_is_the_penalised_optimum_on_raw_features() -> None:
    """The gradient of the penalised likelihood vanishes, also after undoing standardisation."""
    x, y = clusters(3, 30, 5, spread=2.0)
    fitted = probe.linear_probe(x * 7 + 3, y, grid=(1.0,), max_iter=5000)
    mean, std = (x * 7 + 3).mean(0).numpy(), (x * 7 + 3).std(0, correction=0).numpy()
    standard = ((x * 7 + 3).numpy() - mean) / std
    weight = fitted.weight * std
    logits = standard @ weight.T + fitted.bias + fitted.weight @ mean
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    gradient = (p - np.eye(3)[y.numpy()]).T @ standard + weight
    assert np.abs(gradient).max() < 0.05
    assert fitted.converged


def test_linear_probe_of_wide_features_is_the_optimum_too() -> None:
    """With more numbers than rows it is fitted in the span of the rows."""
    x, y = clusters(3, 8, 60, spread=2.0)
    fitted = probe.linear_probe(x, y, grid=(0.1,), max_iter=5000)
    assert fitted.weight.shape == (3, 60)
    mean, std = x.double().mean(0).numpy(), x.double().std(0, correction=0).numpy()
    weight, standard = fitted.weight * std, (x.numpy() - mean) / std
    logits = standard @ weight.T + fitted.bias + fitted.weight @ mean
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    gradient = (p - np.eye(3)[y.numpy()]).T @ standard + weight / 0.1
    assert np.abs(gradient).max() < 0.05


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_probe_separates_clusters(classes: int) -> None:
    x, y = clusters(classes, 25, 16, spread=0.3)
    test, labels = clusters(classes, 25, 16, spread=0.3, seed=7)
    fitted = probe.linear_probe(x, y)
    assert fitted.accuracy(test, labels) == 1.0
    assert fitted.validation == 1.0
    assert fitted.weight.shape == (classes, 16)


def test_linear_probe_keeps_label_values_and_needs_two_classes() -> None:
    x, y = clusters(2, 10, 4, spread=0.1)
    assert set(probe.linear_probe(x, y * 5 + 3).predict(x)) == {3, 8}
    with pytest.raises(UserError, match="two classes"):
        probe.linear_probe(x, y * 0)


def test_linear_probe_refuses_features_that_are_not_finite() -> None:
    x, y = clusters(2, 10, 4, spread=0.1)
    x[3, 1] = float("nan")
    with pytest.raises(UserError, match="1 of 20 rows"):
        probe.linear_probe(x, y)


def test_validation_rows_are_keyed_and_leave_every_class_a_row() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2])
    rows = probe.validation_rows(labels, seed=3)
    assert np.array_equal(rows, probe.validation_rows(labels, seed=3))
    assert [int(rows[labels == c].sum()) for c in range(3)] == [2, 1, 0]


@pytest.mark.slow  # numba compiles for a minute
def test_umap_unfolds_clusters_and_repeats() -> None:
    pytest.importorskip("numba", reason="umap-learn is not installed")
    from ssl_core.evaluation.projection import has_umap, umap_plane

    if not has_umap():
        pytest.skip("umap-learn is not installed")
    centres = torch.eye(3, 8).repeat_interleave(20, dim=0)
    rows = centres + 0.05 * torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    places = umap_plane(rows)
    assert places.shape == (60, 2)
    assert torch.equal(places, umap_plane(rows))
    groups = places.view(3, 20, 2)
    spread = (groups - groups.mean(1, keepdim=True)).norm(dim=2).max()
    apart = torch.pdist(groups.mean(1)).min()
    assert apart > 2 * spread
    assert umap_plane(rows[:3]).shape == (3, 2)
    assert umap_plane(rows[:5]).shape == (5, 2)
