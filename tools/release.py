"""Is this a release? Builds every package, installs each alone, runs its default job and its tests.

    uv run python tools/release.py                      # everything; wheels and sdists in dist/
    uv run python tools/release.py --packages audio     # one package (and the core it stands on)
    uv run python tools/release.py --steps 20           # a short default job

Each package goes into an empty environment of its own from the built wheels, at the pinned
versions, without the rest of the workspace: what a user gets from `pip install`. Checked there:
nothing of another domain is installed, importing opens no connection, `--help` works, the default
job ends with its summary and report, and the package's tests pass. The core has no job; `ssl-lab`
brings no domain, lists its experiments, and is tested with all domains beside it. Wheels are built
from the sdists, so both hold all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
DOMAINS = sorted(path.parent.name[4:] for path in ROOT.glob("packages/*/src/ssl_*/domain.py"))
DOMAINS.remove("core")
PACKAGES = {
    "core": ROOT / "packages" / "core",
    **{name: ROOT / "packages" / name for name in DOMAINS},
    "lab": ROOT / "apps" / "lab",
}
ENTRY = {"core": "ssl_core.api", "lab": "ssl_lab.__main__"}
"""What importing must not open a connection from; a domain's is its `domain` module."""

OFFLINE = (
    "import socket, sys\n"
    "def refuse(*a, **k): raise SystemExit('importing opened a connection')\n"
    "socket.socket.connect = refuse\n"
    "import {entry}\n"
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
    """Wheel and sdist of a package in `dist/`; returns the wheel, which the sdist made."""
    run(["uv", "build", "--package", f"ssl-{package}", "--out-dir", DIST], ROOT)
    wheel = next(DIST.glob(f"ssl_{package}-*.whl"))
    check_content(wheel, f"ssl_{package}")
    check_source(next(DIST.glob(f"ssl_{package}-*.tar.gz")))
    return wheel


def check_source(sdist: Path) -> None:
    """Licence, readme and no stray large file."""
    with tarfile.open(sdist) as archive:
        sizes = {Path(entry.name).name: entry.size for entry in archive.getmembers()}
    problems = [f"no {name}" for name in ("LICENSE", "README.md", "PKG-INFO") if name not in sizes]
    problems += [f"{name} is over 1 MB" for name, size in sizes.items() if size > 1_000_000]
    if problems:
        sys.exit(f"{sdist.name}: {', '.join(problems)}")


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
    domain = f"{module}/domain.py" in names and module != "ssl_core"
    if domain and f"{module}/__init__.pyi" not in names:
        problems.append("no stub of its public names")
    if domain and f"{module}/recipes/default.yaml" not in names:
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


def try_out(package: str, wheels: dict[str, Path], folder: Path, steps: int | None) -> str:
    """One package in an empty environment; returns a line about it."""
    run(["uv", "venv", folder / "env"], folder)
    python = folder / "env" / "bin" / "python"
    install = ["uv", "pip", "install", "--python", python, "-c", constraints(folder)]
    extra = "[table]" if package == "lab" else ""  # it depends on that part of the core
    core = f"ssl-core{extra} @ {wheels['core'].as_uri()}"
    run([*install, core, *([] if package == "core" else [wheels[package]])], folder)
    listed = json.loads(run(["uv", "pip", "list", "--python", python, "--format", "json"], folder))
    ours = {entry["name"] for entry in listed if entry["name"].startswith("ssl-")}
    if ours != {"ssl-core", f"ssl-{package}"}:
        sys.exit(f"ssl-{package} alone brought {sorted(ours)}")
    entry = ENTRY.get(package, f"ssl_{package}.domain")
    run([python, "-c", OFFLINE.format(entry=entry)], folder)
    command = folder / "env" / "bin" / f"ssl-{package}"
    if package in DOMAINS:
        job = try_job(command, folder, steps)
    elif package == "lab":
        run([command, "list"], folder)
        job = "- | -"
        run([*install, core, *(wheels[name] for name in DOMAINS)], folder)
    else:
        job = "- | -"
    tests = try_tests(PACKAGES[package], folder, python, install)
    return f"{len(listed)} | {job} | {tests}"


def try_job(command: Path, folder: Path, steps: int | None) -> str:
    """The domain's default job: its scores and seconds."""
    run([command, "--help"], folder)
    shorter = [] if steps is None else ["--steps", str(steps)]
    began = time.perf_counter()
    out = run([command, "pretrain", "--json", "--out", folder / "run", *shorter], folder)
    seconds = time.perf_counter() - began
    summary = json.loads(out.splitlines()[-1])
    if not (folder / "run" / "report.html").is_file():
        sys.exit(f"{command.name} pretrain wrote no report")
    score = summary["score"]
    numbers = " / ".join(f"{score[name]:.3f}" for name in ("raw", "untrained", "trained"))
    return f"{score['name']} {numbers} | {seconds:.0f}"


def try_tests(home: Path, folder: Path, python: Path, install: Sequence[str | Path]) -> str:
    """The tests of the package at `home` against its installed wheel; pytest's closing line."""
    run([*install, "pytest", "hypothesis", "scipy", "pandas", "pillow"], folder)
    # The tests' settings and helpers lie in the workspace; its sources must not be on the path.
    for name in ("conftest.py", "pyproject.toml", "tests/helpers", "shared"):
        target = folder / "work" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    tests = folder / "work" / home.relative_to(ROOT) / "tests"
    shutil.copytree(home / "tests", tests)
    out = run([python, "-m", "pytest", "-q", tests], folder / "work", OMP_NUM_THREADS="1")
    return out.splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--steps", type=int, help="of the default job; its own number if not given")
    given = parser.parse_args()
    shutil.rmtree(DIST, ignore_errors=True)
    needed = PACKAGES if "lab" in given.packages else {"core", *given.packages}
    wheels = {name: build(name) for name in PACKAGES if name in needed}
    print("| package | distributions | score raw / untrained / trained | seconds | tests |")
    print("|---|---|---|---|---|", flush=True)
    for package in given.packages:
        with tempfile.TemporaryDirectory() as folder:
            found = try_out(package, wheels, Path(folder), given.steps)
        print(f"| ssl-{package} | {found} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
