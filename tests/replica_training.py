"""Trains every core method on vectors with the launcher's world size; writes the final weights.

Run by `test_replicas.py`, alone or under `torchrun`. Float64, so that what is left between world
sizes is the order of sums.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from ssl_core import recipe
from ssl_core.data import Loader, Stream
from ssl_core.distributed import rank, world_size
from ssl_core.engine.fit import fit
from ssl_core.engine.parallel import process_group
from ssl_core.testing.vectors import VECTORS, MLPEncoder, NoisyViews, VectorReader

OPTIONS = {
    "simclr": {"hidden": 16, "dim": 8},
    "byol": {"hidden": 16, "dim": 8},
    "dino": {"hidden": 16, "bottleneck": 8, "prototypes": 32, "head_norm": "batch"},
    "barlow_twins": {"hidden": 16, "dim": 8},
    "vicreg": {"hidden": 16, "dim": 8},
}


class DoubleReader(VectorReader):
    def decode(self, record):
        return super().decode(record).double()


class RecordingViews(NoisyViews):
    """Float64 views, and the first number of each view by sample id."""

    def __init__(self, spec):
        super().__init__(spec)
        self.seen = {}

    def __call__(self, batch, rng):
        views = super().__call__(batch, rng)
        for row, key in enumerate(batch.ids.tolist()):
            self.seen[key] = torch.stack([view.data[row, 0] for view in views])
        return views


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    source = VECTORS.open(recipe.Data(path=str(folder / "data")))
    reader = DoubleReader(24)
    train = recipe.Train(steps=8, batch_size=16, log_every=4, save_every=100)
    with process_group(torch.device("cpu")):
        for name, options in OPTIONS.items():
            torch.manual_seed(3)
            views = RecordingViews(reader.spec)
            encoder = MLPEncoder(reader.spec)
            method = VECTORS.methods.build(name, encoder, views, options=options).double()
            stream = Stream(len(source), 16, seed=0, rank=rank(), world=world_size())
            loader = Loader(source, reader, stream, workers=0)
            out = folder / f"world-{world_size()}" / name
            sgd = recipe.Optimizer(name="sgd", lr=0.05, weight_decay=1e-4, clip=1.0)
            fit(method, loader, train=train, optimizer=sgd, out=out)
            seen = {str(key): value for key, value in views.seen.items()}
            save_file(seen, out / f"views-{rank()}.safetensors")
            if rank() == 0:
                save_file(dict(method.state_dict()), out / "final.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
