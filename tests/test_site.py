"""The documentation site: pages of every method and recipe, links that lead somewhere."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from browser import chromium, find_chromium

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
sys.path.append(str(TOOLS))

from handbook import (  # noqa: E402
    api,
    checks,
    commands,
    methods,
    notation,
    pages,
    prose,
    recipes,
    syntax,
)

DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def domains():
    return methods.domains()


def test_every_registered_method_has_a_page(domains):
    listed = methods.methods(domains)
    declared = {name for domain in domains.values() for name in domain.methods}
    assert set(listed) == declared
    assert len(listed) > 70
    shown = str(pages.methods_nav())
    for name, place in listed.items():
        assert methods.heading(place), place
        assert f"'methods/{name}.md'" in shown


def test_every_recipe_stands_in_the_table(domains):
    graph = {"graph": domains["graph"]}
    text = methods.recipes_page(graph)
    files = sorted((ROOT / "packages/graph/src/ssl_graph/recipes").glob("*.yaml"))
    assert len(files) > 30
    for file in files:
        assert f"| <code>{prose.shown(file.stem)}</code> |" in text, file.stem
    names = {entry.name for entry in recipes.all_recipes(graph)}
    assert names == {file.stem for file in files}


def test_a_method_page_says_what_a_reader_asks(domains):
    graph = {"graph": domains["graph"], "vision": domains["vision"]}
    only = {"graph": domains["graph"]}
    text = methods.page("infograph", only["graph"].methods["infograph"], only)
    assert text.startswith("# InfoGraph\n\n**InfoGraph (Sun et al., ICLR 2020)")
    assert r"E_{\text{neg}} - E_{\text{pos}}" in text
    assert "ssl-graph pretrain --method infograph" in text
    assert "tests of the method" in text
    assert "packages/graph/src/ssl_graph/methods/infograph.py" in text
    assert set(methods.methods(graph)) >= set(methods.methods(only))


def test_no_symbol_of_an_equation_is_lost(domains):
    """The LaTeX of every header holds the same letters and digits in the same order."""
    equations = 0
    for place in methods.methods(domains).values():
        header = ast.get_docstring(syntax.tree_of(place.partition(":")[0])) or ""
        for block in re.split(r"\n\n", header):
            if block.startswith("    "):
                for source, latex in zip(
                    filter(str.strip, block.splitlines()), notation.equation(block), strict=True
                ):
                    equations += 1
                    assert _signs(latex) == _signs(source), source
                    assert latex.count("{") == latex.count("}"), latex
    assert equations > 80


_ADDED = re.compile(r"\\(text|operatorname|hat|tilde|q?quad|ne|le|ge|to|gets|dots|sim|cdot)\b")


def _signs(text: str) -> str:
    """Letters and digits, without what LaTeX adds to them."""
    text = re.sub(r"10\^\{(-\d+)\}", r"1e\1", _ADDED.sub("", text))
    text = text.replace(r"\top", "T").replace("_hat", "")
    text = re.sub(r"\blambd\b", "lambda", text)
    return "".join(re.findall("[A-Za-z0-9]", text))


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("sum_{k != i} x_k", r"\sum _{k \ne  i} x_{k}"),
        ("|theta_hat - theta|^2", r"|\hat{\theta} - \theta |^{2}"),
        ("sqrt(var + 1e-6)", r"\sqrt{\operatorname{var} + 10^{-6}}"),
        ("mean over hidden tokens of y", r"\operatorname{mean}\text{ over hidden tokens of }y"),
        ("Z_A^T Z_B / B", r"Z_{A}^{\top} Z_{B} / B"),
        ("cos(q(z_1), sg z'_2)", r"\operatorname{cos}(q(z_{1}), \operatorname{sg} z'_{2})"),
    ],
)
def test_notation(text, latex):
    assert notation.line(text) == latex


def test_docstrings_become_markdown():
    text = "A loss `[B, D]` of z_i < 1.\n\nArguments:\n    dim: width\n        of it.\n    eps: e"
    assert prose.markdown(text) == (
        "A loss `[B, D]` of z\\_i &lt; 1.\n\n"
        "**Arguments**\n\n- <code>dim</code>: width of it.\n- <code>eps</code>: e"
    )
    assert prose.markdown("Is:\n\n    L = z_i", equations=True) == "Is:\n\n$$\nL = z_{i}\n$$"
    assert prose.markdown("As:\n    f(x)\n\nso.") == "As:\n\n```python\nf(x)\n```\n\nso."


def test_the_python_reference_is_complete():
    """Functions of `ssl_core.api`, objectives, methods, networks, data, and public names."""
    from ssl_core import data, objectives
    from ssl_core.surface import API

    losses = api.room_page("objectives")
    for name in objectives.__all__:
        assert f"### <code>{prose.shown(name)}</code>" in losses, name
    sources = api.room_page("data")
    for name in data.__all__:
        assert f"### <code>{prose.shown(name)}</code>" in sources, name
    for room in ("networks", "methods"):
        names = {item.name for module in api.modules(room) for item in syntax.items(module)}
        text = api.room_page(room)
        assert len(names) > 30
        for name in names:
            assert f"### <code>{prose.shown(name)}</code>" in text, name
    for package in api.domain_packages():
        offered = set(importlib.import_module(package).__all__)
        assert offered == set(api.public(package))
        assert set(API) <= offered
        assert all(item.text or item.kind == "constant" for item in api.public(package).values())


def test_every_registered_view_and_encoder_is_described(domains):
    for domain in domains.values():
        for place in [*dict(domain.views).values(), *dict(domain.encoders).values()]:
            item, _, about = api.factory_of(place)
            assert item.text or about, place


def test_the_commands_reference_names_every_option():
    found = commands.pages()
    for option in ("--dry-run", "--few-shot", "--corruptions", "--gpus", "--guard", "--labelled"):
        assert option in found["reference/commands.md"], option
    assert "## run" in found["reference/lab.md"]


def test_checks_follow_helpers_to_what_they_use():
    found = checks.checks_of({"nt_xent"})
    assert len(found) > 5
    assert all("nt_xent" in check.reached for check in found)


def written() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def test_every_link_of_every_page_leads_somewhere(domains):
    made = {f"methods/{name}.md" for name in methods.methods(domains)}
    made |= {"methods/recipes.md", "reference/core.md", "reference/commands.md"}
    made |= {f"reference/{room}.md" for room in api.ROOMS}
    for page in [*written(), ROOT / "README.md"]:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            place, _, anchor = target.partition("#")
            if place.startswith(("http://", "https://")) or not place:
                continue
            path = (page.parent / place).resolve()
            if path.is_relative_to(DOCS) and str(path.relative_to(DOCS)) in made:
                continue
            assert path.is_file(), f"{page.relative_to(ROOT)}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
                assert anchor in {re.sub(r"\W+", "-", head.lower()).strip("-") for head in heads}


def test_the_navigation_lists_every_written_page():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", yaml.dump(yaml.safe_load(text)["nav"])))
    assert listed | {"methods.md"} == {str(page.relative_to(DOCS)) for page in written()}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; building fails on a broken link or on anything fetched from elsewhere."""
    pytest.importorskip("mkdocs", reason="group docs not installed")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(TOOLS / "site.py"), "--out", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return target


@pytest.mark.slow
def test_the_site_builds_strictly_with_equations_set(site):
    page = (site / "methods" / "simclr.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "$$" not in page


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found ($CHROMIUM)")
def test_pages_open_from_the_disk_and_are_searched(site, tmp_path):
    with chromium(find_chromium(), tmp_path) as browser:
        for place in ("index", "methods/simclr", "reference/commands", "tutorials/vision"):
            for width, dark in ((1280, False), (390, True)):
                page = browser.open((site / f"{place}.html").as_uri(), width=width, dark=dark)
                assert page.errors() == []
                assert page.overflow() == 0
                assert all(url.startswith("file:") for url in page.requests())
        page = browser.open((site / "index.html").as_uri())
        page.value(
            "(field => { field.focus(); field.value = 'cosine';"
            "field.dispatchEvent(new Event('input', {bubbles: true}));"
            "field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true})) })"
            "(document.querySelector('.md-search__input'))"
        )
        page.wait("document.querySelectorAll('.md-search-result__item').length > 0")
