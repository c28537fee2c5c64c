"""Masked and pretext methods do not couple samples: a batch costs the mean of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from reference import OneView, keys
from ssl_core.methods.base import Method
from ssl_core.methods.beit import BEiT
from ssl_core.methods.data2vec import Data2Vec
from ssl_core.methods.ijepa import IJEPA
from ssl_core.methods.mae import MAE
from ssl_core.methods.maskfeat import MaskFeat
from ssl_core.methods.mixmim import MixMIM
from ssl_core.methods.rotation import Rotation
from ssl_core.networks.vit import PatchTransformer
from ssl_core.views import View

DECODER = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
D2V = {"decoder_dim": 16, "decoder_depth": 2, "decoder_groups": 4, "masks": 2, "mask_block": 2}
JEPA = {"predictor_dim": 8, "predictor_depth": 1, "predictor_heads": 2}

METHODS: dict[str, Callable[[nn.Module], Method]] = {
    "mae": lambda e: MAE(e, OneView(), **DECODER),
    "mae_tubes": lambda e: MAE(e, OneView(), mask="tubes", **DECODER),
    "maskfeat": lambda e: MaskFeat(e, OneView(), mask_block=2),
    "beit": lambda e: BEiT(e, OneView(), mask_block=2, levels=(4, 3)),
    "data2vec": lambda e: Data2Vec(e, OneView(), utterance=1.0, **D2V),
    "data2vec_smooth": lambda e: Data2Vec(e, OneView(), beta=0.5, **D2V),
    "ijepa": lambda e: IJEPA(e, OneView(), **JEPA),
    "mixmim": lambda e: MixMIM(e, OneView(), mask_unit=1, **DECODER),
    "rotation": lambda e: Rotation(e, OneView()),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_costs_the_mean_of_its_parts(name: str) -> None:
    options: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 2}
    torch.manual_seed(0)
    encoder = PatchTransformer(
        channels=2, sides=(24, 24), patch=(4, 4), class_token=False, pool="mean", **options
    )
    method = METHODS[name](encoder).double()
    method.before_step(3, 10)
    x = torch.randn(8, 2, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients, totals = [], []
    for parts in ([slice(0, 8)], [slice(0, 4), slice(4, 8)]):
        method.zero_grad()
        losses = [method([View(x[rows], keys(8)[rows])]).total for rows in parts]
        total = torch.stack(losses).mean()
        total.backward()
        totals.append(total.detach())
        gradients.append([p.grad.clone() for p in method.parameters() if p.grad is not None])
    torch.testing.assert_close(totals[1], totals[0], rtol=1e-12, atol=0)
    for part, whole in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-12)
