"""Plain arrays as PNG files, and such files in a page."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np

_GAP = 2
_WHITE = 255
_WIDE = 150
"""Pixels from which a picture is a row of several (frames, planes) and gets more room."""


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
    filtered = _filtered(rows, 1 if pixels.ndim == 2 else 3)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data)
        for name, data in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(filtered.tobytes(), 6)),
            (b"IEND", b""),
        )
    )


def _filtered(rows: np.ndarray, step: int) -> np.ndarray:
    """Bytes `[H, 1 + W]` with the number of each row's filter in front.

    A row is stored as it is, or as the difference to the pixel on the left (`step` bytes before),
    above, or to whichever of left, above and corner is nearest to left + above - corner (Paeth);
    the least sum of differences wins, as the PNG specification advises.
    """
    left = np.pad(rows, ((0, 0), (step, 0)))[:, :-step]
    above = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(above, ((0, 0), (step, 0)))[:, :-step]
    a, b, c = (x.astype(np.int16) for x in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
    stored = np.stack([rows, rows - left, rows - above, rows - paeth])  # modulo 256
    cost = np.abs(stored.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)  # [4, H]
    best = cost.argmin(axis=0)
    number = np.array([0, 1, 2, 4], np.uint8)[best]
    out: np.ndarray = np.column_stack([number, stored[best, np.arange(len(rows))]])
    return out


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


def figure(caption: str, png: bytes) -> str:
    """A PNG file with its caption, as HTML that holds the file."""
    wide = ' class="wide"' if int.from_bytes(png[16:20], "big") > _WIDE else ""
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption><img{wide} alt="{escape(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'
    )
