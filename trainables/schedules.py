"""The learning rate over a training, as a pure function of the step: a resumed training needs nothing else."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over `warmup` epochs, then a cosine to `final_lr`, or drops by `lr_drop` at the milestones."""

    epochs: int
    steps_per_epoch: int
    warmup: float = 1.0  # epochs
    kind: Literal["cosine", "multistep"] = "cosine"
    final_lr: float = 0.01  # cosine: the last step's share of lr0
    milestones: tuple[float, ...] = (0.81, 0.95)  # multistep: shares of the training's steps
    lr_drop: float = 0.1  # multistep


def lr_factor(schedule: Schedule, step: int) -> float:
    """The share of lr0 that optimizer step `step` (from 0) uses.

    Warm-up step i of n uses (i + 1) / n. The cosine is 1 at the first step after it and `final_lr` at the training's
    last step and beyond. A milestone m counts from step m * total on, warm-up or not.
    """
    total = schedule.epochs * schedule.steps_per_epoch
    warm = round(schedule.warmup * schedule.steps_per_epoch)
    warming = min(1.0, (step + 1) / warm) if warm else 1.0
    if schedule.kind == "multistep":
        return warming * schedule.lr_drop ** sum(step >= share * total for share in schedule.milestones)
    if step < warm:
        return warming
    progress = min(1.0, (step - warm) / max(1, total - 1 - warm))
    return schedule.final_lr + (1 - schedule.final_lr) * (1 + math.cos(math.pi * progress)) / 2
