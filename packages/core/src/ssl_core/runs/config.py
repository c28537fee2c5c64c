"""From files, flags and `--set` to one validated recipe.

Layers, each over the one before:

    the domain's recipes/default.yaml
    the method's recipes/<method>.yaml, when another method is asked for
    --recipe NAME or FILE
    flags (--data, --method, --steps, ...)
    --set section.key=value

A section with a `name` (views, encoder, method) keeps the options below it only while the name
stays: options of one method mean nothing to another.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ssl_core.data.remote import is_remote
from ssl_core.domain import Domain
from ssl_core.errors import UserError, unknown
from ssl_core.files import atomic_write
from ssl_core.recipe import Named, Recipe, named
from ssl_core.registry import check_options, is_place
from ssl_core.runs.measures import checked

Layer = Mapping[str, Any]
NAMED = ("views", "encoder", "method")
_LONGEST = 1_000_000


def recipe_names(domain: Domain) -> list[str]:
    """The recipes a domain ships, by name."""
    folder = resources.files(domain.package) / "recipes"
    if not folder.is_dir():
        return []
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def shipped(domain: Domain, name: str) -> Layer:
    """The layer of a shipped recipe."""
    names = recipe_names(domain)
    if name not in names:
        raise unknown("recipe", name, names)
    text = (resources.files(domain.package) / "recipes" / f"{name}.yaml").read_text("utf-8")
    return parse(text, f"recipe {name}")


def parse(text: str, where: str) -> Layer:
    """A YAML mapping; raises `UserError` with line and column of a syntax error.

    Tags that build objects are refused, and so are aliases: a few lines of them can stand for
    more values than memory holds.
    """
    if len(text) > _LONGEST:
        raise UserError(f"{where}: {len(text)} characters are no recipe; at most {_LONGEST}")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError(f"{where}: YAML aliases (*name) are not allowed; write values out")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected sections such as 'train:', got {content!r:.80}")
    return expanded(content)


def load_layer(domain: Domain, recipe: str | Path | Layer) -> Layer:
    """The layer behind `--recipe`: a mapping, a file, a run folder or a shipped name."""
    if isinstance(recipe, Mapping):
        return recipe
    path = Path(recipe)
    if path.is_dir():
        path = path / "recipe.yaml"
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise UserError(
                f"recipe: no file {str(path)!r}; give a file or one of the shipped names: "
                + ", ".join(recipe_names(domain))
            )
        return parse(path.read_text(encoding="utf-8"), str(path))
    return shipped(domain, str(recipe))


def merge(below: Layer, above: Layer) -> dict[str, Any]:
    """`above` over `below`, section by section; a new `name` replaces its whole section."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            renamed = "name" in value and "name" in old and value["name"] != old["name"]
            out[key] = dict(value) if renamed and key != "optimizer" else merge(old, value)
        else:
            out[key] = value
    return out


def assignment(text: str) -> Layer:
    """`a.b=c` as a nested layer; the value is read as YAML (1e-3 is a number here)."""
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise UserError(f"set: {text!r} is not of the form section.key=value")
    return nested(keys, scalar(raw))


def protocols(names: Iterable[str], settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`NAME.key=value` settings below the names they belong to; other names are an error."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in settings:
        layer = assignment(text)
        name = next(iter(layer))
        if name not in found or not isinstance(layer[name], Mapping):
            raise UserError(f"set: {text!r} must start with one of --more: {', '.join(found)}")
        found[name] = merge(found[name], layer[name])
    return found


def nested(keys: list[str], value: Any) -> Layer:
    """A layer with one value at a path."""
    for key in reversed(keys):
        value = {key: value}
    layer: Layer = value
    return layer


def scalar(raw: str) -> Any:
    """A YAML value; numbers such as 1e-3, which YAML 1.1 calls text, are numbers."""
    value = parse_value(raw)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parse_value(raw: str) -> Any:
    """YAML in one line; raises `UserError` when it is not."""
    try:
        return yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise UserError(f"set: {raw!r} is not a YAML value") from error


def build(
    domain: Domain,
    recipe: str | Path | Layer | Recipe | None = None,
    *,
    flags: Layer | None = None,
    assignments: Iterable[str | Layer] = (),
) -> Recipe:
    """The recipe that these layers give, checked against the domain's names.

    `flags` is a layer of its own (`{"method": {"name": "byol"}}`); `assignments` are
    `section.key=value` texts or layers. A `Recipe` object and a run folder are complete: no
    default lies below them. Raises `UserError`.
    """
    found = assembled(domain, recipe, flags=flags, assignments=assignments)
    check_names(domain, found)
    return found


def assembled(
    domain: Domain,
    recipe: str | Path | Layer | Recipe | None = None,
    *,
    flags: Layer | None = None,
    assignments: Iterable[str | Layer] = (),
) -> Recipe:
    """`build` without looking names and options up, which imports what they name."""
    complete = isinstance(recipe, Recipe) or (isinstance(recipe, (str, Path)) and is_run(recipe))
    if isinstance(recipe, Recipe):
        recipe = recipe.model_dump(mode="json")
    top = load_layer(domain, recipe) if recipe is not None else {}
    over = merge(expanded(top), expanded(flags or {}))
    for item in assignments:
        over = merge(over, expanded(assignment(item) if isinstance(item, str) else item))
    below = {} if complete else _below(domain, over)
    content = merge(merge(below, over), {"domain": domain.name})
    found = _absolute(validate(content))
    if over.get("domain", domain.name) != domain.name:
        raise UserError(
            f"recipe: it is for the domain {over['domain']!r}; use ssl-{over['domain']}, "
            f"this is {domain.name!r}"
        )
    return found


def is_run(recipe: str | Path) -> bool:
    """Whether `--recipe` names a run folder."""
    return (Path(recipe) / "recipe.yaml").is_file()


def expanded(layer: Layer) -> dict[str, Any]:
    """`method: byol` as short for `method: {name: byol}`, for views and encoder too."""
    return {
        key: {"name": value} if key in NAMED and isinstance(value, str) else value
        for key, value in layer.items()
    }


def _absolute(recipe: Recipe) -> Recipe:
    """A data path that exists, made independent of the working folder: a run may move on."""
    path = recipe.data.path
    if path is None or not (os.path.exists(path) or any(mark in path for mark in "*?{")):
        return recipe
    if path.startswith("hf:") or is_remote(path):
        return recipe
    data = recipe.data.model_copy(update={"path": os.path.abspath(path)})
    return recipe.model_copy(update={"data": data})


def _below(domain: Domain, over: Layer) -> Layer:
    """The default, and over it the shipped recipe of another method that `over` asks for."""
    names = recipe_names(domain)
    default = shipped(domain, "default") if "default" in names else {}
    usual, asked = (_name(layer.get("method")) for layer in (default, over))
    if asked is None or asked == usual or asked not in names:
        return default
    return merge(default, shipped(domain, asked))


def _name(section: Any) -> str | None:
    return section.get("name") if isinstance(section, Mapping) else None


def validate(content: Layer) -> Recipe:
    """A recipe from plain values; every problem becomes one `UserError`."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = [_explain(item) for item in error.errors()]
        raise UserError("\n".join(problems)) from None


def _explain(error: Any) -> str:
    """One pydantic error in words: key, value, what is allowed, the nearest name."""
    keys = [str(part) for part in error["loc"]]
    path = ".".join(keys)
    if error["type"] == "extra_forbidden":
        allowed = _fields_at(keys[:-1])
        return str(unknown("recipe key", path, [".".join([*keys[:-1], name]) for name in allowed]))
    if error["type"] == "missing":
        return f"recipe: {path} is missing"
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return str(unknown(f"recipe: {path}", str(error["input"]), expected))
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"recipe: {path}: {error['input']!r:.80} is not allowed; {message}"


def _fields_at(keys: list[str]) -> list[str]:
    """Names of the fields of the section at a path."""
    model: type[BaseModel] = Recipe
    for key in keys:
        annotation = model.model_fields[key].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)


def check_names(domain: Domain, recipe: Recipe) -> None:
    """Every name exists and every option is one its factory takes, before any work starts."""
    _check(domain.methods, recipe.method, positional=2)
    if "tower" in recipe.method.options:
        _check(domain.towers, _tower(recipe), positional=1)
    _check(domain.views, recipe.views, positional=1)
    if recipe.encoder.name in domain.encoders or is_place(recipe.encoder.name):
        _check(domain.encoders, recipe.encoder, positional=1)
    elif not set("/:") & set(recipe.encoder.name):  # with a library's prefix, it decides
        names = domain.encoder_names()
        if recipe.encoder.name not in names:
            raise unknown("encoder", recipe.encoder.name, names)
    checked(domain, recipe.evaluation.more, None)


def _tower(recipe: Recipe) -> Named:
    value = recipe.method.options["tower"]
    try:
        return named(value)
    except ValidationError as error:
        raise UserError(
            f"recipe: method.tower: {value!r:.80} names no tower; write {{name: text, dim: 128}}"
        ) from error


def _check(registry: Any, named: Named, *, positional: int) -> None:
    what = f"{registry.what} {named.name}"
    check_options(what, registry.load(named.name), named.options, positional=positional)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The closest of `names`, if any is close."""
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)), None)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML that loads to an equal one."""
    content = recipe.model_dump(mode="json")
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes `recipe.yaml`."""
    atomic_write(path, to_yaml(recipe))


# What may change between a run and its continuation without changing a single number.
HARMLESS = frozenset(
    {
        "description",
        "data.workers",
        "data.worker_kind",
        "data.cache",
        "data.cache_bytes",
        "train.log_every",
        "train.profile",
        "train.save_every",
        "train.keep",
        "train.allow",
        "train.stall_timeout",
        "evaluation.probe",
    }
)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """`key: old -> new` for everything that matters to the numbers of a run.

    What `new` allows by name (`train.allow`: a section, or the last word of a key) is left out.
    """
    allowed = set(new.train.allow)
    before, after = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted({*before, *after} - HARMLESS)
        if before.get(key) != after.get(key) and not allowed & {key, *key.split(".")}
    ]


def flat(content: Layer, prefix: str = "") -> dict[str, Any]:
    """Every value by its path: `{"train.steps": 100}`."""
    out: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out
