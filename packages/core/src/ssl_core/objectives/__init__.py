"""Objectives: tensors in, scalar out. Usable alone, one family a file.

    from ssl_core.objectives import nt_xent, barlow_twins
    loss = nt_xent(z0, z1, temperature=0.1)

Conventions, the same everywhere:

- inputs are what the network put out; an objective that compares directions normalises inside;
- the result is a mean over samples (over hidden tokens for masked objectives), in float32 or
  better whatever the autocast mode;
- with several replicas each returns the mean over its own rows while statistics and negatives
  are global, and gradients averaged over replicas are those of one process;
- targets are detached inside wherever the paper stops the gradient.
"""

from __future__ import annotations

from ssl_core.objectives.contrastive import info_nce, nt_xent
from ssl_core.objectives.distillation import Centering, dino, sinkhorn, soft_cross_entropy
from ssl_core.objectives.masked import (
    masked_l1,
    masked_mean,
    masked_pixels,
    masked_smooth_l1,
    masked_token_cross_entropy,
    normalise_patches,
)
from ssl_core.objectives.redundancy import barlow_twins, vicreg, vicreg_parts
from ssl_core.objectives.regression import byol, mse, negative_cosine, scaled_cosine, smooth_l1

__all__ = [
    "Centering",
    "barlow_twins",
    "byol",
    "dino",
    "info_nce",
    "masked_l1",
    "masked_mean",
    "masked_pixels",
    "masked_smooth_l1",
    "masked_token_cross_entropy",
    "mse",
    "negative_cosine",
    "normalise_patches",
    "nt_xent",
    "scaled_cosine",
    "sinkhorn",
    "smooth_l1",
    "soft_cross_entropy",
    "vicreg",
    "vicreg_parts",
]
