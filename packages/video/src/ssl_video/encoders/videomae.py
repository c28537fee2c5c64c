"""VideoMAE's weights and positions as transformers stores them, in our names."""

from __future__ import annotations

import torch
from torch import Tensor

_LAYER = "encoder.layer."
_INSIDE = {
    "attention.output.dense.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
}
_OUTSIDE = {
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "layernorm.": "norm.",
    "fc_norm.": "norm.",
}


def flat_positions(count: int, dim: int) -> Tensor:
    """Sines of a token's number n, float32 `[count, dim]`: columns 2i and 2i + 1 hold the sine and
    cosine of n / 10000^(2i/dim), as in Vaswani et al. 2017 and VideoMAE."""
    number = torch.arange(count, dtype=torch.float64)[:, None]
    pair = torch.arange(dim, dtype=torch.float64) // 2
    angle = number / 10_000.0 ** (2 * pair / dim)
    table = torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos())
    return table.to(torch.float32)


def from_videomae(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with transformers' names renamed; others stay as they are.

    Query, key and value are joined; VideoMAE has no bias on keys, which becomes a zero one.
    """
    out: dict[str, Tensor] = {}
    split: dict[str, dict[str, Tensor]] = {}
    for name, value in given.items():
        name = name.removeprefix("videomae.")
        if name.startswith(_LAYER):
            number, _, rest = name.removeprefix(_LAYER).partition(".")
            part = rest.removeprefix("attention.attention.")
            if part != rest:
                split.setdefault(number, {})[part] = value
                continue
            for theirs, ours in _INSIDE.items():
                if rest.startswith(theirs):
                    name = f"blocks.{number}.{ours}{rest.removeprefix(theirs)}"
                    break
        else:
            for theirs, ours in _OUTSIDE.items():
                if name.startswith(theirs):
                    name = ours + name.removeprefix(theirs)
                    break
        out[name] = value
    for number, parts in split.items():
        out[f"blocks.{number}.attn.qkv.weight"] = torch.cat(
            [parts[f"{role}.weight"] for role in ("query", "key", "value")]
        )
        query = parts.get("query.bias", parts.get("q_bias"))
        value = parts.get("value.bias", parts.get("v_bias"))
        if query is not None and value is not None:
            out[f"blocks.{number}.attn.qkv.bias"] = torch.cat(
                [query, torch.zeros_like(query), value]
            )
    return out
