"""Starting from weights, and continued pretraining that cannot spoil them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import nn

from ssl_core import api
from ssl_core.cli import command_line
from ssl_core.engine.anchoring import Anchor
from ssl_core.errors import UserError
from ssl_core.networks.weights import load_best
from ssl_core.recipe import Start
from ssl_core.runs.adapting import guarded
from ssl_core.runs.folder import Run
from ssl_core.runs.starting import Watch
from ssl_core.testing.vectors import VECTORS

SHORT: dict[str, Any] = {"train.batch_size": 32, "train.log_every": 5, "train.save_every": 100}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def good(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "good"
    return api.pretrain(VECTORS, out=out, steps=60, settings=SHORT, progress=False)


def equal(a: Path, b: Path) -> bool:
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_the_pull_is_the_gradient_of_l2_sp() -> None:
    layer = nn.Linear(3, 2)
    anchor = Anchor(layer, Start(anchor=0.5))
    first = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    layer(torch.ones(4, 3)).sum().backward()
    plain = layer.weight.grad.clone()
    anchor.apply(5, 10)
    assert torch.allclose(layer.weight.grad, plain + 0.5 * (layer.weight - first))
    penalty = 0.25 * (layer.weight - first).square().sum()
    (expected,) = torch.autograd.grad(penalty, layer.weight)
    assert torch.allclose(layer.weight.grad - plain, expected, atol=1e-6)


def test_a_frozen_encoder_gets_no_gradient_and_no_new_statistics() -> None:
    encoder = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    anchor = Anchor(encoder, Start(frozen=0.2))
    anchor.before(1, 10)
    encoder(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).sum().backward()
    anchor.apply(1, 10)
    assert all(p.grad is None for p in encoder.parameters())
    assert encoder[1].num_batches_tracked == 0
    anchor.before(2, 10)
    assert encoder.training
    assert not anchor.frozen(2, 10)


def test_a_run_starts_where_the_weights_are(good: Run, tmp_path: Path) -> None:
    settings = {**SHORT, "start.weights": str(good.path), "start.frozen": 0.99}
    run = api.pretrain(VECTORS, out=tmp_path / "a", steps=5, settings=settings, progress=False)
    assert equal(run.weights, good.weights)  # frozen to the last step
    summary = run.summary
    assert summary["knn"]["untrained"] == good.summary["knn"]["trained"]
    assert summary["start"]["matched"] == len(load_file(good.weights))
    assert "at the start" in summary["verdict"]
    names = json.loads((run.path / "start.json").read_text())
    assert names["missing"] == names["unused"] == []
    good_again = api.evaluate(run, probe=False)
    assert good_again["knn"]["untrained"] == summary["knn"]["untrained"]


def test_weights_that_match_too_little_are_refused_before_training(good, tmp_path: Path) -> None:
    settings = {**SHORT, "start.weights": str(good.weights), "encoder.width": 8}
    with pytest.raises(UserError, match=r"1 of 9 tensors matched.*At least 90% must match"):
        api.pretrain(VECTORS, out=tmp_path / "a", settings=settings)
    settings["start.weights"] = str(tmp_path / "nothing")
    with pytest.raises(UserError, match="no safetensors file and no finished run"):
        api.pretrain(VECTORS, out=tmp_path / "b", settings=settings)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 2)


def test_names_of_the_library_and_our_own_both_fit() -> None:
    theirs = {"weight": torch.ones(2, 3), "bias": torch.ones(2), "fc.weight": torch.ones(5, 2)}
    ours = {f"model.{name}": tensor for name, tensor in theirs.items()}
    for given in (theirs, ours):
        encoder = Wrapped()
        report = load_best(encoder, given)
        assert report.share == 1
        assert len(report.unused) == 1
        assert encoder.model.bias.tolist() == [1.0, 1.0]


def test_adapting_keeps_good_weights_when_training_spoils_them(good, tmp_path: Path) -> None:
    spoiling = {**SHORT, "optimizer.lr": 3.0, "optimizer.warmup": 0.0, "evaluation.every": 20}
    run = api.adapt(VECTORS, good.path, out=tmp_path / "a", steps=60, anchor=0.0, settings=spoiling)
    found = run.summary["start"]["watched"]
    assert run.summary["steps"] == found["steps"] < 60
    assert found["last"] < found["first"] - 0.02
    assert run.summary["knn"]["trained"] >= found["first"]
    assert "made the encoder worse" in run.summary["verdict"]
    if found["kept"] == "the start":
        assert equal(run.weights, good.weights)
    spoiled = {**spoiling, "start.guard": "stop"}
    stopped = api.adapt(
        VECTORS, good.path, out=tmp_path / "b", steps=60, anchor=0.0, settings=spoiled
    )
    assert stopped.summary["knn"]["trained"] < found["first"] - 0.02
    assert "kept all the same" in stopped.summary["verdict"]
    # The same command on a run that halted, but had not been summed up, trains no further.
    steps = stopped.summary["steps"]
    stopped.summary_file.unlink()
    again = api.resume(stopped)
    assert again.summary["steps"] == steps
    assert again.summary["knn"] == stopped.summary["knn"]


def test_adapting_takes_the_runs_recipe_with_rails(good: Run, tmp_path: Path) -> None:
    rails = guarded(good.recipe, "w.safetensors", guard="stop", anchor=0.5, frozen=0.2, given=[])
    assert rails.evaluation.every == good.recipe.train.steps // 10
    settings = {**SHORT, "evaluation.every": 10}
    run = api.adapt(VECTORS, good.path, out=tmp_path / "a", steps=10, settings=settings)
    recipe = run.recipe
    assert recipe.encoder == good.recipe.encoder
    assert recipe.optimizer.lr == pytest.approx(good.recipe.optimizer.lr / 10)
    assert (recipe.start.frozen, recipe.start.anchor, recipe.start.guard) == (0.1, 0.01, "rollback")
    assert run.summary["start"]["watched"]["first"] == run.summary["knn"]["untrained"]
    exported = api.export(good, tmp_path / "e.safetensors")
    other = api.adapt(
        VECTORS, exported, out=tmp_path / "b", method="barlow_twins", steps=4, settings=settings
    )
    assert other.recipe.method.name == "barlow_twins"
    assert other.recipe.encoder == good.recipe.encoder
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(exported), bare)
    with pytest.raises(UserError, match="name it with --encoder"):
        api.adapt(VECTORS, bare, out=tmp_path / "c")
    settings = SHORT | {"start.guard": "stop", "start.weights": str(bare)}
    with pytest.raises(UserError, match=r"set evaluation\.every"):
        api.pretrain(VECTORS, out=tmp_path / "d", steps=2, settings=settings)


def test_a_score_that_is_no_number_halts() -> None:
    watch = Watch(0.5, "knn_accuracy", Start(guard="stop", tolerance=0.1))
    assert [watch(score) for score in (0.6, 0.41, 0.39, float("nan"))] == [
        False,
        False,
        True,
        True,
    ]


def test_the_command_says_what_matched(good: Run, tmp_path: Path) -> None:
    main = command_line("ssl_core.testing.vectors:VECTORS", name="vectors")
    arguments = ["adapt", str(good.path), "--out", str(tmp_path / "a"), "--steps", "2"]
    arguments += ["--set", "evaluation.every=2"]
    result = CliRunner().invoke(main.commands, arguments, obj=main.commands.context_settings["obj"])
    assert result.exit_code == 0, result.stderr
    assert "encoder at its start" in result.stdout
