"""What every block of a transformer puts out: the targets of data2vec and its kin."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.networks.packing import current_packing


def repeated_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The longest list of like modules inside an encoder: a transformer's blocks."""
    lists = [list(m) for m in encoder.modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]
    alike = [blocks for blocks in lists if blocks and len({type(block) for block in blocks}) == 1]
    if not alike:
        raise UserError(
            f"encoder: {type(encoder).__name__} has no list of blocks whose outputs could be "
            "targets; choose a transformer"
        )
    return max(alike, key=len)


def block_outputs(encoder: nn.Module, tokens: Tokens) -> tuple[Features, list[Tensor]]:
    """Encodes without a mask; also the output `[B, N, D]` of each block, first block first.

    Class tokens, which encoders put first, are left out. Works for any encoder made of a list of
    like blocks (ours, timm's, those of transformers).
    """
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        packing = current_packing()
        outputs.append(states if packing is None else packing.unpack(states))

    handles = [block.register_forward_hook(keep) for block in repeated_blocks(encoder)]
    try:
        features: Features = encoder.encode(tokens)  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
    count = tokens.values.shape[1]
    return features, [output[:, -count:] for output in outputs]
