"""Vision transformers over spectrograms: square patches, or whole frames.

`spec_vit_<size>_patch16` cuts 16 x 16 squares (AST: Gong et al. 2021), `spec_vit_<size>_frame2`
columns of two frames and all mel bands (SSAST's frame patches; ATST-Frame cuts four). Tokens stand
in raster order, frequency by frequency. Positions are made for the spec's frames; shorter and
longer views work too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ssl_core.networks.vit import PUBLISHED_SIZES, PatchTransformer, Pool, Positions


def spec_vit(
    spec: Mapping[str, Any],
    *,
    patch: int | None,
    frame: int | None,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: float = 4.0,
    class_token: bool = True,
    pool: Pool = "mean",
    positions: Positions = "learned",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    layer_scale: float | None = None,
) -> PatchTransformer:
    """A transformer over `[B, 1, mels, frames]` in `patch` x `patch` squares or `frame` columns."""
    mels, frames = int(spec["mels"]), int(spec["frames"])
    cut = (patch, patch) if patch is not None else (mels, int(frame or 1))
    if mels % cut[0]:
        raise ValueError(f"patches of {cut[0]} do not divide {mels} mel bands")
    return PatchTransformer(
        channels=1,
        sides=(mels, max(cut[1], frames - frames % cut[1])),
        patch=cut,
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


SIZES: dict[str, dict[str, Any]] = {"nano": {"dim": 96, "depth": 4, "heads": 3}, **PUBLISHED_SIZES}


def __getattr__(name: str) -> Any:
    """A factory for every `spec_vit_<size>_patch<n>` and `spec_vit_<size>_frame<n>`."""
    size, _, cut = name.removeprefix("spec_vit_").partition("_")
    kind, number = cut.rstrip("0123456789"), cut.lstrip("abcdefghijklmnopqrstuvwxyz")
    if name.startswith("spec_vit_") and size in SIZES and number and kind in ("patch", "frame"):
        cuts: dict[str, int | None] = {"patch": None, "frame": None, kind: int(number)}
        return partial(spec_vit, **cuts, **SIZES[size])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
