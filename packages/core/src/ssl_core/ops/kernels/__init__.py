"""Crop and colour chain of views as Triton kernels. See `ssl_core.ops.fused`."""

from ssl_core.ops.kernels.colour import Chain
from ssl_core.ops.kernels.resize import crop

__all__ = ["Chain", "crop"]
