"""Plans: the ledger's counts in closed form, estimates against real steps, advice, the command."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ssl_core import api, recipe
from ssl_core.batch import Batch
from ssl_core.cli import command_line
from ssl_core.engine.draws import RealDraws
from ssl_core.engine.estimate import estimate, fake_world, strip
from ssl_core.engine.ledger import Ledger
from ssl_core.errors import UserError
from ssl_core.methods.byol import BYOL
from ssl_core.methods.dino import DINO
from ssl_core.methods.mae import MAE
from ssl_core.methods.simclr import SimCLR
from ssl_core.networks.vit import PatchTransformer
from ssl_core.rng import Rng
from ssl_core.runs import hardware
from ssl_core.testing.vectors import VECTORS, MLPEncoder, NoisyViews
from ssl_core.views import View

DIM = 24
SGD = recipe.Optimizer(name="sgd", lr=0.1)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CACHE", str(tmp_path_factory.getbasetemp() / "plan-cache"))


def batch(rows: int, *shape: int) -> Batch:
    ids = torch.arange(rows)
    return Batch(torch.randn(rows, *shape), ids, ids)


def vector_views(method: Any, rows: int) -> list[View]:
    made = batch(rows, DIM)
    return method.views(made, Rng.at(0, 0, made.ids))


class Images:
    def __call__(self, given: Batch, rng: Rng) -> list[View]:
        return [View(given.data, rng.fold("view", i)) for i in range(2)]

    def plain(self, given: Batch) -> Any:
        return given.data


def vit() -> PatchTransformer:
    return PatchTransformer(
        channels=3, sides=(16, 16), patch=(4, 4), dim=32, depth=3, heads=2, dropout=0.1
    )


# The ledger


def test_the_ledger_counts_live_bytes_and_their_peak() -> None:
    with Ledger() as ledger:
        with ledger.within("first"):
            a = torch.zeros(100)
        b = a + 1
        view = b[:10]
        assert ledger.live == {"first": 400, "other": 400}
        del a
        assert ledger.live["first"] == 0
        del b
        assert ledger.live["other"] == 400, "a view keeps its storage"
        del view
        assert sum(ledger.live.values()) == 0
        assert sum(ledger.peak.values()) == 800
        ledger.restart()
        assert sum(ledger.peak.values()) == 0


def test_the_ledger_sees_storages_shrink() -> None:
    with Ledger() as ledger:
        x = torch.zeros(100)
        x.untyped_storage().resize_(0)
        assert sum(ledger.live.values()) == 0
        x.untyped_storage().resize_(40)
        assert sum(ledger.live.values()) == 40


def test_flops_are_those_of_torchs_counter() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    x = torch.randn(2, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    with Ledger() as ledger:
        net(x).sum().backward()
    assert ledger.flops == counter.get_total_flops()


def test_attention_counts_two_products_forward_and_five_backward() -> None:
    q, k, v = (torch.randn(2, 3, 7, 8, requires_grad=True) for _ in range(3))
    one = 2 * 2 * 3 * 7 * 7 * 8
    with Ledger() as ledger:
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        assert ledger.flops == 2 * one
        out.sum().backward()
    assert ledger.flops == 7 * one


def test_traffic_counts_what_is_read_and_written_but_no_views() -> None:
    x = torch.zeros(100)
    with Ledger() as ledger:
        y = x.reshape(10, 10)
        assert ledger.traffic == 0
        y + y
        assert ledger.traffic == 3 * 400


# Tensors without storage


def test_masks_are_real_and_everything_else_is_not() -> None:
    ids = torch.arange(6)
    with FakeTensorMode(allow_non_fake_inputs=True), RealDraws():
        hidden = Rng(ids).uniform("mask", 50) < 0.4
        rows = torch.empty(6, 50, 8)[hidden]
    expected = int((Rng(ids).uniform("mask", 50) < 0.4).sum())
    assert rows.shape == (expected, 8)
    assert type(rows).__name__ == "FakeTensor"


def test_large_draws_have_no_storage() -> None:
    ids = torch.arange(64)
    with FakeTensorMode(allow_non_fake_inputs=True), RealDraws():
        dropped = Rng(ids).uniform("dropout", 2**18)
    assert type(dropped).__name__ == "FakeTensor"


def test_strip_keeps_ties_and_tables() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    net.register_buffer("table", torch.arange(5))
    with FakeTensorMode(allow_non_fake_inputs=True):
        strip(net)
    assert net[1].weight is net[0].weight
    assert net[0].weight is not net[0].bias
    assert net.table.tolist() == [0, 1, 2, 3, 4]


# Estimates


def measured(method: Any, views: list[View], rows: int) -> Ledger:
    """A real forward and backward on tensors that the ledger counts."""
    method.before_step(1, 100)
    with Ledger() as ledger:
        ledger.hold(method.parameters(), "parameters")
        ledger.hold(method.buffers(), "buffers")
        ledger.hold([view.data for view in views], "views")
        ledger.hold([view.rng.key for view in views], "views")
        method(views).total.backward()
    return ledger


@pytest.mark.parametrize("name", ["simclr", "byol", "dino", "mae"])
def test_an_estimate_is_what_a_real_step_holds_and_multiplies(name: str) -> None:
    makers = {
        "simclr": lambda: SimCLR(MLPEncoder({"dim": DIM}), NoisyViews({"dim": DIM}), hidden=64),
        "byol": lambda: BYOL(MLPEncoder({"dim": DIM}), NoisyViews({"dim": DIM}), hidden=64),
        "dino": lambda: DINO(vit(), Images(), hidden=64, bottleneck=16, prototypes=96),
        "mae": lambda: MAE(vit(), Images(), decoder_dim=16, decoder_depth=1, decoder_heads=2),
    }
    rows = 16
    made = batch(rows, DIM) if name in ("simclr", "byol") else batch(rows, 3, 16, 16)
    method = makers[name]().train()
    # Each with memory of its own, as an estimate takes them.
    views = [
        View(view.data.clone(), view.rng, view.role)
        for view in method.views(made, Rng.at(0, 1, made.ids))
    ]
    real = measured(makers[name]().train(), views, rows)
    train = recipe.Train(batch_size=rows)
    few = [View(view.data[:4], view.rng[:4], view.role) for view in views]
    found = estimate(method, few, rows=rows, train=train, optimizer=SGD)
    moments = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    assert found.flops == real.flops
    assert found.kept["optimiser"] == moments, "one moment for each trained number"
    peak = sum(found.peak.values()) - moments
    assert peak == pytest.approx(sum(real.peak.values()), rel=0.01)


def test_recomputing_and_caching_take_less_and_multiply_more() -> None:
    def found(**settings: Any) -> Any:
        train = recipe.Train(batch_size=32, **settings)
        method = SimCLR(vit(), Images(), hidden=32, norm="layer")
        views = method.views(made := batch(4, 3, 16, 16), Rng.at(0, 0, made.ids))
        rows = 32 // train.accumulate
        return estimate(method, views, rows=rows, train=train, optimizer=recipe.Optimizer())

    plain, again, cached = found(), found(checkpointing=True), found(accumulate=4)
    assert again.peak["activations"] < 0.6 * plain.peak["activations"]
    assert 1.2 < again.flops / plain.flops < 4 / 3 + 1e-9
    assert cached.peak["activations"] < 0.5 * plain.peak["activations"]
    assert cached.flops / plain.flops == pytest.approx(4 / 3, rel=0.15)


@pytest.mark.parametrize("world", [4, 64])
def test_sharding_splits_what_stays_and_replicas_keep_their_gradients(world: int) -> None:
    def found(parallel: str) -> Any:
        method = MAE(vit(), Images(), decoder_dim=32, decoder_depth=2, decoder_heads=2)
        views = method.views(made := batch(4, 3, 16, 16), Rng.at(0, 0, made.ids))
        train = recipe.Train(batch_size=4 * world, parallel=parallel)
        adamw = recipe.Optimizer()
        return estimate(method, views, rows=4, train=train, optimizer=adamw, world=world)

    copies, split = found("ddp"), found("fsdp")
    assert copies.kept["gradients"] == copies.kept["parameters"]
    assert copies.kept["optimiser"] == pytest.approx(2 * copies.kept["parameters"], rel=0.01)
    # Rows of a tensor do not always divide.
    assert split.kept["parameters"] < 3 * copies.kept["parameters"] / world + 4096
    assert split.flops == copies.flops
    assert not dist.is_initialized(), "the fake group must be gone"


def test_a_fake_world_refuses_a_real_one(tmp_path: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/x", rank=0, world_size=1)
    try:
        with pytest.raises(UserError, match="without torchrun"), fake_world(2):
            pass
    finally:
        dist.destroy_process_group()


# Plans

SMALL = {"batch_size": 32, "gpu": "h100"}


def test_a_plan_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = api.plan(VECTORS, **SMALL)
    memory = found["memory"]
    assert memory["fits"]
    assert found["advice"] == []
    assert sum(memory["parts"].values()) == memory["total"]
    step, rate = found["step_seconds"], found["samples_per_second"]
    assert 0 < step["low"] <= step["high"]
    assert rate["high"] == pytest.approx(32 / step["low"])
    assert found["loader"]["decoded_mb_per_second"] == pytest.approx(rate["high"] * DIM * 4 / 1e6)
    assert found["parameters"]["frozen"] == 0


def test_a_plan_says_what_to_switch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = hardware.Device("tiny", 1e12, 1e12, 1e11, 7e5, 1e9, reserve=0)
    monkeypatch.setitem(hardware.DEVICES, "tiny", tiny)
    settings = {"method.hidden": 256, "encoder.norm": False}
    found = api.plan(VECTORS, batch_size=512, gpu="tiny", gpus=2, settings=settings)
    assert not found["memory"]["fits"]
    by_key = {next(iter(entry["set"]), ""): entry for entry in found["advice"]}
    assert by_key["train.precision"]["total"] < found["memory"]["total"]
    assert "batch norm" in by_key["train.accumulate"]["refused"]
    assert "batch norm" in by_key["train.parallel"]["refused"]
    assert all(entry["why"] for entry in found["advice"])


def test_wrong_devices_and_batches_are_user_errors() -> None:
    with pytest.raises(UserError, match="did you mean 'h100'"):
        api.plan(VECTORS, gpu="h10")
    with pytest.raises(UserError, match="multiple of 3"):
        api.plan(VECTORS, batch_size=32, gpus=3, gpu="h100")


def test_the_command_prints_a_table_or_json() -> None:
    main = command_line("ssl_core.testing.vectors:VECTORS", name="vectors")
    shown = CliRunner().invoke(main.commands, ["plan", "--gpu", "h200", "--gpus", "4"])
    assert shown.exit_code == 0, shown.output
    for word in ("parameters", "optimiser", "fits into", "GFLOP", "samples/s", "good to 10 MiB"):
        assert word in shown.stdout
    told = CliRunner().invoke(main.commands, ["plan", "--gpu", "cpu", "--json"])
    found = json.loads(told.stdout)
    assert found["gpu"]["name"] == "cpu"
    assert found["memory"]["parts"]["cache"] > 0
