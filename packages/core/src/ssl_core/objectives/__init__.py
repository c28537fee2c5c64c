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

from ssl_core.objectives.assignments import msn, msn_parts, paws_parts, sharpen
from ssl_core.objectives.contrastive import info_nce, nt_xent
from ssl_core.objectives.correlation import cca_ssg
from ssl_core.objectives.covariance import RunningCovariance, tico
from ssl_core.objectives.discriminators import bce, jsd
from ssl_core.objectives.distillation import (
    Centering,
    dino,
    ibot_patches,
    soft_cross_entropy,
    swav,
)
from ssl_core.objectives.gaussian import lejepa, sigreg
from ssl_core.objectives.graph_matching import graph_matching, neighbours
from ssl_core.objectives.local_matches import best_matches, vicregl, vicregl_local
from ssl_core.objectives.masked import (
    masked_l1,
    masked_mean,
    masked_pixels,
    masked_smooth_l1,
    masked_token_cross_entropy,
    normalise_channels,
    normalise_patches,
)
from ssl_core.objectives.memory import memory_log_norm, memory_nce
from ssl_core.objectives.orientation import hog, hog_patches
from ssl_core.objectives.paired import clip, siglip
from ssl_core.objectives.positives import sup_con
from ssl_core.objectives.pretext import accuracy, pretext_cross_entropy
from ssl_core.objectives.queries import (
    Mixing,
    hardest,
    mix_negatives,
    moco,
    moco_v3,
    nearest,
    nnclr,
)
from ssl_core.objectives.ranking import margin_contrastive, triplet
from ssl_core.objectives.redundancy import (
    barlow_twins,
    covariance_penalty,
    variance_hinge,
    vicreg,
    vicreg_parts,
)
from ssl_core.objectives.regression import byol, mse, negative_cosine, scaled_cosine, smooth_l1
from ssl_core.objectives.relation import ressl, seed
from ssl_core.objectives.sinkhorn_knopp import sinkhorn
from ssl_core.objectives.spread import koleo, me_max, spectrum_flatness
from ssl_core.objectives.view_pairs import Scores
from ssl_core.objectives.whitening import w_mse, whiten

__all__ = [
    "Centering",
    "Mixing",
    "RunningCovariance",
    "Scores",
    "accuracy",
    "barlow_twins",
    "bce",
    "best_matches",
    "byol",
    "cca_ssg",
    "clip",
    "covariance_penalty",
    "dino",
    "graph_matching",
    "hardest",
    "hog",
    "hog_patches",
    "ibot_patches",
    "info_nce",
    "jsd",
    "koleo",
    "lejepa",
    "margin_contrastive",
    "masked_l1",
    "masked_mean",
    "masked_pixels",
    "masked_smooth_l1",
    "masked_token_cross_entropy",
    "me_max",
    "memory_log_norm",
    "memory_nce",
    "mix_negatives",
    "moco",
    "moco_v3",
    "mse",
    "msn",
    "msn_parts",
    "nearest",
    "negative_cosine",
    "neighbours",
    "nnclr",
    "normalise_channels",
    "normalise_patches",
    "nt_xent",
    "paws_parts",
    "pretext_cross_entropy",
    "ressl",
    "scaled_cosine",
    "seed",
    "sharpen",
    "siglip",
    "sigreg",
    "sinkhorn",
    "smooth_l1",
    "soft_cross_entropy",
    "spectrum_flatness",
    "sup_con",
    "swav",
    "tico",
    "triplet",
    "variance_hinge",
    "vicreg",
    "vicreg_parts",
    "vicregl",
    "vicregl_local",
    "w_mse",
    "whiten",
]
