"""What `data.options` of an audio recipe may set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssl_audio.features import PRESETS
from ssl_core.data.limits import MAX_BYTES
from ssl_core.data.reading import Options, number, one_of, whole_number
from ssl_core.errors import UserError, unknown


@dataclass(frozen=True)
class ReaderOptions(Options):
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
        one_of("normalize", self.normalize, ("measured", "published"))
        number("rate", self.rate, 4_000, 192_000)
        number("max_seconds", self.max_seconds, 0.05, 3600)
        if self.seconds is not None:
            number("seconds", self.seconds, 0.05, 3600)
        if self.array_rate is not None:
            number("array_rate", self.array_rate, 1_000, 768_000)
        whole_number("max_bytes", self.max_bytes, 1)
        whole_number("measure", self.measure, 1)
        if not isinstance(self.split, bool):
            raise UserError(f"data.options.split: {self.split!r} is not true or false")
