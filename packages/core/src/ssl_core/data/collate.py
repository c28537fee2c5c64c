"""Decoded samples to one batch in CPU memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ssl_core.batch import Batch, Reader
from ssl_core.data.fetch import Item


def collate(items: Sequence[Item], ids: np.ndarray, reader: Reader, *, labelled: bool) -> Batch:
    """A batch of B items; labels are -1 where missing, None for an unlabelled source."""
    label = None
    if labelled or any(item.label is not None for item in items):
        label = torch.tensor([-1 if item.label is None else item.label for item in items])
    return Batch(
        data=reader.collate([item.sample for item in items]),
        ids=torch.from_numpy(ids),
        index=torch.tensor([item.index for item in items]),
        keys=tuple(item.key for item in items),
        label=label,
    )
