"""`--dry-run`: everything a sweep does before its first trial, a few real steps, and what the whole will cost.

The crop stores are built, in the cache where the sweep will find them; nothing is left in its folder.
"""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posesweep.datasets.stores import entries
from posesweep.errors import ConfigError
from posesweep.files import read_json
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.cluster import Slots, cluster_address
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import default_cache
from posesweep.trainables.copying import Copy
from posesweep.trainables.effects import Effect, effects
from posesweep.trainables.fit import GIB, available_bytes
from posesweep.trainables.folder import record_split, refuse_changes
from posesweep.trainables.forecast import (
    Confirming,
    Forecast,
    Plan,
    Spread,
    TrialCost,
    Verdict,
    confirm_s,
    forecast,
    judge_budget,
)
from posesweep.trainables.preflight import checked_slots
from posesweep.trainables.progress import duration
from posesweep.trainables.search import rule_of
from posesweep.trainables.stopping import most_waiting
from posesweep.trainables.sweep import prepare
from posesweep.trainables.timing import Measured, Timed, measure
from posesweep.trainables.trackers import check_trackers

BEFORE_AND_AFTER_S = 16.0  # imports, Ray's start and its workers; ranking and report (the demo's, BENCHMARKS.md)
HOUR_S = 3600.0
GB = 1e9
DRIVER_GIB = 1.0  # the process that runs the sweep, and Ray's


@dataclass(frozen=True)
class Disk:
    """Bytes that a sweep leaves, and those that it needs for a while."""

    kept: int
    running: int
    evidence: int
    stores: int

    @property
    def in_folder(self) -> int:
        """The most that lies in the sweep's folder at a time."""
        return self.kept + self.running + self.evidence


@dataclass(frozen=True)
class Examined:
    """What was found out by running a few steps."""

    effects: list[Effect]
    measured: Measured


def run_dry(sweep: Sweep, folder: Path) -> int:
    """Check the sweep that would run in `folder`, and print what it will cost; 1 when it cannot work as it is, else 0.

    Raises what starting the sweep would: ConfigError, DataError, SweepError.
    """
    begun = time.time()
    print(f"dry run of {sweep.name}: nothing is written into {folder}", flush=True)
    refuse_changes(sweep, folder)
    check_trackers(sweep.track)
    if sweep.keep.copy_to is not None:
        Copy.open(sweep.keep.copy_to, sweep.name)
    slots = checked_slots(sweep, _existing(folder))
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "pictures").mkdir()  # they are there, so none are drawn
        base = prepare(sweep, Path(scratch), slots)
        split = read_json(Path(scratch) / "split.json")
    if (folder / "split.json").is_file():
        record_split(folder, split)  # refuses other data
    stores = sum(entry.size for entry in entries(default_cache()) if entry.idle_s < time.time() - begun + 1)
    print(f"data: as the sweep will have them, {len(split['val'])} objects to validate with", flush=True)
    searching = slots.at_most(sweep.search.trials)
    for line in machine_lines(searching):
        print(line, flush=True)
    examined = where_trials_run(sweep, base, searching)
    lines, faults = report(sweep, examined, slots, stores, folder)
    print("\n".join([*lines, *(f"ERROR {fault}" for fault in faults)]))
    return 1 if faults else 0


def where_trials_run(sweep: Sweep, base: dict[str, Any], slots: Slots) -> Examined:
    """`examine`, in this process, or on the cluster with what one worker holds."""
    if cluster_address() is None:
        return examine(sweep, base, slots)
    import ray

    try:
        remote = ray.remote(num_cpus=slots.cpus, num_gpus=slots.gpus, max_retries=0)(examine)
        return ray.get(remote.remote(sweep, base, slots))
    finally:
        ray.shutdown()


def examine(sweep: Sweep, base: dict[str, Any], slots: Slots) -> Examined:
    """Time the extremes, then see what each parameter changes: that comes second, as it warms nothing up."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(slots.cpus, cpus // (slots.concurrent * slots.workers))
    measured = measure(sweep, base, share)
    return Examined(effects(sweep, base), measured)


def machine_lines(slots: Slots) -> list[str]:
    """Who runs what, in words."""
    address = cluster_address()
    where = f"cluster at {address}" if address is not None else "machine"
    gpus = f" and {slots.gpus:g} GPU{'s' * (slots.gpus != 1)}" if slots.gpus else ", no GPU"
    trials = "1 trial" if slots.concurrent == 1 else f"{slots.concurrent} trials"
    workers = f"{slots.workers} workers" if slots.workers > 1 else "1 worker"
    return [f"{where}: {trials} at a time, each {workers} with {slots.cpus} CPU{'s' * (slots.cpus > 1)}{gpus}"]


def report(sweep: Sweep, examined: Examined, slots: Slots, stores: int, folder: Path) -> tuple[list[str], list[str]]:
    """What is printed, and what is wrong."""
    measured = examined.measured
    plan = plan_of(sweep, measured, slots)
    found = forecast(plan)
    disk = disk_of(sweep, measured, slots, stores)
    lines = [*timed_lines(measured), *trial_lines(sweep, found), *hours_lines(found, slots)]
    most = slots.at_most(max(sweep.search.trials, trainings_to_confirm(sweep)))
    lines += [*disk_lines(disk, folder), memory_line(measured, most)]
    lines += ["what each parameter changes, tried with its extreme values:"]
    lines += [f"  {effect.sentence}" for effect in examined.effects if effect.parts]
    faults = [effect.sentence for effect in examined.effects if not effect.parts]
    faults += [*disk_faults(disk, folder), *memory_faults(measured, most), *stall_faults(sweep, measured)]
    more, wrong = promised(sweep, measured, found, slots)
    return [*lines, *more], [*faults, *wrong]


def plan_of(sweep: Sweep, measured: Measured, slots: Slots) -> Plan:
    """What is simulated."""
    return Plan(
        rule=rule_of(sweep),
        trials=sweep.search.trials,
        concurrent=slots.concurrent,
        first=measured.first,
        others=measured.sampled,
        val_every=measured.largest.config.val_every,
        learns=sweep.search.method == "tpe",
    )


def timed_lines(measured: Measured) -> list[str]:
    """The configs that were run."""
    costs = measured.costs
    shortest, longest = min(cost.whole_s for cost in costs), max(cost.whole_s for cost in costs)
    pair = {"smallest": measured.smallest, "largest": measured.largest}
    lines = [f"timed, the {name}: {in_words(timed)}" for name, timed in pair.items()]
    if measured.smallest == measured.largest:
        lines = [f"timed: {in_words(measured.largest)}"]
    times = list(dict.fromkeys([duration(shortest), duration(longest)]))
    return [*lines, f"a whole training takes {' to '.join(times)}"]


def in_words(timed: Timed) -> str:
    """'tiny, 112x80, batch 16: 12 ms a step (median of 31), 4 ms to load its samples, ...'."""
    config, batch = timed.config, timed.config.batch // timed.config.workers
    size = "x".join(map(str, getattr(config, "imgsz", ())))
    named = ", ".join(filter(None, [config.model, size, f"batch {config.batch}"]))
    return (
        f"{named}: {_ms(timed.step_s)} a step (median of {timed.steps}), {_ms(batch * timed.kind.load_s)} to load its "
        f"samples, {_ms(timed.predict_s)} to predict a batch of validation"
    )


def trial_lines(sweep: Sweep, found: Forecast) -> list[str]:
    """Trials, rungs, and what stopping early saves."""
    *marks, (epochs, whole) = found.reaching
    rule = sweep.early_terminate.type
    if rule == "none" or not marks:
        return [f"trials: {found.trials}, all for their full length of {epochs} epochs"]
    shown = marks if rule != "median" else marks[:: max(1, len(marks) // 3)]
    rungs = ", ".join(f"{count:.0f} reach epoch {epoch}" for epoch, count in shown)
    return [
        f"trials: {found.trials}; {rungs}, and about {whole:.0f} all {epochs}",
        f"{rule} spares about {found.saved:.0%} of the work",
    ]


def hours_lines(found: Forecast, slots: Slots) -> list[str]:
    """How long, and how much of the machine."""
    wall = found.wall_s.plus(BEFORE_AND_AFTER_S)
    lines = [f"time: about {_range(wall)} when nothing else runs, {BEFORE_AND_AFTER_S:.0f} s of them start and end"]
    held = found.busy_s.times(slots.workers)
    lines += [f"work: {_hours(held.times(slots.cpus), 'CPU-hours')}"]
    return [*lines, f"work: {_hours(held.times(slots.gpus), 'GPU-hours')}"] if slots.gpus else lines


def disk_of(sweep: Sweep, measured: Measured, slots: Slots, stores: int) -> Disk:
    """Of the largest config everywhere, when all of confirm is trained and not yet thinned out, and as many trials wait
    at rungs as may."""
    largest = measured.largest
    best = max(1, largest.config.keep_best) * largest.best_bytes
    trials, again = sweep.search.trials, trainings_to_confirm(sweep)
    kept = min(sweep.keep.checkpoints_of_top, trials) * (largest.last_bytes + best) + again * best
    # the `last` before stays, and new ones of both are written before the old ones go
    running = slots.at_most(max(trials, again)).concurrent * (3 * largest.last_bytes + best + largest.best_bytes)
    running += most_waiting(rule_of(sweep), trials) * (largest.last_bytes + best)
    return Disk(kept, running, (trials + again) * largest.evidence_bytes, stores)


def trainings_to_confirm(sweep: Sweep) -> int:
    """How many trainings confirm adds."""
    return sweep.confirm.trainings if sweep.confirm is not None else 0


def disk_lines(disk: Disk, folder: Path) -> list[str]:
    """What lies where."""
    return [
        f"disk: at most {_gb(disk.in_folder)} in {folder} ({_gb(disk.kept)} are weights that are kept, "
        f"{_gb(disk.evidence)} predictions); crop stores of {_gb(disk.stores)} in {default_cache()}, built now"
    ]


def disk_faults(disk: Disk, folder: Path) -> list[str]:
    """A disk that is too full."""
    free = shutil.disk_usage(_existing(folder)).free
    if free > disk.in_folder:
        return []
    return [f"disk: {folder} needs {_gb(disk.in_folder)} and {_gb(free)} are free; lower keep.checkpoints_of_top"]


def memory_line(measured: Measured, slots: Slots) -> str:
    """Peak memory, of one trial and of all that run at a time."""
    each = measured.largest.memory_gib
    if slots.gpus:
        return f"GPU memory: {each:.1f} GiB at the peak of the largest config"
    return (
        f"memory: {each:.1f} GiB at the peak of the largest config, {needed_gib(each, slots):.1f} GiB for all at once"
    )


def needed_gib(each: float, slots: Slots) -> float:
    """Of trials that run on CPUs, and of the process that runs them."""
    return slots.concurrent * slots.workers * each + DRIVER_GIB


def memory_faults(measured: Measured, slots: Slots) -> list[str]:
    """Trials that together want more than there is; on a GPU, what does not fit has failed already."""
    if slots.gpus or cluster_address() is not None:
        return []
    try:
        free = available_bytes() / GIB
    except ConfigError:  # this machine does not say
        return []
    needed = needed_gib(measured.largest.memory_gib, slots)
    if needed <= free:
        return []
    return [f"memory: {needed:.1f} GiB are needed and {free:.1f} GiB are free; lower resources.concurrent or batch"]


def stall_faults(sweep: Sweep, measured: Measured) -> list[str]:
    """Epochs that would be taken for a trial that hangs."""
    minutes = sweep.failure.stall_minutes
    slowest = max(cost.epoch_s for cost in measured.costs)
    if slowest < minutes * 60:
        return []
    return [f"failure.stall_minutes: {minutes:g}, but an epoch takes up to {duration(slowest)}; raise it"]


def promised(sweep: Sweep, measured: Measured, found: Forecast, slots: Slots) -> tuple[list[str], list[str]]:
    """What confirm adds and what the budget allows: (lines, what cannot work)."""
    lines: list[str] = []
    needs = needs_of(measured.first[0], found)
    confirming = confirming_of(sweep, measured.largest.config)
    if confirming is not None:
        wall, busy = confirm_s(confirming, measured.costs, slots.concurrent)
        lines.append(
            f"confirm: {confirming.trainings} trainings of {confirming.epochs} epochs, about {_range(wall)} more"
        )
        needs["confirm"] = (wall, busy)
    faults: list[str] = []
    for limit, unit in budgets_of(sweep):
        verdict = within(limit, unit, needs, slots, found.trials)
        (lines if verdict.works else faults).extend(verdict.sentences)
    return lines, faults


def needs_of(baseline: TrialCost, found: Forecast) -> dict[str, tuple[Spread, Spread]]:
    """(wall, of all slots together) in seconds."""
    alone = Spread(baseline.whole_s, baseline.whole_s, baseline.whole_s)
    return {"the baseline": (alone, alone), "the search": (found.wall_s, found.busy_s)}


def within(limit: float, unit: str, needs: dict[str, tuple[Spread, Spread]], slots: Slots, trials: int) -> Verdict:
    """What a budget in hours ("h") or GPU-hours ("GPU-h") does."""
    if unit == "GPU-h" and not slots.gpus:
        return Verdict(True, (f"budget: {limit:g} GPU-h are never used up, as trials hold no GPU here; give hours",))
    factor = slots.workers * slots.gpus if unit == "GPU-h" else 1.0
    hours = {name: (busy if unit == "GPU-h" else wall).times(factor / HOUR_S) for name, (wall, busy) in needs.items()}
    return judge_budget(limit, unit, hours, trials)


def confirming_of(sweep: Sweep, config: TrialConfig) -> Confirming | None:
    """The confirm block, where there is one."""
    asked = sweep.confirm
    return Confirming(asked.top_k, asked.seeds, asked.epochs or config.epochs) if asked is not None else None


def budgets_of(sweep: Sweep) -> list[tuple[float, str]]:
    """The limits that the budget block sets."""
    given = [(sweep.budget.hours, "h"), (sweep.budget.gpu_hours, "GPU-h")] if sweep.budget is not None else []
    return [(limit, unit) for limit, unit in given if limit is not None]


def _existing(folder: Path) -> Path:
    """The folder, or the one where it will be made."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _range(seconds: Spread) -> str:
    return f"{duration(seconds.value)} ({duration(seconds.low)} to {duration(seconds.high)})"


def _hours(seconds: Spread, unit: str) -> str:
    hours = seconds.times(1 / HOUR_S)
    return f"{hours.value:.2g} {unit} ({hours.low:.2g} to {hours.high:.2g})"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2g} s"


def _gb(size: float) -> str:
    return f"{size / GB:.2f} GB" if size >= 0.1 * GB else f"{size / 1e6:.1f} MB"
