"""How long the trainings of a sweep take here: real steps of its smallest and its largest config, the rest between.

A step's work is counted in floating-point operations (`flops`), loading is timed by itself; a step's time is then a
straight line between the two configs that were timed.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from posesweep.datasets.loading import training_order, validation_order
from posesweep.search_spaces.space import Sweep, grid, sample
from posesweep.trainables.checkpoint import LoopState
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import Context, pick_device, prepare_process
from posesweep.trainables.fit import GIB, peak_of_process
from posesweep.trainables.forecast import TrialCost
from posesweep.trainables.task import Batch, Score, Task
from posesweep.trainables.tasks import build_task, make_config
from posesweep.trainables.trial import Precision, Training, prepare_training, save_epoch, to_device, train_step

SAMPLED = 200  # configs of the space
MOST_KINDS = 24  # networks, inputs and presets that are looked at singly
STEPS_S, FEWEST_STEPS, MOST_STEPS = 2.0, 3, 40  # how long steps are timed, after one that is not
LOADED = 3  # batches whose making is timed, after one that is not
# whole numbers and choices that change how often or with what something is computed, and not how much a sample takes
NO_WORK = {
    *("epochs", "batch", "accumulate", "optimizer", "schedule", "warmup", "warmup_steps", "val_every", "patience"),
    *("patience_smooth", "keep_best", "seed", "final_epochs", "decay_norm_bias", "nesterov", "milestones", "betas"),
}


@dataclass(frozen=True)
class Kind:
    """What one sample costs in configs of one kind."""

    flops: float  # forward and backward
    load_s: float  # making one augmented sample in one thread


@dataclass(frozen=True)
class Timed:
    """One config as it was really run, on one worker."""

    config: TrialConfig
    kind: Kind
    step_s: float
    steps: int  # how many were timed
    predict_s: float  # one batch of validation
    score_s: float
    save_s: float
    start_s: float
    val_load_s: float  # one sample
    memory_gib: float  # peak, of the GPU; on a CPU, of the process
    last_bytes: int  # what a running trial keeps
    best_bytes: int  # what a trial that is kept keeps besides
    evidence_bytes: int
    train_samples: int
    val_samples: int


@dataclass(frozen=True)
class Measured:
    """A sweep's costs: the two configs that were run, and the costs of the first trials and of sampled configs."""

    smallest: Timed
    largest: Timed
    first: tuple[TrialCost, ...]  # baseline and try_first
    sampled: tuple[TrialCost, ...]

    @property
    def costs(self) -> tuple[TrialCost, ...]:
        """All of them."""
        return (*self.first, *self.sampled)


def measure(sweep: Sweep, base: dict[str, Any], share: int) -> Measured:
    """Time the sweep's configs on `share` CPUs, which are what a worker has of a machine that is full of trials.

    Raises ConfigError where the largest does not fit into the GPU's memory, DataError for data that cannot be used.
    """
    first = [make_config({**base, **values}) for values in (sweep.baseline, *sweep.try_first)]
    searched = [name for name in sweep.parameters if name not in NO_WORK]
    with on_cpus(share):
        kinds: dict[tuple[Any, ...], Kind] = {}
        configs = []
        for config in [*first, *(make_config({**base, **values}) for values in choices(sweep))]:
            key = _key(config, searched)
            if key not in kinds and len(kinds) < MOST_KINDS:
                kinds[key] = kind_of(config)
            if key in kinds:
                configs.append((config, kinds[key]))
        configs.sort(key=lambda pair: _work(*pair))
        smallest = timed_training(*configs[0])
        largest = timed_training(*configs[-1])
    cost = Costs(smallest, largest, share, torch.cuda.is_available())
    known = [(config, kinds[_key(config, searched)]) for config in first if _key(config, searched) in kinds]
    return Measured(
        smallest, largest, tuple(cost.of(*pair) for pair in known), tuple(cost.of(*pair) for pair in configs)
    )


def choices(sweep: Sweep) -> list[dict[str, Any]]:
    """Random choices of the space; of a grid, its own, evenly."""
    if sweep.search.method == "grid":
        every = grid(sweep)
        return every[:: max(1, len(every) // SAMPLED)]
    rng = random.Random(0)
    return [sample(sweep.parameters, sweep.fixed, rng) for _ in range(SAMPLED)]


def _key(config: TrialConfig, searched: Sequence[str]) -> tuple[Any, ...]:
    """Equal for configs of one kind. A number with a fraction (a rate, a width, a strength) makes no other kind."""
    values = ((name, getattr(config, name)) for name in searched)
    return tuple((name, str(value)) for name, value in values if not isinstance(value, float))


def _work(config: TrialConfig, kind: Kind) -> float:
    """What a whole training computes, roughly, in operations: a second of loading is worth as much as 20 GFLOP."""
    return config.epochs * (kind.flops + 2e10 * kind.load_s)


@contextmanager
def on_cpus(count: int) -> Iterator[None]:
    """Have this thread, and those that it starts, use so many CPUs only, as a trial beside others would."""
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def alone(config: TrialConfig, **changes: Any) -> TrialConfig:
    """One worker's share of a training, beginning from new weights: those change no time."""
    values = config.model_dump() | {"pretrained": False, "weights": None, "compile": False, "workers": 1}
    values |= {"batch": config.batch // config.workers, **changes}
    if "weights_skeleton" in type(config).model_fields:
        values["weights_skeleton"] = None
    return make_config(values)


def kind_of(config: TrialConfig) -> Kind:
    """Count the operations of a step on two samples, and time the making of batches."""
    single = alone(config, accumulate=1, batch=2)
    with scratch() as context:
        prepare_process(config.threads, config.seed)
        task = build_task(single)
        samples = task.datasets()[0]
        orders = training_order(len(samples), 0, config.seed, config.batch_per_forward, 0, 1)[: LOADED + 1]
        times = [_seconds(samples.batch, order, 0) / len(order) for order in orders]
        training = prepare_training(single, context, task, task.model())
        training.network.train()
        with FlopCounterMode(display=False) as counter:
            train_step(training, samples.batch(orders[0][:2], 0))
    return Kind(counter.get_total_flops() / 2, min(times))


@contextmanager
def scratch() -> Iterator[Context]:
    """A place for a training that leaves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        yield Context(Path(folder), lambda row: None, pick_device())


def timed_training(config: TrialConfig, kind: Kind) -> Timed:
    """Run a few steps, a batch of validation and a save of one config."""
    single = alone(config)
    with scratch() as context:
        prepare_process(config.threads, config.seed)
        if context.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        task = build_task(single)
        training = prepare_training(single, context, task, task.model())
        start_s = time.perf_counter() - begun
        steps = time_steps(training, task)
        score, predict_s, score_s, val_load_s = time_validation(training, task)
        save_s = time_saving(training, score)
        size = {name: _size(context.folder / name) for name in ("last", "best", "evidence.npz")}
    on_gpu = context.device.type == "cuda"
    return Timed(
        config=config,
        kind=kind,
        step_s=median(steps),
        steps=len(steps),
        predict_s=predict_s,
        score_s=score_s,
        save_s=save_s,
        start_s=start_s,
        val_load_s=val_load_s,
        memory_gib=(torch.cuda.max_memory_reserved() if on_gpu else peak_of_process()) / GIB,
        last_bytes=size["last"],
        best_bytes=size["best"],
        evidence_bytes=size["evidence.npz"],
        train_samples=len(task.datasets()[0]),
        val_samples=len(task.datasets()[1]),
    )


def time_steps(training: Training, task: Task) -> list[float]:
    """Seconds of optimizer steps on batches that are made beforehand."""
    config, samples = training.config, task.datasets()[0]
    orders = training_order(len(samples), 0, config.seed, config.batch, 0, 1)[:LOADED]
    ready = [samples.batch(order, 0) for order in orders]
    training.network.train()
    times: list[float] = []
    while len(times) < 1 + FEWEST_STEPS or (sum(times[1:]) < STEPS_S and len(times) <= MOST_STEPS):
        times.append(_seconds(train_step, training, ready[len(times) % len(ready)]))
    return times[1:]


def time_validation(training: Training, task: Task) -> tuple[Score, float, float, float]:
    """(a score, seconds to predict one batch, to score all samples, to make one of them)."""
    config, samples = training.config, task.datasets()[1]
    order = validation_order(len(samples), config.batch_per_forward, 0, 1)[0]
    network, precision = training.scored_network.eval(), Precision.of(config.amp, training.context.device)
    arrays = samples.batch(order, 0)
    load_s = _seconds(samples.batch, order, 0) / len(order)

    @torch.no_grad()
    def predict() -> dict[int, Any]:
        batch: Batch = to_device(arrays, training.context.device)
        with precision.autocast():
            return task.predict(network, batch)

    shown = list(predict().values())
    predict_s = _seconds(predict)
    # scoring wants every sample: the others are given the same predictions
    predictions = {i: shown[position % len(shown)] for position, i in enumerate(samples.ids.tolist())}
    begun = time.perf_counter()
    score = task.score(predictions)
    return score, predict_s, time.perf_counter() - begun, load_s


def time_saving(training: Training, score: Score) -> float:
    """Seconds to save an epoch that is the best so far, as most early ones are; the first, which is not timed, has to
    make its files."""
    name = training.config.metric.name
    times = []
    loop = LoopState()
    sign = 1.0 if training.config.metric.goal == "maximize" else -1.0
    for epoch in (1, 2):
        loop.epoch = epoch
        row = {"epoch": epoch, "step": epoch, "loss": 0.0, name: sign * epoch}
        times.append(_seconds(save_epoch, training, loop, row, score))
    return times[-1]


@dataclass(frozen=True)
class Costs:
    """Between the two configs that were timed: times are straight lines over the work of a step."""

    smallest: Timed
    largest: Timed
    share: int  # CPUs of a worker
    on_gpu: bool

    def of(self, config: TrialConfig, kind: Kind) -> TrialCost:
        """What a config of that kind costs."""
        batch, per_forward = config.batch // config.workers, config.batch_per_forward
        worked, predicted = kind.flops * batch, kind.flops * per_forward
        step_s = self._between(worked, _step_work, [self.smallest.step_s, self.largest.step_s])
        predict_s = self._between(predicted, _forward_work, [self.smallest.predict_s, self.largest.predict_s])
        train, val = self.largest.train_samples // config.workers, self.largest.val_samples // config.workers
        steps, checks = max(1, train // batch), -(-val // per_forward)
        val_s = (
            checks * self._beside(predict_s, per_forward * self.largest.val_load_s, config.threads)
            + self.largest.score_s
        )
        train_s = steps * self._beside(step_s, batch * kind.load_s, config.threads)
        return TrialCost(train_s + val_s / config.val_every + self.largest.save_s, config.epochs, self.largest.start_s)

    def _beside(self, compute_s: float, load_s: float, threads: int) -> float:
        """A GPU computes while the CPUs load; a CPU does one after the other, unless there is another one."""
        loading = load_s / min(threads, self.share)
        busy = 0.0 if self.on_gpu else (compute_s * threads + load_s) / self.share
        return max(compute_s, loading, busy)

    def _between(self, work: float, of_timed: Any, seconds: list[float]) -> float:
        low, high = of_timed(self.smallest), of_timed(self.largest)
        if abs(high - low) <= 0.01 * max(high, low):
            return work / high * sum(seconds) / 2
        slope = (seconds[1] - seconds[0]) / (high - low)
        if slope <= 0:  # the difference is noise, or another network is as fast
            return max(seconds) if work >= min(low, high) else work / min(low, high) * max(seconds)
        return max(seconds[0] + slope * (work - low), 0.2 * min(seconds))


def _step_work(timed: Timed) -> float:
    return timed.kind.flops * (timed.config.batch // timed.config.workers)


def _forward_work(timed: Timed) -> float:
    return timed.kind.flops * timed.config.batch_per_forward


def _seconds(function: Any, *given: Any) -> float:
    begun = time.perf_counter()
    function(*given)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("*")))
