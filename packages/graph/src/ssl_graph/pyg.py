"""PyTorch Geometric, imported on first use and without its own import warning.

PyG 2.8 scripts a class while it is imported, which newer torch answers with a FutureWarning that
is not about any code of ours. Only that warning, and only during this import, is silenced.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
    from torch_geometric import data, nn  # type: ignore[import-untyped]

__all__ = ["data", "nn"]
