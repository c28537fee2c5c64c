"""Videos that are pictures: GIF files, folders of frames, and arrays in memory or in `.npy`."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""File names read as frames of a folder."""


class ArrayVideo:
    """Frames `[T, H, W]` or `[T, H, W, C]` with C of 1, 3 or 4 (alpha is dropped), uint8.

    Arrays hold no times: `fps` says how many frames a second has.
    """

    def __init__(self, array: Any, *, fps: float = 25.0) -> None:
        pixels = np.asarray(array)
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
            raise CorruptSample(
                f"array of shape {np.asarray(array).shape}; a video is [frames, height, width] or "
                "[frames, height, width, channels]"
            )
        if pixels.dtype != np.uint8:
            raise CorruptSample(f"array of {pixels.dtype}; frames are uint8")
        self._pixels = pixels
        self.times = np.arange(len(pixels)) / fps

    def __len__(self) -> int:
        return len(self._pixels)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        taken = self._pixels[numbers]
        return taken.repeat(3, axis=-1) if taken.shape[-1] == 1 else taken[..., :3].copy()

    def close(self) -> None:
        """Nothing is open."""


def array_file(path: str) -> ArrayVideo:
    """A `.npy` file, mapped: only the frames taken are read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CorruptSample(f"not an array file ({error})") from error
    return ArrayVideo(array)


class GIFVideo:
    """An animated picture by Pillow; frames are composed one on another, as browsers do."""

    def __init__(self, payload: str | bytes) -> None:
        from PIL import Image

        source: Any = io.BytesIO(payload) if isinstance(payload, bytes) else payload
        try:
            self._image: Any = Image.open(source)
            durations = []
            for number in range(getattr(self._image, "n_frames", 1)):
                self._image.seek(number)
                durations.append(float(self._image.info.get("duration", 0)) or 100.0)
        except (OSError, EOFError, ValueError, SyntaxError) as error:
            raise CorruptSample(f"not an animated picture ({error})") from error
        self.times = np.concatenate([[0.0], np.cumsum(durations[:-1])]) / 1000

    def __len__(self) -> int:
        return len(self.times)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        found = {}
        try:
            for number in np.unique(numbers).tolist():
                self._image.seek(number)
                found[number] = np.asarray(self._image.convert("RGB"))
        except (OSError, EOFError, ValueError) as error:
            raise CorruptSample(f"cannot be decoded ({error})") from error
        return np.stack([found[number] for number in numbers.tolist()])

    def close(self) -> None:
        self._image.close()


class FolderVideo:
    """A folder of pictures, sorted by name; numbers in names sort as numbers."""

    def __init__(self, folder: str, *, fps: float = 25.0) -> None:
        names = [name for name in os.listdir(folder) if name.lower().endswith(PICTURES)]
        if not names:
            raise CorruptSample(f"folder without pictures ({', '.join(PICTURES)})")
        self._paths = [Path(folder, name) for name in sorted(names, key=_natural)]
        self.times = np.arange(len(names)) / fps

    def __len__(self) -> int:
        return len(self._paths)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        from PIL import Image

        found: dict[int, np.ndarray] = {}
        for number in np.unique(numbers).tolist():
            try:
                with Image.open(self._paths[number]) as image:
                    found[number] = np.asarray(image.convert("RGB"))
            except (OSError, ValueError, SyntaxError) as error:
                raise CorruptSample(f"frame {self._paths[number].name}: {error}") from error
        sizes = {pixels.shape for pixels in found.values()}
        if len(sizes) > 1:
            raise CorruptSample(f"frames of different sizes {sorted(sizes)}")
        return np.stack([found[number] for number in numbers.tolist()])

    def close(self) -> None:
        """Nothing is open."""


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts frame2 before frame10."""
    parts, number = [], ""
    for character in f"{name.lower()}\0":
        if character.isdecimal() and character.isascii():
            number += character
            continue
        if number:
            parts.append((int(number), ""))
            number = ""
        parts.append((-1, character))
    return tuple(parts)
