"""Makes and measures one run: `python -m ssl_lab.cell CELL.json FOLDER DEVICE`.

A process of its own for each run: a crash costs one cell, and every run starts from the same state.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_core import api
from ssl_core.errors import SSLError
from ssl_core.evaluation.label_share import probe_on_share
from ssl_core.evaluation.rivals import Rival
from ssl_core.files import read_json, write_json
from ssl_core.recipe import Recipe
from ssl_core.runs.assessing import rivals_of
from ssl_core.runs.folder import resolve
from ssl_lab.experiment import Cell

RESULT = "result.json"


def read_cell(content: Mapping[str, Any]) -> Cell:
    """A cell from its JSON form."""
    lists = {name: tuple(content[name]) for name in ("settings", "label_fractions")}
    return Cell(**{**content, **lists})


def recipe_of(cell: Cell, device: str | None = None) -> Recipe:
    """The complete recipe of a cell; `UserError` where a name or value is wrong."""
    return api.build_recipe(
        domain_of(cell),
        cell.recipe,
        encoder=cell.encoder,
        steps=cell.steps,
        seed=cell.seed,
        device=device,
        settings=cell.settings,
    )


def domain_of(cell: Cell) -> str:
    """Where the cell's domain is imported from."""
    return f"ssl_{cell.domain}.domain:{cell.domain.upper()}"


def make(cell: Cell, folder: Path, device: str) -> dict[str, Any]:
    """Trains what is left of the run in `folder`, measures it, and writes `result.json`."""
    recipe = recipe_of(cell, device)
    if cell.tasks is None:
        result = _one_run(cell, recipe, folder, device)
    else:
        from ssl_lab.continual import learn

        result = {**learn(resolve(domain_of(cell)), recipe, cell.tasks, folder), "shares": []}
    write_json(folder / RESULT, result)
    return result


def _one_run(cell: Cell, recipe: Recipe, folder: Path, device: str) -> dict[str, Any]:
    run = api.pretrain(domain_of(cell), recipe, out=folder / "run", progress=False)
    summary = run.summary
    result: dict[str, Any] = {
        "score_name": summary["score"]["name"],
        **{f"score_{name}": summary["score"][name] for name in ("raw", "untrained", "trained")},
        "effective_rank": summary["effective_rank"],
        "parameters": summary["parameters"],
        "steps": summary["steps"],
        "wall_seconds": summary["wall_seconds"],
        "verdict": summary["verdict"],
        "layers": summary["more"].get("layers", {}).get("layers", []),
        "shares": [],
    }
    if cell.label_fractions:
        rivals = rivals_of(run, run.domain(), device=device).rivals
        result["shares"] = [
            {"share": share, **_probes(rivals, share, cell.seed)} for share in cell.label_fractions
        ]
    return result


def _probes(rivals: Mapping[str, Rival], share: float, seed: int) -> dict[str, float]:
    return {
        name: probe_on_share(*rival.labelled(), share=share, seed=seed)
        for name, rival in rivals.items()
    }


def main() -> int:
    content, folder, device = sys.argv[1:]
    try:
        make(read_cell(read_json(content)), Path(folder), device)
    except SSLError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
