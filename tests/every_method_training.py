"""One of several ranks that train every core method; `test_every_method.py` starts them.

every_method_training.py OUT WORLD RANK
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).with_name("helpers")))

from every_method import CASES, train


def main(out: Path, world: int, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=world
    )
    for name in CASES:
        method = train(name, out / name, rank=rank, world=world)
        if rank == 0:
            flat = {"memory_format": torch.contiguous_format}
            state = {key: tensor.clone(**flat) for key, tensor in method.state_dict().items()}
            save_file(state, out / f"{name}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
