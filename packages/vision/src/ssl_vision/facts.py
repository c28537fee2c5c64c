"""What only images have to tell `inspect`: formats, sizes, and what decoding leaves out."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any

from ssl_core.batch import Source
from ssl_core.data.heads import evenly
from ssl_core.data.limits import read_bytes
from ssl_core.errors import CorruptSample
from ssl_vision import formats
from ssl_vision.decode import opened

LOOKED_AT = 200
"""Files whose headers are read."""
_ORIENTATION = 0x0112


def image_facts(source: Source, rows: Sequence[int]) -> dict[str, Any]:
    """Formats and colour modes (with how many files have them), sizes, and notes.

    Of up to `LOOKED_AT` of the records `rows`, spread evenly; those that are no image files (arrays
    in memory, packed samples, damaged ones) are passed over. Notes count files with several frames
    or pages, of which the first is read, and files that are turned by their EXIF orientation.
    """
    kinds: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    for row in (rows[i] for i in evenly(len(rows), LOOKED_AT)):
        try:
            data = read_bytes(source[row])
            kind = formats.sniff(data)
            mode, size, frames, turned = _header(kind, data)
        except Exception:  # the reader's own pass names what is wrong with a record
            continue
        kinds[kind] += 1
        modes[mode] += 1
        sizes.append(size)
        if frames > 1:
            notes[f"{kind} files with several frames or pages; only the first is read"] += 1
        if turned:
            notes["files turned as their EXIF orientation says"] += 1
    if not sizes:
        return {}
    return {
        "formats": dict(kinds.most_common()),
        "modes": dict(modes.most_common()),
        "width": _range([width for width, _ in sizes]),
        "height": _range([height for _, height in sizes]),
        **({"notes": dict(notes)} if notes else {}),
    }


def _header(kind: str, data: bytes) -> tuple[str, tuple[int, int], int, bool]:
    """(mode, (width, height), frames, whether EXIF turns it) from headers alone."""
    if kind == "TIFF":
        return _tiff(data)
    if kind == "JPEG2000":
        header = formats.jpeg2000_header(data)
        return f"{header.channels} x {header.bits} bits", (header.width, header.height), 1, False
    if kind in ("NPY", "DICOM"):
        raise CorruptSample("no picture file")
    with opened(kind, data) as image:
        turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
        return image.mode, image.size, getattr(image, "n_frames", 1), turned


def _tiff(data: bytes) -> tuple[str, tuple[int, int], int, bool]:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series: Any = file.series[0]
        sides = dict(zip(series.axes, series.shape, strict=True))
        channels = sides.get("S", sides.get("C", 1))
        frames = len(file.series)
        for axis, length in sides.items():
            frames *= 1 if axis in "YXSC" else length
        return f"{channels} x {series.dtype}", (sides["X"], sides["Y"]), frames, False


def _range(values: Sequence[int]) -> Mapping[str, int]:
    return {"least": min(values), "median": median_low(values), "most": max(values)}
