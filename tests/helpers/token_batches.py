"""Token batches and small methods that several of the text package's tests start from."""

from __future__ import annotations

import torch

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_text.domain import TEXT
from ssl_text.tokens import TokenBatch

SPEC = {
    "vocab_size": 60,
    "max_length": 40,
    "pad_id": 0,
    "cls_id": 1,
    "sep_id": 2,
    "mask_id": 3,
    "special_ids": [0, 1, 2, 3, 4],
}
SIZE = {"depth": 1, "dim": 16, "heads": 2}


def documents(lengths=(1, 5, 18, 30)) -> TokenBatch:
    numbers = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, 60, (n,), generator=numbers) for n in lengths]
    starts = [torch.rand(n, generator=numbers) < 0.6 for n in lengths]
    marked = [
        torch.stack([torch.cat([torch.tensor([1]), row, torch.tensor([2])]),
                     torch.cat([torch.tensor([1]), start.long(), torch.tensor([1])])])
        for row, start in zip(rows, starts, strict=True)
    ]  # fmt: skip
    return TokenBatch.stack(marked, pad_id=0)


def batch_of(data: TokenBatch) -> Batch:
    return Batch(data, torch.arange(len(data)), torch.arange(len(data)))


def method_of(name: str, views: str = "none", size=SIZE, **options):
    torch.manual_seed(0)
    encoder = TEXT.create_encoder("bert_tiny", SPEC, size)
    policy = TEXT.create_views(views, SPEC, {})
    return TEXT.methods.build(name, encoder, policy, options=options).train()


def keys(n: int, step: int = 0) -> Rng:
    return Rng.at(5, step, torch.arange(n))
