"""What is verified: every objective on a small batch that replicas can share out.

The batch goes through one shared linear map, whose gradient is compared: averaged over replicas
that hold some rows each, it must be the gradient of one process that holds them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core import objectives as o
from ssl_core.objectives.tiles import KEPT, TILE

BATCH, TOKENS, DIM = 8, 4, 5


@dataclass
class Rows:
    """What a replica sees of the batch; `a`, `b` `[b, T, D]` are two views behind the map.

    `hidden` bool and `ids` int64 `[b, T]`, `labels` int64 `[b]`, `friends` `[b, BATCH]` weights of
    positives, `map` `[D, D]` the map itself, for what else is learned (a scale). The properties
    are the parts that objectives of vectors take, `[b, D]` each.
    """

    a: Tensor
    b: Tensor
    hidden: Tensor
    ids: Tensor
    labels: Tensor
    friends: Tensor
    map: Tensor

    @property
    def x(self) -> Tensor:
        return self.a[:, 0]

    @property
    def y(self) -> Tensor:
        return self.b[:, 0]

    @property
    def crops(self) -> list[Tensor]:
        return list(self.a.unbind(1))

    @property
    def taught(self) -> list[Tensor]:
        return list(self.b.unbind(1))[:2]


class Case(NamedTuple):
    """An objective in one of its forms.

    `kind` says what `call` returns: a loss; or, without gradient, values of each row ("rows") or
    a state that all replicas share ("state").
    """

    objective: str
    form: str
    call: Callable[[Rows], Tensor]
    kind: Literal["loss", "rows", "state"] = "loss"

    @property
    def name(self) -> str:
        return f"{self.objective}: {self.form}" if self.form else self.objective


def _matched(r: Rows, group: int) -> Tensor:
    """Graph matching of the batch cut into groups that no replica's share cuts through."""
    x, y = (rows.unflatten(0, (-1, group)) for rows in (r.x, r.y))
    return o.graph_matching(x, y, o.neighbours(x, 1), o.neighbours(y, 1))


def bank(rows: int, *, seed: int = 5) -> Tensor:
    """Fixed rows `[rows, DIM]` that every replica has: a queue, prototypes, directions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, DIM, generator=generator, dtype=torch.float64)


def whole_batch() -> tuple[Tensor, Rows]:
    """The shared map `[D, D]` and the batch before it; replicas hide unequal numbers of tokens."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    a, b = torch.randn(2, BATCH, TOKENS, DIM, generator=generator, dtype=torch.float64)
    hidden = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    hidden[0, :2] = hidden[3:, 1:3] = hidden[5, 0] = True
    ids = torch.arange(BATCH * TOKENS).reshape(BATCH, TOKENS) % DIM
    labels = torch.tensor([0, 1, 2, 0, 1, 3, 0, 2])
    friends = torch.rand(BATCH, BATCH, generator=generator, dtype=torch.float64)
    return weight, Rows(a, b, hidden, ids, labels, friends * (friends > 0.5), weight)


def measure(case: Case, rows: slice) -> tuple[Tensor, Tensor]:
    """The value of a case on these rows, and the map's gradient (zeros unless it is a loss)."""
    weight, whole = whole_batch()
    weight.requires_grad_(case.kind == "loss")
    seen = Rows(
        whole.a[rows] @ weight,
        whole.b[rows] @ weight,
        whole.hidden[rows],
        whole.ids[rows],
        whole.labels[rows],
        whole.friends[rows],
        weight,
    )
    value = case.call(seen)
    if case.kind != "loss":
        return value.detach(), torch.zeros_like(weight)
    (grad,) = torch.autograd.grad(value, weight)
    return value.detach(), grad


def _in_small_tiles(call: Callable[[Rows], Tensor]) -> Callable[[Rows], Tensor]:
    """The same with tiles so small that even this batch takes several."""

    def run(r: Rows) -> Tensor:
        with patch.dict(TILE, cpu=(2, 3)), patch.dict(KEPT, cpu=0):
            return call(r)

    return run


def _hard(r: Rows) -> Tensor:
    pool = bank(6)[o.hardest(r.x, bank(6), count=3)]
    none = torch.zeros(len(pool), 0)
    pairs = torch.tensor([[0, 1]]).expand(len(pool), 2)
    half = torch.full((len(pool), 2), 0.5, dtype=torch.float64)
    mixed = o.mix_negatives(r.x, pool, o.Mixing(pairs, pairs.flip(1), half, none.long(), none))
    return o.moco(r.x, r.y, bank(6), hard=mixed)


def _norm(r: Rows) -> Tensor:
    return o.memory_log_norm(r.x, r.y, bank(6), size=40, temperature=0.5)


def _swav(r: Rows) -> Tensor:
    return o.swav(r.crops, [o.sinkhorn(t, temperature=0.5) for t in r.taught])


def _fused(r: Rows) -> Tensor:
    w = bank(7)
    return o.dino([o.Scores(s, w) for s in r.crops], [o.Scores(t, w) for t in r.taught])


def _patches(r: Rows, mean: Literal["image", "token"]) -> Tensor:
    return o.ibot_patches(r.a[r.hidden], r.b[r.hidden], r.hidden, mean=mean)


def _tico(r: Rows) -> Tensor:
    return o.tico(r.x, r.y, o.RunningCovariance(DIM).double().blended(r.x))


def _w_mse(r: Rows) -> Tensor:
    order = torch.stack([torch.arange(BATCH), torch.arange(BATCH).flip(0)])
    return o.w_mse(r.x[:, :2], r.y[:, :2], size=4, order=order)


def _vicregl(r: Rows) -> Tensor:
    where = torch.arange(TOKENS * 2.0).reshape(1, TOKENS, 2).double().expand(len(r.a), -1, -1)
    return o.vicregl([r.x, r.y], [r.a, r.b], [where, where + 0.3], matches=(3, 2))


def _paws(r: Rows) -> Tensor:
    labels = F.one_hot(r.labels, 4).double()
    return sum(o.paws_parts([r.x, r.y], [r.y, r.x], r.a[:, 1], labels).values(), r.x.new_zeros(()))


def _centre(r: Rows) -> Tensor:
    centering = o.Centering(DIM).double()
    centering.update(r.x.mean(0))
    return centering.center


_COLUMNS = torch.full((DIM, 3), 0.5, dtype=torch.float64).tril()

CASES: tuple[Case, ...] = (
    Case("nt_xent", "", lambda r: o.nt_xent(r.x, r.y)),
    Case("nt_xent", "in small tiles", _in_small_tiles(lambda r: o.nt_xent(r.x, r.y))),
    Case(
        "nt_xent",
        "decoupled, in small tiles",
        _in_small_tiles(lambda r: o.nt_xent(*r.crops[:3], decoupled=True)),
    ),
    Case("nt_xent", "very cold", lambda r: o.nt_xent(r.x, r.y, temperature=0.002)),
    Case("nt_xent", "three views", lambda r: o.nt_xent(*r.crops[:3])),
    Case("nt_xent", "decoupled", lambda r: o.nt_xent(r.x, r.y, decoupled=True)),
    Case(
        "nt_xent",
        "weighted",
        lambda r: o.nt_xent(r.x, r.y, decoupled=True, weight_sigma=0.5, weight_gradient=True),
    ),
    Case("info_nce", "", lambda r: o.info_nce(r.x, r.y)),
    Case(
        "info_nce",
        "decoupled, weighted, in small tiles",
        _in_small_tiles(lambda r: o.info_nce(r.x, r.y, decoupled=True, weights=r.friends.sum(1))),
    ),
    Case("info_nce", "very cold", lambda r: o.info_nce(r.x, r.y, temperature=0.002)),
    Case(
        "info_nce",
        "one way, decoupled",
        lambda r: o.info_nce(r.x, r.y.detach(), symmetric=False, decoupled=True),
    ),
    Case(
        "info_nce",
        "batch and memory, weighted",
        lambda r: o.info_nce(
            r.x, r.y, symmetric=False, negatives=bank(6), weights=r.friends.sum(1)
        ),
    ),
    Case("moco", "", lambda r: o.moco(r.x, r.y, bank(6))),
    Case("moco", "mixed negatives", _hard),
    Case(
        "memory_nce",
        "with its normaliser",
        lambda r: o.memory_nce(r.x, r.y, bank(6), _norm(r), size=40, temperature=0.5),
    ),
    Case("memory_log_norm", "", _norm, "state"),
    Case("moco_v3", "", lambda r: o.moco_v3(r.x, r.y, *r.taught)),
    Case(
        "nnclr",
        "",
        lambda r: o.nnclr(r.x, r.y, o.nearest(r.a[:, 1], bank(6)), o.nearest(r.y, bank(6))),
    ),
    Case("sup_con", "labels", lambda r: o.sup_con(r.x, r.y, labels=r.labels)),
    Case("sup_con", "weights", lambda r: o.sup_con(r.x, r.y, positives=r.friends)),
    Case("clip", "", lambda r: o.clip(r.x, r.y, r.map.mean())),
    Case("siglip", "", lambda r: o.siglip(r.x, r.y, r.map.mean(), r.map[0, 0])),
    Case("triplet", "hardest", lambda r: o.triplet(r.x, r.y, select="hardest")),
    Case("triplet", "semi-hard", lambda r: o.triplet(r.x, r.y, labels=r.labels)),
    Case("triplet", "median", lambda r: o.triplet(r.x, r.y, select="median")),
    Case("triplet", "band", lambda r: o.triplet(r.x, r.y, select="band", band=(1, 4))),
    Case("triplet", "all", lambda r: o.triplet(r.x, r.y, select="all", labels=r.labels)),
    Case("margin_contrastive", "", lambda r: o.margin_contrastive(r.x, r.y)),
    Case("graph_matching", "groups of 2", lambda r: _matched(r, 2)),
    Case("barlow_twins", "", lambda r: o.barlow_twins(r.x, r.y)),
    Case("barlow_twins", "wide", lambda r: o.barlow_twins(r.a.flatten(1), r.b.flatten(1))),
    Case("cca_ssg", "", lambda r: o.cca_ssg(r.x, r.y)),
    Case("vicreg", "", lambda r: o.vicreg(r.x, r.y)),
    Case("vicreg", "wide", lambda r: o.vicreg(r.a.flatten(1), r.b.flatten(1))),
    Case("vicreg", "places", lambda r: o.vicreg(r.a, r.b)),
    Case("variance_hinge", "", lambda r: o.variance_hinge(r.x, target=3.0)),
    Case("covariance_penalty", "", lambda r: o.covariance_penalty(r.x)),
    Case("vicregl", "", _vicregl),
    Case("w_mse", "", _w_mse),
    Case("tico", "", _tico),
    Case("sigreg", "", lambda r: o.sigreg(r.a.movedim(1, 0), _COLUMNS)),
    Case("lejepa", "", lambda r: o.lejepa(r.crops, _COLUMNS, global_views=2)),
    Case("koleo", "", lambda r: o.koleo(r.x)),
    Case("spectrum_flatness", "", lambda r: o.spectrum_flatness(r.x)),
    Case("spectrum_flatness", "wide", lambda r: o.spectrum_flatness(r.a.flatten(1))),
    Case("me_max", "", lambda r: o.me_max(r.x.softmax(1))),
    Case("byol", "", lambda r: o.byol(r.x, r.y, *r.taught)),
    Case("negative_cosine", "", lambda r: o.negative_cosine(r.a, r.b)),
    Case("mse", "", lambda r: o.mse(r.a, r.b)),
    Case("smooth_l1", "", lambda r: o.smooth_l1(r.a, r.b)),
    Case("scaled_cosine", "", lambda r: o.scaled_cosine(r.a, r.b, weight=r.hidden)),
    Case("soft_cross_entropy", "", lambda r: o.soft_cross_entropy(r.a, r.b.softmax(-1))),
    Case("dino", "", lambda r: o.dino(r.crops, r.taught)),
    Case("dino", "with prototypes inside", _fused),
    Case("swav", "", _swav),
    Case("ibot_patches", "by image", lambda r: _patches(r, "image")),
    Case("ibot_patches", "by token", lambda r: _patches(r, "token")),
    Case("msn", "", lambda r: o.msn([r.x, r.y], r.a[:, 1], bank(6), sinkhorn_iterations=3)),
    Case("paws", "", _paws),
    Case("ressl", "", lambda r: o.ressl(r.x, r.y, bank(6))),
    Case("seed", "", lambda r: o.seed(r.x, r.y, bank(6), teacher_temperature=0.1)),
    Case("masked_pixels", "", lambda r: o.masked_pixels(r.a, r.b, r)),
    Case("masked_l1", "", lambda r: o.masked_l1(r.a, r.b, r)),
    Case("masked_smooth_l1", "", lambda r: o.masked_smooth_l1(r.a, r.b, r)),
    Case(
        "masked_token_cross_entropy",
        "",
        lambda r: o.masked_token_cross_entropy(r.a, r.ids, r),
    ),
    Case(
        "pretext_cross_entropy",
        "",
        lambda r: o.pretext_cross_entropy(r.a, torch.where(r.hidden, r.ids, -1)),
    ),
    Case("bce", "", lambda r: o.bce(r.x, r.y, positive_weight=r.x.detach() > 0)),
    Case("jsd", "", lambda r: o.jsd(r.x, r.y)),
    Case("sinkhorn", "", lambda r: o.sinkhorn(r.x, temperature=0.5), "rows"),
    Case("Centering", "", _centre, "state"),
    Case(
        "RunningCovariance",
        "",
        lambda r: o.RunningCovariance(DIM).double().blended(r.x),
        "state",
    ),
)
