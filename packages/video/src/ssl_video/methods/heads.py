"""The head that reads an order off shuffled clips, and the permutations it chooses from."""

from __future__ import annotations

from itertools import combinations, permutations

import torch
from torch import Tensor, nn

from ssl_core.networks.dropout import KeyedDropout


def orders(count: int, *, undirected: bool = False) -> Tensor:
    """All orders of `count` things in lexicographic order: int64 `[n, count]`, n = count!.

    Entry i of a row is the true place of what is shown i-th. `undirected` keeps one of each order
    and its reverse, the one whose first entry is smaller: n = count! / 2.
    """
    rows = [row for row in permutations(range(count)) if not undirected or row[0] < row[-1]]
    return torch.tensor(rows)


class PairwiseOrderHead(nn.Module):
    """Features `[B, n, D]` of shuffled clips to logits over `classes` orders (VCOP, OPN).

    Every pair (i < j), concatenated, goes through one linear layer and ReLU; all pairs together,
    with dropout, through another.
    """

    def __init__(
        self, dim: int, count: int, classes: int, *, hidden: int = 512, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.pairs = list(combinations(range(count), 2))
        self.pair = nn.Linear(2 * dim, hidden)
        self.dropout = KeyedDropout(dropout, stream="order head")
        self.order = nn.Linear(hidden * len(self.pairs), classes)

    def forward(self, clips: Tensor) -> Tensor:
        pairs = torch.stack([clips[:, [i, j]].flatten(1) for i, j in self.pairs], dim=1)
        seen = torch.relu(self.pair(pairs)).flatten(1)  # [B, pairs x hidden]
        logits: Tensor = self.order(self.dropout(seen))
        return logits
