"""A sweep from start or restart to its report: prepare, propose and train on Ray Tune, rank, export."""

import logging
import os
import shutil
import socket
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from posesweep.errors import PoseSweepError, SweepError
from posesweep.files import read_json, read_json_lines, trial_folder, write_json, write_text
from posesweep.search_spaces.space import Sweep, edges, space_json
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import SupersededError, begin_attempt, end_with, in_ray_train_worker, in_this_process
from posesweep.trainables.folder import lease, record_split, record_sweep, refuse_changes
from posesweep.trainables.progress import Board, Progress
from posesweep.trainables.search import Search, longest_training
from posesweep.trainables.status import read_status, write_status
from posesweep.trainables.tasks import find_task, make_config
from posesweep.trainables.trial import DivergedError, run_trial

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own display; the old one is off with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the sweep folder is the record, not Tune's files
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**6),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # reports of Ray Train workers would wait two seconds
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a thread less per Ray Train group
}
OBJECT_STORE_BYTES = 100 * 2**20  # trials exchange files and small reports only


@dataclass(frozen=True)
class Slots:
    """What one trial holds, and how many run at a time."""

    workers: int
    cpus: int  # per worker
    gpus: float  # per worker
    concurrent: int


def run_sweep(sweep: Sweep, folder: Path, extend: int = 0) -> None:
    """Start the sweep in `folder`, or go on where it was left; returns when every trial has ended.

    Raises SweepError when the folder belongs to another sweep or process or the machine is too small, DataError when
    the data cannot be used, KeyboardInterrupt after Ctrl-C (the same command then goes on).
    """
    with lease(folder):
        refuse_changes(sweep, folder)
        slots = plan_slots(sweep, **machine())
        with ray_beside(slots) as ray_is_up:
            base = prepare(sweep, folder, slots)
            record_sweep(sweep, folder)  # only now: a mistake in the data can be put right under the same name
            search = Search.open(sweep, folder)
            extend_by(search, extend)
            catch_up(search, folder, sweep.metric.name)
            print(opening_line(search, folder), flush=True)
            ray_is_up.result()
            if search.left:
                with Progress(board_of(search, folder, slots)) as progress:
                    run_on_tune(sweep, search, folder, base, slots, progress)


def prepare(sweep: Sweep, folder: Path, slots: Slots) -> dict[str, Any]:
    """Check the data, build what the trials share, freeze the split; returns the settings common to all trials."""
    base = {
        "task": sweep.task,
        "data": sweep.data.model_dump(),
        "metric": sweep.metric.model_dump(),
        "workers": slots.workers,
        "threads": max(1, slots.cpus),
        "epochs": longest_training(sweep),
        **sweep.fixed,
    }
    if base.get("weights") is not None:
        base["weights"] = str(Path(base["weights"]).absolute())  # trials run in folders of their own
    prepared = find_task(sweep.task).prepare([make_config({**base, **values}) for values in edges(sweep)])
    for note in prepared.notes:
        print(f"note: {note}")
    record_split(folder, prepared.record)
    write_json(folder / "space.json", space_json(sweep))
    return {**base, **prepared.settings}


def extend_by(search: Search, trials: int) -> None:
    """Ask for so many more trials; an extension that was interrupted only goes on. SweepError where none are to be
    had."""
    if not trials or (search.proposals() and search.left):
        return
    if not search.proposals():
        raise SweepError(f"{search.sweep.name} was never started, so there is nothing to extend; leave --extend out")
    if search.sweep.search.method == "grid":
        raise SweepError("a grid is complete and cannot be extended; widen it under another name:, or use method: tpe")
    search.extend(trials)


def machine() -> dict[str, float]:
    """CPUs and GPUs of the running Ray cluster when RAY_ADDRESS names one, else of this machine."""
    if os.environ.get("RAY_ADDRESS"):
        start_ray(0, 0, dashboard=False)
        import ray

        resources = ray.cluster_resources()
        return {"cpus": resources.get("CPU", 0), "gpus": resources.get("GPU", 0)}
    return {"cpus": len(os.sched_getaffinity(0)), "gpus": torch.cuda.device_count()}


def plan_slots(sweep: Sweep, cpus: float, gpus: float) -> Slots:
    """How trials share the machine. SweepError with the arithmetic when not even one fits."""
    asked = sweep.resources
    workers = asked.workers_per_trial
    gpus_each = (1.0 if gpus else 0.0) if asked.gpus_per_worker == "auto" else float(asked.gpus_per_worker)
    if asked.cpus_per_worker == "auto":
        # on CPUs many one-thread trials beat few wide ones; a GPU wants its batches made by several threads
        cpus_each = max(1, min(4, int(cpus * gpus_each // max(gpus, 1)))) if gpus_each else 1
    else:
        cpus_each = asked.cpus_per_worker
    fitting = min(
        cpus // (workers * cpus_each),
        gpus // (workers * gpus_each) if gpus_each else float("inf"),
    )
    if fitting < 1:
        raise SweepError(
            f"resources: a trial of {workers} workers with {cpus_each} CPUs and {gpus_each:g} GPUs each needs "
            f"{workers * cpus_each} CPUs and {workers * gpus_each:g} GPUs, but there are {cpus:g} and {gpus:g}; "
            "lower workers_per_trial, cpus_per_worker or gpus_per_worker"
        )
    concurrent = int(fitting) if asked.concurrent == "auto" else asked.concurrent
    if concurrent > fitting:
        raise SweepError(
            f"resources.concurrent: {concurrent} trials of {workers * cpus_each} CPUs and {workers * gpus_each:g} GPUs "
            f"do not fit into {cpus:g} CPUs and {gpus:g} GPUs; at most {int(fitting)}, or leave it auto"
        )
    return Slots(workers, cpus_each, gpus_each, max(1, min(concurrent, sweep.search.trials)))


def catch_up(search: Search, folder: Path, metric: str) -> None:
    """Tell the search what interrupted trials did that it had not heard when it died, and their folders how those
    ended that it had ended."""
    for number in search.ended():
        state, reason = search.outcome(number)
        if read_status(trial_folder(folder, number)).get("state") != state:
            write_status(trial_folder(folder, number), state=state, **({"reason": reason} if reason else {}))
    for proposal in search.unfinished():
        rows = metrics_of(folder, proposal.number)
        stopped = search.catch_up(proposal.number, [(row["epoch"], row.get(metric)) for row in rows])
        if stopped is not None:
            write_status(trial_folder(folder, proposal.number), state="pruned", reason=stopped)


def opening_line(search: Search, folder: Path) -> str:
    """'horse26: 12 done, 3 go on from epoch 40, 38, 2, 9 to start'."""
    name, counts = search.sweep.name, search.counts()
    going_on = counts["running"]
    done = sum(counts.values()) - going_on
    to_start = search.wanted - done - going_on
    if not done and not going_on:
        return f"{name}: {to_start} trials to start; everything goes to {folder}"
    parts = [f"{done} done"]
    if going_on:
        rows = [metrics_of(folder, proposal.number) for proposal in search.unfinished()]
        parts.append(f"{going_on} go on from epoch {', '.join(str(len(r)) for r in rows)}")
    parts.append(f"{to_start} to start" if to_start else "none to start")
    return f"{name}: {', '.join(parts)}"


def board_of(search: Search, folder: Path, slots: Slots) -> Board:
    """The live view of a sweep, with what its trials did before this run."""
    board = Board(search.sweep.name, search.wanted, slots.concurrent, search.rule)
    for proposal in search.proposals():
        board.started(proposal.number, proposal.params)
        for row in metrics_of(folder, proposal.number):
            board.epoch(proposal.number, row)
        state, reason = search.outcome(proposal.number)
        if state != "running":
            board.ended(proposal.number, state, reason)
    return board


def metrics_of(folder: Path, number: int) -> list[dict[str, Any]]:
    """The epochs a trial has on record."""
    return read_json_lines(trial_folder(folder, number) / "metrics.jsonl")


def start_ray(cpus: float, gpus: float, dashboard: bool) -> None:
    """Join the cluster that RAY_ADDRESS names, else start Ray on this machine, on loopback."""
    os.environ.update(RAY_SETTINGS)
    import ray

    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    ray.init(
        address="local",
        num_cpus=int(cpus),
        num_gpus=int(gpus),
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        **quiet,
    )


@contextmanager
def ray_beside(slots: Slots) -> Iterator[Future[None]]:
    """Ray, started while the caller does something else, left at its end: at the interpreter's it takes a minute."""
    import ray

    with ThreadPoolExecutor(1) as aside:
        started = aside.submit(start_ray, **machine(), dashboard=slots.workers > 1)
        try:
            yield started
        finally:
            wait([started])
            ray.shutdown()


def run_on_tune(
    sweep: Sweep, search: Search, folder: Path, base: dict[str, Any], slots: Slots, progress: Progress
) -> None:
    """Train everything the search still wants. Raises KeyboardInterrupt when Ctrl-C ended it early."""
    from posesweep.trainables.records import Records

    driver = (os.getpid(), socket.gethostname())
    trainable = partial(train_in_tune, base=base, folder=folder.resolve(), slots=slots, driver=driver)
    records = Records(search, folder, progress, sweep.keep.checkpoints_of_top, slots.workers > 1)
    fit(trainable, search, folder, slots, callbacks=[records], max_retries=sweep.failure.max_retries)
    if search.hopeless:
        number = search.ended()[0]
        raise SweepError(
            f"every one of the first {len(search.ended())} trials failed; the reason of trial {number}: "
            f"{search.outcome(number)[1]}; put it right, remove {folder} and start again"
        )
    if search.left:
        raise KeyboardInterrupt


def fit(
    trainable: Callable[[dict[str, Any]], None],
    search: Search,
    folder: Path,
    slots: Slots,
    **run: Any,
) -> None:
    """Have Ray Tune run `trainable` for every proposal of the search. `run`: callbacks, max_retries."""
    from ray import tune

    from posesweep.trainables.tune_glue import StudyScheduler, StudySearcher

    searcher = StudySearcher(search)
    tuner = tune.Tuner(
        tune.with_resources(trainable, trial_resources(slots)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(searcher),
            num_samples=search.left,
            max_concurrent_trials=slots.concurrent,
            reuse_actors=slots.workers == 1,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((folder / "ray").resolve()),
            failure_config=tune.FailureConfig(max_failures=run.get("max_retries", 0)),
            callbacks=run.get("callbacks", []),
            verbose=0,
        ),
    )
    tuner.fit()
    shutil.rmtree(folder / "ray", ignore_errors=True)  # Tune's own files, which nothing reads


def trial_resources(slots: Slots) -> Any:
    """What Tune reserves for a trial: its worker's share, or next to nothing for one whose workers Ray Train places.

    A driver that held CPUs while its workers wait for theirs would be the classic deadlock.
    """
    from ray import tune

    if slots.workers > 1:
        return tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])
    return tune.PlacementGroupFactory([{"CPU": slots.cpus, "GPU": slots.gpus}])


def train_in_tune(
    proposal: dict[str, Any], base: dict[str, Any], folder: Path, slots: Slots, driver: tuple[int, str]
) -> None:
    """One trial, in a Tune actor. Reports each epoch, and at last how it ended.

    What the user must put right ends the trial as failed, in words; anything else is raised, so that Tune tries again.
    """
    from ray import tune

    _end_once_with(*driver)
    trial, metric = trial_folder(folder, proposal["number"]), base["metric"]["name"]
    state, reason = "", ""
    try:
        config = make_config({**base, **proposal["params"]})
        if config.workers > 1:
            run_in_ray_train(config, trial, slots)
        else:
            run_trial(config, in_this_process(trial, lambda row: tune.report(report_of(row, metric))))
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except SupersededError:
        return
    except (PoseSweepError, torch.cuda.OutOfMemoryError) as error:
        state, reason = "failed", sentence_of(error, config)
    except Exception:
        write_text(trial / "error.txt", traceback.format_exc())
        raise
    if state:
        write_status(trial, state=state, reason=reason)
    status = read_status(trial)
    tune.report({"epoch": status.get("epochs", 0), "state": status["state"], "reason": status["reason"]})


def sentence_of(error: Exception, config: TrialConfig) -> str:
    """What the user reads of an error that ends a trial for good."""
    if isinstance(error, PoseSweepError):
        return str(error)
    return f"out of GPU memory at batch {config.batch}: lower batch, or raise accumulate"


def report_of(row: dict[str, Any], metric: str) -> dict[str, Any]:
    """A row of metrics.jsonl as the search hears of it."""
    return {**row, "value": row.get(metric), "state": "running"}


_end_once_with = cache(end_with)  # an actor is reused; one watching thread is enough


def run_in_ray_train(config: TrialConfig, folder: Path, slots: Slots) -> None:
    """One trial on several workers: a DDP group under Ray Train, reporting to the Tune trial this runs in."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    folder.mkdir(parents=True, exist_ok=True)
    attempt = begin_attempt(folder)
    trainer = TorchTrainer(
        partial(train_in_ray_train_worker, folder=folder, attempt=attempt),
        train_loop_config=config.model_dump(),
        torch_config=TorchConfig(),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=slots.gpus > 0,
            resources_per_worker={"CPU": slots.cpus, "GPU": slots.gpus},
        ),
        run_config=RunConfig(
            name=f"attempt{attempt}",
            storage_path=str(folder / "ray"),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # Ray's annotation is the older base class
        ),
    )
    try:
        trainer.fit()
    except Exception:
        if (refused := folder / f"refused.{attempt}.json").is_file():
            raise PoseSweepError(read_json(refused)["reason"]) from None
        raise


def train_in_ray_train_worker(values: dict[str, Any], folder: Path, attempt: int) -> None:
    """One worker of a DDP trial. How the trial ended stands in status.json, which the first worker writes."""
    config = make_config(values)
    context = in_ray_train_worker(folder, attempt, partial(report_of, metric=config.metric.name))
    try:
        run_trial(config, context)
    except DivergedError:
        pass  # on every rank alike, and recorded
    except (PoseSweepError, torch.cuda.OutOfMemoryError) as error:
        write_json(folder / f"refused.{attempt}.json", {"reason": sentence_of(error, config)})
        raise  # of one rank, perhaps: Ray must end the others, who would wait for it
