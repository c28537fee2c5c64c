"""Multinomial logistic regression that converges in tens of steps at every penalty.

The optimum is that of scikit-learn's `LogisticRegression(C=c)`: cross-entropy summed over rows
plus ||W||² / 2c, biases free, and with two classes half of the difference of the two rows'
weights. Plain L-BFGS needs hundreds of steps to it, or stops before, because the curvature along
principal axes of features spans many orders. Here each axis is scaled by its curvature where no
class is preferred (cf. Böhning 1992: the Hessian is at most variance / 2), plus the penalty's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Principal:
    """Rows in the coordinates of their principal axes, where they span fewer numbers than D."""

    rows: np.ndarray
    """`[N, R]`, R = min(N, D)."""
    axes: np.ndarray
    """`[D, R]`, orthonormal: `x = rows @ axes.T`."""
    variance: np.ndarray
    """`[R]`: mean square of each coordinate."""


def principal(x: np.ndarray) -> Principal:
    """Of centred rows `x [N, D]`.

    A rotation changes no penalty, and the penalty keeps the best weights in the span of the rows:
    the optimum is the same.
    """
    span = None
    if x.shape[1] > x.shape[0]:
        span, upper = np.linalg.qr(x.T)
        x = np.ascontiguousarray(upper.T)
    variance, axes = np.linalg.eigh(x.T @ x / len(x))
    return Principal(x @ axes, axes if span is None else span @ axes, np.maximum(variance, 0.0))


@dataclass(frozen=True)
class Logistic:
    """A fitted model: `rows @ weight + bias` are the classes' logits."""

    weight: np.ndarray
    """`[R, classes]`."""
    bias: np.ndarray
    """`[classes]`."""
    converged: bool

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Number of the likeliest class, `[N]`."""
        best: np.ndarray = (rows @ self.weight + self.bias).argmax(axis=1)
        return best


def logistic(
    rows: np.ndarray,
    variance: np.ndarray,
    labels: np.ndarray,
    *,
    c: float,
    max_iter: int,
    tolerance: float = 1e-4,
) -> Logistic:
    """Fits rows `[N, R]` of principal coordinates, of `variance [R]`, to labels 0 .. classes-1.

    `c` is the inverse penalty; no part of the mean loss's gradient, by the scaled axes, exceeds
    `tolerance` at the end. The rows may be some of those whose variance it is.
    """
    from scipy.optimize import minimize

    count, width = rows.shape
    truth = np.eye(int(labels.max()) + 1)[labels]
    classes = truth.shape[1]
    # Of two classes scikit-learn penalises the difference of weights alone: ||w₁ - w₀||² is twice
    # ||w₀||² + ||w₁||² at the optimum, where they are opposite.
    penalty = (2 if classes == 2 else 1) / (c * count)
    scale = 1 / np.sqrt(variance / classes + penalty)[:, None]

    def unpacked(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        matrix = packed.reshape(width + 1, classes)
        return scale * matrix[:-1], matrix[-1]

    def loss(packed: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = unpacked(packed)
        logits = rows @ weight + bias
        logits -= logits.max(axis=1, keepdims=True)
        likely = np.exp(logits)
        total = likely.sum(axis=1, keepdims=True)
        value = (np.log(total).sum() - np.vdot(logits, truth)) / count
        value += penalty / 2 * np.vdot(weight, weight)
        off = (likely / total - truth) / count
        slope = scale * (rows.T @ off + penalty * weight)
        return float(value), np.concatenate([slope.ravel(), off.sum(axis=0)])

    found = minimize(
        loss,
        np.zeros((width + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "gtol": tolerance, "ftol": 64 * np.finfo(np.float64).eps},
    )
    return Logistic(*unpacked(found.x), bool(found.success))
