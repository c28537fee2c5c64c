"""Refresh the exact versions that stand in `[tool.uv] constraint-dependencies`.

The workspace commits no lock file (a lock names registry hosts). Instead the versions that the
tests ran with are written as constraints: `uv sync` then installs the same set everywhere.

    python tools/pins.py            # resolve the newest allowed versions and write them
    python tools/pins.py --check    # fail when a pinned version is not the installed one
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
# Upper bounds that hold back a resolution for a known reason.
CAPS = {"torch": "<2.15"}  # the newest torchaudio (2.11) does not import with torch 2.15
BLOCK = re.compile(r"constraint-dependencies = \[.*?\n?\]\n", re.DOTALL)


def write(lines: list[str]) -> None:
    body = "".join(f'    "{line}",\n' for line in lines)
    text = PYPROJECT.read_text()
    new, count = BLOCK.subn(lambda _: f"constraint-dependencies = [\n{body}]\n", text)
    if count != 1:
        sys.exit("pyproject.toml: expected exactly one constraint-dependencies block")
    PYPROJECT.write_text(new)


def resolved() -> list[str]:
    """Versions of a fresh resolution, as `name==version` (local version labels removed)."""
    command = ["uv", "export", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-workspace"]
    command += ["--format", "requirements-txt", "--all-groups", "--all-extras"]
    (ROOT / "uv.lock").unlink(missing_ok=True)
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = [line.strip() for line in output.splitlines()]
    return sorted(line for line in lines if "==" in line and not line.startswith("-"))


def check() -> int:
    from packaging.requirements import Requirement  # with pytest and transformers, so always here

    wrong = []
    pins = [Requirement(line) for line in re.findall(r'^    "([^"]+==[^"]+)"', _text(), re.M)]
    for pin in pins:
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra or a group that is not installed
        if not pin.specifier.contains(installed.split("+")[0]):
            wrong.append(f"{pin.name}: pinned {pin.specifier}, installed {installed}")
    print("\n".join(wrong) or f"{len(pins)} pins agree with this environment")
    return 1 if wrong else 0


def _text() -> str:
    return PYPROJECT.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is installed")
    if parser.parse_args().check:
        return check()
    write([f"{name}{cap}" for name, cap in CAPS.items()])
    write(resolved())
    return 0


if __name__ == "__main__":
    sys.exit(main())
