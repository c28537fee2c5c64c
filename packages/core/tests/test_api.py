"""Whole runs on the smallest domain: outcome, continuation, refusals, use afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ssl_core import api
from ssl_core.data import ArraySource
from ssl_core.errors import Preempted, UserError
from ssl_core.evaluation.knn import knn_accuracy
from ssl_core.evaluation.projection import plane
from ssl_core.recipe import Data
from ssl_core.runs.exporting import timm_tensors
from ssl_core.runs.folder import Run
from ssl_core.runs.measures import scored
from ssl_core.runs.parts import embedded_data, split_data
from ssl_core.runs.summary import verdict
from ssl_core.testing.vectors import VECTORS

SHORT = {"train.steps": 40, "train.batch_size": 32, "train.save_every": 16, "train.log_every": 10}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return api.pretrain(VECTORS, out=folder, settings=SHORT, progress=False)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.weights)


def test_a_run_holds_what_it_promises(run: Run) -> None:
    names = {entry.name for entry in run.path.iterdir()}
    assert names >= {
        "recipe.yaml",
        "run.json",
        "reader",
        "metrics.jsonl",
        "checkpoints",
        "model.safetensors",
        "summary.json",
        "report.html",
    }
    assert "corrupt.jsonl" not in names
    summary = run.summary
    assert summary["steps"] == 40
    assert summary["score"] == {"name": "knn_accuracy", **summary["knn"]}
    assert set(summary["knn"]) == {"raw", "untrained", "trained"}
    assert summary["samples_per_second"] > 0
    assert summary["wall_seconds"] > 0
    assert summary["corrupt"] == 0
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]
    assert 1 <= summary["effective_rank"] <= 32
    assert summary["verdict"]


def test_the_score_is_k_nn_of_held_out_records(run: Run) -> None:
    """Recomputed by hand from the embeddings that `load` gives."""
    split = split_data(VECTORS, run.recipe.data)
    model = api.load(run)
    bank, queries = model.embed_source(split.train), model.embed_source(split.heldout)
    assert not set(bank.keys) & set(queries.keys)
    settings = run.recipe.evaluation
    trained = knn_accuracy(
        bank.features,
        bank.labels,
        queries.features,
        queries.labels,
        k=settings.k,
        temperature=settings.temperature,
    )
    assert run.summary["knn"]["trained"] == trained
    inputs = [
        torch.from_numpy(np.stack([part[i].payload for i in range(len(part))]))
        for part in (split.train, split.heldout)
    ]
    raw = knn_accuracy(inputs[0], bank.labels, inputs[1], queries.labels)
    assert run.summary["knn"]["raw"] == raw


def test_equal_recipes_give_equal_bits(run: Run, tmp_path: Path) -> None:
    again = api.pretrain("ssl_core.testing.vectors:VECTORS", run.recipe, out=tmp_path / "again")
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(again)[name]), name
    assert again.summary["knn"] == run.summary["knn"]
    other = api.pretrain(VECTORS, run.recipe, seed=1, out=tmp_path / "other")
    assert not torch.equal(weights(run)["net.0.weight"], weights(other)["net.0.weight"])


class Killer:
    """Sends a signal to this process at the first log point."""

    def on_start(self, step: int, steps: int) -> None: ...

    def on_log(self, record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def on_end(self, step: int) -> None: ...


def test_a_stopped_run_continues_to_the_same_bits(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    with pytest.raises(Preempted, match=r"everything was saved; continue with .*resume .*stopped"):
        api.pretrain(VECTORS, run.recipe, out=out, callbacks=[Killer()])
    stopped = Run(out)
    assert not stopped.finished
    resumed = api.resume(out)
    assert resumed.summary["resumed_from"] == 10
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    assert resumed.summary["knn"] == run.summary["knn"]
    assert [r["step"] for r in resumed.metrics()] == [10, 20, 30, 40]


def test_another_recipe_is_refused_and_the_same_returns_the_outcome(run: Run) -> None:
    before = run.summary_file.stat().st_mtime_ns
    again = api.pretrain(VECTORS, out=run.path, settings={**SHORT, "data.workers": 1})
    assert again.summary_file.stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"another recipe \(train\.steps: 40 -> 41\)"):
        api.pretrain(VECTORS, out=run.path, settings={**SHORT, "train.steps": 41})
    with pytest.raises(UserError, match="is a file"):
        api.pretrain(VECTORS, out=run.recipe_file)


def test_a_failed_start_does_not_block_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "a"
    with pytest.raises(UserError, match=r"no vectors\.npy"):
        api.pretrain(VECTORS, data=tmp_path, out=out, settings=SHORT)
    assert api.pretrain(VECTORS, out=out, settings=SHORT).summary["steps"] == 40


def test_default_folders_count_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = api.pretrain(VECTORS, settings={"train.batch_size": 32}, steps=3)
    second = api.pretrain(VECTORS, settings={"train.batch_size": 32}, steps=3)
    assert [str(r.path) for r in (first, second)] == [
        "runs/vectors-simclr",
        "runs/vectors-simclr-2",
    ]


def test_embed_takes_lists_paths_and_sources(run: Run) -> None:
    model = api.load(run.path)
    source = VECTORS.open(Data(path=str(embedded_data(VECTORS))))
    items = [source[i].payload for i in range(5)]
    vectors = model.embed(items, batch_size=2)
    assert vectors.shape == (5, model.dim)
    with torch.no_grad():
        direct = model.encoder(torch.tensor(np.stack(items))).pooled
    np.testing.assert_allclose(vectors, direct.numpy(), atol=1e-6)
    np.testing.assert_allclose(model.embed(embedded_data(VECTORS))[:5], vectors, atol=1e-6)
    np.testing.assert_allclose(model.embed(source)[:5], vectors, atol=1e-6)
    assert model.embed([]).shape == (0, model.dim)
    with pytest.raises(UserError, match="input 1: cannot be read"):
        model.embed([items[0], np.full(24, np.nan)])


def noisy_source(count: int = 120, *, labels: bool = False, broken: int = 0) -> ArraySource:
    vectors = np.random.Generator(np.random.Philox(key=5)).standard_normal((count, 24))
    vectors[:broken] = np.nan
    return ArraySource(vectors.astype(np.float32), np.arange(count) % 3 if labels else None)


def test_without_labels_views_are_retrieved(tmp_path: Path) -> None:
    run = api.pretrain(VECTORS, source=noisy_source(), out=tmp_path / "a", settings=SHORT)
    summary = run.summary
    assert summary["score"]["name"] == "view_retrieval"
    assert "knn" not in summary
    assert 0 <= summary["score"]["trained"] <= 1
    assert summary["rivals"]["trained"]["alignment"] > 0
    # 24 noisy numbers nearly always tell their own second view from 30 others.
    assert summary["score"]["raw"] > 0.8


def test_without_labels_and_random_views_the_rank_is_the_score(tmp_path: Path) -> None:
    settings = {**SHORT, "views.noise": 0.0}
    run = api.pretrain(VECTORS, source=noisy_source(), out=tmp_path / "a", settings=settings)
    summary = run.summary
    assert summary["score"]["name"] == "effective_rank"
    assert summary["score"]["trained"] == summary["effective_rank"]
    assert "no accuracy to report" in summary["verdict"]


def test_unreadable_records_are_counted_once(tmp_path: Path) -> None:
    source = noisy_source(labels=True, broken=4)
    settings = {**SHORT, "data.max_corrupt": 0.2}
    run = api.pretrain(VECTORS, source=source, out=tmp_path / "a", settings=settings)
    assert run.summary["corrupt"] == 4
    assert sorted(entry["key"] for entry in run.corrupt()) == ["0", "1", "2", "3"]
    assert "not all numbers are finite" in run.report_file.read_text()


def test_no_hold_out_means_leave_one_out(tmp_path: Path) -> None:
    settings = {**SHORT, "data.holdout": 0.0}
    run = api.pretrain(VECTORS, out=tmp_path / "a", settings=settings)
    assert run.summary["data"]["heldout"] == 0
    assert 0.5 < run.summary["knn"]["raw"] < 1.0  # 1.0 would be each row finding itself


def test_scores_while_training_are_logged(tmp_path: Path) -> None:
    settings = {**SHORT, "evaluation.every": 20, "evaluation.probe": True}
    run = api.pretrain(VECTORS, out=tmp_path / "a", settings=settings)
    scores = [r["score"] for r in run.metrics() if "score" in r]
    assert len(scores) == 2
    assert scores[-1] == run.summary["knn"]["trained"]
    assert run.summary["rivals"]["trained"]["probe"]["accuracy"] > 0.5


def test_evaluate_repeats_the_summary_and_takes_other_data(run: Run, tmp_path: Path) -> None:
    found = api.evaluate(run)
    assert found["knn"] == run.summary["knn"]
    assert (
        found["rivals"]["trained"]["recall"]["R@10"] >= found["rivals"]["trained"]["recall"]["R@1"]
    )
    (tmp_path / "other").mkdir()
    VECTORS.samples(tmp_path / "other", count=100, seed=9)
    other = api.evaluate(run, tmp_path / "other", probe=False)
    assert other["data"]["records"] == 100
    assert "probe" not in other["rivals"]["trained"]


def test_finetune_starts_at_the_probe_and_writes_a_classifier(run: Run, tmp_path: Path) -> None:
    found = api.finetune(run, steps=30, out=tmp_path / "tuned", batch_size=32)
    assert found["accuracy"]["probe"] > 0.5
    assert found["accuracy"]["finetuned"] >= found["accuracy"]["probe"] - 0.1
    assert found["classes"] == ["0", "1", "2", "3", "4"]
    assert load_file(tmp_path / "tuned" / "head.safetensors")["weight"].shape == (5, 32)
    again = api.finetune(run, steps=30, out=tmp_path / "tuned", batch_size=32)
    assert again["accuracy"] == found["accuracy"]
    with pytest.raises(UserError, match="needs labelled records"):
        api.finetune(run, source=noisy_source(), out=tmp_path / "none")


def test_export_writes_the_encoder_with_its_facts(run: Run, tmp_path: Path) -> None:
    path = api.export(run, tmp_path / "encoder.safetensors")
    for name, tensor in weights(run).items():
        assert torch.equal(load_file(path)[name], tensor)
    with safe_open(path, "pt") as file:
        assert '"mlp"' in file.metadata()["encoder"]
    assert api.export(run, tmp_path).name == "first.safetensors"
    assert timm_tensors(torch.nn.Linear(1, 1)) is None
    with pytest.raises(UserError, match="no timm counterpart"):
        api.export(run, tmp_path / "x.safetensors", format="timm")
    with pytest.raises(UserError, match="did you mean 'timm'"):
        api.export(run, tmp_path / "x.safetensors", format="tim")
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        api.export(run, tmp_path / "x.bin")


def test_weights_that_do_not_fit_are_refused(run: Run, tmp_path: Path) -> None:
    other = api.pretrain(VECTORS, out=tmp_path / "a", settings={**SHORT, "encoder.width": 8})
    other.weights.write_bytes(run.weights.read_bytes())
    with pytest.raises(UserError, match="do not fit"):
        api.load(other)
    other.weights.unlink()
    with pytest.raises(UserError, match="has not finished"):
        api.load(other)


def test_a_changed_data_set_is_refused_on_resume(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    VECTORS.samples(folder, count=100, seed=0)
    out = tmp_path / "run"
    with pytest.raises(Preempted):
        api.pretrain(VECTORS, data=folder, out=out, settings=SHORT, callbacks=[Killer()])
    VECTORS.samples(folder, count=110, seed=1)
    with pytest.raises(UserError, match="data was"):
        api.resume(out)


def test_bound_gives_a_package_its_functions() -> None:
    functions = api.bound("ssl_core.testing.vectors:VECTORS")
    assert functions["build_recipe"](steps=7).train.steps == 7
    assert set(functions) >= {"pretrain", "resume", "load", "evaluate", "finetune", "export"}


def test_embedded_data_is_written_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CACHE", str(tmp_path))
    folder = embedded_data(VECTORS)
    before = (folder / "vectors.npy").stat().st_mtime_ns
    assert embedded_data(VECTORS) == folder
    assert (folder / "vectors.npy").stat().st_mtime_ns == before
    assert folder.parent == tmp_path


def test_plane_is_the_first_two_principal_axes() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = plane(x)
    unit = torch.nn.functional.normalize(x, dim=1)
    unit = unit - unit.mean(0)
    variance = torch.linalg.eigvalsh(unit.T @ unit)
    assert torch.allclose(points.double().square().sum(0), variance.flip(0)[:2], rtol=1e-5)
    assert plane(torch.zeros(0, 3)).shape == (0, 2)
    assert plane(torch.ones(1, 1)).shape == (1, 2)


def outcome(trained: float | None, untrained: float, raw: float, *, std: float = 0.5) -> str:
    rivals = {"trained": {"effective_rank": 9.0, "dim": 32.0, "feature_std": std}}
    score = {"name": "knn_accuracy", "raw": raw, "untrained": untrained, "trained": trained}
    return verdict({"score": score, "queries": 400, "rivals": rivals})


def test_verdicts_claim_no_more_than_the_numbers() -> None:
    assert outcome(0.9, 0.5, 0.4).startswith("Training helped: k-NN accuracy 90.0 %")
    assert outcome(0.3, 0.5, 0.4).startswith("Training did not help")
    assert outcome(0.52, 0.5, 0.4).startswith("No clear gain")
    assert outcome(0.9, 0.5, 0.4, std=0.001).startswith("The representation collapsed")
    assert "non-finite" in outcome(None, 0.5, 0.4)


def led(trained: list[float], scratch: list[float], *, std: float = 0.5) -> str:
    measure = {"score": scored("Dice", trained, {"from scratch": scratch})}
    rivals = {"trained": {"effective_rank": 9.0, "dim": 32.0, "feature_std": std}}
    score = {"name": "knn_accuracy", "raw": 0.4, "untrained": 0.5, "trained": 0.52}
    more = {"other": {"words": "Last."}, "dice": measure}
    return verdict({"score": score, "queries": 400, "rivals": rivals, "more": more})


def test_a_verdict_begins_with_what_the_run_was_asked_to_measure() -> None:
    words = led([0.4, 0.5, 0.45], [0.3, 0.38, 0.34])
    assert words.startswith("Training helped: Dice 0.450, 0.340 from scratch. In k-NN accuracy, no")
    assert words.endswith("of 32 dimensions. Last.")
    assert led([0.3, 0.4], [0.5, 0.61]).startswith("Training did not help: Dice")
    assert led([0.4, 0.3], [0.3, 0.4]).startswith("No clear gain: Dice")
    assert led([0.4], [0.3]).startswith("Dice 0.400, 0.300 from scratch. One repetition")
    assert led([0.4, 0.5], [0.3, 0.4], std=0.0).startswith("The representation collapsed")


def test_a_score_is_held_against_the_best_rival_repetition_by_repetition() -> None:
    found = scored("F1", [0.5, 0.7, 0.6], {"a": [0.1, 0.1, 0.1], "b": [0.4, 0.5, 0.3]})
    assert found["best"] == "b"
    assert found["rivals"] == pytest.approx({"a": 0.1, "b": 0.4})
    # Differences 0.1, 0.2, 0.3: deviation 0.1.
    assert found["trained"] == pytest.approx(0.6)
    assert found["noise"] == pytest.approx(2 * 0.1 / 3**0.5)
    assert scored("F1", [0.5], {"a": [0.1]})["noise"] is None
