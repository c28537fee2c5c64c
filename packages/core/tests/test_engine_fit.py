"""The loop's promises, as equalities: resumed = uninterrupted, skipped = untouched, 2 x 4 = 8."""

import json
import os
import signal

import pytest
import torch

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.data.stream import Stream
from ssl_core.encoder import Features
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.engine.fit import fit
from ssl_core.engine.parallelize import compile_encoder
from ssl_core.errors import Preempted, TrainingAborted, UserError
from ssl_core.methods.byol import BYOL
from ssl_core.methods.simclr import SimCLR
from ssl_core.rng import Rng
from ssl_core.testing.vectors import VECTORS, MLPEncoder, NoisyViews

SPEC = {"dim": 24}
TRAIN = recipe.Train(steps=12, batch_size=16, log_every=3, save_every=5, seed=1)
ADAMW = recipe.Optimizer(lr=1e-2, warmup=0.2)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    VECTORS.samples(folder, count=50, seed=0)
    return torch.from_numpy(VECTORS.open(recipe.Data(path=str(folder))).vectors)


class MemoryLoader:
    """Batches straight from a tensor; `hook(step)` runs before each step's first batch."""

    def __init__(self, data, train, hook=lambda step: None, poison=()):
        self.data, self.train, self.hook, self.poison = data, train, hook, set(poison)
        self.stream = Stream(
            len(data), train.batch_size, seed=train.seed, accumulate=train.accumulate
        )

    def batches(self, start, stop):
        for step in range(start, stop):
            self.hook(step)
            for micro in range(self.train.accumulate):
                index, ids = (torch.from_numpy(x) for x in self.stream.rows(step, micro))
                data = self.data[index]
                if step in self.poison:
                    data = torch.full_like(data, float("nan"))
                yield Batch(data, ids, index)


def build(kind=BYOL, *, norm=True):
    torch.manual_seed(5)
    views = NoisyViews(SPEC)
    return kind(MLPEncoder(SPEC, norm=norm), views, hidden=16, dim=8)


def run(out, data, method=None, *, train=TRAIN, optimizer=ADAMW, hook=lambda s: None, poison=()):
    method = build() if method is None else method
    loader = MemoryLoader(data, train, hook, poison)
    result = fit(method, loader, train=train, optimizer=optimizer, out=out)
    return method, result


def assert_same_bits(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def test_a_stopped_run_ends_in_the_same_bits(tmp_path, vectors):
    whole, _ = run(tmp_path / "whole", vectors)

    def stop(step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted) as caught:
        run(tmp_path / "parts", vectors, hook=stop)
    assert caught.value.exit_code == 143
    assert Checkpoints(tmp_path / "parts/checkpoints").steps()[-1] == 8
    resumed, result = run(tmp_path / "parts", vectors)
    assert result.resumed_from == 8
    assert_same_bits(whole, resumed)
    lines = [(tmp_path / p / "metrics.jsonl").read_text() for p in ("whole", "parts")]
    steps = [[json.loads(line)["step"] for line in text.splitlines()] for text in lines]
    assert steps[0] == steps[1] == [3, 6, 9, 12]


class ConvEncoder(torch.nn.Module):
    """Reads 24 numbers as two channels of 3 x 4."""

    embed_dim = 6

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 6, 3)

    def forward(self, data):
        return Features(self.conv(data.reshape(-1, 2, 3, 4)).mean((2, 3)))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_moments_of_channels_last_weights_come_back_in_their_layout(tmp_path, vectors, name):
    def train_conv(out, **options):
        torch.manual_seed(5)
        method = BYOL(ConvEncoder(), NoisyViews(SPEC), hidden=16, dim=8)
        optimizer = recipe.Optimizer(name=name, lr=1e-2, warmup=0.2)
        return run(out, vectors, method, optimizer=optimizer, **options)[0]

    def stop(step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = train_conv(tmp_path / "whole")
    assert whole.encoder.conv.weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(Preempted):
        train_conv(tmp_path / "parts", hook=stop)
    assert_same_bits(whole, train_conv(tmp_path / "parts"))


def test_a_damaged_checkpoint_is_passed_over(tmp_path, vectors, caplog):
    whole, _ = run(tmp_path, vectors)
    newest = Checkpoints(tmp_path / "checkpoints").path(12)
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-8] + b"\0\1\2\3\4\5\6\7")
    resumed, result = run(tmp_path, vectors)
    assert result.resumed_from == 10
    assert "damaged" in caplog.text
    assert_same_bits(whole, resumed)


def test_an_unfinished_checkpoint_is_ignored(tmp_path, vectors):
    (tmp_path / "checkpoints/tmp-00000009").mkdir(parents=True)
    _, result = run(tmp_path, vectors)
    assert result.resumed_from == 0
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000010",
        "step-00000012",
    ]


def test_another_seed_or_batch_is_refused(tmp_path, vectors):
    run(tmp_path, vectors)
    with pytest.raises(UserError, match=r"resume: seed was 1 .* now 2"):
        run(tmp_path, vectors, train=TRAIN.model_copy(update={"seed": 2, "steps": 12}))


def test_another_method_is_refused_by_name(tmp_path, vectors):
    run(tmp_path, vectors)
    with pytest.raises(UserError, match="do not fit this method"):
        run(tmp_path, vectors, build(SimCLR))


def test_a_non_finite_step_leaves_everything_untouched(tmp_path, vectors):
    seen = {}

    def remember(step):
        if step in (6, 7):
            seen[step] = {k: v.clone() for k, v in method.state_dict().items()}

    method = build()
    _, result = run(tmp_path, vectors, method, hook=remember, poison=[6])
    assert result.skipped == 1
    counters = [k for k in seen[6] if k.endswith("num_batches_tracked")]
    for name, before in seen[6].items():
        if name not in counters:
            assert torch.equal(before, seen[7][name]), name


def test_too_many_non_finite_steps_abort(tmp_path, vectors):
    train = TRAIN.model_copy(update={"max_skipped": 3})
    with pytest.raises(TrainingAborted, match="3 steps in a row"):
        run(tmp_path, vectors, train=train, poison=range(4, 12))


def test_accumulation_equals_the_whole_batch(tmp_path, vectors):
    """Exact for losses that are means over samples, without batch norm."""

    def final(accumulate):
        train = TRAIN.model_copy(update={"accumulate": accumulate})
        sgd = recipe.Optimizer(name="sgd", lr=0.1, weight_decay=0)
        method = build(norm=False).double()
        for head in (method.projector, method.predictor, method.teacher.projector):
            head[1] = torch.nn.Identity()
        method, _ = run(
            tmp_path / str(accumulate), vectors.double(), method, train=train, optimizer=sgd
        )
        return method

    for a, b in zip(final(1).parameters(), final(4).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_accumulation_of_a_coupled_loss_goes_through_the_gradient_cache(tmp_path, vectors):
    def final(accumulate):
        torch.manual_seed(5)
        method = SimCLR(
            MLPEncoder(SPEC, norm=False), NoisyViews(SPEC), hidden=16, dim=8, norm="layer"
        )
        train = TRAIN.model_copy(update={"accumulate": accumulate})
        out = tmp_path / str(accumulate)
        return run(out, vectors.double(), method.double(), train=train)[0]

    for a, b in zip(final(1).parameters(), final(4).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_keeps_the_newest_and_the_best_and_logs_every_score(tmp_path, vectors):
    given = [0.3, 0.9, 0.5, 0.1]
    scores = iter(given)
    fit(
        build(),
        MemoryLoader(vectors, TRAIN),
        train=TRAIN.model_copy(update={"save_every": 100, "keep": 1, "log_every": 5}),
        optimizer=ADAMW,
        out=tmp_path,
        score=lambda backbone: next(scores),
        score_every=3,
    )
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps() == [6, 12]
    assert checkpoints.best() == 6
    records = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 5, 6, 9, 10, 12]
    assert [record["score"] for record in records if "score" in record] == given
    assert all("loss" in record and "samples_per_second" in record for record in records)


def test_training_leaves_the_global_generator_alone(tmp_path, vectors):
    method = build()
    before = torch.get_rng_state()
    run(tmp_path, vectors, method)
    assert torch.equal(before, torch.get_rng_state())


def test_views_of_a_step_do_not_depend_on_where_a_run_started(tmp_path, vectors):
    class Recording(NoisyViews):
        def __init__(self):
            super().__init__(SPEC)
            self.seen = {}

        def __call__(self, batch, rng):
            views = super().__call__(batch, rng)
            self.seen.setdefault(int(batch.ids[0]), []).append(views[0].data.clone())
            return views

    views = Recording()
    for start in (0, 5):
        loader, method = MemoryLoader(vectors, TRAIN), build()
        method.view_policy = views
        batches = loader.batches(start, 8)
        for step, batch in zip(range(start, 8), batches, strict=True):
            method.views(batch, Rng.at(1, step, batch.ids))
    repeated = [both for both in views.seen.values() if len(both) == 2]
    assert len(repeated) == 3
    for first, second in repeated:
        assert torch.equal(first, second)


@pytest.mark.parametrize("width", [1, 3])
def test_repeated_blocks_are_compiled_one_by_one(monkeypatch, width):
    """Anything else is compiled whole; the names of parameters stay."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    encoder = torch.nn.Module()
    encoder.blocks = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(width))
    names = list(encoder.state_dict())
    compile_encoder(encoder)
    assert list(encoder.state_dict()) == names
    assert compiled == ([encoder] if width == 1 else list(encoder.blocks))
