"""What the log says about a representation, where it is sent, and what it costs to look inside."""

import itertools
import json
import sys
import types

import pytest
import torch

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.engine.health import health_due, judge, measure_health
from ssl_core.engine.tracing import Tracer
from ssl_core.errors import UserError
from ssl_core.evaluation.geometry import alignment
from ssl_core.methods.byol import BYOL
from ssl_core.recipe import Named, Recipe
from ssl_core.rng import Rng
from ssl_core.runs.config import save_recipe
from ssl_core.runs.folder import Run
from ssl_core.runs.progress import describe, parts_of
from ssl_core.runs.tracking import trackers
from ssl_core.testing.vectors import MLPEncoder, NoisyViews


def record(step, std=1.0, rank=9.0, loss=1.0, steps=100):
    return {
        "step": step,
        "steps": steps,
        "loss": loss,
        "feature_std": std,
        "effective_rank": rank,
    }


def test_a_collapse_is_dated_from_its_first_record():
    log = [record(10), record(20, std=0.01), record(30), record(40, std=0.015), record(50, std=0.0)]
    assert judge(log[:1]) == "healthy"
    assert judge(log) == "collapsing since step 40: spread 0.015 of 1, effective rank 9.0"
    assert judge([record(10, rank=1.0)]).startswith("collapsing since step 10")
    assert judge([{"step": 1, "steps": 2}]) == "healthy"


def test_undertrained_is_said_at_the_end_only():
    falling = [record(s, loss=10 - s / 10) for s in range(10, 101, 10)]
    assert judge(falling) == ("undertrained: the last fifth of the run brought 25 % of the descent")
    assert judge(falling[:-1]) == "healthy"
    flat = [record(s, loss=1 + 9 * (s < 40)) for s in range(10, 101, 10)]
    assert judge(flat) == "healthy"
    rising = [record(s, loss=s) for s in range(10, 101, 10)]
    assert judge(rising) == "healthy"


def test_numbers_are_those_of_the_features():
    spec = {"dim": 6}
    method = BYOL(MLPEncoder(spec, width=5), NoisyViews(spec), hidden=8, dim=4)
    assert measure_health(method) == {}
    data, ids = torch.randn(12, 6), torch.arange(12)
    views = method.views(Batch(data, ids, ids), Rng.at(0, 0, ids))
    method(views)
    teacher = [method.teacher.encoder(view.data).pooled for view in views]
    found = measure_health(method)
    assert found["alignment"] == pytest.approx(alignment(*teacher), rel=1e-4)
    assert set(found) == {"effective_rank", "feature_std", "uniformity", "alignment"}


def test_wide_features_are_looked_at_less_often():
    spec = {"dim": 6}
    method = BYOL(MLPEncoder(spec, width=5), NoisyViews(spec), hidden=8, dim=4)
    assert not health_due(method, 20, every=20)  # nothing to look at
    method.monitored = torch.zeros(32, 16)
    assert all(health_due(method, step, every=1) for step in range(1, 50))
    method.monitored = torch.zeros(512, 256)
    looked = [step for step in range(20, 1001, 20) if health_due(method, step, every=20)]
    assert 8 < len(looked) < 20
    assert all(40 <= b - a <= 120 for a, b in itertools.pairwise(looked))
    # A log written every step looks just as often.
    each = [step for step in range(1, 1001) if health_due(method, step, every=1)]
    assert abs(len(each) - len(looked)) <= 2


def test_progress_shows_a_verdict_only_when_something_is_wrong():
    line = record(10) | {"verdict": "healthy"}
    assert "healthy" not in describe(line)
    assert "collapsing" in describe(line | {"verdict": "collapsing since step 5: x"})
    assert set(parts_of(line)) == {"loss"}


def test_a_trace_of_a_few_steps_is_written(tmp_path):
    tracer = Tracer(tmp_path / "profile", 2)
    for _ in range(8):
        torch.ones(3).sum()
        tracer.step()
    tracer.close()
    events = json.loads((tmp_path / "profile/trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "aten::sum" for event in events)
    idle = Tracer(tmp_path / "none", 0)
    idle.step()
    idle.close()
    assert not (tmp_path / "none").exists()


class Sink:
    def __init__(self, *given, **named):
        self.seen, self.named = [], named

    def __getattr__(self, name):
        return lambda *given, **named: self.seen.append((name, *given, named))


@pytest.fixture
def run(tmp_path):
    made = Recipe(
        domain="vectors",
        views=Named(name="noise"),
        encoder=Named(name="mlp"),
        method=Named(name="byol"),
        train=recipe.Train(steps=3),
    )
    found = Run(tmp_path / "my-run")
    found.path.mkdir()
    save_recipe(made, found.recipe_file)
    return found


def test_records_go_to_the_sinks_asked_for(run, monkeypatch):
    boards, runs = [], []
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = lambda path: boards.append(Sink(path=path)) or boards[-1]
    wandb = types.ModuleType("wandb")
    wandb.init = lambda **named: runs.append(Sink(**named)) or runs[-1]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for sink in trackers(["tensorboard", "wandb"], run, run.recipe):
        sink.on_start(0, 3)
        sink.on_log({"step": 2, "steps": 3, "loss": 0.5, "verdict": "healthy", "lr": None})
        sink.on_end(3)
        sink.close()
    assert ("add_scalar", "loss", 0.5, 2, {}) in boards[0].seen
    assert boards[0].named["path"] == str(run.path / "tensorboard")
    assert ("log", {"loss": 0.5}, {"step": 2}) in runs[0].seen
    assert runs[0].named["id"] == "my-run"
    assert runs[0].seen[-1][0] == "finish"


def test_a_missing_sink_is_named_with_its_remedy(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-core\[tracking\]'"):
        trackers(["wandb"], run, run.recipe)
    with pytest.raises(UserError, match="tensorboard"):
        trackers(["tensorbord"], run, run.recipe)
