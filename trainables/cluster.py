"""The machines a sweep runs on: what a trial holds of them, how many run at a time, Ray's start and end."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from posesweep.errors import SweepError
from posesweep.search_spaces.space import Sweep

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own display; the old one is off with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the sweep folder is the record, not Tune's files
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**6),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # reports of Ray Train workers would wait two seconds
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a thread less per Ray Train group
    "RAY_preload_python_modules": "torch,pandas,ray.tune",  # workers import them while the data are prepared
}
OBJECT_STORE_BYTES = 100 * 2**20  # trials exchange files and small reports only


@dataclass(frozen=True)
class Slots:
    """What one trial holds, and how many run at a time."""

    workers: int
    cpus: int  # per worker
    gpus: float  # per worker
    concurrent: int


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
def ray_beside(slots: Slots, aside: Executor) -> Iterator[Future[None]]:
    """Ray, started and at the end left `aside`, while the caller does something else; at the interpreter's end leaving
    it takes a minute. Close the executor to wait for that."""
    import ray

    started = aside.submit(start_ray, **machine(), dashboard=slots.workers > 1)
    try:
        yield started
    finally:
        wait([started])
        aside.submit(ray.shutdown)


def trial_resources(slots: Slots) -> Any:
    """What Tune reserves for a trial: its worker's share, or next to nothing for one whose workers Ray Train places.

    A driver that held CPUs while its workers wait for theirs would be the classic deadlock.
    """
    from ray import tune

    if slots.workers > 1:
        return tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])
    return tune.PlacementGroupFactory([{"CPU": slots.cpus, "GPU": slots.gpus}])
