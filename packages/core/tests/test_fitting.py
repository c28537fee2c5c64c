"""`ssl_core.fit`, and names of one's own in recipes."""

import inspect
import sys

import pytest
import torch
from torch import Tensor, nn

import ssl_core
from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss
from ssl_core.methods.simclr import SimCLR
from ssl_core.registry import Registry, is_place
from ssl_core.rng import Rng
from ssl_core.testing.vectors import VECTORS, MLPEncoder, NoisyViews, VectorReader

MINE = """
from torch import nn
from ssl_core import Features, Loss, Method

class Mine(Method):
    def __init__(self, encoder, views, *, weight=1.0):
        super().__init__(encoder, views)
        self.weight = weight
    def encode(self, views):
        return [f.pooled for f in self.features(views)]
    def loss(self, reps):
        return Loss.of({"mine": self.weight * (reps[0] - reps[1]).square().mean()})

class Net(nn.Module):
    def __init__(self, spec, *, width=8):
        super().__init__()
        self.embed_dim = width
        self.layer = nn.Linear(spec["dim"], width)
    def forward(self, data):
        return Features(self.layer(data))

def nothing(spec):
    return nn.Identity()
"""


def method() -> SimCLR:
    torch.manual_seed(0)
    spec = {"dim": 6}
    return SimCLR(MLPEncoder(spec), NoisyViews(spec), hidden=16, dim=8)


def data() -> Tensor:
    return Rng.at(0, 0, torch.arange(40)).normal("data", 6)


def test_fit_trains_the_method_it_is_given():
    trained, before = method(), method().state_dict()
    result = ssl_core.fit(trained, data(), steps=4, batch_size=16, device="cpu")
    assert result.steps == 4
    assert set(result.last) >= {"loss", "nt_xent", "lr"}
    after = trained.state_dict()
    assert not torch.equal(after["projector.0.weight"], before["projector.0.weight"])


def test_a_folder_makes_fit_continue_to_the_same_bits(tmp_path):
    whole, halves = method(), method()
    options = {"batch_size": 16, "device": "cpu", "settings": {"save_every": 2, "keep": 9}}
    ssl_core.fit(whole, data().numpy(), steps=4, out=tmp_path / "whole", **options)
    ssl_core.fit(halves, data(), steps=4, out=tmp_path / "halves", **options)
    for step in ("step-00000004",):
        for file in (tmp_path / "halves" / "checkpoints" / step).iterdir():
            file.unlink()
        (tmp_path / "halves" / "checkpoints" / step).rmdir()
    again = method()
    found = ssl_core.fit(again, data(), steps=4, out=tmp_path / "halves", **options)
    assert found.resumed_from == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_fit_says_what_is_wrong():
    with pytest.raises(UserError, match="reader"):
        ssl_core.fit(method(), VECTORS, steps=1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"lr: 0\.0 is not allowed"):
        ssl_core.fit(method(), data(), lr=0.0, steps=1)
    with pytest.raises(UserError, match="stepz"):
        ssl_core.fit(method(), data(), settings={"stepz": 1})


def test_fit_replaces_rows_that_are_not_finite():
    spoiled = data()
    spoiled[0, 0] = torch.nan
    result = ssl_core.fit(
        method(), spoiled, reader=VectorReader(6), steps=2, batch_size=8, device="cpu"
    )
    assert result.steps == 2


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_for_tests.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "mine_for_tests"
    sys.modules.pop("mine_for_tests", None)


def test_a_recipe_names_a_method_and_an_encoder_of_ones_own(mine, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    run = ssl_core.pretrain(
        VECTORS,
        method=f"{mine}:Mine",
        encoder=f"{mine}:Net",
        steps=2,
        batch_size=16,
        out=tmp_path / "run",
        settings={"method.weight": 0.5, "encoder.width": 4},
        progress=False,
    )
    assert run.recipe.method.options == {"weight": 0.5}
    assert ssl_core.load(run).embed(data()[:3].repeat(1, 4).numpy()).shape == (3, 4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "{}:Miner"}, "no class or function 'Miner'"),
        ({"method": "nowhere_at_all:Mine"}, "not known"),
        ({"method": "{}:Mine", "settings": {"method.weigth": 1}}, "did you mean 'weight'"),
        ({"encoder": "{}:nothing"}, "embed_dim"),
        ({"method": "{}:Net"}, "Net"),
    ],
)
def test_what_is_wrong_with_ones_own_is_said(mine, asked, message, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    words = {k: v.format(mine) if isinstance(v, str) else v for k, v in asked.items()}
    with pytest.raises(UserError, match=message):
        ssl_core.pretrain(VECTORS, steps=1, out=tmp_path / "run", progress=False, **words)


def test_a_finished_run_goes_on_with_new_data_at_the_constant_rate(tmp_path, monkeypatch):
    """Continual pretraining: the rates are those of a run that was never cut."""
    monkeypatch.setenv("SSL_CACHE", str(tmp_path / "cache"))
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        VECTORS.samples(tmp_path / str(seed), count=60, seed=seed)
    rates = {"constant": 1e-3, "warmup": 2, "cooldown": 2}
    settings = {"optimizer.lr": 2e-3, "optimizer.infinite": rates, "train.log_every": 1}
    common = {"batch_size": 16, "out": tmp_path / "run", "progress": False}
    first = ssl_core.pretrain(
        VECTORS, data=tmp_path / "0", steps=6, settings=settings, **common
    ).summary
    more = {**settings, "train.allow": ["data", "steps"]}
    run = ssl_core.pretrain(VECTORS, data=tmp_path / "1", steps=10, settings=more, **common)
    assert run.summary["resumed_from"] == first["steps"] == 6
    assert run.summary["steps"] == 10
    assert run.recipe.data.path == str(tmp_path / "1")
    found = [record["lr"] for record in run.metrics()]
    assert found == pytest.approx([0, 1e-3, 2e-3, 1.5e-3, *[1e-3] * 6])
    with pytest.raises(UserError, match=r"infinite\.constant"):
        ssl_core.build_recipe(VECTORS, settings={"optimizer.infinite.constant": 1.0})


def test_places_are_told_from_names():
    assert is_place("torch.nn:Linear")
    for name in ("hf:bert", "torchvision/resnet18", "simclr", "os:", "nowhere.at.all:Thing"):
        assert not is_place(name)
    assert Registry("method", {}).load("ssl_core.methods.simclr:SimCLR") is SimCLR


def test_the_surface_is_typed_and_explains_itself():
    """What a domain package offers: the core's functions without the argument `domain`."""
    from ssl_core import api

    functions = api.bound("ssl_core.testing.vectors:VECTORS")
    parameters = list(inspect.signature(functions["pretrain"]).parameters)
    assert parameters[:2] == ["recipe", "data"]
    assert functions["pretrain"].__doc__ == api.pretrain.__doc__
    assert functions["build_recipe"](steps=3).train.steps == 3
    for name in ssl_core.__all__:
        assert getattr(ssl_core, name).__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ssl_core.nonsense  # type: ignore[attr-defined]
    assert issubclass(ssl_core.Method, nn.Module)
    assert ssl_core.Features is Features
    assert ssl_core.Loss is Loss
