"""The learning rate over a training, as a pure function of the step: a resumed training needs nothing else."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cosine", "flat_cosine", "cosine_restarts", "one_cycle", "multistep", "constant"]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then the shape named by `kind`; the settings below belong to the kinds named beside them.

    `one_cycle` rises by itself, so it is given no warm-up.
    """

    epochs: int
    steps_per_epoch: int
    warmup: float = 1.0  # epochs
    kind: Kind = "cosine"
    warmup_steps: int | None = None  # the warm-up in optimizer steps; in the place of `warmup`
    warmup_start: float | None = None  # share of lr0 at the first step; None: 1/n of a warm-up of n steps
    final_lr: float = 0.01  # cosine, flat_cosine, cosine_restarts: the lowest share of lr0
    flat: float = 0.5  # flat_cosine: share of the training's steps before the cosine
    cycle_epochs: float = 10.0  # cosine_restarts: length of the first cycle
    cycle_mult: float = 2.0  # cosine_restarts: each cycle is so many times as long as the one before
    pct_start: float = 0.3  # one_cycle: share of the training's steps in which the lr rises
    div_factor: float = 25.0  # one_cycle: begins at lr0 / this
    final_div: float = 1e4  # one_cycle: ends at lr0 / div_factor / this
    milestones: tuple[float, ...] = (0.81, 0.95)  # multistep: shares of the training's steps
    lr_drop: float = 0.1  # multistep

    @property
    def total(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def warm(self) -> int:
        """Optimizer steps of the warm-up."""
        return round(self.warmup * self.steps_per_epoch) if self.warmup_steps is None else self.warmup_steps


def lr_factor(schedule: Schedule, step: int) -> float:
    """The share of lr0 that optimizer step `step` (from 0) uses: the warm-up's share times the shape's."""
    return _warming(schedule, step) * _SHAPES[schedule.kind](schedule, step)


def _warming(schedule: Schedule, step: int) -> float:
    """A straight line from `warmup_start` at step 0 to 1 at the warm-up's last step (mmengine's LinearLR)."""
    warm, start = schedule.warm, schedule.warmup_start
    if step >= warm - 1:
        return 1.0
    return (step + 1) / warm if start is None else start + (1 - start) * step / (warm - 1)


def _cosine(schedule: Schedule, step: int) -> float:
    """1 at the first step after the warm-up, `final_lr` at the training's last step and beyond."""
    return _down_to(schedule.final_lr, step - schedule.warm, schedule.total - 1 - schedule.warm)


def _flat_cosine(schedule: Schedule, step: int) -> float:
    """1 until the share `flat` of the training, then a cosine to `final_lr` at the last step (RTMPose's recipe)."""
    first = round(schedule.flat * schedule.total)
    return _down_to(schedule.final_lr, step - first, schedule.total - 1 - first)


def _cosine_restarts(schedule: Schedule, step: int) -> float:
    """SGDR (Loshchilov and Hutter, 2017): the first cycle begins after the warm-up; a cycle of n steps has the shares
    of a cosine at 0/n ... (n-1)/n, so the next begins where it would have reached `final_lr`, as torch's."""
    length = max(1.0, schedule.cycle_epochs * schedule.steps_per_epoch)
    into = float(max(0, step - schedule.warm))
    if schedule.cycle_mult == 1:
        into %= length
    while into >= length:
        into -= length
        length *= schedule.cycle_mult
    return _between(1.0, schedule.final_lr, into / length)


def _one_cycle(schedule: Schedule, step: int) -> float:
    """Smith and Topin's super-convergence (2018) in the shape of torch's OneCycleLR with two cosine phases; momentum
    stays as it is."""
    start = 1 / schedule.div_factor
    top = max(0.0, schedule.pct_start * schedule.total - 1)  # the step of the highest lr, between two steps as a rule
    if step < top:
        return _between(start, 1.0, step / top)
    last = schedule.total - 1
    return _between(1.0, start / schedule.final_div, min(1.0, (step - top) / (last - top)) if last > top else 0.0)


def _multistep(schedule: Schedule, step: int) -> float:
    """A milestone m counts from step m * total on, warm-up or not."""
    return schedule.lr_drop ** sum(step >= share * schedule.total for share in schedule.milestones)


def _constant(schedule: Schedule, step: int) -> float:
    return 1.0


def _down_to(lowest: float, step: int, steps: int) -> float:
    """A cosine from 1 at step 0 to `lowest` at step `steps`; level before and after."""
    if step <= 0:
        return 1.0
    return _between(1.0, lowest, min(1.0, step / max(1, steps)))


def _between(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at progress 1, along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


_SHAPES: dict[str, Callable[[Schedule, int], float]] = {
    "cosine": _cosine,
    "flat_cosine": _flat_cosine,
    "cosine_restarts": _cosine_restarts,
    "one_cycle": _one_cycle,
    "multistep": _multistep,
    "constant": _constant,
}
