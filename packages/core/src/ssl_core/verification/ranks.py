"""The program one replica runs: `python -m ssl_core.verification.ranks RANK FOLDER WORLD...`.

The same processes form one process group after another, so that Python starts once each. Each
world's averages are written by its rank 0.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from ssl_core.distributed import gather
from ssl_core.verification.cases import BATCH, CASES, measure

_TIMEOUT = datetime.timedelta(seconds=120)


def main(rank: int, folder: Path, worlds: list[int], names: list[str]) -> None:
    """Measures the named cases in every world this rank belongs to."""
    torch.set_num_threads(1)
    for world in worlds:
        if rank >= world:
            continue
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/meet-{world}",
            rank=rank,
            world_size=world,
            timeout=_TIMEOUT,
        )
        share = BATCH // world
        rows = slice(rank * share, (rank + 1) * share)
        results = {}
        for case in CASES:
            if case.name not in names:
                continue
            value, grad = measure(case, rows)
            if case.kind == "rows":
                value = gather(value)
            else:
                dist.all_reduce(value)
                value /= world
            dist.all_reduce(grad)
            results[f"{case.name}/value"] = value
            results[f"{case.name}/grad"] = grad / world
        if rank == 0:
            save_file(results, folder / f"world-{world}.safetensors")
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    chosen = (folder / "names.txt").read_text().splitlines()
    main(int(sys.argv[1]), folder, [int(world) for world in sys.argv[3:]], chosen)
