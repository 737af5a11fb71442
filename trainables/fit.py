"""The largest batch that fits, found by training with ever larger ones. It only tells: no setting is ever changed."""

import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from posesweep.errors import ConfigError
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import Context, pick_device, prepare_process
from posesweep.trainables.task import Arrays
from posesweep.trainables.tasks import build_task, check_values, defaults_of, make_config
from posesweep.trainables.trial import Training, prepare_training, train_step
from posesweep.trainables.winner import read_config

OBJECTS = 64  # samples that a batch repeats
STEPS = 3  # timed, after one that is not
MOST = 4096  # no larger batch is tried
FINENESS = 16  # the answer is within 1/16 of the largest batch that fits
GIB = 2**30
CLEAR_BYTES = 128 * 2**20  # on a CPU, growth of memory that is no noise
SWEEP_KEYS = ("parameters", "fixed", "search", "name")  # a sweep file has one of them, a training's config none
OF_MEMORY = ("model", "imgsz", "codec", "amp", "freeze", "lr_mult", "ema", "optimizer", "grad_checkpoint", "compile")


@dataclass(frozen=True)
class Step:
    """One optimizer step on `batch` samples; the two numbers are None where it did not fit."""

    batch: int
    step_time_s: float | None
    peak_memory_gib: float | None  # of the GPU; on a CPU, of the process
    estimated: bool = False  # extrapolated from smaller batches, not run

    @property
    def fits(self) -> bool:
        """Whether the step could be done."""
        return self.peak_memory_gib is not None


@dataclass(frozen=True)
class Fit:
    """What was tried, in order of the batch, and the largest batch of one forward pass on one worker that fits."""

    steps: list[Step]
    largest: int
    limit_gib: float  # of memory that was allowed


def run(path: Path, settings: list[str], fraction: float = 0.9) -> None:
    """Print, for the config of one training or the baseline of a sweep, what each batch costs and the largest that
    fits into `fraction` of the memory. ConfigError for a file that is neither."""
    if not 0 < fraction <= 1:
        raise ConfigError(f"--fraction: {fraction:g} must be above 0 and at most 1; the default is 0.9")
    config, notes = read_either(path, settings)
    for note in notes:
        print(f"note: {note}")
    found = fit(config, fraction)
    console = Console() if sys.stdout.isatty() else Console(width=100)
    console.print(table_of(found))
    console.print(suggestion(config, found), markup=False, highlight=False)


def read_either(path: Path, settings: list[str]) -> tuple[TrialConfig, list[str]]:
    """The config of one training, or the baseline of a sweep with a note of what else it searches."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    content = yaml.safe_load(text) if text else None
    if not isinstance(content, Mapping) or not any(key in content for key in SWEEP_KEYS):
        return read_config(path, settings), []
    sweep = read_sweep(path, settings, check_values, defaults_of)
    values: dict[str, Any] = {"task": sweep.task, "data": sweep.data.model_dump(), **sweep.fixed, **sweep.baseline}
    values["workers"] = sweep.resources.workers_per_trial
    searched = [name for name in OF_MEMORY if name in sweep.parameters]
    if not searched:
        return make_config(values), []
    shown = ", ".join(f"{name}={values[name]}" for name in searched if name in values)
    note = f"this is the baseline ({shown}); the sweep searches {', '.join(searched)}, which change what fits"
    return make_config(values), [f"{note}: name the others, such as {searched[0]}=VALUE"]


def fit(config: TrialConfig, fraction: float = 0.9, device: torch.device | None = None) -> Fit:
    """Train a few steps with ever larger batches on real samples of the config's data, repeated.

    A GPU's batches are doubled until one runs out of memory, then bisected. A CPU's are doubled until their memory
    can be told from noise, and extrapolated: running out there would end the process, or another one.
    Raises ConfigError when not even one sample fits, DataError for data that cannot be used.
    """
    prepare_process(config.threads, config.seed)
    device = device or pick_device()
    with tempfile.TemporaryDirectory() as folder:
        trier = Trier(config, Context(Path(folder), lambda row: None, device))
        if device.type != "cuda":
            return by_extrapolating(trier.step, peak_of_process() + fraction * available_bytes())
        torch.cuda.set_per_process_memory_fraction(fraction, device)
        try:
            return by_trying(trier.step, torch.cuda.get_device_properties(device).total_memory * fraction)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)


class Trier:
    """Trains steps of any batch as a trial of `config` would, on one worker, without accumulation."""

    def __init__(self, config: TrialConfig, context: Context) -> None:
        # weights change nothing about memory, and a few objects stand for the data set
        values = config.model_dump() | {"pretrained": False, "weights": None, "accumulate": 1, "workers": 1}
        only_here = {"batch": 1, "limit": OBJECTS, "weights_skeleton": None}
        values |= {name: value for name, value in only_here.items() if name in type(config).model_fields}
        alone = make_config(values)
        task = build_task(alone)
        self.samples = task.datasets()[0]
        self.training: Training = prepare_training(alone, context, task, task.model())
        self.training.network.train()

    def step(self, batch: int) -> Step:
        """The median time and the peak memory of training steps on `batch` samples, or that it ran out of memory."""
        arrays = self._arrays(batch)
        try:
            done = self._timed(batch, arrays)
        except torch.OutOfMemoryError:
            done = Step(batch, None, None)
        self.training.optimizer.zero_grad(set_to_none=True)
        if self.training.context.device.type == "cuda":
            torch.cuda.empty_cache()
        return done

    def _timed(self, batch: int, arrays: Arrays) -> Step:
        on_gpu = self.training.context.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(1 + STEPS):
            start = time.perf_counter()
            train_step(self.training, arrays)
            if on_gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return Step(batch, median(times[1:]), (torch.cuda.max_memory_reserved() if on_gpu else peak_of_process()) / GIB)

    def _arrays(self, batch: int) -> Arrays:
        return self.samples.batch(np.resize(np.arange(len(self.samples)), batch), 0)


def largest_that_fits(fits: Callable[[int], bool]) -> int:
    """The largest batch for which `fits`, to within 1/16, by doubling and bisecting; 0 when not even one does."""
    good, bad = 0, 1
    while bad <= MOST and fits(bad):
        good, bad = bad, 2 * bad
    if good == MOST:
        return good
    while bad - good > max(1, good // FINENESS):
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def by_trying(step: Callable[[int], Step], limit: float) -> Fit:
    """Steps until one runs out of the `limit`, in bytes, which is kept elsewhere."""
    steps: list[Step] = []

    def fits(batch: int) -> bool:
        steps.append(step(batch))
        return steps[-1].fits

    largest = largest_that_fits(fits)
    return _found(steps, largest, limit)


def by_extrapolating(step: Callable[[int], Step], limit: float) -> Fit:
    """Steps until their memory can be told from noise, and a straight line from there to the `limit`, in bytes."""
    steps = [step(1)]
    while steps[-1].batch < MOST:
        steps.append(step(2 * steps[-1].batch))
        if _bytes(steps[-1]) - _bytes(steps[-2]) > CLEAR_BYTES and _bytes(steps[-2]) > _bytes(steps[0]):
            break
    before, last = steps[-2:]
    each = max(1.0, (_bytes(last) - _bytes(before)) / (last.batch - before.batch))
    largest = min(MOST, last.batch + math.floor((limit - _bytes(last)) / each))
    # the last step may itself have gone past the limit: of what the earlier ones took, nothing was seen
    if largest >= 1 and largest not in [step.batch for step in steps] and last.step_time_s is not None:
        memory = (_bytes(last) + each * (largest - last.batch)) / GIB
        steps.append(Step(largest, last.step_time_s * largest / last.batch, memory, estimated=True))
    return _found(steps, largest, limit)


def _found(steps: list[Step], largest: int, limit: float) -> Fit:
    if largest < 1:
        raise ConfigError(
            f"batch: not even one sample fits into {limit / GIB:.2g} GiB; use a smaller model or imgsz, or set "
            "grad_checkpoint: true"
        )
    return Fit(sorted(steps, key=lambda step: step.batch), largest, limit / GIB)


def _bytes(step: Step) -> float:
    assert step.peak_memory_gib is not None, "on a CPU every step that is tried is done"
    return step.peak_memory_gib * GIB


def peak_of_process() -> int:
    """The most memory in bytes that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process could still take: the machine's, or less where its container allows less."""
    group, meminfo = root / "sys/fs/cgroup", root / "proc/meminfo"
    limits = []
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        limits.append(int(lines["MemAvailable"].split()[0]) * 1024)
    if (group / "memory.max").is_file() and (most := (group / "memory.max").read_text().strip()) != "max":
        limits.append(int(most) - int((group / "memory.current").read_text()))
    if not limits:
        raise ConfigError("posesweep fit: this machine does not say how much memory is free; it needs Linux or a GPU")
    return max(0, min(limits))


def table_of(found: Fit) -> Table:
    """Batch, time, memory and speed of every batch tried."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("batch", "step_time_s", "peak_memory_gib", "samples/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for step in found.steps:
        if step.step_time_s is None or step.peak_memory_gib is None:
            table.add_row(str(step.batch), "", "", "", "out of memory")
            continue
        numbers = (f"{step.step_time_s:.4f}", f"{step.peak_memory_gib:.2f}", f"{step.batch / step.step_time_s:.0f}")
        remark = "estimated" if step.estimated else "the largest that fits" if step.batch == found.largest else ""
        table.add_row(str(step.batch), *numbers, remark)
    return table


def suggestion(config: TrialConfig, found: Fit) -> str:
    """What to write into the file, in words; `largest` counts for one worker and one forward pass."""
    parts = config.workers * config.accumulate
    shared = f" on each of {config.workers} workers" if config.workers > 1 else ""
    or_more = "or more " if found.largest >= MOST else ""
    most = f"batches of up to {found.largest} {or_more}fit into {found.limit_gib:.3g} GiB{shared}"
    if config.batch_per_forward <= found.largest:
        more = f" and could be {found.largest * parts}" if config.batch_per_forward < found.largest < MOST else ""
        return f"{most}; the config's batch: {config.batch} fits{more}"
    accumulate = -(-config.batch // (config.workers * found.largest))
    while config.batch % (config.workers * accumulate):
        accumulate += 1
    whole = f"batch: {found.largest * parts}, or keep it and set accumulate: {accumulate}"
    return f"{most}; the config's batch: {config.batch} does not fit: set {whole}"
