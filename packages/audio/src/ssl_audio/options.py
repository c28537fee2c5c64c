"""What `data.options` of an audio recipe may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ssl_audio.features import PRESETS
from ssl_core.data.limits import MAX_BYTES
from ssl_core.errors import UserError, unknown


@dataclass(frozen=True)
class ReaderOptions:
    """How recordings are read and turned into features.

    `rate` is what waves are resampled to; `features` a preset of `ssl_audio.features`; `seconds`
    the length that is embedded (None: the median of the data). Of recordings longer than
    `max_seconds` the middle is used or, with `split`, every part of that length as a sample of its
    own. `normalize` is "measured" (on the data) or "published" (AudioSet's for fbank128).
    `array_rate` is the rate of recordings given as bare arrays.
    """

    rate: int = 16_000
    features: str = "mel64"
    seconds: float | None = None
    max_seconds: float = 10.0
    split: bool = False
    normalize: Literal["measured", "published"] = "measured"
    array_rate: int | None = None
    max_bytes: int = MAX_BYTES
    measure: int = 128
    """Records looked at to find lengths and statistics."""

    def __post_init__(self) -> None:
        if self.features not in PRESETS:
            raise unknown("data.options.features", str(self.features), PRESETS)
        if self.normalize not in ("measured", "published"):
            raise UserError(
                f"data.options.normalize: {self.normalize!r}; choose 'measured' or 'published'"
            )
        _number("rate", self.rate, 4_000, 192_000)
        _number("max_seconds", self.max_seconds, 0.05, 3600)
        if self.seconds is not None:
            _number("seconds", self.seconds, 0.05, 3600)
        if self.array_rate is not None:
            _number("array_rate", self.array_rate, 1_000, 768_000)
        _number("max_bytes", self.max_bytes, 1, float("inf"))
        _number("measure", self.measure, 1, float("inf"))
        if not isinstance(self.split, bool):
            raise UserError(f"data.options.split: {self.split!r} is not true or false")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ReaderOptions:
        """Checked options; unknown names raise `UserError`."""
        from ssl_core.registry import check_options

        check_options("data.options", cls, options, positional=0)
        return cls(**options)


def _number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UserError(f"data.options.{name}: {value!r} is not a number from {low:g} to {high:g}")
