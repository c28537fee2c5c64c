"""A second network of the same architecture, for methods that need two."""

from __future__ import annotations

import copy

from torch import nn


def fresh_copy(network: nn.Module) -> nn.Module:
    """The same architecture with an initialisation of its own."""
    other = copy.deepcopy(network)
    for module in other.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return other
