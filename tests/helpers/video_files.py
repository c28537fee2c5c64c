"""Small video files with known frames, for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np


def moving(frames: int = 30, height: int = 48, width: int = 64) -> np.ndarray:
    """Noise that shifts by one row and two columns a frame and grows brighter."""
    base = np.random.default_rng(0).integers(0, 200, (height, width, 3))
    shifted = [np.roll(base, (n, 2 * n), (0, 1)) // 2 + 3 * n for n in range(frames)]
    return np.stack(shifted).astype(np.uint8)


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    codec: str = "libx264",
    fps: int = 25,
    variable: bool = False,
    group: int = 12,
) -> Path:
    """Encodes frames; with `variable` each is shown 20 to 120 ms."""
    import av

    gaps = np.random.default_rng(1).integers(20, 120, len(pixels))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": str(group), "crf": "20"}
        if variable:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, image in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if variable:
                frame.pts, frame.time_base = int(gaps[:number].sum()), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotate(path: Path, degrees: int) -> None:
    """Writes a clockwise rotation into the display matrix of an MP4 file's video track."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd")
    # Version 0: 4 type + 4 version/flags + 20 times and ids + 8 + 8 before the 3 x 3 matrix.
    matrix = at + 4 + 4 + 20 + 8 + 8
    turn = np.deg2rad(degrees)
    c, s = round(np.cos(turn)) * 65536, round(np.sin(turn)) * 65536
    for place, value in zip(range(9), (c, s, 0, -s, c, 0, 0, 0, 1 << 30), strict=True):
        data[matrix + 4 * place : matrix + 4 * place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
