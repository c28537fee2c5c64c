"""Crop and colour chain of views as compiled loops; needs numba. See `ssl_core.compiling`."""

from ssl_core.ops.loops.colour import Chain
from ssl_core.ops.loops.resize import crop

__all__ = ["Chain", "crop"]
