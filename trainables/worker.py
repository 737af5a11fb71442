"""One trial as Ray runs it: in a reused Tune actor, or on several workers under Ray Train.

Neither Ray nor Optuna is imported above the functions: a worker loads what training needs.
"""

import traceback
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from posesweep.errors import PoseSweepError
from posesweep.files import read_json, trial_folder, write_json, write_text
from posesweep.trainables.cluster import Slots
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import SupersededError, begin_attempt, end_with, in_ray_train_worker, in_this_process
from posesweep.trainables.status import read_status, write_status
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import DivergedError, run_trial


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
    return (
        f"out of GPU memory at batch {config.batch}: lower batch, or raise accumulate; `posesweep fit` finds what fits"
    )


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
