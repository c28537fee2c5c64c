"""A reader for loader tests."""

from collections.abc import Mapping
from typing import Any, ClassVar


class DecodingReader:
    """Base of readers whose test must see decoding and collating only."""

    spec: ClassVar[Mapping[str, Any]] = {}

    def raw(self, data: Any) -> Any:
        raise AssertionError("a loader asked for raw features")

    def save(self, folder: Any) -> None:
        raise AssertionError("a loader saved its reader")
