"""A page for every method: equation, paper, what differs, options, recipes, tests, the file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from catalogue import domains, title
from handbook import prose, syntax
from handbook.checks import Check, checks_of
from handbook.recipes import Shipped, all_recipes, recipes_of, short
from ssl_core.domain import Domain

ROOT = Path(__file__).resolve().parents[2]
MANY = 8  # tests that are listed without a click


def pages() -> dict[str, str]:
    """Place below the site -> Markdown, for methods and for the list of recipes."""
    found = domains()
    places = methods(found)
    made = {f"methods/{name}.md": page(name, place, found) for name, place in places.items()}
    made["methods/recipes.md"] = recipes_page(found)
    return made


def methods(found: dict[str, Domain]) -> dict[str, str]:
    """Every registered method's place by its name."""
    places: dict[str, str] = {}
    for domain in found.values():
        for name in domain.methods:
            places.setdefault(name, domain.methods[name])
    return dict(sorted(places.items()))


def heading(place: str) -> str:
    """The method's name as its paper writes it."""
    text = title(place)
    return min(text.partition(" (")[0], text.partition(":")[0], key=len)


def page(name: str, place: str, found: dict[str, Domain]) -> str:
    """The page of one method."""
    module, _, attribute = place.partition(":")
    tree = syntax.tree_of(module)
    header = ast.get_docstring(tree) or ""
    item = syntax.find(place)
    offering = [key for key, domain in found.items() if name in domain.methods]
    parts = [f"# {heading(place)}", f"**{prose.escape(title(place))}**"]
    if item.kind == "function":  # another method's file speaks for both
        parts.append(prose.escape(header.split("\n\n")[0]))
    rest = header.partition("\n\n")[2]
    parts += [prose.markdown(rest, equations=True)]
    parts += ["## Run it", _commands(name, offering)]
    parts += list(_options(place, recipes_of(found, name)))
    parts += list(_recipes(recipes_of(found, name)))
    parts += list(_checks(attribute, tree))
    parts += list(_source(module))
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(name: str, offering: list[str]) -> str:
    lines = "\n".join(f"ssl-{domain} pretrain --method {name}" for domain in offering)
    return f"```bash\n{lines}\n```"


def _options(place: str, recipes: list[Shipped]) -> Iterator[str]:
    """What can be set, with the paper's or code's default, and what small recipes say instead."""
    options = syntax.keywords(place)
    if not options:
        return
    name = recipes[0].recipe.method.name if recipes else ""
    small = {r.domain: r for r in reversed(recipes) if r.name in (name, "default")}
    yield "## Options"
    yield (
        "Set with `--set method.NAME=VALUE`. The default is the paper's or the released code's; "
        "recipes at laptop scale set what their column says."
    )
    columns = [domain for domain in small if small[domain].recipe.method.options]
    columns.sort()
    head = "| option | type | default |" + "".join(f" {domain} |" for domain in columns)
    lines = [head, "|---" * (3 + len(columns)) + "|"]
    for option in options:
        row = f"| {prose.code(option.name)} | {prose.code(option.type)} "
        row += f"| {prose.code(option.default)} |"
        for domain in columns:
            given = small[domain].recipe.method.options
            row += f" {prose.code(short(given[option.name])) if option.name in given else ''} |"
        lines.append(row)
    yield "\n".join(lines)


def _recipes(recipes: list[Shipped]) -> Iterator[str]:
    if recipes:
        yield "## Recipes"
        yield recipe_table(recipes)


def recipe_table(recipes: list[Shipped]) -> str:
    """Recipes, a line each; their domain where there are several."""
    several = len({entry.domain for entry in recipes}) > 1
    lines = [
        "| recipe |" + " domain |" * several + " encoder | views | optimiser | steps × batch | |",
        "|---|---|---|---|---|---|" + "---|" * several,
    ]
    for entry in recipes:
        lines.append(
            f"| {prose.code(entry.name)} |"
            + f" {entry.domain} |" * several
            + f" {prose.code(entry.recipe.encoder.name)} | {prose.code(entry.recipe.views.name)} |"
            + f" {entry.optimiser} | {entry.budget} | {prose.cell(entry.description)} |"
        )
    return "\n".join(lines)


def recipes_page(found: dict[str, Domain]) -> str:
    """Every shipped recipe, domain by domain."""
    parts = [
        "# Recipes",
        "`--recipe NAME` runs one; so does a YAML file that says what differs from `default`.",
    ]
    entries = all_recipes(found)
    for domain in found:
        parts += [f"## {domain}", recipe_table([e for e in entries if e.domain == domain])]
    return "\n\n".join(parts) + "\n"


def _checks(attribute: str, tree: ast.Module) -> Iterator[str]:
    """The tests that hold the method and its objectives."""
    losses = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and "objectives" in (node.module or "")
        for alias in node.names
        if alias.name[0].islower()
    }
    own = checks_of({attribute})
    listed = {(check.file, check.name) for check in own}
    below = [c for c in checks_of(losses) if (c.file, c.name) not in listed] if losses else []
    yield "## Checks"
    yield (
        "Every domain that offers it runs the contract tests: finite loss, gradients where they "
        "belong and none where the paper stops them, resumed and saved runs equal to the bit, no "
        "global randomness. Besides, these tests name it:"
        if own or below
        else "Every domain that offers it runs the contract tests: finite loss, gradients where "
        "they belong and none where the paper stops them, resumed and saved runs equal to the bit, "
        "no global randomness."
    )
    if own:
        yield from _listed("the method", own)
    if below:
        yield from _listed("its objectives: " + ", ".join(f"`{n}`" for n in sorted(losses)), below)


def _listed(what: str, checks: list[Check]) -> Iterator[str]:
    """Tests by file; many of them behind a click."""
    files: dict[str, list[str]] = {}
    for check in checks:
        files.setdefault(check.file, []).append(check.words)
    lines = []
    for file, words in files.items():
        lines += [
            f"`{file}`",
            "",
            *(f"- {prose.escape(text)}" for text in dict.fromkeys(words)),
            "",
        ]
    mark = "???" if len(checks) > MANY else "???+"
    body = "\n".join(f"    {line}" if line else "" for line in lines)
    yield f'{mark} check "{len(checks)} tests of {what}"\n\n{body}'


def _source(module: str) -> Iterator[str]:
    path = syntax.module_file(module)
    yield "## The whole file"
    body = "\n".join(f"    {line}" for line in path.read_text(encoding="utf-8").splitlines())
    yield (f'??? example "`{path.relative_to(ROOT)}`"\n\n    ```python\n{body}\n    ```')
