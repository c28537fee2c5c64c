"""Memory of a process as Linux counts it, and measurements in processes of their own.

The kernel keeps the highest resident set (VmHWM) and forgets it when told to. Only a fresh process
tells what a piece of work needs: one that has worked before holds memory it can use again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MIB = 2**20
# Large blocks get mappings of their own: freed memory leaves the resident set at once, and
# fragmentation does not blur the number.
SHARP = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process by the kernel's name: VmRSS now, VmHWM at most, RssFile of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """The highest resident set counts from here."""
    Path("/proc/self/clear_refs").write_text("5")


def start_counting() -> int:
    """What `grown` wants: the resident set without the pages of files, from here on."""
    before = resident() - resident("RssFile")
    forget_peak()
    return before


def grown(before: int) -> int:
    """Bytes the highest resident set lies above `before`, without libraries' code read since."""
    return resident("VmHWM") - resident("RssFile") - before


def apart(script: str, words: Sequence[str], variables: Mapping[str, str] = SHARP) -> Any:
    """What `script`, run with `words` in a process of its own, hands to `answer`."""
    command = [sys.executable, script, *words]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(found: Any) -> None:
    """The last line of a process that `apart` started."""
    print(json.dumps(found))
