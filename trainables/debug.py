"""One short trial in this process, without Ray and on little data: to see that a sweep works, and to step into it."""

import os
import shutil
from pathlib import Path
from typing import Any

from posesweep.search_spaces.space import Sweep
from posesweep.trainables.checkpoint import LoopState
from posesweep.trainables.context import in_this_process
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import run_trial

EPOCHS = 2
OBJECTS = 64  # of each set


def run_debug(sweep: Sweep, folder: Path) -> LoopState:
    """Train the sweep's baseline for two epochs on 64 objects, anew each time, in `folder`, printing each epoch."""
    values: dict[str, Any] = {"task": sweep.task, "data": sweep.data.model_dump(), **sweep.fixed, **sweep.baseline}
    values |= {"epochs": EPOCHS, "limit": OBJECTS, "threads": len(os.sched_getaffinity(0))}
    if values.get("final_augment", "same") != "same":
        values["final_epochs"] = 1
    config = make_config(values)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"debug: the baseline of {sweep.name}, {EPOCHS} epochs on {OBJECTS} objects of each set, in {folder}")
    return run_trial(config, in_this_process(folder, print_epoch))


def print_epoch(row: dict[str, Any]) -> None:
    """One line per epoch, of what is most worth seeing."""
    shown = {
        name: value for name, value in row.items() if name in ("loss", "val/AP", "val/RMSE_px", "train_s", "val_s")
    }
    print(f"epoch {row['epoch']}: " + ", ".join(f"{name} {value:.4g}" for name, value in shown.items()), flush=True)
