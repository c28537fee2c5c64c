"""Logistic regression: scikit-learn's optimum, also where features are badly conditioned."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_core.evaluation.logistic import logistic, principal


def features(rows: int, width: int, classes: int, *, spread: float) -> tuple[np.ndarray, ...]:
    """Centred rows whose columns span `spread` decades of scale, and labels that overlap."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    x = random.normal(size=(classes, width))[labels] + 2 * random.normal(size=(rows, width))
    axes = np.linalg.qr(random.normal(size=(width, width)))[0]
    x = x @ axes * 10 ** -np.linspace(0, spread, width)
    return x - x.mean(axis=0), labels


@pytest.mark.parametrize("shape", [(90, 6, 3), (60, 6, 2), (24, 40, 3), (12, 30, 2)])
@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
def test_optimum_is_that_of_scikit_learn(shape: tuple[int, int, int], c: float) -> None:
    x, labels = features(*shape, spread=1.0)
    found = principal(x)
    assert found.rows.shape == (shape[0], min(shape[:2]))
    np.testing.assert_allclose(found.rows @ found.axes.T, x, atol=1e-12)
    np.testing.assert_allclose((found.rows**2).mean(axis=0), found.variance, atol=1e-12)
    model = logistic(found.rows, found.variance, labels, c=c, max_iter=1000, tolerance=1e-8)
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(x, labels)
    ours = x @ (found.axes @ model.weight) + model.bias
    ours -= ours.mean(axis=1, keepdims=True)
    margin = theirs.decision_function(x)
    if shape[2] == 2:
        margin = np.stack([-margin, margin], axis=1) / 2
    margin -= margin.mean(axis=1, keepdims=True)
    assert model.converged
    np.testing.assert_allclose(ours, margin, atol=1e-4 * max(1.0, np.abs(margin).max()))


def test_converges_where_plain_steps_do_not() -> None:
    x, labels = features(300, 40, 4, spread=4.0)
    found = principal(x)
    model = logistic(found.rows, found.variance, labels, c=100.0, max_iter=60)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LogisticRegression(C=100.0, max_iter=60).fit(x, labels)
    assert model.converged
    assert caught


def test_rows_may_be_some_of_those_that_were_rotated() -> None:
    x, labels = features(90, 6, 3, spread=0.5)
    found = principal(x)
    model = logistic(
        found.rows[::2], found.variance, labels[::2], c=1.0, max_iter=500, tolerance=1e-8
    )
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[::2], labels[::2])
    np.testing.assert_array_equal(model.predict(found.rows), theirs.predict(x))
