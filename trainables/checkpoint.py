"""Checkpoints without pickles of code: weights in safetensors, the loop's state in JSON, tensors of the optimizer in a
`weights_only` file. A checkpoint folder is written beside its place and swapped in, so a torn one is never read."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posesweep.errors import ConfigError
from posesweep.files import read_json, to_json

Weights = dict[str, Tensor]


@dataclass
class LoopState:
    """Where the training stands: everything that survives a restart, besides tensors."""

    epoch: int = 0  # epochs finished
    step: int = 0  # optimizer steps taken
    best: float | None = None
    best_epoch: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # metrics.jsonl up to `epoch`
    cost: dict[str, float] = field(default_factory=lambda: {"train_s": 0.0, "val_s": 0.0})

    def spend(self, row: dict[str, Any], name: str, seconds: float) -> None:
        """Note what a part of an epoch took, in its row and in the trial's total."""
        row[name] = seconds
        self.cost[name] += seconds


@dataclass(frozen=True)
class Checkpoint:
    """`last/`: what a trial goes on from. `tensors` holds optimizer, gradient scaler and random states."""

    loop: LoopState
    weights: Weights
    ema: Weights | None
    tensors: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder`, whole or not at all."""

    def fill(new: Path) -> None:
        save_weights(new / "weights.safetensors", checkpoint.weights)
        if checkpoint.ema is not None:
            save_weights(new / "ema.safetensors", checkpoint.ema)
        torch.save(checkpoint.tensors, new / "state.pt")
        (new / "state.json").write_text(to_json(asdict(checkpoint.loop)), encoding="utf-8")

    _replace_folder(folder, fill)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, or None when there is none yet."""
    found = _complete(folder)
    if found is None:
        return None
    ema = found / "ema.safetensors"
    return Checkpoint(
        loop=LoopState(**read_json(found / "state.json")),
        weights=load_file(found / "weights.safetensors"),
        ema=load_file(ema) if ema.is_file() else None,
        tensors=torch.load(found / "state.pt", map_location="cpu", weights_only=True),
    )


def save_best(folder: Path, weights: Weights, state: dict[str, Any], evidence: dict[str, np.ndarray]) -> None:
    """Write the best epoch's weights, state and evidence; the evidence lies beside `folder` as evidence.npz."""

    def fill(new: Path) -> None:
        save_weights(new / "weights.safetensors", weights)
        np.savez_compressed(new / "evidence.npz", allow_pickle=False, **evidence)
        (new / "state.json").write_text(to_json(state), encoding="utf-8")

    _replace_folder(folder, fill)
    (folder / "evidence.npz").replace(folder.parent / "evidence.npz")


def save_weights(path: Path, weights: Weights) -> None:
    """Write tensors to a safetensors file (contiguous copies on the CPU)."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, path)


def load_weights(path: Path) -> Weights:
    """Read a safetensors file; ConfigError when it is not there or not one."""
    if not path.is_file():
        raise ConfigError(f"weights: {path} is not there")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"weights: {path} is not a whole safetensors file ({error})") from error


def take_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into the network. ConfigError when it is not one, or of another network."""
    try:
        network.load_state_dict(load_weights(path))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if len(str(error).splitlines()) > 1 else str(error)
        raise ConfigError(f"weights: {path} is of another network or number of keypoints ({first})") from error


def _replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder and swap it in; at every moment `folder`, its new or its old version is complete."""
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    for leftover in (new, old):
        if leftover.is_dir() and (leftover is new or folder.is_dir()):
            shutil.rmtree(leftover)
    new.mkdir(parents=True)
    fill(new)
    for file in new.iterdir():  # on the disk before the swap: power may fail, too
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if folder.is_dir():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _complete(folder: Path) -> Path | None:
    """The newest complete version of a checkpoint folder; state.json is written last and marks it complete."""
    old = folder.with_name(f"{folder.name}.old")
    return next((found for found in (folder, old) if (found / "state.json").is_file()), None)
