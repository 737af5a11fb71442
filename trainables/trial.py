"""run_trial: one training, from its config to its score, top to bottom."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
import yaml
from tensorboardX import SummaryWriter
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from posesweep.datasets.loading import batches, training_order, validation_order
from posesweep.errors import ConfigError
from posesweep.files import append_json_line, write_text
from posesweep.trainables import distributed
from posesweep.trainables.checkpoint import (
    Checkpoint,
    LoopState,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import Context, prepare_process
from posesweep.trainables.ema import WeightAverage
from posesweep.trainables.models import set_grad_checkpointing
from posesweep.trainables.optim import (
    OptimizerSettings,
    build_optimizer,
    freeze_layers,
    frozen_layers,
    layer_names_of,
    set_lr,
    train_mode,
)
from posesweep.trainables.patience import end_of
from posesweep.trainables.schedules import Schedule, lr_factor
from posesweep.trainables.status import versions, write_status
from posesweep.trainables.task import Arrays, Batch, Dataset, DivergedError, Score, Task
from posesweep.trainables.tasks import build_task
from posesweep.trainables.topk import best_epochs, keep_top

P = ParamSpec("P")
R = TypeVar("R")

CHECK_EVERY_STEPS = 16  # how often losses leave the device; the first bad one is still named by its exact step


def run_trial(config: TrialConfig, context: Context) -> LoopState:
    """Train one candidate and leave its record in `context.folder`; goes on from `last/` when that is there.

    Returns where the loop ended. Raises ConfigError or DataError for what the user can put right, SupersededError when
    a newer attempt has taken over, DivergedError when the loss is not finite. `context.report` may end it (SystemExit).
    """
    # ------------------------------------------------------------------ who am I
    prepare_process(config.threads, config.seed)
    if context.is_main:
        write_text(context.folder / "config.yaml", dump_config(config))

    # ------------------------------------------------------------------ data
    task = build_task(config)
    train_set, val_set = task.datasets()
    if context.is_main:
        for name, text in task.companions().items():
            write_text(context.folder / name, text)

    # ------------------------------------------------------------------ model and optimizer
    network = task.model()
    begun_from = task.start(network) if config.weights is not None else ""
    with told_when_out_of_memory(config):
        training = prepare_training(config, context, task, network)

    # ------------------------------------------------------------------ resume
    loop = _resume(training)
    if context.is_main:
        _restore_metrics(loop, context.folder)
        write_status(context.folder, state="running", reason="", weights=begun_from, **_facts(training))
        writer = SummaryWriter(str(context.folder / "tensorboard"), purge_step=loop.epoch + 1)

    # ------------------------------------------------------------------ train, score, save, report
    try:
        for row in loop.rows[-1:]:
            context.report(row)  # the search may not have heard of it; told twice, it changes nothing
        while not (ending := distributed.from_rank_zero(end_of(config, loop.epoch, loop.rows))):
            with told_when_out_of_memory(config):
                row, seconds = timed(train_epoch, training, train_set, loop)
                loop.spend(row, "train_s", seconds)
                score = None
                if loop.epoch % config.val_every == 0 or loop.epoch == config.epochs:
                    score, seconds = timed(score_network, training.scored_network, task, val_set, config, context)
                    loop.spend(row, "val_s", seconds)
                    row |= {f"val/{name}": value for name, value in score.metrics.items()}
                row["worked_until"] = time.time()  # Unix time: what follows is saving and reporting
            if context.is_main:
                context.check_not_superseded()
                if config.keep_best > 1:
                    keep_best_epochs(training, loop, row)
                save_epoch(training, loop, row, score)
                append_json_line(context.folder / "metrics.jsonl", row)
                context.check_not_superseded()
                write_status(context.folder, state="running", **_outcome(loop))
                _log(writer, row)
            context.report(row)
    except DivergedError as diverged:
        if context.is_main:
            write_status(context.folder, state="diverged", reason=str(diverged), **_outcome(loop))
        raise
    finally:
        if context.is_main:
            writer.close()
    if context.is_main:
        write_status(context.folder, state="finished", reason=ending, **_outcome(loop))
    return loop


@contextmanager
def told_when_out_of_memory(config: TrialConfig) -> Iterator[None]:
    """ConfigError in the place of torch's error when the GPU's memory does not do; the batch stays as it was asked."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"batch: {config.batch} does not fit into the GPU's memory; `posesweep fit` finds the largest that does; "
            "lower batch, raise accumulate, or set grad_checkpoint: true"
        ) from error


@dataclass(frozen=True)
class Training:
    """What one worker holds while it trains."""

    config: TrialConfig
    context: Context
    task: Task
    network: nn.Module  # the weights
    model: nn.Module  # what is called in training: the network, or it in its compiled or DDP wrapper
    optimizer: torch.optim.Optimizer
    ema: WeightAverage | None
    precision: "Precision"
    frozen: list[str]  # layers that stay as they are

    @property
    def scored_network(self) -> nn.Module:
        """The network that is validated and saved as the best: the averaged one where there is one."""
        return self.ema.model if self.ema is not None else self.network


def prepare_training(config: TrialConfig, context: Context, task: Task, network: nn.Module) -> Training:
    """Put a network that has its weights on the device, and everything that trains it around it.

    Raises ConfigError for more frozen layers than there are, or a layer in `lr_mult` that the network does not have.
    """
    frozen = frozen_layers(layer_names_of(network), config.freeze, config.lr_mult)
    freeze_layers(network, frozen)
    network = network.to(context.device)
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if context.world > 1 and config.sync_bn:
        network = distributed.convert_sync_batchnorm(network)
    if config.grad_checkpoint:
        set_grad_checkpointing(network)
    # a wrapper, not network.compile(): what is saved, averaged and scored stays the plain network
    called = cast(nn.Module, torch.compile(network)) if config.compile else network
    return Training(
        config=config,
        context=context,
        task=task,
        network=network,
        model=DistributedDataParallel(called) if context.world > 1 else called,
        optimizer=build_optimizer(network, _optimizer_settings(config)),
        ema=WeightAverage(network, config.ema) if config.ema is not None else None,
        precision=Precision.of(config.amp, context.device),
        frozen=frozen,
    )


def train_epoch(training: Training, dataset: Dataset, loop: LoopState) -> dict[str, Any]:
    """Every sample once; returns the epoch's row of metrics.jsonl. Advances `loop`.

    Raises DivergedError naming the first step whose loss is not finite, on every rank alike.
    """
    config, context = training.config, training.context
    orders = training_order(
        len(dataset), loop.epoch, config.seed, config.batch // context.world, context.rank, context.world
    )
    schedule = _schedule(config, len(orders))
    torch.manual_seed(epoch_seed(config.seed, loop.epoch, context.rank))  # of random layers, such as drop path
    train_mode(training.network, training.frozen)
    sums: dict[str, Tensor] = {}
    unchecked: list[Tensor] = []
    for arrays in batches(dataset, orders, loop.epoch, config.threads):
        lr = config.lr * lr_factor(schedule, loop.step)
        set_lr(training.optimizer, lr)
        parts = train_step(training, arrays)
        loop.step += 1
        sums = {name: sums.get(name, 0) + value for name, value in parts.items()}
        unchecked.append(parts["loss"])
        if len(unchecked) == CHECK_EVERY_STEPS:
            _check_finite(unchecked, loop.step, context.device)
            unchecked.clear()
    _check_finite(unchecked, loop.step, context.device)
    loop.epoch += 1
    means = distributed.mean_over_ranks({name: float(v) / len(orders) for name, v in sums.items()}, context.device)
    return {"epoch": loop.epoch, "step": loop.step, **means, "lr": lr}


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Of the random layers in one epoch on one rank: a resumed training draws what the undisturbed one would have."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])


def train_step(training: Training, arrays: Arrays) -> dict[str, Tensor]:
    """One optimizer step on one worker's share of a batch; returns the detached loss and its parts."""
    optimizer, precision, accumulate = training.optimizer, training.precision, training.config.accumulate
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for part, last in _shares(to_device(arrays, training.context.device), accumulate):
        with _no_sync(training.model, skip=not last), precision.autocast():
            loss = training.task.loss(training.model, part)
            precision.scaler.scale(loss.total / accumulate).backward()
        for name, value in {"loss": loss.total, **{f"loss/{k}": v for k, v in loss.parts.items()}}.items():
            sums[name] = sums.get(name, 0) + value.detach() / accumulate
    if training.config.clip is not None:
        precision.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(training.network.parameters(), training.config.clip)
    precision.scaler.step(optimizer)
    precision.scaler.update()
    if training.ema is not None:
        training.ema.update(training.network)
    return sums


@torch.no_grad()
def score_network(network: nn.Module, task: Task, dataset: Dataset, config: TrialConfig, context: Context) -> Score:
    """Score `network` on every sample of `dataset`; each rank predicts its share, and all get the same score."""
    network.eval()
    precision = Precision.of(config.amp, context.device)
    predictions: dict[int, Any] = {}
    orders = validation_order(len(dataset), config.batch_per_forward, context.rank, context.world)
    for arrays in batches(dataset, orders, 0, config.threads):
        with precision.autocast():
            predictions |= task.predict(network, to_device(arrays, context.device))
    gathered = distributed.gather_predictions(predictions)
    outcome: Score | Exception | None = None
    if gathered is not None:
        try:
            outcome = task.score(gathered)
        except Exception as error:  # noqa: BLE001  the other ranks wait for an answer, whatever it is
            outcome = error
    outcome = distributed.from_rank_zero(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    assert outcome is not None
    return outcome


def save_epoch(training: Training, loop: LoopState, row: dict[str, Any], score: Score | None) -> None:
    """Write `best/` when the epoch is the best so far, then `last/`: what a killed trial goes on from."""
    folder, metric = training.context.folder, training.config.metric
    value = row.get(metric.name)
    row["attempt"] = training.context.attempt
    sign = 1.0 if metric.goal == "maximize" else -1.0
    if score is not None and value is not None and (loop.best is None or sign * value > sign * loop.best):
        loop.best, loop.best_epoch = value, loop.epoch
        weights = training.scored_network.state_dict()
        save_best(folder / "best", weights, {"epoch": loop.epoch, "metrics": row}, score.evidence)
    loop.rows.append(row)
    tensors = {
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.precision.scaler.state_dict(),
    }
    ema = training.ema.model.state_dict() if training.ema is not None else None
    save_checkpoint(folder / "last", Checkpoint(loop, training.network.state_dict(), ema, tensors))


def keep_best_epochs(training: Training, loop: LoopState, row: dict[str, Any]) -> None:
    """Bring top/ up to date with the epoch of `row`, before `last/` has it: a kill between the two repeats it."""
    config = training.config
    epochs = best_epochs([*loop.rows, row], config.metric, config.keep_best)
    keep_top(training.context.folder / "top", epochs, row, training.scored_network.state_dict())


@dataclass(frozen=True)
class Precision:
    """Number format of the forward pass, and the gradient scaler that fp16 needs."""

    device: torch.device
    dtype: torch.dtype | None  # None: float32 throughout
    scaler: torch.amp.GradScaler

    @classmethod
    def of(cls, amp: bool | str, device: torch.device) -> "Precision":
        """`amp: true` is bf16 where the device computes in it, else fp16 on a GPU and float32 on a CPU, whose emulated
        bf16 is ten times slower than float32. ConfigError for fp16 on a CPU."""
        if amp is True:
            amp = "bf16" if computes_in_bf16(device) else "fp16" if device.type == "cuda" else False
        if amp == "fp16" and device.type == "cpu":
            raise ConfigError("amp: fp16 needs a GPU; use amp: bf16 or amp: false")
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, False: None}[amp]
        return cls(device, dtype, torch.amp.GradScaler(device.type, enabled=dtype is torch.float16))

    def autocast(self) -> AbstractContextManager[Any]:
        """Around every forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def to_device(arrays: Arrays, device: torch.device) -> Batch:
    """The batch as tensors on the device; images stay uint8."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type == "cpu":
        return tensors
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}


def timed(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> tuple[R, float]:
    """The function's result, and the seconds it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def dump_config(config: TrialConfig) -> str:
    """The full effective config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _resume(training: Training) -> LoopState:
    """Load `last/` into the live objects where it is there; returns where to go on."""
    checkpoint = load_checkpoint(training.context.folder / "last")
    if checkpoint is None:
        return LoopState()
    if checkpoint.note and training.context.is_main:
        print(f"{training.context.folder.name}: {checkpoint.note}", flush=True)
        write_status(training.context.folder, state="running", note=checkpoint.note)
    if not checkpoint.weights:
        return checkpoint.loop
    training.network.load_state_dict(checkpoint.weights)
    training.optimizer.load_state_dict(checkpoint.tensors["optimizer"])
    training.precision.scaler.load_state_dict(checkpoint.tensors["scaler"])
    if training.ema is not None and checkpoint.ema is not None:
        training.ema.load_state_dict({"model": checkpoint.ema, "updates": checkpoint.loop.step})
    return checkpoint.loop


def _restore_metrics(loop: LoopState, folder: Path) -> None:
    """Bring metrics.jsonl to exactly the epochs of the checkpoint: a kill may have fallen between the two."""
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in loop.rows]
    write_text(folder / "metrics.jsonl", "".join(lines))


def _optimizer_settings(config: TrialConfig) -> OptimizerSettings:
    names = [field.name for field in fields(OptimizerSettings) if field.name != "name"]
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    return OptimizerSettings(config.optimizer, **{**given, "lr0": config.lr})


def _schedule(config: TrialConfig, steps_per_epoch: int) -> Schedule:
    settings = {name: getattr(config, name) for name in config.CHOICES["schedule"][config.schedule]}
    settings["warmup"] = config.warmup or 0.0  # null where the schedule has none, or one in steps
    return Schedule(config.epochs, steps_per_epoch, kind=config.schedule, **settings)


def _check_finite(losses: list[Tensor], steps_done: int, device: torch.device) -> None:
    """Raise DivergedError for the first non-finite loss of the last `len(losses)` steps of any rank."""
    if not losses:
        return
    mine = {f"{i:06d}": value for i, value in enumerate(torch.stack(losses).tolist())}
    for i, value in enumerate(distributed.mean_over_ranks(mine, device).values()):
        if not math.isfinite(value):
            raise DivergedError(f"diverged: the loss was {value} at step {steps_done - len(losses) + i + 1}")


def _shares(batch: Batch, count: int) -> Iterator[tuple[Batch, bool]]:
    """The batch in `count` equal parts, each with whether it is the last."""
    size = len(batch["id"]) // count
    for i in range(count):
        yield {name: tensor[i * size : (i + 1) * size] for name, tensor in batch.items()}, i == count - 1


def _no_sync(model: nn.Module, skip: bool) -> AbstractContextManager[Any]:
    """DDP exchanges gradients in the last part of an accumulated step only."""
    return model.no_sync() if skip and isinstance(model, DistributedDataParallel) else nullcontext()


def _log(writer: SummaryWriter, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if name not in ("epoch", "step", "attempt", "worked_until"):
            writer.add_scalar(name.replace("@", "_"), value, row["epoch"])  # as it would, with a line for each


def _facts(training: Training) -> dict[str, Any]:
    """What status.json says of a trial from its start."""
    context = training.context
    return {
        "attempt": context.attempt,
        "seed": training.config.seed,
        "versions": versions(),
        "device": torch.cuda.get_device_name(context.device) if context.device.type == "cuda" else "cpu",
        "workers": context.world,
        "threads": training.config.threads,
        "precision": str(training.precision.dtype or torch.float32).removeprefix("torch."),
        "parameters": sum(p.numel() for p in training.network.parameters()),
    }


def _outcome(loop: LoopState) -> dict[str, Any]:
    """What status.json says of a trial at its end."""
    return {"epochs": loop.epoch, "best": loop.best, "best_epoch": loop.best_epoch, "cost": loop.cost}
