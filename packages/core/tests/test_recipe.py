"""From layers to one recipe: what wins, what is refused and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from ssl_core.errors import UserError, unknown
from ssl_core.recipe import Recipe
from ssl_core.registry import Registry, check_options
from ssl_core.runs import config
from ssl_core.testing.vectors import VECTORS


def build(*args, **kwargs) -> Recipe:
    return config.build(VECTORS, *args, **kwargs)


def test_default_recipe_lies_below_everything() -> None:
    recipe = build()
    assert recipe.domain == "vectors"
    assert recipe.method.name == "simclr"
    assert recipe.method.options["temperature"] == 0.2
    assert recipe.train.steps == 200


def test_layers_win_in_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {steps: 11, batch_size: 22}\noptimizer: {lr: 0.5}\n")
    flags = {"train": {"steps": 33}}
    recipe = build(file, flags=flags, assignments=["optimizer.lr=2e-3", "train.seed=4"])
    assert (recipe.train.steps, recipe.train.batch_size) == (33, 22)
    assert (recipe.optimizer.lr, recipe.train.seed) == (2e-3, 4)
    assert recipe.optimizer.weight_decay == 1e-4  # still the default's


def test_another_name_drops_the_options_below_it() -> None:
    recipe = build(flags={"method": {"name": "byol"}})
    assert recipe.method.options == {}
    assert recipe.encoder.options == {"width": 32}
    kept = build(flags={"method": {"name": "simclr"}})
    assert kept.method.options == {"hidden": 32, "dim": 16, "temperature": 0.2}


def test_a_shipped_method_recipe_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {
        "default": config.shipped(VECTORS, "default"),
        "byol": {"method": {"name": "byol", "hidden": 64}, "train": {"steps": 77}},
    }
    monkeypatch.setattr(config, "recipe_names", lambda domain: sorted(shipped))
    monkeypatch.setattr(config, "shipped", lambda domain, name: shipped[name])
    recipe = build(flags={"method": {"name": "byol"}}, assignments=["method.dim=8"])
    assert recipe.train.steps == 77
    assert recipe.method.options == {"hidden": 64, "dim": 8}
    assert build().train.steps == 200


def test_a_name_alone_stands_for_a_section() -> None:
    assert build({"method": "vicreg"}).method.name == "vicreg"
    assert build(assignments=["method=vicreg"]).method.name == "vicreg"


def test_saved_recipes_round_trip(tmp_path: Path) -> None:
    recipe = build(assignments=["optimizer.betas=[0.9, 0.95]", "method.temperature=0.3"])
    config.save_recipe(recipe, tmp_path / "recipe.yaml")
    assert config.validate(yaml.safe_load((tmp_path / "recipe.yaml").read_text())) == recipe
    assert build(tmp_path) == recipe  # a run folder is a complete recipe
    assert build(recipe) == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("5", 5), ("true", True), ("null", None), ("[1, 2]", [1, 2]), ("ab", "ab")],
)
def test_values_are_read_as_yaml(text: str, value: object) -> None:
    assert config.assignment(f"a.b={text}") == {"a": {"b": value}}


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["train.step=3"], ["train.step", "did you mean 'train.steps'"]),
        (["trian.steps=3"], ["trian", "did you mean 'train'"]),
        (["optimizer.lr=-1"], ["optimizer.lr", "-1", "greater than 0"]),
        (["optimizer.name=adam"], ["optimizer.name", "'adam'", "adamw, lars, sgd"]),
        (["train.precision=bf61"], ["train.precision", "did you mean 'bf16'"]),
        (["method.temprature=1"], ["'temprature'", "did you mean 'temperature'"]),
        (["method.name=simclrr"], ["method", "did you mean 'simclr'"]),
        (["encoder.name=mpl"], ["encoder", "did you mean 'mlp'"]),
        (["views.name=nois"], ["views", "did you mean 'noise'"]),
        (["steps"], ["'steps'", "section.key=value"]),
        (["a.=1"], ["section.key=value"]),
        (["train.steps=[1"], ["not a YAML value"]),
    ],
)
def test_wrong_settings_are_named(assignments: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build(assignments=assignments)
    for word in words:
        assert word in str(caught.value)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*missing\.yaml"):
        build(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match="did you mean 'default'"):
        build("defualt")
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: {steps: 3\n")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML.*line 2"):
        build(broken)
    broken.write_text("just words")
    with pytest.raises(UserError, match="expected sections"):
        build(broken)
    with pytest.raises(UserError, match="domain 'vision'"):
        build({"domain": "vision"})


def test_paths_that_exist_do_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert build(flags={"data": {"path": "data"}}).data.path == os.path.abspath("data")
    assert build(flags={"data": {"path": "s-*.tar"}}).data.path == os.path.abspath("s-*.tar")
    assert build(flags={"data": {"path": "hf:mnist"}}).data.path == "hf:mnist"
    assert build().data.path is None


def test_differences_ignore_what_changes_no_number() -> None:
    recipe = build()
    same = build(assignments=["data.workers=7", "train.log_every=1", "description=x"])
    assert config.differences(recipe, same) == []
    other = build(assignments=["train.steps=5", "method.temperature=0.9"])
    assert config.differences(recipe, other) == [
        "method.temperature: 0.2 -> 0.9",
        "train.steps: 200 -> 5",
    ]


def test_registry_is_a_mapping_of_names() -> None:
    registry = Registry("thing", {"domain": "ssl_core.testing.vectors:VectorDomain"})
    assert "domain" in registry
    assert "other" not in registry
    assert registry.build("domain", options={}).name == "vectors"
    with pytest.raises(UserError, match="did you mean 'domain'"):
        registry.load("domian")


def test_unknown_without_a_near_name() -> None:
    assert str(unknown("fruit", "xyz", ["apple"])) == (
        "fruit: 'xyz' is not known; available: apple"
    )


@pytest.mark.parametrize("value", ["maybe", 1, None])
def test_nothing_but_true_and_false_is_a_bool(value: object) -> None:
    def made(*, tied: bool = True, weight: float = 1.0) -> None: ...

    check_options("thing", made, {"weight": 2, "tied": False}, positional=0)
    with pytest.raises(UserError, match="thing option tied must be true or false, got"):
        check_options("thing", made, {"tied": value}, positional=0)


def test_a_required_option_is_asked_for_by_name() -> None:
    def factory(spec: dict, *, size: int, width: int = 3) -> int:
        return size * width

    check_options("thing box", factory, {"size": 2}, positional=1)
    with pytest.raises(UserError, match="thing box needs the option 'size'"):
        check_options("thing box", factory, {"width": 2}, positional=1)
