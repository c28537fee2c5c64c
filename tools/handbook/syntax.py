"""Python files as they are written: signatures, docstrings, described fields. Imports none."""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Option:
    """One keyword of a signature, or a field of a class."""

    name: str
    type: str
    default: str
    text: str = ""


@dataclass(frozen=True)
class Item:
    """A function, class or constant of a module."""

    name: str
    module: str
    kind: str
    signature: str
    text: str
    fields: list[Option] = field(default_factory=list)
    members: list[Item] = field(default_factory=list)


@functools.cache
def module_file(module: str) -> Path:
    """Where a module's source lies, found without importing it (its parents are)."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return Path(spec.origin)


@functools.cache
def tree_of(module: str) -> ast.Module:
    """The parsed source of a module."""
    return ast.parse(module_file(module).read_text(encoding="utf-8"))


def items(module: str) -> Iterator[Item]:
    """The public functions, classes and described constants that a module defines."""
    body = tree_of(module).body
    for node, after in itertools.zip_longest(body, body[1:]):
        if isinstance(node, Definition.__args__) and not node.name.startswith("_"):
            yield item(node, module)
        for name, value in _constant(node, after):
            yield Item(name, module, "constant", f"{name} = {value}", _string(after) or "")


def find(place: str) -> Item:
    """The item behind "module:attribute"; a constant without a word about it has no text."""
    module, _, name = place.partition(":")
    tree = tree_of(module)
    for found in items(module):
        if found.name == name:
            return found
    for node in tree.body:
        if isinstance(node, Definition.__args__) and node.name == name:
            return item(node, module)  # not public itself, but behind a public name
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return Item(name, module, "constant", f"{name} = {ast.unparse(node.value)}", "")
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find(f"{node.module}:{alias.name}")
    raise LookupError(f"{module} defines no {name}")


def makers(module: str) -> list[str]:
    """Functions of a module that its `partial` calls or its own `__getattr__` make names of."""
    tree = tree_of(module)
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    calls = [
        call
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("partial")
    ]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            calls += [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    given = [part.id for call in calls for part in call.args if isinstance(part, ast.Name)]
    return [name for name in given if name in functions]


def item(node: Definition, module: str) -> Item:
    """A function or class with what it says about itself."""
    text = ast.get_docstring(node) or ""
    if not isinstance(node, ast.ClassDef):
        return Item(node.name, module, "function", signature(node), text)
    methods = [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    made = next((n for n in methods if n.name == "__init__"), None)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    shown = f"{node.name}{signature(made, name='', bound=True)}" if made else node.name
    members = [
        item(n, module) for n in methods if not n.name.startswith("_") and ast.get_docstring(n)
    ]
    text = "\n\n".join(filter(None, [text, ast.get_docstring(made) if made else ""]))
    head = f"class {shown}" + (f"  # a {bases}" if bases else "")
    return Item(node.name, module, "class", head, text, list(_fields(node)), members)


def signature(
    node: ast.FunctionDef | ast.AsyncFunctionDef, *, name: str | None = None, bound: bool = False
) -> str:
    """A signature on one line where it fits, else an argument a line."""
    kinds = {ast.unparse(d).partition("(")[0] for d in node.decorator_list}
    options = list(parameters(node, bound=bound or _in_class(node)))
    back = f" -> {ast.unparse(node.returns)}" if node.returns and not bound else ""
    label = node.name if name is None else name
    if kinds & {"property", "functools.cached_property", "cached_property"}:
        return f"{label}: {ast.unparse(node.returns)}" if node.returns else label
    line = f"{label}({', '.join(options)}){back}"
    if len(line) <= 76:
        return line
    return f"{label}(\n" + "".join(f"    {option},\n" for option in options) + f"){back}"


def _in_class(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = [*node.args.posonlyargs, *node.args.args][:1]
    return bool(first) and first[0].arg in ("self", "cls")


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool) -> Iterator[str]:
    """The arguments as written; without the first one where it is `bound`."""
    given = node.args
    places = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(places) - len(given.defaults))
    for at, (arg, default) in enumerate(zip(places, [*defaults, *given.defaults], strict=True)):
        if not (bound and at == 0):
            yield _argument(arg, default)
    if given.vararg:
        yield f"*{_argument(given.vararg, None)}"
    elif given.kwonlyargs:
        yield "*"
    for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _argument(arg, default)
    if given.kwarg:
        yield f"**{_argument(given.kwarg, None)}"


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    text = arg.arg + (f": {ast.unparse(arg.annotation)}" if arg.annotation else "")
    if default is None:
        return text
    return text + (" = " if arg.annotation else "=") + ast.unparse(default)


def keywords(place: str) -> list[Option]:
    """The keyword-only options of a class's constructor or of a function, with types, defaults."""
    module, _, name = place.partition(":")
    for node in tree_of(module).body:
        if isinstance(node, Definition.__args__) and node.name == name:
            made: ast.AST | None = node
            if isinstance(node, ast.ClassDef):
                made = next((n for n in node.body if getattr(n, "name", "") == "__init__"), None)
            if not isinstance(made, ast.FunctionDef):
                return []
            pairs = zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)
            return [
                Option(
                    arg.arg,
                    ast.unparse(arg.annotation) if arg.annotation else "",
                    "" if default is None else ast.unparse(default),
                )
                for arg, default in pairs
            ]
    return []


def _fields(node: ast.ClassDef) -> Iterator[Option]:
    """Annotated attributes of a class, with the string that follows each."""
    for part, after in itertools.zip_longest(node.body, node.body[1:]):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            name = part.target.id
            if not name.startswith("_") and name != "model_config":
                default = ast.unparse(part.value) if part.value else ""
                yield Option(name, ast.unparse(part.annotation), default, _string(after) or "")


def _constant(node: ast.stmt, after: ast.stmt | None) -> Iterator[tuple[str, str]]:
    """Name and value of an assignment that a string describes."""
    if _string(after) is None or not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    if isinstance(target, ast.Name) and not target.id.startswith("_") and node.value:
        yield target.id, ast.unparse(node.value)


def _string(node: ast.stmt | None) -> str | None:
    """The text of a bare string, which describes what stands before it."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value.value if isinstance(node.value.value, str) else None
    return None
