"""What mkdocs asks while it builds the site: generated pages, their place, mathematics, links."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from handbook import mathml, pages


@functools.cache
def generated() -> dict[str, str]:
    """Every generated page, made once a process."""
    return pages.pages()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the generated pages into the navigation."""
    assert config.nav is not None
    at = next(i for i, part in enumerate(config.nav) if "Domains" in part)
    config.nav[at:at] = [{"Methods": pages.methods_nav()}]
    config.nav.append({"Reference": pages.reference_nav()})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for place, text in generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Sets mathematics, and links names of methods to their pages."""
    place = page.file.src_uri
    if place == "methods.md":
        known = {Path(name).stem for name in generated() if name.startswith("methods/")}
        markdown = re.sub(
            r"^\| `(\w+)` \|",
            lambda row: f"| [`{row[1]}`](methods/{row[1]}.md) |" if row[1] in known else row[0],
            markdown,
            flags=re.M,
        )
    return mathml.drawn(pages.linked(markdown, place))
