"""Global and local contrast for scans (Chaitanya et al., NeurIPS 2020).

    l(a, b) = -log exp(cos(a, b)/t) / (exp(cos(a, b)/t) + sum_{n in N} exp(cos(a, n)/t))

Global, over slices: N are all slices of the *other partitions* of any scan. Positives are the
versions of a slice (`positives="versions"`, G^D-), or besides slices of one partition in different
scans in the same version (`"partitions"`, G^D), both directions; sums are divided by the rows. The
release walks every pair of G^D twice: its value is twice this one.
Local (L^R): regions of a dense map against their neighbours in both versions.

The paper trains in two stages, the encoder frozen in the second: `stage="global"` and then
`stage="local"` from its weights; "both" adds the losses. Negatives of a region are the five others
nearest to it, where the release lists them by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import gather
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy
from ssl_medical.encoders.resnet_nano import CONV
from ssl_medical.encoders.unet_nano import DenseHead, axes_of

Positives = Literal["versions", "partitions"]
Reps = list[dict[str, Tensor]]
_REGION = 3


class GlobalLocal(Method):
    """An encoder with a projector on pooled features and one on its dense map."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        stage: Literal["global", "local", "both"] = "both",
        positives: Positives = "partitions",
        hidden: int = 1024,
        dim: int = 128,
        local_dim: int = 32,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(encoder, views)
        if stage not in ("global", "local", "both"):
            raise ValueError(f"stage must be global, local or both, got {stage!r}")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.stage, self.positives, self.temperature = stage, positives, temperature
        if stage != "local":
            self.projector = MLPHead(width, dim, hidden=hidden, norm="none", last_bias=False)
        if stage != "global":
            axes = axes_of(encoder)
            self.dense = DenseHead(encoder, dim=local_dim)
            wide = self.dense.dense_dim
            self.local = nn.Sequential(
                CONV[axes](wide, wide, 1), nn.ReLU(), CONV[axes](wide, local_dim, 1)
            )
        if stage == "local":
            # What climbs from the maps learns; what made them does not.
            getattr(encoder, "down", encoder).requires_grad_(False)

    def encode(self, views: Sequence[View]) -> Reps:
        return [self._rep(view) for view in views]

    def _rep(self, view: View) -> dict[str, Tensor]:
        out = {"partition": view.params["partition"]}
        with dropout_keys(view.rng):
            if self.stage == "global":
                features = self.encoder(view.data)
            else:
                features, dense = self.dense(self.encoder, view.data)
                out["map"] = self.local(dense)
        self.monitored = features.pooled.detach()
        if self.stage != "local":
            out["z"] = self.projector(features.pooled)
        return out

    def loss(self, reps: Reps) -> Loss:
        parts: dict[str, Tensor] = {}
        if self.stage != "local":
            z = torch.stack([rep["z"] for rep in reps])
            parts["global"] = partition_contrast(
                z, reps[0]["partition"], positives=self.positives, temperature=self.temperature
            )
        if self.stage != "global":
            pairs = [
                region_contrast(a["map"], b["map"], temperature=self.temperature)
                for a, b in itertools.combinations(reps, 2)
            ]
            parts["local"] = torch.stack(pairs).mean()
        return Loss.of(parts)


@full_precision
def partition_contrast(
    z: Tensor, partition: Tensor, *, positives: Positives = "versions", temperature: float = 0.1
) -> Tensor:
    """G^D- or G^D of `z` `[V, B, D]`, V versions of B slices in `partition` (int64 `[B]`).

    The mean over rows of the sum over their positives. With all slices in one partition there are
    no negatives and the loss is 0. Batches of all replicas are compared.
    """
    if positives not in ("versions", "partitions"):
        raise ValueError(f"positives must be versions or partitions, got {positives!r}")
    versions, count, _ = z.shape
    every = torch.stack([gather(part) for part in F.normalize(z, dim=-1)])  # [V, N, D]
    parts = gather(partition)
    first = _offset(count, len(parts))
    logits = (F.normalize(z, dim=-1).flatten(0, 1) @ every.flatten(0, 1).T) / temperature
    rows = torch.arange(first, first + count, device=z.device).repeat(versions)
    columns = torch.arange(len(parts), device=z.device).repeat(versions)
    mine = torch.arange(versions, device=z.device).repeat_interleave(count)
    theirs = torch.arange(versions, device=z.device).repeat_interleave(len(parts))
    same_part = parts[rows][:, None] == parts[columns][None]
    same_slice = rows[:, None] == columns[None]
    same_version = mine[:, None] == theirs[None]
    wanted = same_slice & ~same_version
    if positives == "partitions":
        wanted = wanted | (same_part & ~same_slice & same_version)
    against = torch.where(same_part, float("-inf"), logits).logsumexp(1, keepdim=True)
    each = torch.logaddexp(logits, against) - logits
    return torch.where(wanted, each, 0.0).sum() / len(logits)


def _offset(count: int, total: int) -> int:
    """Where this replica's rows start in gathered ones."""
    from ssl_core.distributed import rank

    return rank() * count if total > count else 0


@full_precision
def region_contrast(
    a: Tensor,
    b: Tensor,
    *,
    positive: Tensor | None = None,
    negative: Tensor | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """L^R of two maps `[B, C, *sides]` whose places correspond; both directions, mean over all.

    `positive` int64 `[R, n]` and `negative` `[R, K, n]` are corners of regions of 3 a side; by
    default 13 in a quincunx (more on three axes) and the 5 nearest others.
    """
    if positive is None or negative is None:
        positive, negative = regions(a.shape[2:], a.device)
    near = [_regions_at(x, positive) for x in (a, b)]  # [B, R, P]
    far = torch.cat([_regions_at(x, negative.flatten(0, 1)) for x in (a, b)], dim=1)
    count, places = near[0].shape[:2]
    far = far.view(count, 2, places, negative.shape[1], -1).transpose(1, 2).flatten(2, 3)
    own = (near[0] * near[1]).sum(-1) / temperature
    losses = []
    for x in near:
        others = torch.einsum("brp,brkp->brk", x, far) / temperature
        losses.append(torch.logaddexp(own, others.logsumexp(-1)) - own)
    return torch.stack(losses).mean()


def regions(sides: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Corners: both ends and the middle of each axis, the cells' centres between, 5 neighbours."""
    quarter = torch.tensor([(s - _REGION) / 4 for s in sides])
    outer = list(itertools.product((0, 2, 4), repeat=len(sides)))
    inner = list(itertools.product((1, 3), repeat=len(sides)))
    corners = (torch.tensor(outer + inner) * quarter).floor().long()
    distance = torch.cdist(corners.double(), corners.double()).fill_diagonal_(float("inf"))
    nearest = distance.argsort(dim=1, stable=True)[:, :5]
    return corners.to(device), corners[nearest].to(device)


def _regions_at(x: Tensor, corners: Tensor) -> Tensor:
    """Unit vectors of regions of 3 a side, `[B, R, C * 3^n]`."""
    axes = x.dim() - 2
    index = []
    for axis in range(axes):
        steps = torch.arange(_REGION, device=x.device)
        steps = steps.view(*[-1 if a == axis else 1 for a in range(axes)])
        index.append(corners[:, axis].view(-1, *[1] * axes) + steps)
    cut = x[(slice(None), slice(None), *index)]  # [B, C, R, 3...]
    return F.normalize(cut.transpose(1, 2).flatten(2), dim=-1, eps=1e-12)
