"""Where in the projection head the knowledge of classes goes (`evaluation.more: {layers: {}}`).

The loss is taken behind the head, yet the features before it are used. Probes of every layer show
why. Xue et al. ("Investigating the Benefits of Projection Head for Representation Learning", ICLR
2024, arXiv 2403.11391): each layer weights features more unequally than the one below, and fixed
unequal weights (`ReweightHead`) do what a trained head does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.domain import Domain
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.errors import UserError
from ssl_core.evaluation.geometry import effective_rank
from ssl_core.evaluation.rivals import Evaluator, Rival
from ssl_core.methods.base import Method
from ssl_core.networks.heads import MLPHead, ReweightHead
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import build_parts, split_data
from ssl_core.runs.pretraining import make_evaluator

BACKBONE, OUTPUT, REWEIGHTED = "backbone", "head output", "reweighted backbone"
_ROWS = 1024


def layers(
    run: Run, domain: Domain, device: torch.device, *, kappa: float = 1.01
) -> dict[str, Any]:
    """k-NN accuracy, linear probe and effective rank before the head and after each layer of it.

    `layers` lists, in order, the backbone's pooled features, every layer of the head with its norm
    and activation, the last one as "head output", and the backbone times (1, 1/kappa, ...). That
    one has no `probe`: probes standardise features, so fixed weights change nothing they see.
    Encoder and head are those of the run's last step. Raises `UserError` for a method without
    a projection head and for data without labels.
    """
    recipe = run.recipe
    reader = domain.load_reader(run.reader_folder)
    start = run.start_file if run.start_file.is_file() else None
    parts = build_parts(domain, recipe, reader, training=False, start=start)
    head = getattr(parts.method, "projector", None)
    if not isinstance(head, (MLPHead, ReweightHead)):
        raise UserError(f"evaluation.more layers: {recipe.method.name} has no projection head")
    evaluator = make_evaluator(recipe, split_data(domain, recipe.data), parts, device)
    if not evaluator.labelled:
        raise UserError("evaluation.more layers: needs labels on both sides of the hold-out")
    _load(parts.method, run)
    encoder = parts.method.encoder.to(device)
    rival, _ = evaluator.embed(encoder)
    places = {BACKBONE: rival, **_through(head.to(device).eval(), rival, device)}
    fixed = ReweightHead(rival.bank.shape[1], kappa=kappa)
    found = [{"layer": name, **_measured(evaluator, at)} for name, at in places.items()]
    weighted = _measured(evaluator, _mapped(fixed, rival, torch.device("cpu")), probe=False)
    return {"layers": [*found, {"layer": REWEIGHTED, **weighted}], "kappa": kappa}


def _load(method: Method, run: Run) -> None:
    """The whole method as the newest checkpoint holds it."""
    checkpoints = Checkpoints(run.checkpoints)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"evaluation.more layers: {str(run.path)!r} has no checkpoint left")
    method.load_state_dict(checkpoints.weights(steps[-1]))


def _through(head: MLPHead | ReweightHead, rival: Rival, device: torch.device) -> dict[str, Rival]:
    """The features after each layer of the head."""
    found: dict[str, Rival] = {}
    stages = head.stages()
    for number, stage in enumerate(stages, 1):
        rival = _mapped(stage, rival, device)
        found[OUTPUT if number == len(stages) else f"head layer {number}"] = rival
    return found


@torch.no_grad()
def _mapped(stage: nn.Module, rival: Rival, device: torch.device) -> Rival:
    """A rival whose features went through one more layer."""

    def through(x: Tensor) -> Tensor:
        out: Tensor = stage(x.to(device)).float().cpu()
        return out

    return replace(rival, bank=through(rival.bank), queries=through(rival.queries))


def _measured(evaluator: Evaluator, rival: Rival, *, probe: bool = True) -> dict[str, Any]:
    return {
        "dim": rival.bank.shape[1],
        "knn": evaluator.score(rival),
        "probe": evaluator.probe(rival)["accuracy"] if probe else None,
        "effective_rank": effective_rank(rival.queries[:_ROWS]),
    }
