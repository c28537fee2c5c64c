"""The gradient cache gives the gradient of the whole batch, to rounding in float64.

The file is also the program its two ranks run: `python test_gradient_cache.py RANK FOLDER`.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.distributed import all_mean, rank, world_size
from ssl_core.encoder import Features
from ssl_core.engine.gradient_cache import GradientCache
from ssl_core.engine.gradients import Accumulation
from ssl_core.engine.parallelize import parallelize
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.methods.dino import DINO
from ssl_core.methods.joint import Joint
from ssl_core.methods.simclr import SimCLR
from ssl_core.networks.dropout import KeyedDropout
from ssl_core.objectives import nt_xent
from ssl_core.testing.vectors import MLPEncoder, NoisyViews

SPEC = {"dim": 12}
ROWS = 16


class DropoutEncoder(nn.Module):
    """Keyed dropout of ours, so that two forwards agree only if the keys do."""

    embed_dim = 10

    def __init__(self, dropout=None):
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.dropout = KeyedDropout(0.4, stream="test") if dropout is None else dropout
        self.second = nn.Linear(20, 10)

    def forward(self, data):
        return Features(self.second(self.dropout(self.first(data).relu())))


@dataclass
class Pair:
    first: torch.Tensor
    second: torch.Tensor
    note: str = "kept"


class Learned(Method):
    """A parameter inside the loss, an integer among the representations, a dataclass around."""

    def __init__(self, encoder, views):
        super().__init__(encoder, views)
        self.head = nn.Linear(10, 6)
        self.log_scale = nn.Parameter(torch.tensor(0.3))

    def encode(self, views):
        first, second = (self.head(f.pooled) for f in self.features(views))
        return {"pair": Pair(first, second), "sign": (first[:, :1] > 0).long()}

    def loss(self, reps):
        pair, sign = reps["pair"], reps["sign"]
        assert pair.note == "kept"
        weighted = self.log_scale.exp() * pair.first * (1 + sign)
        gap = all_mean((weighted - pair.second).mean(0)).square().sum()
        return Loss.of({"contrast": nt_xent(weighted, pair.second), "gap": gap})


def build(name, encoder=None):
    torch.manual_seed(2)
    encoder = DropoutEncoder() if encoder is None else encoder
    views = NoisyViews(SPEC)
    simclr = SimCLR(encoder, views, hidden=14, dim=6, norm="layer")
    dino = DINO(encoder, views, hidden=14, bottleneck=6, prototypes=9, freeze_last=0)
    makers = {
        "simclr": lambda: simclr,
        "dino": lambda: dino,
        "joint": lambda: Joint(encoder, views, members={"a": (0.5, simclr), "b": (1.0, dino)}),
        "learned": lambda: Learned(encoder, views),
    }
    return makers[name]().double().train()


def gradients(name, accumulate, encoder=None):
    """The loss and every gradient of one step, on all ranks' rows."""
    method = build(name, encoder)
    method.before_step(3, 10)
    train = recipe.Train(batch_size=ROWS, accumulate=accumulate)
    maker = GradientCache if accumulate > 1 else Accumulation
    model = parallelize(method, train, recipe.Optimizer(), torch.device("cpu"))
    compute = maker(model, method, train)
    data = torch.randn(ROWS, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    own = torch.arange(ROWS).chunk(world_size())[rank()]
    batches = iter([Batch(data[i], i + 100, i) for i in own.chunk(accumulate)])
    loss, waited = compute(batches, 3)
    assert waited >= 0
    found = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
    return {"loss": all_mean(loss.total.detach()), **found}


NAMES = ["simclr", "dino", "joint", "learned"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("accumulate", [2, 8])
def test_equals_the_whole_batch(name, accumulate):
    whole, parts = gradients(name, 1), gradients(name, accumulate)
    assert set(whole) == set(parts)
    for key, grad in whole.items():
        torch.testing.assert_close(parts[key], grad, rtol=1e-12, atol=1e-12, msg=key)
    assert max(float(grad.abs().max()) for grad in whole.values()) > 1e-3


def test_dropout_of_other_libraries_is_repeated():
    """Stock dropout draws from torch's generator: both passes must start it from the same seed."""
    seen = []

    class Recording(nn.Dropout):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.detach().clone())
            return out

    gradients("simclr", 4, DropoutEncoder(Recording(0.5)))
    assert len(seen) == 8
    for first, second in zip(seen[:4], seen[4:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(seen[0], seen[1])


def test_two_ranks_equal_one_process(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    children = [
        subprocess.Popen([*command, str(r), str(tmp_path)], env=env, stderr=subprocess.PIPE)
        for r in (0, 1)
    ]
    for child in children:
        _, errors = child.communicate(timeout=240)
        assert child.returncode == 0, errors.decode()[-3000:]
    for name in NAMES:
        whole = gradients(name, 1)
        for r in (0, 1):
            found = load_file(tmp_path / f"{name}-{r}.safetensors")
            assert set(found) == set(whole)
            for key, grad in whole.items():
                torch.testing.assert_close(found[key], grad, rtol=1e-12, atol=1e-12, msg=key)


def test_batch_statistics_are_refused():
    method = SimCLR(MLPEncoder(SPEC), NoisyViews(SPEC), hidden=8, dim=4, norm="layer")
    with pytest.raises(UserError, match=r"accumulate=4: SimCLR has batch norm \(encoder.net.1\)"):
        GradientCache(method, method, recipe.Train(accumulate=4))


def test_representations_that_are_not_one_row_a_sample_are_refused():
    class Stacked(SimCLR):
        def encode(self, views):
            return [torch.cat(super().encode(views))]

    method = Stacked(DropoutEncoder(), NoisyViews(SPEC), hidden=8, dim=4, norm="layer")
    compute = GradientCache(method, method, recipe.Train(accumulate=2))
    data, ids = torch.randn(4, 12), torch.arange(4)
    with pytest.raises(UserError, match=r"\(8, 4\) for 4 samples"):
        compute(iter([Batch(data, ids, ids)] * 2), 0)


def main(number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=init, rank=number, world_size=2)
    for name in NAMES:
        found = gradients(name, 4)
        save_file(
            {k: v.contiguous() for k, v in found.items()}, folder / f"{name}-{number}.safetensors"
        )
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
