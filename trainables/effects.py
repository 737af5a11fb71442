"""Proof that every searched parameter does something: two values of each are trained for two steps and compared.

What is compared is what a training is made of, from its batches to its predictions. A parameter that changes none of it
was misspelt by us or is of no use where the sweep uses it; either way a search over it is wasted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posesweep.datasets.loading import training_order
from posesweep.search_spaces.choices import ends, walk
from posesweep.search_spaces.mistakes import say
from posesweep.search_spaces.space import Parameter, Sweep
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import prepare_process
from posesweep.trainables.patience import end_of
from posesweep.trainables.schedules import lr_factor
from posesweep.trainables.task import Arrays, Task
from posesweep.trainables.tasks import build_task, make_config
from posesweep.trainables.timing import scratch
from posesweep.trainables.trial import Precision, Training, _schedule, prepare_training, to_device, train_step

SAMPLES = 4  # of a forward pass
STEPS = 2  # the first step of Adam does not depend on its betas
MOST_EPOCHS = 24  # whose batches are looked at
LATE = 10**6  # updates of averaged weights
LOUDER = 10.0  # a difference is an effect when it is so many times what two runs of the same config differ by

Fingerprint = dict[str, np.ndarray]  # a part of a training -> numbers that it shows in


@dataclass(frozen=True)
class Effect:
    """What two values of one parameter change: the parts of a training; none: nothing at all."""

    parameter: str
    low: Any
    high: Any
    parts: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """For the user."""
        between = f"{_short(self.low)} -> {_short(self.high)}"
        if self.parts:
            return f"{self.parameter}: {between} changes {', '.join(self.parts)}"
        return (
            f"{self.parameter}: {between} changes nothing: the batches, the training steps and the predictions are the "
            "same; take it out of parameters"
        )


def effects(sweep: Sweep, base: Mapping[str, Any]) -> list[Effect]:
    """One for each parameter that has two values, in their order. Nothing is left on disk."""
    found = []
    noise = noise_of(make_config({**base, **sweep.baseline}))
    for name, parameter in sweep.parameters.items():
        pair = two_choices(sweep, name, parameter)
        if pair is None:
            continue
        low, high = (fingerprint(make_config({**base, **choice})) for choice in pair)
        found.append(Effect(name, pair[0][name], pair[1][name], differing(low, high, noise)))
    return found


def two_choices(sweep: Sweep, name: str, parameter: Parameter) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Two choices that differ in one parameter (and in what depends on it), else as near to the baseline as its
    condition allows; None for one with a single value, or that is never used."""
    values = ends(parameter)
    if len(values) < 2:
        return None
    wanted = {**sweep.baseline, **_conditions(sweep, parameter)}

    def choice(value: Any) -> dict[str, Any]:
        own = {**wanted, name: value}
        return walk(sweep.parameters, sweep.fixed, lambda n, p: own[n] if n in own else p.middle())

    pair = choice(values[0]), choice(values[-1])
    return pair if all(name in one for one in pair) else None


def _conditions(sweep: Sweep, parameter: Parameter) -> dict[str, Any]:
    """Values of the parameters above one for which it is used: the baseline's where these do."""
    wanted: dict[str, Any] = {}
    for parent, allowed in parameter.when.items():
        if parent in sweep.parameters:
            usual = sweep.baseline.get(parent)
            wanted |= _conditions(sweep, sweep.parameters[parent])
            wanted[parent] = usual if usual in allowed else allowed[0]
    return wanted


def noise_of(config: TrialConfig) -> Fingerprint:
    """How much two runs of the same config differ: on a CPU not at all, on a GPU by the order of its sums."""
    one, other = fingerprint(config), fingerprint(config)
    return {part: np.abs(one[part] - other[part]) for part in one}


def differing(low: Fingerprint, high: Fingerprint, noise: Fingerprint) -> tuple[str, ...]:
    """The parts that differ by more than noise."""
    return tuple(part for part in low if _differs(low[part], high[part], float(noise[part].max(initial=0.0))))


def _differs(one: np.ndarray, other: np.ndarray, noise: float) -> bool:
    if one.shape != other.shape:
        return True
    return bool((np.abs(one - other) > LOUDER * noise).any() or (np.isnan(one) != np.isnan(other)).any())


def fingerprint(config: TrialConfig) -> Fingerprint:
    """A few samples' way through a training of this config."""
    prepare_process(config.threads, config.seed)
    small = _few(config)
    with scratch() as context:
        task = build_task(small)
        network = task.model()
        if config.weights is not None:
            task.start(network)
        training = prepare_training(small, context, task, network)
        found = {"its length": length_of(config, len(task.datasets()[0])), "the batches": batches_of(config, task)}
        found["the network"] = numbers_of(dict(network.named_parameters()))
        found["the learning rates"] = rates_of(training, config, len(task.datasets()[0]))
        found |= after_steps(training, task)
    return found


def _few(config: TrialConfig) -> TrialConfig:
    """The config with few samples in a step; the losses of a batch are means."""
    per_forward = min(config.batch_per_forward, SAMPLES)
    changes = {"workers": 1, "compile": False, "batch": per_forward * config.accumulate}
    return make_config(config.model_dump() | changes)


def length_of(config: TrialConfig, samples: int) -> np.ndarray:
    """Steps of an epoch, samples of a forward pass, epochs, which of them are validated, and when a training ends whose
    score rises ever more slowly, and from the middle on no more."""
    steps = len(training_order(samples, 0, config.seed, config.batch // config.workers, 0, 1)) if samples else 0
    sign = 1.0 if config.metric.goal == "maximize" else -1.0
    rows: list[dict[str, Any]] = []
    while not end_of(config, len(rows), rows):
        epoch = len(rows) + 1
        row: dict[str, Any] = {"epoch": epoch}
        if epoch % config.val_every == 0 or epoch == config.epochs:
            risen = 1 - math.exp(-6 * min(epoch / config.epochs, 0.5))
            row |= {"val_s": 0.0, config.metric.name: sign * risen}
        rows.append(row)
    scored = [row["epoch"] for row in rows if "val_s" in row]
    return np.array([steps, config.batch_per_forward, config.epochs, len(rows), *scored], dtype=float)


def batches_of(config: TrialConfig, task: Task) -> np.ndarray:
    """What a few samples look like in epochs from the first to the last."""
    samples = task.datasets()[0]
    positions = np.arange(min(SAMPLES, len(samples)))
    epochs = np.unique(np.linspace(0, config.epochs - 1, MOST_EPOCHS).round().astype(int))
    shown = [_numbers(array) for epoch in epochs.tolist() for array in _made(samples.batch(positions, epoch))]
    return np.concatenate([*shown, _numbers(training_order(len(samples), 0, config.seed, config.batch, 0, 1)[0])])


def _made(arrays: Arrays) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays)]


def rates_of(training: Training, config: TrialConfig, samples: int) -> np.ndarray:
    """The optimizer's groups, each with its settings, and the rate at steps from the first to the last."""
    steps = len(training_order(samples, 0, config.seed, config.batch // config.workers, 0, 1))
    schedule = _schedule(config, steps)
    at = np.unique(np.linspace(0, config.epochs * steps - 1, 200).round().astype(int))
    rates = [config.lr * lr_factor(schedule, step) for step in at.tolist()]
    groups = [
        [group["lr_scale"], group["weight_decay"], sum(p.numel() for p in group["params"])]
        for group in training.optimizer.param_groups
    ]
    return np.array([*rates, *np.ravel(groups)], dtype=float)


def after_steps(training: Training, task: Task) -> Fingerprint:
    """The loss, the weights after a few steps at the full rate, and what they predict."""
    train, val = task.datasets()
    size = min(training.config.batch, len(train))
    positions = np.resize(np.arange(size), training.config.batch)
    training.network.train()
    torch.manual_seed(training.config.seed)  # of random layers
    if training.ema is not None:
        training.ema.updates = LATE  # its decay is not yet in force in a training's first steps
    losses = []
    for epoch in range(STEPS):
        parts = train_step(training, train.batch(positions, epoch))
        losses.append([float(value) for value in parts.values()])
    scored = training.scored_network
    predictions = predicted(training, task, np.arange(min(SAMPLES, len(val))))
    return {
        "the loss": np.array(losses[0]),
        "the training steps": numbers_of(scored.state_dict()),
        "the predictions": predictions,
    }


@torch.no_grad()
def predicted(training: Training, task: Task, positions: np.ndarray) -> np.ndarray:
    """Predictions for some validation samples, in a row."""
    network = training.scored_network.eval()
    precision = Precision.of(training.config.amp, training.context.device)
    arrays = task.datasets()[1].batch(positions, 0)
    with precision.autocast():
        found = task.predict(network, to_device(arrays, training.context.device))
    return np.concatenate([np.ravel(np.asarray(found[i], dtype=float)) for i in sorted(found)])


def numbers_of(tensors: Mapping[str, Tensor]) -> np.ndarray:
    """Three numbers of each tensor: how it is weighed in two ways, and whether it is trained."""
    return np.concatenate(
        [[*_numbers(t.detach().float().cpu().numpy()), float(t.requires_grad)] for t in tensors.values()]
    )


def _numbers(array: np.ndarray) -> np.ndarray:
    """Two sums of an array's values, one with weights that no permutation and no shift leaves alone."""
    flat = np.ravel(array).astype(np.float64)
    return np.array([float(len(flat)), flat.sum(), float(flat @ np.sin(np.arange(1, len(flat) + 1)))])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else say(value)
