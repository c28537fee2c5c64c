"""Is this a release? Builds every package, installs each alone, runs its default job and its tests.

    uv run python tools/release.py                      # everything; wheels and sdists in dist/
    uv run python tools/release.py --packages audio     # one domain (and the core it stands on)
    uv run python tools/release.py --steps 20           # a short default job

Each domain goes into an empty environment of its own from the built wheels, at the pinned
versions, without the rest of the workspace: what a user gets from `pip install`. Checked there:
nothing of another domain is installed, `--help` works, the default job ends with its summary and
report, importing opens no connection, and the package's tests pass.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
DOMAINS = sorted(path.parent.name[4:] for path in ROOT.glob("packages/*/src/ssl_*/domain.py"))
DOMAINS.remove("core")
OFFLINE = (
    "import socket, sys\n"
    "def refuse(*a, **k): raise SystemExit('importing opened a connection')\n"
    "socket.socket.connect = refuse\n"
    "import {module}.domain\n"
)


def run(command: Sequence[str | Path], cwd: Path, **extra: str) -> str:
    """A command's standard output; its error output and the end of the program where it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def build(package: str) -> Path:
    """Wheel and sdist of a package in `dist/`; returns the wheel."""
    run(["uv", "build", "--package", f"ssl-{package}", "--out-dir", DIST], ROOT)
    wheel = next(DIST.glob(f"ssl_{package}-*.whl"))
    check_content(wheel, f"ssl_{package}")
    return wheel


def check_content(wheel: Path, module: str) -> None:
    """Typed, licensed, with its recipes, and nothing that does not belong."""
    names = zipfile.ZipFile(wheel).namelist()
    metadata = next(name for name in names if name.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    problems = []
    if f"{module}/py.typed" not in names:
        problems.append("no py.typed")
    if not re.search(r"^License(-Expression)?: ", text, re.M):
        problems.append("no licence")
    if not any(name.endswith("licenses/LICENSE") for name in names):
        problems.append("no licence file")
    if "Classifier: Typing :: Typed" not in text:
        problems.append("no classifiers")
    if f"{module}/__init__.pyi" not in names:
        problems.append("no stub of its public names")
    if module != "ssl_core" and f"{module}/recipes/default.yaml" not in names:
        problems.append("no default recipe")
    problems += [f"{name} does not belong" for name in names if "/tests/" in name]
    if problems:
        sys.exit(f"{wheel.name}: {', '.join(problems)}")


def constraints(folder: Path) -> Path:
    """The pinned versions as a constraints file."""
    pins = re.findall(r'^    "([^"]+==[^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    path = folder / "constraints.txt"
    path.write_text("\n".join(pins) + "\n")
    return path


def try_out(domain: str, core: Path, wheel: Path, folder: Path, steps: int | None) -> str:
    """One domain in an empty environment; returns a line about it."""
    module = f"ssl_{domain}"
    run(["uv", "venv", folder / "env"], folder)
    python = folder / "env" / "bin" / "python"
    install = ["uv", "pip", "install", "--python", python, "-c", constraints(folder)]
    run([*install, core, wheel], folder)
    listed = json.loads(run(["uv", "pip", "list", "--python", python, "--format", "json"], folder))
    ours = {entry["name"] for entry in listed if entry["name"].startswith("ssl-")}
    if ours != {"ssl-core", f"ssl-{domain}"}:
        sys.exit(f"ssl-{domain} alone brought {sorted(ours)}")
    run([python, "-c", OFFLINE.format(module=module)], folder)
    command = folder / "env" / "bin" / f"ssl-{domain}"
    run([command, "--help"], folder)
    shorter = [] if steps is None else ["--steps", str(steps)]
    began = time.perf_counter()
    out = run([command, "pretrain", "--json", "--out", folder / "run", *shorter], folder)
    seconds = time.perf_counter() - began
    summary = json.loads(out.splitlines()[-1])
    if not (folder / "run" / "report.html").is_file():
        sys.exit(f"ssl-{domain} pretrain wrote no report")
    tests = try_tests(domain, folder, python, install)
    score = summary["score"]
    numbers = " / ".join(f"{score[name]:.3f}" for name in ("raw", "untrained", "trained"))
    return f"{len(listed)} | {score['name']} {numbers} | {seconds:.0f} | {tests}"


def try_tests(domain: str, folder: Path, python: Path, install: Sequence[str | Path]) -> str:
    """The package's own tests against the installed wheel; pytest's closing line."""
    run([*install, "pytest", "hypothesis", "scipy", "pandas"], folder)
    # The tests' settings and helpers lie in the workspace; its sources must not be on the path.
    for name in ("conftest.py", "pyproject.toml", "tests/helpers", "shared"):
        target = folder / "work" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    tests = folder / "work" / "packages" / domain / "tests"
    shutil.copytree(ROOT / "packages" / domain / "tests", tests)
    out = run([python, "-m", "pytest", "-q", tests], folder / "work", OMP_NUM_THREADS="1")
    return out.splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", nargs="+", choices=DOMAINS, default=DOMAINS)
    parser.add_argument("--steps", type=int, help="of the default job; its own number if not given")
    given = parser.parse_args()
    shutil.rmtree(DIST, ignore_errors=True)
    core = build("core")
    print("| package | distributions | score raw / untrained / trained | seconds | tests |")
    print("|---|---|---|---|---|", flush=True)
    for domain in given.packages:
        wheel = build(domain)
        with tempfile.TemporaryDirectory() as folder:
            found = try_out(domain, core, wheel, Path(folder), given.steps)
        print(f"| ssl-{domain} | {found} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
