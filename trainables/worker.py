"""One trial as Ray runs it: in a reused Tune actor, or on several workers under Ray Train.

Neither Ray nor Optuna is imported above the functions: a worker loads what training needs.
"""

import logging
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from posesweep.errors import PoseSweepError, StorageError
from posesweep.files import read_json, trial_folder, write_json, write_text
from posesweep.trainables.cluster import Slots
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import (
    Context,
    Report,
    SupersededError,
    begin_attempt,
    current_attempt,
    end_with,
    ended_when_silent,
    in_ray_train_worker,
    in_this_process,
)
from posesweep.trainables.debug import print_epoch
from posesweep.trainables.housekeeping import heard, logged_to, storage_error
from posesweep.trainables.progress import params_text
from posesweep.trainables.status import read_status, write_status
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import DivergedError, run_trial


@dataclass(frozen=True)
class Driver:
    """The process that runs the sweep, the folder it was started in, and how long a trial may be silent."""

    pid: int
    host: str
    folder: Path
    stall_s: float = 1800.0


def train_in_tune(proposal: dict[str, Any], base: dict[str, Any], folder: Path, slots: Slots, driver: Driver) -> None:
    """One trial, in a Tune actor. Reports each epoch, and at last how it ended; what it prints goes to its log.txt. A
    trial that is trained again has a `folder` of its own below that of the sweep.

    What the user must put right ends the trial as failed, in words; a disk that cannot be written halts the sweep;
    anything else is raised, so that Tune tries again.
    """
    from ray import tune

    _end_once_with(driver.pid, driver.host)
    number = proposal["number"]
    trial = folder / proposal["folder"] if "folder" in proposal else trial_folder(folder, number)
    silence_s = driver.stall_s if slots.workers == 1 else None
    try:
        with logged_to(trial / "log.txt", f"trial {number}: {params_text(proposal['params'])}", silence_s):
            end = _train(proposal, base, trial, slots, driver)
    except SupersededError:
        return
    except Exception as error:
        trouble = error if isinstance(error, StorageError) else storage_error(trial, error)
        if trouble is None:
            raise
        end = {"epoch": 0, "state": "halted", "reason": str(trouble)}
    tune.report(end)


def _train(proposal: dict[str, Any], base: dict[str, Any], trial: Path, slots: Slots, driver: Driver) -> dict[str, Any]:
    """Train one proposal in its folder; returns its last report: how it ended."""
    from ray import tune

    metric = base["metric"]["name"]

    def report(row: dict[str, Any]) -> None:
        heard(driver.stall_s)
        print_epoch(row)
        tune.report(report_of(row, metric))

    state, reason = "", ""
    try:
        config = make_config(with_whole_paths({**base, **proposal["params"]}, driver.folder))
        if config.workers > 1:
            run_in_ray_train(config, trial, slots, driver.stall_s)
        else:
            run_trial(config, in_this_process(trial, report))
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except (SupersededError, StorageError):
        raise
    except PoseSweepError as error:
        state, reason = "failed", str(error)
    except Exception:
        write_text(trial / "error.txt", traceback.format_exc())
        raise
    if state:
        print(f"{state}: {reason}", flush=True)
        write_status(trial, state=state, reason=reason)
    status = read_status(trial)
    return {"epoch": status.get("epochs", 0), "state": status["state"], "reason": status["reason"]}


def with_whole_paths(values: dict[str, Any], here: Path) -> dict[str, Any]:
    """The settings with the files that they name absolute: trials run in folders of their own, the user was `here`."""
    found = dict(values)
    for name in ("weights", "weights_skeleton"):
        value = values.get(name)
        if value is not None and (name == "weights" or value.endswith((".yaml", ".yml"))):
            found[name] = str(here / Path(value).expanduser())
    return found


def report_of(row: dict[str, Any], metric: str) -> dict[str, Any]:
    """A row of metrics.jsonl as the search hears of it."""
    return {**row, "value": row.get(metric), "state": "running"}


_end_once_with = cache(end_with)  # an actor is reused; one watching thread is enough


def run_in_ray_train(config: TrialConfig, folder: Path, slots: Slots, stall_s: float) -> None:
    """One trial on several workers: a DDP group under Ray Train, reporting to the Tune trial this runs in.

    A group that fails, or whose workers are silent for `stall_s` seconds, has been torn down when this raises: one left
    behind would hold what the next group waits for.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from posesweep.trainables.groups import GroupConfig

    folder.mkdir(parents=True, exist_ok=True)
    attempt = begin_attempt(folder)
    trainer = TorchTrainer(
        partial(train_in_ray_train_worker, folder=folder, attempt=attempt, stall_s=stall_s),
        train_loop_config=config.model_dump(),
        torch_config=GroupConfig(timeout_s=math.ceil(1.5 * stall_s)),  # a silent worker says more than one that waited
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=slots.gpus > 0,
            resources_per_worker={"CPU": slots.cpus, "GPU": slots.gpus},
            placement_strategy=slots.placement.upper(),
        ),
        run_config=RunConfig(
            name=f"attempt{attempt}",
            storage_path=str(folder / "ray"),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # Ray's annotation is the older base class
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        reason = why_it_failed(folder, attempt)
        if reason is not None:
            raise reason from error
        raise


def why_it_failed(folder: Path, attempt: int) -> Exception | None:
    """What the workers of a group that failed have left in words; None when they have not."""
    if current_attempt(folder) != attempt:
        return SupersededError(f"{folder.name}: attempt {attempt} was superseded")
    if (refused := folder / f"refused.{attempt}.json").is_file():
        said = read_json(refused)
        return StorageError(said["reason"]) if said["storage"] else PoseSweepError(said["reason"])
    if (hung := folder / f"hung.{attempt}.json").is_file():
        return TimeoutError(read_json(hung)["reason"])
    return None


def train_in_ray_train_worker(values: dict[str, Any], folder: Path, attempt: int, stall_s: float) -> None:
    """One worker of a DDP trial. How the trial ended stands in status.json, which the first worker writes."""
    config = make_config(values)
    context = in_ray_train_worker(folder, attempt, partial(report_of, metric=config.metric.name))
    logging.getLogger().setLevel(logging.WARNING)  # Ray writes a page for each report, as the logger of a file name
    name = "log.txt" if context.is_main else f"log.{context.rank}.txt"
    title = f"attempt {attempt}, worker {context.rank + 1} of {context.world}"
    try:
        with (
            logged_to(folder / name, title),
            ended_when_silent(stall_s, partial(write_hung, folder, attempt, stall_s)) as heard_from,
        ):
            run_trial(config, replace(context, report=told_first(heard_from, context)))
    except DivergedError:
        pass  # on every rank alike, and recorded
    except SupersededError:
        raise
    except PoseSweepError as error:
        said = {"reason": str(error), "storage": isinstance(error, StorageError)}  # which halts the sweep
        write_json(folder / f"refused.{attempt}.json", said)
        raise  # of one rank, perhaps: Ray must end the others, who would wait for it


def told_first(sign_of_life: Callable[[], None], context: Context) -> Report:
    """A report that gives a sign of life, and the first worker's line, before it waits for the others."""

    def both(row: dict[str, Any]) -> None:
        sign_of_life()
        if context.is_main:
            print_epoch(row)
        context.report(row)

    return both


def write_hung(folder: Path, attempt: int, stall_s: float) -> None:
    """The last words of a worker of a group that hangs, for the trial's driver."""
    reason = (
        f"it hung: no worker reported an epoch for {stall_s / 60:g} minutes (failure.stall_minutes); the ends of its "
        "log.txt, log.1.txt ... show where they were"
    )
    write_json(folder / f"hung.{attempt}.json", {"reason": reason})
