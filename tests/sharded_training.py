"""One process of a job that trains transformers in float64, in a layout given by its arguments.

Run by `test_sharded.py` as `sharded_training.py OUT JOB[,JOB...] WORLD RANK`.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.data import Stream
from ssl_core.engine.fit import fit
from ssl_core.methods.dino import DINO
from ssl_core.methods.mae import MAE
from ssl_core.methods.simclr import SimCLR
from ssl_core.networks.vit import PatchTransformer
from ssl_core.views import View

ROWS, BATCH = 40, 8


class Jittered:
    """Two noisy views of small images."""

    def __call__(self, batch, rng):
        keys = [rng.fold("view", i) for i in range(2)]
        shape = batch.data.shape[1:]
        return [
            View(batch.data + 0.1 * k.normal("n", *shape, dtype=torch.float64), k) for k in keys
        ]

    def plain(self, batch):
        return batch.data


class Images:
    def __init__(self, train, world, rank):
        self.accumulate = train.accumulate
        random = torch.Generator().manual_seed(0)
        self.data = torch.randn(ROWS, 3, 8, 8, dtype=torch.float64, generator=random)
        self.stream = Stream(ROWS, BATCH, rank=rank, world=world, accumulate=train.accumulate)

    def batches(self, start, stop):
        for step in range(start, stop):
            for micro in range(self.accumulate):
                index, ids = (torch.from_numpy(x) for x in self.stream.rows(step, micro))
                yield Batch(self.data[index], ids, index)


def build(name):
    torch.manual_seed(1)
    encoder = PatchTransformer(
        channels=3, sides=(8, 8), patch=(4, 4), dim=12, depth=2, heads=2, dropout=0.1, drop_path=0.1
    )
    makers = {
        "dino": lambda: DINO(encoder, Jittered(), hidden=10, bottleneck=6, prototypes=7),
        "mae": lambda: MAE(
            encoder, Jittered(), mask_ratio=0.5, decoder_dim=8, decoder_depth=2, decoder_heads=2
        ),
        "simclr": lambda: SimCLR(encoder, Jittered(), hidden=10, dim=6, norm="layer"),
    }
    return makers[name]().double()


def train(out, job, world, rank):
    """The job "method[+option...]"; options change how, not what, it computes."""
    name, *options = job.split("+")
    settings = {"parallel": "fsdp"} if "fsdp" in options else {}
    settings |= {"accumulate": 2} if "cache" in options else {}
    settings |= {"checkpointing": True} if "recompute" in options else {}
    settings |= {"compile": True} if "compile" in options else {}
    settings |= {"shard": 2} if "hybrid" in options else {}
    setting = recipe.Train(steps=6, batch_size=BATCH, log_every=3, save_every=3, **settings)
    loader = Images(setting, world, rank)
    adamw = recipe.Optimizer(lr=1e-2, weight_decay=1e-3, clip=0.5)
    fit(build(name), loader, train=setting, optimizer=adamw, out=Path(out))


def main(out, jobs, world, rank):
    torch.set_num_threads(1)
    # The layers are what is tested; Inductor's compiler would take most of the time.
    whole = nn.Module.compile
    nn.Module.compile = lambda module, **options: whole(module, backend="aot_eager", **options)
    if world > 1:
        init = f"file://{out}.rendezvous"
        dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world)
    for job in jobs.split(","):
        train(f"{out}/{job}", job, world, rank)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
        # As a command does under a launcher: gloo may abort the interpreter's teardown.
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
