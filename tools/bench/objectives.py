"""Objectives, EMA and optimisers: ours against lightly, solo-learn's formulas and torch.

    uv run --group peers python tools/bench/objectives.py [--rounds 5] [--cases ntxent4096 ...]

One thread; all candidates take their turn in every round, and the figure is CPU milliseconds of a
forward and backward pass (or of one update), the median over rounds, so that neighbours on the
machine weigh on none of them. Extra memory is the growth of the resident set during one call, each
in a process of its own. solo-learn is no package of a registry: its formulas are written out here.
Memory comes as glibc and torch hand it out in any program; `--huge-pages` gives large blocks such
pages, as our commands do, which helps the peers most.
"""

from __future__ import annotations

import os

# Any program may call these: malloc stays as glibc has it.
os.environ.setdefault("GLIBC_TUNABLES", "")

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from resident import MIB, answer, apart, grown, start_counting
from torch import Tensor, nn

from ssl_core import objectives as ours
from ssl_core import recipe

Call = Callable[[], Any]


class Case(NamedTuple):
    """Candidates by name ("ours" among them), the goal and whether memory is compared."""

    make: Callable[[], dict[str, Callable[[], Call]]]
    goal: str
    memory: bool = False


def leaves(count: int, *shape: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(*shape, generator=generator) * scale).requires_grad_() for _ in range(count)
    ]


def both(loss: Callable[..., Tensor], *inputs: Tensor) -> Call:
    """Forward and backward of a loss."""
    return lambda: torch.autograd.grad(loss(*inputs), inputs)


# solo-learn's formulas


def solo_simclr(z0: Tensor, z1: Tensor, temperature: float = 0.1) -> Tensor:
    """exp of all similarities, masks of positives and negatives."""
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    ids = torch.arange(len(z0)).repeat(2)
    similar = torch.exp(torch.einsum("if, jf -> ij", z, z) / temperature)
    same = ids.unsqueeze(1) == ids.unsqueeze(0)
    positive = same.clone().fill_diagonal_(0)
    top = torch.sum(similar * positive, 1)
    rest = torch.sum(similar * ~same, 1)
    return -torch.mean(torch.log(top / (top + rest)))


def plain_cross_entropy(z0: Tensor, z1: Tensor, temperature: float = 0.1) -> Tensor:
    """One N x N matrix and torch's cross-entropy."""
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    half = torch.arange(len(z0))
    return F.cross_entropy(logits, torch.cat([half + len(z0), half]))


def plain_clip(x: Tensor, y: Tensor, log_scale: Tensor) -> Tensor:
    """open_clip's form: one matrix, two cross-entropies."""
    logits = log_scale.exp() * F.normalize(x, dim=1) @ F.normalize(y, dim=1).T
    ids = torch.arange(len(x))
    return (F.cross_entropy(logits, ids) + F.cross_entropy(logits.T, ids)) / 2


def solo_barlow(z0: Tensor, z1: Tensor, lambd: float = 5e-3) -> Tensor:
    """The cross-correlation and a masked copy of it."""
    count, dim = z0.shape
    a, b = (F.batch_norm(z, None, None, training=True) for z in (z0, z1))
    corr = torch.einsum("bi, bj -> ij", a, b) / count
    diagonal = torch.eye(dim)
    difference = (corr - diagonal).pow(2)
    difference = torch.where(diagonal.bool(), difference, difference * lambd)
    return difference.sum()


def solo_vicreg(z0: Tensor, z1: Tensor) -> Tensor:
    """Two covariances with their diagonals masked."""
    count, dim = z0.shape
    off = ~torch.eye(dim, dtype=torch.bool)
    total = 25 * F.mse_loss(z0, z1)
    for z in (z0, z1):
        total = total + 25 * F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()
        centred = z - z.mean(0)
        total = total + (centred.T @ centred / (count - 1))[off].pow(2).sum() / dim
    return total


def loop_dino(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """The original's loop over pairs (solo-learn alike)."""
    targets = [(t / 0.04).softmax(-1).detach() for t in teacher]
    total, pairs = torch.zeros(()), 0
    for q, target in enumerate(targets):
        for v, s in enumerate(student):
            if v != q:
                total = total + torch.sum(-target * F.log_softmax(s / 0.1, dim=-1), dim=-1).mean()
                pairs += 1
    return total / pairs


# cases


def ntxent(batch: int, dim: int = 128) -> dict[str, Callable[[], Call]]:
    z = leaves(2, batch, dim)

    def lightly() -> Call:
        from lightly.loss import NTXentLoss

        return both(NTXentLoss(temperature=0.1), *z)

    return {
        "ours": lambda: both(ours.nt_xent, *z),
        "lightly": lightly,
        "solo-learn's formula": lambda: both(solo_simclr, *z),
        "plain cross-entropy": lambda: both(plain_cross_entropy, *z),
    }


def clip(batch: int, dim: int = 128) -> dict[str, Callable[[], Call]]:
    x, y = leaves(2, batch, dim)
    scale = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    return {
        "ours": lambda: both(ours.clip, x, y, scale),
        "plain (open_clip's form)": lambda: both(plain_clip, x, y, scale),
    }


def redundancy(name: str, dim: int) -> dict[str, Callable[[], Call]]:
    z = leaves(2, 256, dim)

    def lightly() -> Call:
        from lightly import loss

        return both({"barlow": loss.BarlowTwinsLoss, "vicreg": loss.VICRegLoss}[name](), *z)

    mine = {"barlow": ours.barlow_twins, "vicreg": ours.vicreg}[name]
    solo = {"barlow": solo_barlow, "vicreg": solo_vicreg}[name]
    return {
        "ours": lambda: both(mine, *z),
        "lightly": lightly,
        "solo-learn's formula": lambda: both(solo, *z),
    }


def dino(classes: int) -> dict[str, Callable[[], Call]]:
    student = leaves(10, 64, classes)
    teacher = [t.detach() for t in leaves(2, 64, classes)]

    def lightly() -> Call:
        from lightly.loss import DINOLoss

        reference = DINOLoss(output_dim=classes, warmup_teacher_temp_epochs=1)
        return both(lambda *s: reference(teacher, list(s), teacher_temp=0.04), *student)

    return {
        "ours": lambda: both(lambda *s: ours.dino(list(s), teacher), *student),
        "lightly": lightly,
        "original's loop": lambda: both(lambda *s: loop_dino(list(s), teacher), *student),
    }


def dino_layer(classes: int) -> dict[str, Callable[[], Call]]:
    """With the last layer 256 -> K: the product inside against outside."""
    features = leaves(10, 64, 256, scale=1 / 16)
    weight = leaves(1, classes, 256)[0]
    taught = [t.detach() for t in leaves(2, 64, 256, scale=1 / 16)]

    def inside(w: Tensor, *f: Tensor) -> Tensor:
        student = [ours.Scores(x, w) for x in f]
        return ours.dino(student, [ours.Scores(t, w.detach()) for t in taught])

    def outside(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda w, *f: loss([x @ w.T for x in f], [t @ w.T.detach() for t in taught])

    return {
        "ours": lambda: both(inside, weight, *features),
        "linear, then ours": lambda: both(outside(ours.dino), weight, *features),
        "linear, then the original's loop": lambda: both(outside(loop_dino), weight, *features),
    }


def sinkhorn(rows: int, prototypes: int) -> dict[str, Callable[[], Call]]:
    generator = torch.Generator().manual_seed(0)
    scores = F.normalize(torch.randn(rows, 128, generator=generator), dim=1)
    scores = scores @ F.normalize(torch.randn(prototypes, 128, generator=generator), dim=1).T
    buffer = torch.zeros_like(scores)  # touched: its pages are there
    ours.sinkhorn(scores[:2])  # numba is loaded, 45 MiB, before the count

    def lightly() -> Call:
        from lightly.loss.swav_loss import sinkhorn as reference

        return lambda: reference(scores)

    return {
        "ours": lambda: lambda: ours.sinkhorn(scores, out=buffer),
        "ours, fresh memory": lambda: lambda: ours.sinkhorn(scores),
        "lightly": lightly,
    }


def network(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def ema(name: str) -> dict[str, Callable[[], Call]]:
    from ssl_core.networks.teacher import Teacher

    student = network(name)
    owner = nn.Module()
    owner.encoder = student
    teacher, finite = Teacher(encoder=student), torch.tensor(True)

    def lightly() -> Call:
        from lightly.models.utils import update_momentum

        other = copy.deepcopy(student)
        return lambda: update_momentum(student, other, m=0.99)

    def flat() -> Call:
        """The speed of memory: as many numbers in one array."""
        count = sum(p.numel() for p in student.parameters())
        old, new = torch.zeros(count), torch.ones(count)
        return lambda: old.lerp_(new, 0.01)

    return {
        "ours": lambda: lambda: teacher.update(owner, 0.99, finite),
        "lightly": lightly,
        "one flat array": flat,
    }


def optimizer(name: str, kind: str) -> dict[str, Callable[[], Call]]:
    from ssl_core.engine.optim import build_optimizer

    def stepping(make: Callable[[nn.Module], Any]) -> Callable[[], Call]:
        def prepare() -> Call:
            model = network(name)
            for p in model.parameters():
                p.grad = torch.full_like(p, 1e-3)
            return make(model).step  # type: ignore[no-any-return]

        return prepare

    config = recipe.Optimizer(name=kind, lr=1e-3, weight_decay=1e-4)  # type: ignore[arg-type]

    def lightly(model: nn.Module) -> Any:
        from lightly.utils.lars import LARS

        return LARS(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    peers: dict[str, Callable[[nn.Module], Any]] = {
        "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4),
        "lars": lightly,
    }
    title = {"adamw": "torch's default", "lars": "lightly"}[kind]
    return {
        "ours": stepping(lambda model: build_optimizer(model, config)),
        title: stepping(peers[kind]),
    }


CASES: dict[str, Case] = {
    "ntxent1024": Case(lambda: ntxent(1024), "time >= 3", memory=True),
    "ntxent4096": Case(lambda: ntxent(4096), "time >= 5, memory >= 25", memory=True),
    "ntxent65536": Case(
        lambda: {"ours": ntxent(65536)["ours"]}, "extra memory <= 1024 MiB", memory=True
    ),
    "clip4096": Case(lambda: clip(4096), "", memory=True),
    "barlow2048": Case(lambda: redundancy("barlow", 2048), "time >= 4", memory=True),
    "barlow8192": Case(lambda: redundancy("barlow", 8192), "time >= 25", memory=True),
    "vicreg2048": Case(lambda: redundancy("vicreg", 2048), "time >= 15", memory=True),
    "vicreg8192": Case(lambda: redundancy("vicreg", 8192), "time >= 50", memory=True),
    "dino65536": Case(lambda: dino(65536), "time >= 2.8, memory >= 3.3", memory=True),
    "dino_layer65536": Case(lambda: dino_layer(65536), "", memory=True),
    "sinkhorn4096": Case(lambda: sinkhorn(4096, 3000), "time >= 3", memory=True),
    "sinkhorn256": Case(lambda: sinkhorn(256, 3000), ""),
    "ema_resnet50": Case(lambda: ema("resnet50"), "time >= 1.8"),
    "ema_vit_tiny": Case(lambda: ema("vit_tiny_patch16_224"), "time >= 1.8"),
    "adamw_resnet50": Case(lambda: optimizer("resnet50", "adamw"), "time >= 2.5"),
    "adamw_vit_tiny": Case(lambda: optimizer("vit_tiny_patch16_224", "adamw"), "time >= 2.5"),
    "lars_resnet50": Case(lambda: optimizer("resnet50", "lars"), "time >= 1.6"),
}
SLOW = {"ntxent65536"}


def measure(candidates: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of a call of each, taken in turn."""
    spent: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            began = time.process_time()
            run()
            if number or not rounds:  # the first round warms up, unless it is the only one
                spent[name].append(1000 * (time.process_time() - began))
    return {name: statistics.median(values) for name, values in spent.items()}


def peak(case: str, candidate: str) -> float:
    """Growth of the resident set in MiB during one call, measured in a fresh process."""
    return float(apart(__file__, ["--peak", case, candidate]))


def peak_here(case: str, candidate: str) -> None:
    """Prints that growth."""
    run = CASES[case].make()[candidate]()
    before = start_counting()
    run()
    answer(grown(before) / MIB)


def rows(case: str, rounds: int) -> Iterator[str]:
    """The table's lines of one case."""
    found = CASES[case]
    prepared = {name: make() for name, make in found.make().items()}
    times = measure(prepared, 0 if case in SLOW else rounds)
    del prepared
    peaks = {name: peak(case, name) for name in times} if found.memory else {}
    for name, spent in times.items():
        memory = f"{peaks[name]:.0f}" if peaks else ""
        ratio = less = ""
        if name != "ours":
            ratio = f"{spent / times['ours']:.1f} x"
            less = f"{peaks[name] / max(peaks['ours'], 1):.1f} x" if peaks else ""
        goal = found.goal if name == "ours" else ""
        yield f"| {case} | {name} | {spent:.1f} | {ratio} | {memory} | {less} | {goal} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--huge-pages", action="store_true", help="for large blocks, by torch")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.huge_pages:  # torch asks when it first allocates
        os.environ.pop("THP_MEM_ALLOC_ENABLE", None)
    warnings.simplefilter("ignore")  # of the peers
    if given.peak:
        peak_here(*given.peak)
        return
    print(
        "| case | candidate | CPU ms | ours is faster by | extra MiB | ours is smaller by | goal |"
    )
    print("|---|---|---|---|---|---|---|")
    for case in given.cases:
        for line in rows(case, given.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
