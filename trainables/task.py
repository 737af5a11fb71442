"""What a trial needs to know of a problem: the Task protocol."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from torch import Tensor, nn

Arrays = dict[str, np.ndarray]  # a batch as the loading threads make it
Batch = dict[str, Tensor]  # the same batch on the device; "id" int64 [B] is always there


class DivergedError(Exception):
    """The training is no longer made of numbers; the text says where it was noticed."""


@runtime_checkable
class Dataset(Protocol):
    """Samples that are made a batch at a time. `ids` are unique; what `batch` draws depends on (seed, epoch, id) only,
    never on which samples share a batch or which rank asks, so any number of workers trains on the same samples."""

    ids: Int[np.ndarray, "n"]

    def __len__(self) -> int: ...

    def batch(self, positions: Int[np.ndarray, "B"], epoch: int) -> Arrays:
        """The samples at `positions`, stacked; called from several threads at once. Includes "id" int64 [B]."""
        ...


@dataclass(frozen=True)
class LossParts:
    """`total` is what is minimised (a scalar with gradient); `parts` are named scalars for the log."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """`metrics` are named floats ("AP", "PCK", ...; a value that is not defined is left out);
    `evidence` are arrays saved as evidence.npz, the input of ranking and reports."""

    metrics: dict[str, float]
    evidence: dict[str, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """What a sweep keeps of its data: split.json, sentences for the user, settings that all its trials share."""

    record: dict[str, Any]
    notes: list[str]
    settings: dict[str, Any]
    draw: Callable[[Path], None] | None = None  # pictures of the samples, for the report, into a folder


@runtime_checkable
class Task(Protocol):
    """One problem a trial can train on. A new one is trainables/tasks/<name>.py: a Config and build(config) -> Task."""

    def datasets(self) -> tuple[Dataset, Dataset]:
        """Training and validation samples."""
        ...

    def model(self) -> nn.Module:
        """The network, weights initialised; `model.layers()` states its order for layer-wise decay and freezing."""
        ...

    def companions(self) -> dict[str, str]:
        """Text files that go with the weights, name -> content: what those need who use them without the data."""
        ...

    def start(self, model: nn.Module) -> str:
        """Put the config's `weights` into a new network; returns one line that says what became of them."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> LossParts:
        """Calls `model` itself, because a DDP wrapper must see the forward pass."""
        ...

    def predict(self, model: nn.Module, batch: Batch) -> dict[int, Any]:
        """Sample id -> NumPy prediction."""
        ...

    def score(self, predictions: dict[int, Any]) -> Score:
        """Score the predictions of all ranks, once."""
        ...
