"""Other libraries' dropout and stochastic depth, redrawn from the sample's key.

Layers of timm, torchvision and transformers draw from global random state, which would make a
resumed run, or one with other batch splits, differ.
"""

from __future__ import annotations

from torch import nn

from ssl_core.errors import UserError
from ssl_core.networks.dropout import DropPath, key_dropout

# Layers of one drawing a whole sample's branch: end of the class name (transformers has a
# Dinov2DropPath) -> attribute holding the probability.
_PATHS = {"DropPath": "drop_prob", "StochasticDepth": "p"}
# Layers that draw from global state in ways a key per sample cannot replace.
_REFUSED = {"DropBlock2d": "drop_prob", "PatchDropout": "prob", "PatchDropoutWithIndices": "prob"}


def key_randomness(module: nn.Module) -> None:
    """Replaces every random layer inside `module` by a keyed one, in place."""
    key_dropout(module)
    for prefix, parent in list(module.named_modules()):
        for name, child in list(parent.named_children()):
            kind = type(child).__name__
            if isinstance(child, DropPath):
                continue
            held = next((held for end, held in _PATHS.items() if kind.endswith(end)), None)
            if held is not None and getattr(child, "mode", "row") == "row":
                p = float(getattr(child, held) or 0)
                setattr(parent, name, DropPath(p, stream=f"{prefix}.{name}"))
            elif kind in _REFUSED and getattr(child, _REFUSED[kind]):
                raise UserError(f"encoder: {kind} draws unrepeatable numbers; set its rate to 0")
