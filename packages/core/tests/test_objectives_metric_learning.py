"""Equality with pytorch-metric-learning, where it is installed."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from ssl_core.objectives import margin_contrastive, nt_xent, sup_con, triplet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its imports warn about is not ours
    pml = pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import losses, miners, reducers

BATCH = 8


def views(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(count, BATCH, 6, generator=generator).unbind())


def test_nt_xent():
    z0, z1 = views(2)
    want = losses.NTXentLoss(temperature=0.3)(torch.cat([z0, z1]), torch.arange(BATCH).repeat(2))
    torch.testing.assert_close(nt_xent(z0, z1, temperature=0.3), want)


def test_sup_con():
    (z,), labels = views(1), torch.tensor([0, 1, 2, 0, 1, 0, 2, 1])
    mean = reducers.MeanReducer()
    want = losses.SupConLoss(temperature=0.1, reducer=mean)(z, labels)
    torch.testing.assert_close(sup_con(z, labels=labels, temperature=0.1), want)


@pytest.mark.parametrize("select", ["all", "hardest"])
def test_triplet(select):
    a, p = views(2)
    ids, others = torch.arange(BATCH), torch.arange(BATCH)  # one object would mean one set
    chosen = None
    if select == "hardest":
        chosen = miners.BatchHardMiner()(a, ids, p, others)
    mean = reducers.MeanReducer()
    reference = losses.TripletMarginLoss(margin=0.5, reducer=mean)
    want = reference(a, ids, chosen, p, others)
    torch.testing.assert_close(triplet(a, p, margin=0.5, select=select), want)


def test_margin_contrastive():
    a, p = views(2)
    mean = reducers.MeanReducer()
    reference = losses.ContrastiveLoss(pos_margin=0.2, neg_margin=1.1, reducer=mean)
    want = reference(a, torch.arange(BATCH), None, p, torch.arange(BATCH))
    got = margin_contrastive(a, p, margin=1.1, positive_margin=0.2, power=1.0)
    torch.testing.assert_close(got, want)
