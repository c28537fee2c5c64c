"""Replicas equal one process: gradients averaged over 2 and 4 are those of the whole batch."""

from __future__ import annotations

import json

import pytest
import torch

from ssl_core import objectives
from ssl_core.cli.main import command_line
from ssl_core.errors import UserError
from ssl_core.verification import Finding, verify
from ssl_core.verification.cases import CASES, measure

# What is no loss of its own: parts and inputs of the others, and local helpers.
HELPERS = {
    "Mixing",
    "Scores",
    "accuracy",
    "best_matches",
    "hardest",
    "hog",
    "hog_patches",
    "masked_mean",
    "mix_negatives",
    "msn_parts",
    "nearest",
    "neighbours",
    "normalise_channels",
    "normalise_patches",
    "paws_parts",
    "sharpen",
    "vicreg_parts",
    "vicregl_local",
    "whiten",
}


@pytest.fixture(scope="module")
def findings() -> dict[tuple[str, int], Finding]:
    """All cases in both worlds, from one set of processes."""
    return {(finding.name, finding.world): finding for finding in verify()}


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_replicas_equal_one_process(case, world, findings):
    finding = findings[case.name, world]
    assert finding.exact, finding
    _, grad = measure(case, slice(None))
    assert case.kind != "loss" or grad.abs().max() > 0


def test_every_objective_is_verified():
    covered = {case.objective for case in CASES} | HELPERS
    assert set(objectives.__all__) <= covered


def test_gather_can_be_left_out():
    """Alone in its world a rank's own rows are all there is, with and without gathering."""
    x, y = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for loss in (
        objectives.nt_xent,
        objectives.info_nce,
        objectives.triplet,
        objectives.margin_contrastive,
    ):
        assert loss(x, y, gather=False) == loss(x, y)


def test_wrong_names_and_worlds_are_named():
    with pytest.raises(UserError, match="did you mean 'nt_xent'"):
        verify(["nt_xnt"])
    with pytest.raises(UserError, match="3 replicas"):
        verify(worlds=[3])


def test_the_command_verifies_a_methods_objectives(capsys):
    run = command_line("ssl_core.testing.vectors:VECTORS", name="vectors")
    with pytest.raises(SystemExit) as end:
        run(["verify", "simclr", "--ranks", "2", "--json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["exact"]
    assert {finding["objective"] for finding in found["findings"]} >= {"nt_xent"}
    with pytest.raises(SystemExit) as end:
        run(["verify", "simclir"])
    assert end.value.code == 2
    assert "did you mean 'simclr'" in capsys.readouterr().err
