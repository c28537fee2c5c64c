"""Which files are audio, and whether a WAV file holds what its header promises."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

SUFFIXES = (
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aiff",
    ".aif",
    ".au",
    ".w64",
    ".caf",
)
"""File names read as audio; libsndfile goes by content, so a wrong one of these does no harm."""

_UNKNOWN_SIZES = {0, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF}
"""What programs that write to a pipe put where the size of the data belongs."""


def missing_bytes(file: BinaryIO) -> tuple[int, int] | None:
    """(bytes there, bytes promised) of a RIFF file cut short; None where nothing is missing.

    libsndfile reads a truncated WAV file as a shorter one without a word.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(4) != b"RIFF" or size < 12:
        return None
    place = 12
    while place + 8 <= size:
        file.seek(place)
        name, promised = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            there = size - place - 8
            cut = promised > there and promised not in _UNKNOWN_SIZES
            return (there, promised) if cut else None
        place += 8 + promised + promised % 2
    return None
