"""Checkpoints without pickles of code: weights in safetensors, the loop's state in JSON, tensors of the optimizer in a
`weights_only` file. A checkpoint folder is written beside its place and swapped in, so a torn one is never read; the
one before stays as `last.old/`, for a disk that loses what it had confirmed."""

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posesweep.errors import ConfigError
from posesweep.files import read_json, to_json
from posesweep.trainables.housekeeping import storage_error

Weights = dict[str, Tensor]

# what safetensors, torch, JSON and LoopState say of a file that is cut short, overwritten or missing
DAMAGE = (SafetensorError, RuntimeError, ValueError, TypeError, EOFError, OSError, pickle.UnpicklingError)


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
    """`last/`: what a trial goes on from. `tensors` holds optimizer, gradient scaler and random states; `note` says
    what was wrong with a newer checkpoint in whose place this one was read."""

    loop: LoopState
    weights: Weights
    ema: Weights | None
    tensors: dict[str, Any]
    note: str = ""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder`, whole or not at all; the one before stays beside it. StorageError when the disk is full."""

    def fill(new: Path) -> None:
        save_weights(new / "weights.safetensors", checkpoint.weights)
        if checkpoint.ema is not None:
            save_weights(new / "ema.safetensors", checkpoint.ema)
        torch.save(checkpoint.tensors, new / "state.pt")
        (new / "state.json").write_text(to_json(asdict(checkpoint.loop)), encoding="utf-8")

    _replace_folder(folder, fill, keep_old=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, or None when there is none yet.

    In the place of one that is damaged the one before is read, with a note that says so; where that is damaged or
    missing too, the note comes with a checkpoint of epoch 0 that holds no weights. Nothing is changed: all ranks read.
    """
    notes = []
    for found in (folder, _old(folder)):
        if not (found / "state.json").is_file():
            continue
        try:
            checkpoint = _read(found)
        except DAMAGE as error:
            notes.append(f"{found.name}/ is damaged ({str(error).splitlines()[0]})")
            continue
        if notes:
            notes.append(f"the training goes on from the checkpoint before it, epoch {checkpoint.loop.epoch}")
        return replace(checkpoint, note="; ".join(notes))
    if not notes:
        return None
    return Checkpoint(LoopState(), {}, None, {}, "; ".join([*notes, "the training begins again"]))


def _read(found: Path) -> Checkpoint:
    """Raises one of DAMAGE for a checkpoint that is not as it was written."""
    ema = found / "ema.safetensors"
    return Checkpoint(
        loop=LoopState(**read_json(found / "state.json")),
        weights=load_file(found / "weights.safetensors"),
        ema=load_file(ema) if ema.is_file() else None,
        tensors=torch.load(found / "state.pt", map_location="cpu", weights_only=True),
    )


def save_best(folder: Path, weights: Weights, state: dict[str, Any], evidence: dict[str, np.ndarray]) -> None:
    """Write the best epoch's weights, state and evidence; the evidence lies beside `folder` as evidence.npz.

    Raises StorageError when the disk is full."""

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


def _replace_folder(folder: Path, fill: Callable[[Path], None], keep_old: bool = False) -> None:
    """Fill a new folder and swap it in; at every moment `folder`, its new or its old version is complete.

    Raises StorageError when the disk cannot take it; then `folder` is as it was and nothing is left of the new one.
    """
    new, old = folder.with_name(f"{folder.name}.new"), _old(folder)
    if new.is_dir():
        shutil.rmtree(new)
    try:
        new.mkdir(parents=True)
        fill(new)
        for file in new.iterdir():  # on the disk before the swap: power may fail, too
            with file.open("rb") as written:
                os.fsync(written.fileno())
    except Exception as error:
        trouble = storage_error(folder.parent, error)  # asked while what is half-written still fills the disk
        shutil.rmtree(new, ignore_errors=True)
        if trouble is not None:
            raise trouble from error
        raise
    if folder.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    if not keep_old:
        shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")
