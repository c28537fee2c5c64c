"""Soft assignment of embeddings to directions: prototypes (MSN) or labelled samples (PAWS)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import gather as gather_rows
from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.sinkhorn_knopp import sinkhorn
from ssl_core.objectives.spread import me_max


def _cosines(z: Tensor, directions: Tensor) -> Tensor:
    return F.normalize(z, dim=-1) @ F.normalize(directions, dim=-1).T


@full_precision
def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """p^(1/T) / sum, over the last dimension: T < 1 moves mass to the largest."""
    powered = probabilities ** (1 / temperature)
    return powered / powered.sum(-1, keepdim=True)


@full_precision
def msn_parts(
    anchors: Sequence[Tensor],
    targets: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    sharpening: float = 0.25,
    balance: float = 1.0,
    sinkhorn_iterations: int = 0,
) -> dict[str, Tensor]:
    """The terms of `msn` by name; their sum is the loss."""
    z = torch.stack(list(anchors))  # [V, B, D]
    logp = (_cosines(z, prototypes) / temperature).log_softmax(-1)  # [V, B, K]
    with torch.no_grad():
        scores = (_cosines(targets, prototypes) / (temperature * sharpening)).log_softmax(-1)
        wanted = scores.exp()  # sharpened softmax, [B, K]
        if sinkhorn_iterations:
            wanted = sinkhorn(scores, temperature=1.0, iterations=sinkhorn_iterations)
    return {
        "assignment": -(wanted * logp).sum(-1).mean(),
        "me_max": balance * me_max(logp.exp()),
    }


def msn(
    anchors: Sequence[Tensor],
    targets: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    sharpening: float = 0.25,
    balance: float = 1.0,
    sinkhorn_iterations: int = 0,
) -> Tensor:
    """Match the sharpened assignment of the unmasked view (MSN: Assran et al. 2022, eq. 1).

    mean over V anchor views and rows of CE(sharpen(p_target), p_anchor) + balance * me_max, with
    p = softmax of cosines to `prototypes` `[K, D]` over `temperature`. `anchors` are V tensors
    `[B, D]`, `targets` `[B, D]` receive no gradient; prototypes learn through the anchors.
    me_max is over the anchors of all replicas. Equal (collapsed) embeddings on one prototype cost
    about balance * log K; uniform assignments log K.
    """
    parts = msn_parts(
        anchors,
        targets,
        prototypes,
        temperature=temperature,
        sharpening=sharpening,
        balance=balance,
        sinkhorn_iterations=sinkhorn_iterations,
    )
    return parts["assignment"] + parts["me_max"]


@full_precision
def paws_parts(
    anchors: Sequence[Tensor],
    targets: Sequence[Tensor],
    support: Tensor,
    support_labels: Tensor,
    *,
    temperature: float = 0.1,
    sharpening: float = 0.25,
    balance: float = 1.0,
    floor: float = 1e-4,
    gather: bool = True,
) -> dict[str, Tensor]:
    """Soft nearest-neighbour classes of one view from the other's (PAWS: Assran et al. 2021).

    Arguments:
        anchors: V tensors `[B, D]`, the first two of the large crops.
        targets: two tensors `[B, D]`, no gradient: `targets[v]` is the target of `anchors[v]`
            (pass the large crops swapped); further anchors take the mean of both.
        support: `[S, D]` labelled embeddings with probabilities `support_labels` `[S, C]`; of all
            replicas when gathering. They carry gradient on the anchors' side.
        floor: target entries below are set to 0 without renormalising, as released.

    Returns the terms "assignment" and "me_max" (`me_max` of sharpened anchor probabilities).
    """
    s, y = F.normalize(support, dim=1), support_labels
    if gather:
        s, y = gather_rows(s), gather_rows(y)
    z = torch.stack(list(anchors))
    p = (_cosines(z, s) / temperature).softmax(-1) @ y  # [V, B, C]
    with torch.no_grad():
        taught = (_cosines(torch.stack(list(targets)), s) / temperature).softmax(-1) @ y
        wanted = sharpen(taught, sharpening)  # [2, B, C]
        if len(z) > 2:
            wanted = torch.cat([wanted, wanted.mean(0, keepdim=True).expand(len(z) - 2, -1, -1)])
        wanted = torch.where(wanted < floor, 0.0, wanted)
    return {
        "assignment": -torch.xlogy(wanted, p).sum(-1).mean(),
        "me_max": balance * me_max(sharpen(p, sharpening)),
    }
