"""Questions asked of audio embeddings beside the class of a recording.

Several labels at once (mean average precision), which frames sound (event detection), and whether
two recordings of one kind lie closer than one of another (ABX).
"""

from __future__ import annotations

import numpy as np

from ssl_core.errors import UserError


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision of each label, mean over the labels that occur: AudioSet's mAP.

    `scores` float `[N, C]`, higher being surer; `truth` bool `[N, C]`. Equal scores share a rank.
    """
    truth = np.asarray(truth, bool)
    if scores.shape != truth.shape or not truth.any():
        raise UserError(f"truth: {truth.shape} must match scores {scores.shape} and hold a True")
    occurring = np.flatnonzero(truth.any(0))
    return float(np.mean([_average_precision(scores[:, c], truth[:, c]) for c in occurring]))


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # the end of each run of equal scores
    hits, seen = hits[last], np.flatnonzero(last) + 1
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / seen).sum() / truth.sum())


def detect_events(
    frames: np.ndarray,
    active: np.ndarray,
    test_frames: np.ndarray,
    test_active: np.ndarray,
    *,
    c: float = 1.0,
) -> dict[str, float]:
    """A linear detector for each kind of event, asked frame by frame on other recordings.

    `frames` `[N, T, D]` and `active` bool `[N, T, C]` train it, the others are asked. Returns
    `map` and `f1` (over all frames and kinds together, at probability one half).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    x = scaler.fit_transform(frames.reshape(-1, frames.shape[-1]))
    asked = scaler.transform(test_frames.reshape(-1, frames.shape[-1]))
    truth = np.asarray(active, bool).reshape(-1, active.shape[-1])
    wanted = np.asarray(test_active, bool).reshape(-1, active.shape[-1])
    scores = np.zeros(wanted.shape)
    for kind in range(truth.shape[1]):
        if truth[:, kind].all() or not truth[:, kind].any():
            raise UserError(f"active: kind {kind} sounds always or never in the training frames")
        detector = LogisticRegression(C=c, max_iter=1000).fit(x, truth[:, kind])
        scores[:, kind] = detector.decision_function(asked)
    found = scores > 0
    right = (found & wanted).sum()
    f1 = 2 * right / max(1, found.sum() + wanted.sum())
    return {"map": mean_average_precision(scores, wanted), "f1": float(f1)}


def abx_error(features: np.ndarray, labels: np.ndarray) -> float:
    """Share of triples in which X lies nearer to B, of another kind, than to A, of its own.

    `features` `[N, D]` are compared by cosine; every ordered pair of kinds counts alike, ties
    count half. Chance is 0.5, perfect 0. Kinds need two members to be X's.
    """
    labels = np.asarray(labels)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    kinds = [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    errors = []
    for own in kinds:
        for other in kinds:
            if other is own or len(own) < 2:
                continue
            near = likeness[np.ix_(own, own)][~np.eye(len(own), dtype=bool)]
            near = near.reshape(len(own), len(own) - 1)  # X's likeness to every A
            far = likeness[np.ix_(own, other)]
            gap = near[:, :, None] - far[:, None, :]
            errors.append(float(((gap < 0) + 0.5 * (gap == 0)).mean()))
    if not errors:
        raise UserError("labels: ABX needs two kinds, one of them with two recordings")
    return float(np.mean(errors))
