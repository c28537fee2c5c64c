"""Contrastive loss with many positives an anchor: labels, a mask or weights say which."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import gather as gather_rows
from ssl_core.distributed import rank
from ssl_core.objectives.contrastive import others_partition
from ssl_core.objectives.precision import full_precision


@full_precision
def sup_con(
    *views: Tensor,
    labels: Tensor | None = None,
    positives: Tensor | None = None,
    temperature: float = 0.07,
    base_temperature: float | None = None,
    anchors: Literal["all", "first"] = "all",
    gather: bool = True,
) -> Tensor:
    """Supervised contrastive loss, "out" form (SupCon: Khosla et al. 2020, eq. 2).

    For each anchor a: log sum_{k != a} exp(s_ak / T) - sum_p w_ap s_ap / (T sum_p w_ap) with
    cosines s over all V N embeddings; the mean over anchors, times T / `base_temperature`.

    Arguments:
        views: V >= 1 tensors `[B, D]`, normalised inside; row b of each is one sample.
        labels: int64 `[B]`: every other embedding of the same label is a positive.
        positives: instead of labels, `[B, N]`: weight >= 0 (or bool) with which the embeddings of
            sample n are positives of the row's sample; N counts the samples of all replicas when
            gathering. The diagonal stands for the sample's own other views. Receives no gradient.
        base_temperature: None for T itself, which leaves the factor 1.
        anchors: "first" takes only the first view's embeddings as anchors.
        gather: positives and negatives also from the other replicas.

    Without labels and positives it is `nt_xent`. An anchor that has no positive costs 0 and still
    counts in the mean. Collapsed value: log(V N - 1). Memory O(V N D) with labels: the sum of
    cosines to a class is the cosine to its sum.
    """
    z = _stacked(views)  # [B, V, D]
    batch, count, _ = z.shape
    everyone = gather_rows(z) if gather else z  # [N, V, D]
    first = rank() * batch if gather else 0
    if labels is not None and positives is not None:
        raise ValueError("sup_con: pass labels or positives, not both")
    if labels is not None:
        friends, mass, own = _by_label(everyone.sum(1), _flat(labels, batch), first, gather)
    elif positives is not None:
        friends, mass, own = _by_weight(everyone.sum(1), positives, batch, first)
    else:
        friends, mass = z.sum(1), z.new_ones(batch)
        own = mass
    a = z if anchors == "all" else z[:, :1]  # [B, A, D]
    mass = (mass * count - own).unsqueeze(1)  # [B, 1]: an anchor is no positive of its own
    agreement = (a * friends.unsqueeze(1)).sum(-1) - own.unsqueeze(1) * (a * a).sum(-1)  # [B, A]
    has = mass > 0
    agreement = torch.where(has, agreement / torch.where(has, mass, 1.0), 0.0) / temperature
    rows, taken = batch * a.shape[1], a.shape[1]
    factor = 1.0 if base_temperature is None else temperature / base_temperature
    weights = (has.to(z.dtype) * (factor / rows)).expand(batch, taken)  # [B, A]
    if anchors == "first":
        weights = F.pad(weights, (0, count - 1))  # the other views are candidates only
    partition = others_partition(
        z.flatten(0, 1), temperature, weights=weights.reshape(-1), gather=gather
    )
    return partition - agreement.sum() * factor / rows


def _stacked(views: tuple[Tensor, ...]) -> Tensor:
    if not views or any(z.dim() != 2 or z.shape != views[0].shape for z in views):
        shapes = ", ".join(str(tuple(z.shape)) for z in views)
        raise ValueError(f"sup_con: views of one shape [B, D] are needed, got {shapes or 'none'}")
    return torch.stack([F.normalize(view, dim=1) for view in views], dim=1)


def _flat(labels: Tensor, batch: int) -> Tensor:
    if labels.shape != (batch,):
        raise ValueError(f"sup_con: labels must be [{batch}], got {tuple(labels.shape)}")
    return labels


def _by_label(
    summed: Tensor, labels: Tensor, first: int, gather: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row: the sum over its class `[B, D]`, the class's samples and its own weight."""
    everywhere = gather_rows(labels) if gather else labels  # [N]
    _, group = torch.unique(everywhere, return_inverse=True)  # [N]
    sums = torch.zeros_like(summed).index_add(0, group, summed)  # at most N classes
    sizes = torch.zeros_like(summed[:, 0]).index_add(0, group, torch.ones_like(summed[:, 0]))
    mine = group[first : first + labels.shape[0]]
    return sums[mine], sizes[mine].detach(), torch.ones_like(sizes[mine]).detach()


def _by_weight(
    summed: Tensor, positives: Tensor, batch: int, first: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same three with explicit weights `[B, N]`."""
    if positives.shape != (batch, summed.shape[0]):
        raise ValueError(
            f"sup_con: positives must be [{batch}, {summed.shape[0]}] (own samples x samples of "
            f"all replicas), got {tuple(positives.shape)}"
        )
    weights = positives.detach().to(summed.dtype)
    own = weights[:, first : first + batch].diagonal()
    return weights @ summed, weights.sum(1), own
