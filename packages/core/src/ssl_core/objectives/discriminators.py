"""Telling true pairs from false ones by a score: mutual-information bounds without a softmax."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.masked import masked_mean
from ssl_core.objectives.precision import full_precision


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    kept = torch.ones_like(values) if weight is None else weight
    return masked_mean(values, kept)


@full_precision
def bce(
    positive: Tensor,
    negative: Tensor,
    *,
    positive_weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
) -> Tensor:
    """Half of mean softplus(-positive) + mean softplus(negative) (DGI: Velickovic et al. 2019).

    Scores (logits) of true and of false pairs, any shapes; means count the scores of all replicas,
    also when counts differ. Weights (>= 0 or bool, of the scores' shapes) turn means into weighted
    means. Scores of 0 (collapsed) cost log 2.
    """
    true = _mean(F.softplus(-positive), positive_weight)
    false = _mean(F.softplus(negative), negative_weight)
    return (true + false) / 2


def jsd(
    positive: Tensor,
    negative: Tensor,
    *,
    positive_weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
) -> Tensor:
    """Minus the Jensen-Shannon bound of mutual information (Hjelm et al. 2019; InfoGraph, MVGRL).

    mean softplus(-positive) + mean softplus(negative) - 2 log 2, arguments as in `bce`. 0 when
    scores are 0 (collapsed), at least -2 log 2.
    """
    both = bce(positive, negative, positive_weight=positive_weight, negative_weight=negative_weight)
    return 2 * (both - math.log(2))
