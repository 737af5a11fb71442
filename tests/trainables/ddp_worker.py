"""One rank of a DDP trial without Ray: `python ddp_worker.py RANK WORLD PORT FOLDER CONFIG.yaml`. Run by test_ddp."""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
import yaml

from posesweep.trainables import trial
from posesweep.trainables.context import Context, pick_device
from posesweep.trainables.tasks import make_config


def main(rank: int, world: int, port: int, folder: Path, config: Path) -> None:
    """Train, and write the loss of every step, averaged over the ranks as DDP averages gradients, to losses.json."""
    if world > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    losses = []
    one_step = trial.train_step

    def noting(training, arrays):
        parts = one_step(training, arrays)
        mean = trial.distributed.mean_over_ranks({"loss": float(parts["loss"])}, training.context.device)
        losses.append(mean["loss"])
        return parts

    trial.train_step = noting
    context = Context(folder, lambda row: None, pick_device(), rank, world, attempt=0)
    trial.run_trial(make_config(yaml.safe_load(config.read_text())), context)
    if rank == 0:
        (folder / "losses.json").write_text(json.dumps(losses))
    if world > 1:
        dist.barrier()
        os._exit(0)  # gloo's threads now and then abort an interpreter that ends by itself


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:4]), *(Path(argument) for argument in sys.argv[4:6]))
