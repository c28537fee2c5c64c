"""Numbers of the host on a device, without waiting for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sent(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.tensor(values, dtype=dtype)` on `device`.

    Made there at once, it would have the host wait until an accelerator has done everything
    before the copy.
    """
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
