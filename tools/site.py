"""Builds the documentation site, without network, into `build/site/`.

    uv run --group docs python tools/site.py            # open build/site/index.html
    uv run --group docs python tools/site.py --serve    # the same live on 127.0.0.1:8000

A broken link, a page that nobody lists or an unreadable formula fails the build.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
# What a page could load by itself; links that a reader clicks may lead anywhere.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\ssrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*?\shref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|@import\s+url\(["']?https?:|url\(["']?https?:"""
)


def build(target: Path) -> None:
    """Runs mkdocs strictly; raises `CalledProcessError` where it warns."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    # Torch is imported to read registries; its threads would have nothing to do.
    environment = {"NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1", **os.environ}
    subprocess.run([*command, str(target)], cwd=ROOT, env=environment, check=True)


def loaded_from_elsewhere(site: Path) -> list[str]:
    """What pages and styles would fetch from another host when they are opened."""
    found = []
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(site)}: {hit.group()}" for hit in _LOADED.finditer(text)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="serve it, and build on every change")
    parser.add_argument("--out", type=Path, default=SITE)
    given = parser.parse_args()
    if given.serve:
        return subprocess.call([sys.executable, "-m", "mkdocs", "serve", "--strict"], cwd=ROOT)
    try:
        build(given.out)
    except subprocess.CalledProcessError as error:
        return error.returncode
    found = loaded_from_elsewhere(given.out)
    if found:
        print("pages would fetch from elsewhere:", *found, sep="\n", file=sys.stderr)
        return 1
    count = len(list(given.out.rglob("*.html")))
    print(f"{count} pages: {given.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
