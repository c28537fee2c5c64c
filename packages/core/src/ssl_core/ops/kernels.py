"""Where compiled loops stand in for torch's calls when images are cropped and coloured on the CPU.

numba compiles them on first use (ten seconds in all) and keeps the result beside their source or
in the user's cache folder. They hold no lock of the interpreter's.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from warnings import warn

import torch


def loops_for(device: torch.device) -> ModuleType | None:
    """`ssl_core.ops.loops`, on the CPU where numba is installed (`ssl-core[compiled]`).

    `SSL_COMPILED=0` in the environment turns it off.
    """
    return _loops() if device.type == "cpu" and os.environ.get("SSL_COMPILED") != "0" else None


@cache
def _loops() -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    try:
        from ssl_core.ops import loops
    except ImportError as reason:  # numba refuses versions of numpy that are newer than itself
        warn(f"views are made without numba, which does not load: {reason}", stacklevel=2)
        return None
    return loops
