"""Facts that a file's first bytes state: format and pixel size, before anything is decoded.

A header costs its writer nothing, a decoder that trusts it costs gigabytes; so sizes are checked
here first, for the formats that have a fast decoder. All others go through Pillow's own headers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ssl_core.errors import CorruptSample

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".jp2",
    ".j2k",
    ".avif",
    ".heic",
    ".heif",
    ".ppm",
    ".pgm",
    ".npy",
    ".dcm",
)
"""File names read as images."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    (0, b"\x93NUMPY", "NPY"),
    (0, b"P5", "PPM"),
    (0, b"P6", "PPM"),
    (0, b"BM", "BMP"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (128, b"DICM", "DICOM"),
)

_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIF"),
}
"""What the brands of an ISO media file say about the images inside."""

# Start-of-frame markers: every Cn but DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True)
class Header:
    """What the header says: pixels, components, bits per component; `indexed` has a palette."""

    width: int
    height: int
    channels: int
    bits: int
    indexed: bool = False


def sniff(data: bytes) -> str:
    """The format by magic number; file names are not trusted."""
    for offset, magic, name in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    for brand in _brands(data):
        if brand in _BRANDS:
            return _BRANDS[brand]
    shown = bytes(data[:12])
    raise CorruptSample(f"not an image file: it starts with {shown!r}" if data else "empty file")


def _brands(data: bytes) -> list[bytes]:
    """The major brand and the compatible ones of an ISO media file (ISO/IEC 14496-12, 4.3)."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), len(data))
    return [bytes(data[8:12]), *(bytes(data[at : at + 4]) for at in range(16, end, 4))]


def jpeg_header(data: bytes) -> Header:
    """Walks the segments of a JPEG to its frame header (ITU T.81, B.2.2)."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise CorruptSample(f"JPEG: no marker at byte {at}, found 0x{data[at]:02x}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        if marker in _FRAMES:
            if at + 10 > len(data):
                break
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return Header(width, height, channels, bits)
        if marker in (0xD9, 0xDA):
            raise CorruptSample("JPEG: image data before any frame header")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise CorruptSample("JPEG: truncated before its frame header")


_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_header(data: bytes) -> Header:
    """Reads IHDR, which the standard puts first."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise CorruptSample("PNG: truncated before its IHDR chunk")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if colour not in _PNG_CHANNELS:
        raise CorruptSample(f"PNG: colour type {colour} does not exist")
    return Header(width, height, _PNG_CHANNELS[colour], bits, indexed=colour == 3)


def jpeg2000_header(data: bytes) -> Header:
    """Reads the SIZ segment of the codestream, bare or in its boxes (ITU T.800, A.5.1)."""
    at = data.find(b"\xff\x4f\xff\x51")  # start of codestream, which SIZ follows
    if at < 0 or len(data) < at + 43:
        raise CorruptSample("JPEG2000: truncated before its SIZ segment")
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    channels, depth = struct.unpack_from(">HB", data, at + 40)
    return Header(right - left, bottom - top, channels, (depth & 0x7F) + 1)
