"""A queue of earlier embeddings: more candidates than a batch holds, without their graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import gather


class Queue(nn.Module):
    """The newest `size` embeddings, first in first out (MoCo: He et al. 2020).

    `rows` is `[size, dim]` of unit length, random at the start; every replica holds the same. The
    batch need not divide the size: writing wraps around.

        loss = moco(q, k, self.queue.rows)
        ...                                        # after the step
        self.queue.push(k, finite=step.finite)
    """

    rows: Tensor
    cursor: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a queue needs size and dim of at least 1, got {size} and {dim}")
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, embeddings: Tensor, *, finite: Tensor) -> None:
        """Writes `[B, dim]` of all replicas over the oldest rows, scaled to unit length.

        Where `finite` (0-dim bool) is False nothing changes, without asking the device.
        """
        new = F.normalize(gather(embeddings.detach()).to(self.rows.dtype), dim=1)
        new = new[-self.rows.shape[0] :]  # a batch larger than the queue leaves its end
        place = torch.arange(new.shape[0], device=new.device)
        index = (self.cursor + place) % self.rows.shape[0]
        # where, not a product: the embeddings of a skipped step may be NaN.
        self.rows.index_copy_(0, index, torch.where(finite, new, self.rows[index]))
        self.cursor.add_(new.shape[0] * finite).remainder_(self.rows.shape[0])

    def extra_repr(self) -> str:
        return f"size={self.rows.shape[0]}, dim={self.rows.shape[1]}"
