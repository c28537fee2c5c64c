"""Vision transformers over cubes or squares: `vit_base_patch16` and its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.networks.vit import PUBLISHED_SIZES, PatchTransformer, Pool, Positions, sized


def vit(
    spec: Mapping[str, Any],
    *,
    patch: int,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: float = 4.0,
    class_token: bool = False,
    pool: Pool = "mean",
    positions: Positions = "sincos",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    layer_scale: float | None = None,
) -> PatchTransformer:
    """A transformer for blocks with these facts; patches are as deep as the block allows."""
    axes = int(spec["axes"])
    sides = [int(s) for s in spec.get("view_sides", spec["block"][:axes])]
    return PatchTransformer(
        channels=int(spec["channels"]),
        sides=tuple(max(patch, side - side % patch) for side in sides),
        patch=(patch,) * axes,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        class_token=class_token,
        pool=pool,
        positions=positions,
        dropout=dropout,
        drop_path=drop_path,
        layer_scale=layer_scale,
    )


SIZES: dict[str, dict[str, Any]] = {"nano": {"dim": 96, "depth": 6, "heads": 3}, **PUBLISHED_SIZES}


def __getattr__(name: str) -> Any:
    """A factory for every `vit_<size>_patch<n>`, so that registries can point at it."""
    return sized(__name__, name, SIZES, vit)
