"""Loops that numba compiles, where on a CPU torch's calls cost more than their arithmetic.

A module of such loops stands beside torch's calls for the same numbers and is chosen where numba is
installed (`ssl-core[compiled]`). Its loops are compiled on first use (seconds) and kept beside
their source or in the user's cache folder. They hold no lock of the interpreter's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from warnings import warn

import torch
from torch import Tensor
from torch.nn import Parameter

_log = logging.getLogger("ssl_core")


def compiled(module: str, device: torch.device) -> ModuleType | None:
    """The module of loops of this name, on the CPU and where numba is there to compile them.

    `SSL_COMPILED=0` in the environment turns all of them off.
    """
    asked = device.type == "cpu" and os.environ.get("SSL_COMPILED") != "0"
    return _module(module) if asked else None


def one_thread(module: str, tensors: Sequence[Tensor]) -> ModuleType | None:
    """The same, of loops that replace calls which torch would share among its threads.

    They take float32 tensors only, and none that have no memory: fake ones, by which runs are
    planned, and what is being traced.
    """
    if torch.get_num_threads() > 1 or torch.compiler.is_compiling():
        return None
    plain = all(type(x) in (Tensor, Parameter) and x.dtype == torch.float32 for x in tensors)
    return compiled(module, tensors[0].device) if plain else None


@cache
def _module(name: str) -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    try:
        _announce()
        return import_module(name)
    except ImportError as reason:  # numba refuses versions of numpy that are newer than itself
        warn(f"numba does not load, so torch's calls do the work of {name}: {reason}", stacklevel=3)
        return None


@cache
def _announce() -> None:
    """Has the first compilation of this process told, in which nothing else seems to happen."""
    from numba.core import event

    class Told(event.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            module = event.data["dispatcher"].py_func.__module__ or ""  # of no file: none
            if module.startswith("ssl_core.") and not self.said:
                _log.warning("compiling loops for this processor: some seconds, once")
                self.said = True

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Told())  # type: ignore[no-untyped-call]


def kept(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, with the compiled code kept for the next process where a folder lets it."""
    from numba import njit

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither beside the source nor in the user's cache folder
            return njit(nogil=True, **options)(function)

    return compile_
