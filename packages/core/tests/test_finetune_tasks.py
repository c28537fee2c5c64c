"""Linear heads, targets from columns, and fine-tuning for several labels and for numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from ssl_core import api
from ssl_core.batch import Record
from ssl_core.errors import UserError
from ssl_core.evaluation import heads
from ssl_core.rng import generator
from ssl_core.runs.folder import Run
from ssl_core.runs.rivals import ORDER as RIVALS
from ssl_core.runs.targets import class_targets, label_targets, number_targets
from ssl_core.runs.tasks import Classification, MultiLabel, Regression
from ssl_core.testing.vectors import VECTORS

NAN = float("nan")


class Table:
    """Vectors with columns, as a manifest gives them."""

    def __init__(self, vectors: np.ndarray, labels=None, classes=None, **columns) -> None:
        self.vectors, self.columns = vectors, columns
        self.labels, self.classes = labels, classes

    def __len__(self) -> int:
        return len(self.vectors)

    def head(self, index: int) -> Record:
        meta = {name: column[index] for name, column in self.columns.items()}
        label = None if self.labels is None else self.labels[index]
        return Record(f"row-{index:04d}", None, label, meta)

    def __getitem__(self, index: int) -> Record:
        head = self.head(index)
        return Record(head.key, self.vectors[index], head.label, head.meta)

    def fingerprint(self) -> str:
        return f"table {len(self)}"


def test_ridge_is_scikit_learns() -> None:
    random = generator("ridge")
    x, y = random.normal(size=(80, 6)), random.normal(size=(80, 2)) * 40 + 7
    found = heads.ridge_head(torch.from_numpy(x), torch.from_numpy(y), seed=3)
    scaled = (x - x.mean(0)) / x.std(0)
    model = Ridge(alpha=found.penalty * len(x)).fit(scaled, y)
    assert np.allclose(found.outputs(torch.from_numpy(x)), model.predict(scaled), atol=1e-8)


def test_logistic_head_is_scikit_learns_for_each_label_and_passes_over_unknowns() -> None:
    random = generator("logistic")
    x = random.normal(size=(90, 4))
    y = (x @ random.normal(size=(4, 3)) + random.normal(size=(90, 3)) > 0).astype(float)
    y[:30, 2] = np.nan
    found = heads.logistic_head(torch.from_numpy(x), torch.from_numpy(y))
    scaled = (x - x.mean(0)) / x.std(0)
    for at in range(3):
        known = ~np.isnan(y[:, at])
        model = LogisticRegression(C=1 / (found.penalty * known.sum()), tol=1e-10, max_iter=500)
        model.fit(scaled[known], y[known, at])
        logits = found.outputs(torch.from_numpy(x))[:, at]
        assert np.allclose(logits, model.decision_function(scaled), atol=1e-4)


def test_scores_are_scikit_learns_ties_included() -> None:
    random = generator("scores")
    out = torch.from_numpy(random.integers(0, 6, (60, 3)).astype(float))
    y = torch.from_numpy(random.integers(0, 2, (60, 3)).astype(float))
    expected = [average_precision_score(y[:, i], out[:, i]) for i in range(3)]
    assert np.allclose(heads.average_precision(out, y), expected)
    assert np.allclose(
        heads.roc_area(out, y), [roc_auc_score(y[:, i], out[:, i]) for i in range(3)]
    )
    assert np.allclose(heads.r2(out, y), [r2_score(y[:, i], out[:, i]) for i in range(3)])
    y[:, 0] = 0
    y[:20, 1] = NAN
    assert np.isnan(heads.average_precision(out, y)[0])
    assert heads.average_precision(out, y)[1] == pytest.approx(
        average_precision_score(y[20:, 1], out[20:, 1])
    )
    assert heads.mean_score([NAN, 0.5]) == 0.5


def test_targets_from_columns() -> None:
    vectors = np.zeros((4, 2), np.float32)
    table = Table(
        vectors,
        tags=["dog;cat", ";", None, "cat"],
        dog=["1", "0", "", "yes"],
        age=["3.5", None, "x1", "-2"],
        kind=["b", "a", "", "b"],
    )
    listed = label_targets(table, ["tags"])
    assert listed.names == ("cat", "dog")
    assert np.array_equal(listed.values, [[1, 1], [0, 0], [NAN, NAN], [1, 0]], equal_nan=True)
    assert listed.rows().tolist() == [0, 1, 3]
    several = label_targets(table, ["dog"])
    assert np.array_equal(several.values[:, 0], [1, 0, NAN, 1], equal_nan=True)
    with pytest.raises(UserError, match="'tags' holds 'dog;cat'"):
        label_targets(table, ["dog", "tags"])
    with pytest.raises(UserError, match="'age' holds 'x1', no number"):
        number_targets(table, ["age"])
    classes = class_targets(table, ["kind"])
    assert classes.names == ("a", "b")
    assert np.array_equal(classes.values[:, 0], [1, 0, NAN, 1], equal_nan=True)
    with pytest.raises(UserError, match="did you mean 'tags'"):
        label_targets(table, ["tag"])
    with pytest.raises(UserError, match="no label column"):
        number_targets(table, [])


def test_losses_leave_unknown_entries_out_and_collapse_to_known_values() -> None:
    values = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    several = MultiLabel(label_targets(Table(np.zeros((2, 1)), a=[1, 0], b=[None, 1]), ["a", "b"]))
    outputs = torch.zeros(2, 2, requires_grad=True)
    loss = several.loss(outputs, several.goal(values)).total
    assert loss.item() == pytest.approx(np.log(2))
    loss.backward()
    assert outputs.grad[0, 1] == 0
    assert outputs.grad[0, 0] == -0.25  # (1/2 - 1) over 2 rows, one known entry
    assert outputs.grad[1, 1] == -0.125
    numbers = Regression(number_targets(Table(np.zeros((3, 1)), a=[1, 3, None]), ["a"]))
    goal = numbers.goal(torch.tensor([[1.0], [3.0], [NAN]]))
    assert numbers.loss(torch.zeros(3, 1), goal).total.item() == pytest.approx(2 / 3)
    weight, bias = numbers.in_units(torch.ones(1, 2).double(), torch.zeros(1).double())
    assert (weight.tolist(), bias.tolist()) == ([[1.0, 1.0]], [2.0])


def test_classes_nobody_trained_on_count_as_missed() -> None:
    table = Table(np.zeros((3, 1)), [0, 2, 1], ["x", "y", "z"])
    whole = class_targets(table, [])
    task = Classification(type(whole)(whole.values[:2], whole.names))
    assert task.names == ("x", "z")
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert task.scores(outputs, whole.values) == {"accuracy": pytest.approx(2 / 3)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        settings = {"train.steps": 20, "train.batch_size": 32}
        out = tmp_path_factory.mktemp("runs") / "first"
        return api.pretrain(VECTORS, out=out, settings=settings, progress=False)


@pytest.fixture(scope="module")
def table() -> Table:
    random = generator("finetune table")
    x = random.normal(size=(240, 24)).astype(np.float32)
    height = 100 * np.tanh(x[:, 0] + 0.5 * x[:, 1]) + 170
    tags = [";".join(n for n, at in (("p", 0), ("q", 1)) if row[at] > 0) or ";" for row in x]
    return Table(x, height=[str(v) for v in height], tags=tags)


def test_numbers_are_learned_and_written_in_their_units(run, table, tmp_path: Path) -> None:
    found = api.finetune(
        run, source=table, task="regression", targets=["height"], steps=80, out=tmp_path / "t"
    )
    probe, tuned = found["scores"]["probe"], found["scores"]["finetuned"]
    assert min(tuned["R2"], probe["R2"]) > 0.5
    assert tuned["RMSE"] < 60
    bias = load_file(tmp_path / "t" / "head.safetensors")["bias"]
    assert 50 < bias.item() < 300


def test_several_labels_are_learned(run, table, tmp_path: Path) -> None:
    found = api.finetune(
        run, source=table, task="multilabel", targets=["tags"], steps=40, out=tmp_path / "t"
    )
    assert found["names"] == ["p", "q"]
    assert found["scores"]["finetuned"]["mAP"] > 0.8
    assert "accuracy" not in found
    with pytest.raises(UserError, match="did you mean 'multilabel'"):
        api.finetune(run, source=table, task="multilable", out=tmp_path / "n")


def test_the_finetune_protocol_is_a_measure_of_every_domain(run: Run) -> None:
    found = api.evaluate(run, probe=False, more={"finetune": {"steps": 4}})
    assert set(found["more"]["finetune"]) == {"probe", "finetuned", "steps", "words"}
    assert "Fine-tuned for 4 steps" in found["verdict"]
    assert not (run.path / "finetune").exists()
    with pytest.raises(UserError, match="did you mean 'steps'"):
        api.evaluate(run, more={"finetune": {"step": 4}})


def test_few_labels_tell_this_encoder_from_the_same_one_from_scratch(run: Run) -> None:
    options = {"labels": [2, 4], "draws": 2, "steps": 3, "batch_size": 8}
    found = api.evaluate(run, probe=False, more={"few_label_finetune": options})
    measured = found["more"]["few_label_finetune"]
    assert [row["labels"] for row in measured["rows"]] == [2, 4]
    assert all(len(row["each"][name]) == 2 for row in measured["rows"] for name in RIVALS)
    assert set(measured["score"]["rivals"]) == {"raw input", "from scratch"}
    assert "Fine-tuned on 2 labels a class" in found["verdict"]
    again = api.evaluate(run, probe=False, more={"few_label_finetune": {**options, "labels": 2}})
    assert again["more"]["few_label_finetune"]["rows"] == measured["rows"][:1]
    with pytest.raises(UserError, match="is no number of records a class"):
        api.evaluate(run, probe=False, more={"few_label_finetune": {"labels": 0}})
    table = measured["table"]
    assert len(table[0]) == len(table[1][0]) == 1 + len(RIVALS)


def test_few_labels_of_one_class_measure_nothing(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", generator("one class").normal(size=(60, 24)))
    np.save(tmp_path / "labels.npy", np.zeros(60, np.int64))
    more = {"few_label_finetune": {}}
    found = api.evaluate(run, str(tmp_path), probe=False, more=more)
    assert "there are no labels" in found["verdict"]
