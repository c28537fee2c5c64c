"""Contrastive losses: one core, -(agreement with positives) + log sum over candidates."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import all_sum, rank, world_size
from ssl_core.distributed import gather as gather_rows
from ssl_core.objectives.kernels import kernels_for
from ssl_core.objectives.partition import log_partition
from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.tiles import fits, pair_partition, self_partition


@full_precision
def nt_xent(
    *views: Tensor,
    temperature: float | Tensor = 0.1,
    gather: bool = True,
    decoupled: bool = False,
    positives: Literal["mean", "sum"] = "mean",
    weight_sigma: float | None = None,
    weight_gradient: bool = False,
    bf16: bool = False,
) -> Tensor:
    """Normalised temperature-scaled cross-entropy (SimCLR: Chen et al. 2020, eq. 1).

    For each of the V B embeddings i: -s_ip / T + log sum_{k != i} exp(s_ik / T) with cosines s;
    the mean over its V - 1 positives p (the same sample in the other views), then over i.

    Arguments:
        views: V >= 2 tensors `[B, D]`, normalised inside; row b of each is one sample.
        temperature: T > 0; a tensor may be learned.
        gather: negatives also from the other replicas.
        decoupled: the positives leave the sum (DCL: Yeh et al. 2022).
        positives: with more than two views, "mean" of the per-positive losses, or log of their
            "sum" of exponentials as solo-learn has it.
        weight_sigma: with two views, weighs each positive by 2 - B softmax(s / sigma) (DCLW); the
            paper's sigma is 0.5. `weight_gradient` lets the gradient through the weight.
        bf16: products of embeddings rounded to bfloat16 for the sum over candidates, for
            processors with units for it; positives and sums stay in float32. The loss errs by up
            to 2^-7 / T, more where pairs are close: for T of 0.2 and more.

    Two views give GRACE's loss with inter- and intra-view negatives. Collapsed value:
    log(V B - 1), decoupled log(V B - V), with B counted over replicas when gathering.
    """
    if len(views) < 2 or any(z.dim() != 2 or z.shape != views[0].shape for z in views):
        shapes = ", ".join(str(tuple(z.shape)) for z in views)
        raise ValueError(f"nt_xent: at least two views of one shape [B, D] needed, got {shapes}")
    if weight_sigma is not None and len(views) != 2:
        raise ValueError(f"nt_xent: weight_sigma is defined for two views, got {len(views)}")
    _check_temperature("nt_xent", temperature)
    z = torch.stack([F.normalize(view, dim=1) for view in views], dim=1)  # [B, V, D]
    batch, count, _ = z.shape
    if decoupled and batch * (world_size() if gather else 1) < 2:
        raise ValueError("nt_xent: without its positives one sample has no negatives; batch >= 2")
    similar = _other_views(z) / temperature  # [B V, V - 1]
    agreement = similar.mean(1) if positives == "mean" else similar.logsumexp(1)  # [B V]
    if weight_sigma is not None:
        cosine = _other_views(z).squeeze(1)
        weight = _von_mises_weight(cosine, sigma=weight_sigma, count=count, gather=gather)
        agreement = agreement * (weight if weight_gradient else weight.detach())
    # Without its positives, a sample's V embeddings are left out of each other's sums.
    group = count if decoupled else 1
    partition = others_partition(
        z.flatten(0, 1), temperature, group=group, gather=gather, bf16=bf16
    )
    return partition - agreement.mean()


@full_precision
def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    symmetric: bool = True,
    negatives: Tensor | None = None,
    in_batch: bool = True,
    decoupled: bool = False,
    hard: Tensor | None = None,
    weights: Tensor | None = None,
    gather: bool = True,
    bf16: bool = False,
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4): the key of a query among many candidates.

    -s_ii / T + log sum_j exp(s_ij / T) over keys j with cosines s, mean over queries.

    Arguments:
        queries, keys: `[B, D]`, row by row the same sample; normalised inside. Gradients flow to
            both: detach the keys of a momentum encoder.
        temperature: T > 0; a tensor may be learned (CLIP).
        symmetric: half of both directions (MoCo v3, CLIP); otherwise queries are the anchors and
            keys never are (SimCSE, GraphCL).
        negatives: `[K, D]` further candidates of every query, normalised inside (a queue, hard
            negatives); only with `symmetric=False`.
        in_batch: the other samples' keys are candidates too; MoCo has only `negatives`.
        decoupled: the positive leaves the sum (DCL, GraphCL).
        hard: `[B, S, D]` further candidates of each query alone, normalised inside; only with
            `symmetric=False`.
        weights: `[B]` factor of each pair's loss, no gradient; give them a mean of 1 over the
            batch of all replicas.
        gather: keys also from the other replicas.
        bf16: as for `nt_xent`; only with `symmetric=True`.

    Collapsed value: log B, decoupled log(B - 1), with K negatives alone log(K + 1).
    """
    one_sided = negatives is not None or hard is not None
    _check_info_nce(queries, keys, symmetric, one_sided, negatives is None, in_batch)
    _check_temperature("info_nce", temperature)
    q, k = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    agreement = (q * k).sum(1) / temperature  # [B]
    far = None if negatives is None else F.normalize(negatives, dim=1)
    extra = None
    if hard is not None:
        extra = (q.unsqueeze(1) * F.normalize(hard, dim=2)).sum(2) / temperature  # [B, S]
    if not in_batch:
        assert far is not None, "checked above"
        joined = None if decoupled else agreement.unsqueeze(1)
        if extra is not None:
            joined = extra if joined is None else torch.cat([joined, extra], 1)
        return _contrast(q / temperature, agreement, far, None, joined, weights)
    how = {"decoupled": decoupled, "gather": gather}
    if symmetric:
        return _two_way(q, k, temperature, agreement, weights, bf16=bf16, **how)
    _refuse(bf16)
    return _one_way(q / temperature, agreement, k, far, extra, weights, **how)


def others_partition(
    z: Tensor,
    temperature: float | Tensor,
    *,
    weights: Tensor | None = None,
    group: int = 1,
    gather: bool = True,
    bf16: bool = False,
) -> Tensor:
    """sum_i w_i log sum_j exp(z_i . z_j / T) over the unit rows `[R, D]` outside i's own group.

    `weights` `[R]` without gradient, None for 1 / R; groups are runs of `group` rows; j runs over
    the rows of all replicas when gathering. By tiles where the temperature allows, else by rows.
    `bf16` rounds the factors of tiles; raises `ValueError` where there are none.
    """
    weights = _shares(z, None) if weights is None else weights
    scaled = z / temperature**0.5
    how: dict[str, Any] = {"group": group, "gather": gather}
    if (kernels := kernels_for(z, bf16=bf16)) is not None:
        return kernels.self_partition(scaled, weights=weights, **how)  # type: ignore[no-any-return]
    if (largest := fits(temperature, z.dtype)) is not None:
        return self_partition(scaled, weights=weights, largest=largest, bf16=bf16, **how)
    _refuse(bf16)
    everyone = gather_rows(z) if gather else z  # [N, D]
    first = rank() * z.shape[0] if gather else 0
    own = torch.arange(first, first + z.shape[0], device=z.device).unsqueeze(1)  # [R, 1]
    own = own - own % group + torch.arange(group, device=z.device)
    return log_partition(z / temperature, everyone, weights=weights, excluded=own)


def _two_way(
    q: Tensor,
    k: Tensor,
    temperature: float | Tensor,
    agreement: Tensor,
    weights: Tensor | None,
    *,
    decoupled: bool,
    gather: bool,
    bf16: bool,
) -> Tensor:
    """Half of both directions."""
    share = _shares(q, weights)
    _check_decoupled(q.shape[0] * (world_size() if gather else 1), decoupled)
    scaled, how = q / temperature, {"decoupled": decoupled, "gather": gather}
    if (kernels := kernels_for(q, bf16=bf16)) is not None:
        sums: Tensor = kernels.pair_partition(scaled, k, weights=share, **how)
    elif (largest := fits(temperature, q.dtype)) is not None:
        sums = pair_partition(scaled, k, weights=share, largest=largest, bf16=bf16, **how)
    else:
        _refuse(bf16)
        forth = _one_way(scaled, agreement, k, None, None, weights, **how)
        back = _one_way(k / temperature, agreement, q, None, None, weights, **how)
        return (forth + back) / 2
    return sums / 2 - (agreement * share).sum()


def _one_way(
    anchors: Tensor,
    agreement: Tensor,
    candidates: Tensor,
    negatives: Tensor | None,
    extra: Tensor | None,
    weights: Tensor | None,
    *,
    decoupled: bool,
    gather: bool,
) -> Tensor:
    """Anchors `[B, D]` against all replicas' candidates, `negatives` and `extra` logits."""
    batch = anchors.shape[0]
    everyone = gather_rows(candidates) if gather else candidates  # [W B, D]
    first = rank() * batch if gather else 0
    if negatives is not None:
        everyone = torch.cat([everyone, negatives])
    _check_decoupled(everyone.shape[0], decoupled)
    own = torch.arange(first, first + batch, device=anchors.device).unsqueeze(1)  # [B, 1]
    return _contrast(anchors, agreement, everyone, own if decoupled else None, extra, weights)


def _contrast(
    anchors: Tensor,
    agreement: Tensor,
    candidates: Tensor,
    excluded: Tensor | None,
    extra: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over anchors of log_partition - agreement; see `log_partition` for the shapes."""
    share = _shares(anchors, weights)
    partition = log_partition(anchors, candidates, weights=share, excluded=excluded, extra=extra)
    return partition - (agreement * share).sum()


def _shares(rows: Tensor, weights: Tensor | None) -> Tensor:
    """1 / B of each row, times its weight: `[B]` without gradient."""
    share = torch.full_like(rows[:, 0], 1 / rows.shape[0]).detach()
    return share if weights is None else share * weights.detach().to(share.dtype)


def _other_views(z: Tensor) -> Tensor:
    """Cosines of each view with the other views of its sample, `[B, V, D] -> [B V, V - 1]`."""
    # No product of matrices a sample: they are so small that a kernel takes longer to begin.
    if z.shape[1] == 2:
        cosine = (z[:, 0] * z[:, 1]).sum(1, keepdim=True)  # [B, 1], the same seen from both
        return cosine.expand(-1, 2).reshape(-1, 1)
    others = [(z * z.roll(-shift, dims=1)).sum(2) for shift in range(1, z.shape[1])]  # [B, V] each
    return torch.stack(others, dim=2).flatten(0, 1)


def _von_mises_weight(cosine: Tensor, *, sigma: float, count: int, gather: bool) -> Tensor:
    """2 - exp(s_i / sigma) / mean_j exp(s_j / sigma), mean 1; `[B V]` sample-major (DCLW)."""
    exponential = (cosine / sigma).exp()
    total = exponential.sum()
    rows = cosine.new_tensor(float(cosine.shape[0]))
    if gather:
        total, rows = all_sum(total), all_sum(rows)
    return 2 - exponential * rows / total


def _refuse(bf16: bool) -> None:
    if bf16:
        raise ValueError(
            "bf16=True: only symmetric losses with a temperature known to the host and of about "
            "0.025 or more are computed by tiles; pass bf16=False"
        )


def _check_decoupled(candidates: int, decoupled: bool) -> None:
    if decoupled and candidates < 2:
        raise ValueError("info_nce: without its positive one sample has no negatives; batch >= 2")


def _check_temperature(name: str, temperature: float | Tensor) -> None:
    if not isinstance(temperature, Tensor) and temperature <= 0:
        raise ValueError(f"{name}: temperature must be positive, got {temperature}")


def _check_info_nce(
    queries: Tensor, keys: Tensor, symmetric: bool, one_sided: bool, no_bank: bool, in_batch: bool
) -> None:
    if queries.dim() != 2 or queries.shape != keys.shape:
        raise ValueError(
            f"info_nce: queries and keys of one shape [B, D] are needed, "
            f"got {tuple(queries.shape)} and {tuple(keys.shape)}"
        )
    if one_sided and symmetric:
        raise ValueError("info_nce: negatives belong to the queries; pass symmetric=False")
    if no_bank and not in_batch:
        raise ValueError("info_nce: in_batch=False needs negatives")
    if not in_batch and symmetric:
        raise ValueError("info_nce: in_batch=False is one-way; pass symmetric=False")
