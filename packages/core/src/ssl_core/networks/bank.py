"""A memory bank: one slow embedding for every sample of the data, found by its row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import gather
from ssl_core.errors import UserError
from ssl_core.rng import Rng, key_of


class Bank(nn.Module):
    """`rows` `[size, dim]` of unit length, random at the start; every replica holds the same.

    A row moves only when its sample is seen: r <- norm(m r + (1 - m) z) (Wu et al., CVPR 2018).

        loss = nce(z, self.bank.of(index), self.bank.drawn(step, 4096))
        ...                                        # after the step
        self.bank.update(index, z, finite=step.finite)
    """

    rows: Tensor

    def __init__(self, size: int, dim: int, *, momentum: float = 0.5) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a bank needs size and dim of at least 1, got {size} and {dim}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.momentum = momentum

    def of(self, index: Tensor) -> Tensor:
        """The rows `[B, dim]` of samples `index` (int64 `[B]`).

        Raises `UserError` for a sample beyond the bank, on an accelerator at its next wait.
        """
        size = self.rows.shape[0]
        if index.device.type == "cpu" and len(index) and int(index.max()) >= size:
            raise UserError(
                f"bank: sample {int(index.max())} has no place among {size} rows; "
                "set method.bank to at least the number of training samples"
            )
        return self.rows[index]

    def drawn(self, step: int, count: int) -> Tensor:
        """`count` rows drawn with replacement, the same on every replica: `[count, dim]`."""
        key = torch.tensor([key_of("bank", step)], device=self.rows.device)
        return self.rows[Rng(key).integers("rows", count, high=self.rows.shape[0])[0]]

    @torch.no_grad()
    def update(self, index: Tensor, embeddings: Tensor, *, finite: Tensor) -> None:
        """Moves the rows of all replicas' samples towards their `embeddings` `[B, dim]`.

        A sample that stands twice in the batch moves its row once, by the mean. Where `finite`
        (0-dim bool) is False nothing changes, without asking the device.
        """
        new = F.normalize(gather(embeddings.detach()).to(self.rows.dtype), dim=1)
        index = gather(index)
        same = (index[:, None] == index).to(new.dtype)  # [N, N]
        new = (same / same.sum(1, keepdim=True)) @ new
        old = self.rows[index]
        moved = F.normalize(self.momentum * old + (1 - self.momentum) * new, dim=1)
        # where, not a product: the embeddings of a skipped step may be NaN.
        self.rows.index_copy_(0, index, torch.where(finite, moved, old))

    def extra_repr(self) -> str:
        return f"size={self.rows.shape[0]}, dim={self.rows.shape[1]}, momentum={self.momentum}"
