"""Probes of every layer of a projection head, and the head of fixed weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssl_core import api
from ssl_core.errors import UserError
from ssl_core.evaluation.geometry import effective_rank
from ssl_core.methods.simclr import SimCLR
from ssl_core.networks.heads import MLPHead, ReweightHead
from ssl_core.testing.vectors import VECTORS

SHORT = {"train.batch_size": 32, "train.steps": 30, "data.limit": 200}


def test_the_layers_of_a_head_are_the_head():
    head = MLPHead(6, 3, hidden=8, layers=3).eval()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    seen = x
    widths = []
    for stage in head.stages():
        seen = stage(seen)
        widths.append(seen.shape[1])
    assert torch.equal(seen, head(x))
    assert widths == [8, 8, 3]


def test_fixed_weights_fall_geometrically_and_lower_the_rank():
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ReweightHead(5, kappa=1.0)(x), x)
    assert torch.allclose(ReweightHead(5, kappa=2.0)(x), x / torch.tensor([1.0, 2, 4, 8, 16]))
    assert effective_rank(ReweightHead(5, kappa=2.0)(x)) < effective_rank(x) - 1
    assert not ReweightHead(5).state_dict()
    with pytest.raises(ValueError, match="kappa must be at least 1"):
        ReweightHead(5, kappa=0.9)


def test_two_linear_layers_weight_features_twice_as_unequally_as_one():
    """Xue et al., Theorem 3.3's setting: spectral contrastive loss, small balanced start.

    Feature i has strength sqrt(positive_i) / (positive_i + noise) after both layers, and layer
    one has its square root: log ratios double from layer to layer.
    """
    signal, noise = np.array([1.0, 0.6, 0.4, 0.25]), 0.05
    total = signal + noise
    random = np.random.default_rng(0)
    a, b = (np.linalg.qr(random.normal(size=(4, 4)))[0] for _ in range(2))
    w1, w2 = 0.2 * a, 0.2 * b @ a.T  # w1 w1' = w2' w2
    for _ in range(3000):
        w = w2 @ w1
        # of -2 E[f(x)' f(x+)] + E[(f(x)' f(x'))^2]
        slope = -4 * w * signal + 4 * (w * total) @ w.T @ w * total
        w1, w2 = w1 - 0.02 * w2.T @ slope, w2 - 0.02 * slope @ w1.T
    first, both = np.linalg.norm(w1, axis=0), np.linalg.norm(w2 @ w1, axis=0)
    np.testing.assert_allclose(both, np.sqrt(signal) / total, rtol=1e-4)
    ratio = np.log(both[1:] / both[0]) / np.log(first[1:] / first[0])
    np.testing.assert_allclose(ratio, 2, rtol=1e-3)


def test_simclr_takes_fixed_weights_for_a_head():
    encoder = torch.nn.Linear(4, 6)
    encoder.embed_dim = 6
    method = SimCLR(encoder, None, head="reweight", kappa=1.0, temperature=0.5)
    z = [torch.randn(8, 6) for _ in range(2)]
    plain = torch.cat([F.normalize(x, dim=1) for x in z])
    logits = (plain @ plain.T / 0.5).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(logits, torch.arange(16).roll(8))
    loss = method.loss([method.projector(x) for x in z]).total
    torch.testing.assert_close(loss, expected)
    assert list(method.projector.parameters()) == []


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))


def test_a_recipe_can_ask_for_every_layer(tmp_path):
    settings = {**SHORT, "method.hidden": 16, "method.dim": 4}
    settings["evaluation.more"] = {"layers": {"kappa": 1.5}}
    run = api.pretrain(VECTORS, out=tmp_path / "run", settings=settings, progress=False)
    found = {entry["layer"]: entry for entry in run.summary["more"]["layers"]["layers"]}
    assert list(found) == ["backbone", "head layer 1", "head output", "reweighted backbone"]
    score = run.summary["score"]["trained"]
    assert found["backbone"]["knn"] == pytest.approx(score)
    assert [entry["dim"] for entry in found.values()][1:3] == [16, 4]
    assert found["reweighted backbone"]["probe"] is None
    assert found["reweighted backbone"]["effective_rank"] < found["backbone"]["effective_rank"]
    again = api.evaluate(run, probe=False, more={"layers": {"kappa": 1.0}})["more"]["layers"]
    *_, plain = again["layers"]
    assert plain["knn"] == found["backbone"]["knn"]


def test_methods_without_a_head_are_refused(tmp_path):
    settings = {**SHORT, "train.steps": 1, "method": {"name": "dino", "prototypes": 8}}
    run = api.pretrain(VECTORS, out=tmp_path / "run", settings=settings, progress=False)
    with pytest.raises(UserError, match="dino has no projection head"):
        api.evaluate(run, more={"layers": {}})
