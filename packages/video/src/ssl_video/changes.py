"""Videos in which things change one way: `ssl-video samples DIR --kind changes`.

The objects and grounds of the default samples, whose motion looks the same at every moment. Here an
object grows or shrinks, appears or fades, starts or brakes, while it drifts in some direction. How
large, faint or fast it is at one moment tells nothing, as each change has its reverse; the order of
moments does. Methods that learn from order have something to learn here. Folders are classes of
change; `objects.csv`, `directions.csv` and `changes.csv` list the same files by each label.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl_video.samples import (
    DEFAULT_COUNT,
    DIRECTIONS,
    FRAMES,
    OBJECTS,
    Course,
    Scene,
    heading,
    write_scenes,
)

CHANGES = ("grow", "shrink", "appear", "fade", "start", "brake")
_DRIFT = 0.6
"""Pixels a frame of what neither starts nor brakes."""
_FASTEST = 2.8
_SMALL, _LARGE = (0.4, 0.7), (1.0, 1.4)
"""Sizes at the two ends of a growth, over the size drawn for a video."""
_FAINT = (0.15, 0.35)
"""Cover of what is about to appear; it ends at 1."""


def write_changes(folder: Path, *, count: int = DEFAULT_COUNT, seed: int = 0) -> None:
    """Writes `count` MP4 files and tables of labels, as `ssl_video.samples.write_samples` does."""
    write_scenes(folder, _scene, count=count, seed=seed)


def _scene(number: int, random: np.random.Generator) -> Scene:
    """Changes in turn, so that every class has its share; the rest at random."""
    change = CHANGES[number % len(CHANGES)]
    thing, direction = str(random.choice(OBJECTS)), str(random.choice(DIRECTIONS))
    ones, steps = np.ones(FRAMES), np.arange(FRAMES)
    ramp = steps / (FRAMES - 1)
    if change in ("shrink", "fade", "brake"):
        ramp = ramp[::-1]
    small, large, faint = (random.uniform(*ends) for ends in (_SMALL, _LARGE, _FAINT))
    speed = _FASTEST * ramp if change in ("start", "brake") else _DRIFT * ones
    gone = np.cumsum(speed)[:, None] * heading(direction)
    course = Course(
        gone,
        small + (large - small) * ramp if change in ("grow", "shrink") else ones,
        faint + (1 - faint) * ramp if change in ("appear", "fade") else ones,
    )
    return Scene({"object": thing, "direction": direction, "change": change}, course)
