"""Probes of audio embeddings: known values, and frames of a trained model."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import ssl_audio
from ssl_audio.domain import AUDIO
from ssl_audio.frames import embed_frames
from ssl_audio.probes import abx_error, detect_events, mean_average_precision
from ssl_core.errors import UserError


def test_map_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 9, (60, 5)) / 9, rng.random((60, 5)) < 0.3
    want = average_precision_score(truth, scores, average="macro")
    assert mean_average_precision(scores, truth) == pytest.approx(want)
    truth[:, 2] = False  # a label that never occurs does not count
    rest = [0, 1, 3, 4]
    want = average_precision_score(truth[:, rest], scores[:, rest], average="macro")
    assert mean_average_precision(scores, truth) == pytest.approx(want)
    with pytest.raises(UserError, match="hold a True"):
        mean_average_precision(scores, np.zeros((60, 5)))


def test_abx_of_separate_mixed_and_equal_kinds() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    apart = 9 * np.eye(3)[labels] + rng.normal(size=(60, 3))
    assert abx_error(apart, labels) < 0.01
    assert abs(abx_error(rng.normal(size=(300, 8)), np.arange(300) % 3) - 0.5) < 0.03
    assert abx_error(np.ones((60, 4)), labels) == 0.5
    with pytest.raises(UserError, match="two kinds"):
        abx_error(apart, labels * 0)


def test_events_are_found_where_they_are() -> None:
    rng = np.random.default_rng(0)
    active = rng.random((20, 30, 2)) < 0.3
    frames = np.concatenate([4.0 * active, 0 * active], 2) + rng.normal(size=(20, 30, 4)) * 0.3
    found = detect_events(frames[:10], active[:10], frames[10:], active[10:])
    assert found["map"] > 0.99
    assert found["f1"] > 0.98
    noise = rng.normal(size=frames.shape)
    assert detect_events(noise[:10], active[:10], noise[10:], active[10:])["map"] < 0.45


def test_frames_of_a_model_stand_in_time(tmp_path) -> None:
    AUDIO.samples(tmp_path / "data", count=20, seed=0)
    run = ssl_audio.pretrain(
        "tera",
        data=tmp_path / "data",
        out=tmp_path / "run",
        settings={"train.steps": 2, "train.batch_size": 4},
        progress=False,
    )
    model = ssl_audio.load(run.path)
    frames, times = embed_frames(model, tmp_path / "data", batch_size=7)
    # The recipe pools by rows: the patches of a moment stand side by side.
    assert frames.shape == (20, 14, model.encoder.embed_dim)
    np.testing.assert_allclose(np.diff(times), 0.08)
    np.testing.assert_allclose(frames.mean(1), model.embed(tmp_path / "data"), atol=1e-5)
    with pytest.raises(UserError, match="input 0: cannot be read"):
        embed_frames(model, [b"no sound"])
