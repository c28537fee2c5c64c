"""Plain arrays as PNG files, and as a section of the report."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

_GAP = 2
_WHITE = 255


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 `[H, W]` (grey) or `[H, W, 3]` (RGB)."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"a picture is uint8 [H, W] or [H, W, 3], got {pixels.dtype} {pixels.shape}"
        )
    height, width = pixels.shape[:2]
    colour = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0: none
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data)
        for name, data in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(filtered.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below one another, with a white gap; narrower ones get a white edge."""
    width = max(picture.shape[1] for picture in pictures)
    rows: list[np.ndarray] = []
    for picture in pictures:
        rest = [(0, 0)] * (picture.ndim - 2)
        edge = ((0, _GAP), (0, width - picture.shape[1]), *rest)
        rows.append(np.pad(picture, edge, constant_values=_WHITE))
    whole: np.ndarray = np.concatenate(rows)[:-_GAP]
    return whole


def section(files: Sequence[tuple[str, Path]]) -> str:
    """The report's part with pictures, `(caption, PNG file)` each; "" without any."""
    figures = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<img alt="{escape(caption)}" style="width:100%;image-rendering:pixelated" '
        f'src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"></figure>'
        for caption, file in files
    )
    if not figures:
        return ""
    return (
        "<h2>What the method sees: the same held-out records in every column</h2>"
        '<div class="grid2" style="grid-template-columns:'
        f'repeat(auto-fit,minmax(min(100%,200px),1fr))">{figures}</div>'
    )
