"""Small heads for the methods that every domain has, so that no contract test repeats them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ssl_core.methods import PAIRED
from ssl_core.testing.contract import FRESH, MethodCase

HEAD = {"hidden": 16, "dim": 8}

SMALL: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("simclr", "moco_v3", "sup_con", "byol", "tico", "w_mse"), HEAD),
    **dict.fromkeys(("barlow_twins", "vicreg"), HEAD),
    "moco": HEAD | {"queue": 20},
    "nnclr": HEAD | {"predictor_hidden": 16, "queue": 20},
    "simsiam": HEAD | {"predictor_hidden": 4},
    "ressl": HEAD | {"queue": 20},
    "swav": HEAD | {"prototypes": 12, "queue": 6},
    "lejepa": HEAD | {"directions": 16},
    "exemplar": {"dim": 8},
    "seed": {"hidden": 16, "queue": 20, "teacher": FRESH},
    "feature_distillation": {"hidden": 16, "teacher": FRESH},
}


def paired_cases(
    views: str,
    encoder: str,
    *,
    view_options: Mapping[str, Any] | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    without: Iterable[str] = (),
) -> list[MethodCase]:
    """A case for every method of two views, but for those the domain has cases of its own for."""
    left_out = set(without)
    return [
        MethodCase(name, views, encoder, SMALL[name], view_options or {}, encoder_options or {})
        for name in PAIRED
        if name not in left_out
    ]
