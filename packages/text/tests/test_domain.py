"""The domain: what it declares can be built, and importing it costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy

import pytest
import torch

from ssl_core.batch import Record
from ssl_core.data import ArraySource
from ssl_core.recipe import Data
from ssl_core.runs.config import build, recipe_names
from ssl_core.testing import CHECKS, Contract, MethodCase, paired_cases
from ssl_text.domain import TEXT

SMALL = {"depth": 1, "dim": 16, "heads": 2}
WORDS = {"decoder": "linear", "mask": "random", "mask_block": 1, "mask_ratio": 0.15, "masks": 1}
CASES = [
    *paired_cases("spans", "bert_tiny", encoder_options=SMALL),
    MethodCase("mlm", "none", "bert_tiny", {}, {}, SMALL),
    MethodCase("curriculum_mlm", "none", "bert_tiny", {}, {}, SMALL),
    MethodCase("spanbert", "none", "bert_tiny", {"places": 3}, {}, SMALL),
    MethodCase("electra", "none", "bert_tiny", {"generator": 0.5}, {}, SMALL),
    MethodCase("declutr", "declutr", "bert_tiny", {}, {"anchors": 2, "least": 3}, SMALL),
    MethodCase("tsdae", "deletion", "bert_tiny", {}, {}, SMALL),
    MethodCase("urlbert", "none", "bert_tiny", {}, {}, SMALL),
    MethodCase("data2vec", "none", "bert_tiny", WORDS, {}, SMALL),
]


@pytest.fixture(scope="module")
def contract(tmp_path_factory) -> Contract:
    folder = tmp_path_factory.mktemp("contract") / "samples"
    options = {"vocab_size": 300, "max_length": 24, "words": True}
    return Contract(TEXT, CASES, folder, count=48, data_options=options)


def test_every_declared_method_is_checked(contract):
    assert contract.undeclared() == (set(), set())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(contract, case, check):
    contract.check(case, [check])


@pytest.mark.parametrize("name", recipe_names(TEXT))
def test_recipes_build(name):
    """Every shipped recipe names what exists; its method is built with a small vocabulary."""
    taught = name in ("seed", "feature_distillation")  # their user names the teacher
    recipe = build(TEXT, name, assignments=["method.teacher=RUN"] if taught else [])
    reader = TEXT.fit_reader(
        ArraySource(["some words", "some other words"]),
        Data(options={**recipe.data.options, "vocab_size": 300}),
    )
    views = TEXT.create_views(recipe.views.name, reader.spec, recipe.views.options)
    small = {**recipe.encoder.options, **SMALL}
    encoder = TEXT.create_encoder(recipe.encoder.name, reader.spec, small)
    options = recipe.method.options | ({"teacher": deepcopy(encoder)} if taught else {})
    method = TEXT.methods.build(recipe.method.name, encoder, views, options=options)
    assert sum(p.numel() for p in method.parameters()) > 0


def test_a_saved_reader_loads_and_reads_strings(contract, tmp_path):
    contract.reader.save(tmp_path)
    again = TEXT.load_reader(tmp_path)
    record = Record("x", "plain words")
    assert torch.equal(again.decode(record), contract.reader.decode(record))


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import json, sys, ssl_text, ssl_text.__main__;"
        "print(json.dumps([m for m in ('torch', 'transformers', 'tokenizers', 'numpy')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_core_does_not_load_transformers_before_an_encoder_is_built():
    code = "import sys, ssl_text.domain; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
