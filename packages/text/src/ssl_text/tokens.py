"""What encoders and views take: token ids of a batch of documents, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Padded token ids.

    `ids` is int64 `[B, L]`; `valid` (bool `[B, L]`) is False on padding, where `ids` holds
    `pad_id`. Padding only ever stands on the right, so that the position of a token in its
    document does not depend on the other documents of the batch.
    """

    ids: Tensor
    valid: Tensor
    pad_id: int = 0
    starts: Tensor | None = None
    """Which tokens begin a word, bool `[B, L]`, where the reader keeps it; views drop it."""

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> TokenBatch:
        starts = None if self.starts is None else self.starts[rows]
        return replace(self, ids=self.ids[rows], valid=self.valid[rows], starts=starts)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each document, specials included, int64 `[B]`."""
        return self.valid.sum(1)

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        return replace(
            self,
            ids=self.ids.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            starts=None if self.starts is None else self.starts.to(device, non_blocking=True),
        )

    def pin_memory(self) -> TokenBatch:
        """The same batch in page-locked memory, from where copies to a GPU can overlap work."""
        starts = None if self.starts is None else self.starts.pin_memory()
        return replace(
            self, ids=self.ids.pin_memory(), valid=self.valid.pin_memory(), starts=starts
        )

    @classmethod
    def stack(cls, documents: Sequence[Tensor], *, pad_id: int) -> TokenBatch:
        """Documents (integer `[n_i]` each) as one batch, padded to the longest.

        Documents of `[2, n_i]` hold ids and, below them, 1 where a word begins.
        """
        starts = None
        if documents[0].dim() == 2:
            marked = cls.stack([document[1] for document in documents], pad_id=0)
            starts = marked.ids.bool()
            documents = [document[0] for document in documents]
        sizes = [len(document) for document in documents]
        lengths, longest = torch.tensor(sizes), max(sizes)
        valid = torch.arange(longest) < lengths[:, None]
        ids = torch.full((len(documents), longest), pad_id, dtype=torch.int64)
        ids[valid] = torch.cat(list(documents)).to(torch.int64)
        return cls(ids, valid, pad_id, starts)

    @classmethod
    def cat(cls, parts: Sequence[TokenBatch]) -> TokenBatch:
        """Several batches, one after another, padded to the longest of them."""
        longest = max(part.ids.shape[1] for part in parts)
        ids = [_widen(part.ids, longest, part.pad_id) for part in parts]
        valid = [_widen(part.valid, longest, False) for part in parts]
        return cls(torch.cat(ids), torch.cat(valid), parts[0].pad_id)


def _widen(x: Tensor, width: int, fill: int | bool) -> Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=fill)
