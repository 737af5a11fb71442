"""Weights from a file: safetensors or PyTorch's .pth and .pt, found and read without running anything from it."""

import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from posesweep.errors import ConfigError
from posesweep.trainables.unpickling import CodeInPickleError, inert_pickle

# where files keep the weights, best first: timm's averaged ones, OpenMMLab's and Lightning's, then plain habits;
# mmengine swaps the averaged weights into state_dict when it saves, so its ema_state_dict holds the raw ones
PLACES = ("state_dict_ema", "model_ema", "state_dict", "model", "module", "model_state_dict", "ema_state_dict")
WRAPPERS = ("module.", "_orig_mod.")  # what DDP and torch.compile put before every name
OWN_WEIGHTS = ("best/weights.safetensors", "weights.safetensors", "ema.safetensors", "last/ema.safetensors")


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a checkpoint on the CPU (mapped from the file where its format allows), and what lay beside."""

    path: Path
    format: str  # "safetensors", "torch"
    place: str  # the key under which the tensors were found; "" where they are the whole file
    tensors: Mapping[str, Tensor]
    keypoints: tuple[str, ...] | None  # names of the head's rows, where mmpose wrote them down
    extras: tuple[str, ...]  # what else is in the file: other top-level keys, and classes read as stand-ins


def read_weights(path: Path) -> WeightsFile:
    """Read a checkpoint. ConfigError, one sentence: not there, empty, cut off, no checkpoint, or with code in it."""
    kind = _kind(path)
    if kind == "safetensors":
        tensors = _read_safetensors(path)
        return WeightsFile(path, kind, "", _unwrapped(tensors), None, ())
    met: set[str] = set()
    contents = _read_torch(path, mapped=kind == "zip", met=met)
    place, tensors = _state_dict(contents, path)
    beside = {str(key) for key in contents if key != place} if place else set()
    return WeightsFile(
        path, "torch", place, _unwrapped(tensors), _keypoint_names(contents), tuple(sorted(beside) + sorted(met))
    )


def _kind(path: Path) -> str:
    """ "safetensors", "zip" (torch since 1.6) or "legacy", by the file's first bytes: suffixes are often wrong."""
    if path.is_dir():
        inside = next((name for name in OWN_WEIGHTS if (path / name).is_file()), None)
        hint = f"; give the file {path / inside}" if inside else "; give a file in it"
        raise ConfigError(f"weights: {path} is a folder{hint}")
    if not path.is_file():
        raise ConfigError(f"weights: {path} is not there")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ConfigError(f"weights: {path} is empty; its download or copy was cut off, so fetch it again")
    if start.startswith(b"PK"):
        _check_end(path)
        return "zip"
    if start[8:9] == b"{":
        return "safetensors"
    if start.startswith(b"\x80") and not tarfile.is_tarfile(path):
        return "legacy"
    raise ConfigError(f"weights: {path} {_what_else(start)}")


def _check_end(path: Path) -> None:
    """Raise ConfigError unless a zip file's list of contents, at its end, is there."""
    try:
        whole = zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # the beginning of a list, and then something else
        whole = False
    if not whole:
        raise ConfigError(f"weights: {path} is cut off, its end is missing or damaged; fetch or copy it again")


def _what_else(start: bytes) -> str:
    """What a file that is no checkpoint seems to be, and the way out."""
    if start.lstrip().startswith(b"<"):
        return "is a web page, not a checkpoint; open its address in a browser and download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the checkpoint itself; run git lfs pull where it lies"
    return "is neither a safetensors nor a PyTorch file (.pth, .pt)"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(
            f"weights: {path} is not a whole safetensors file ({error}); fetch or copy it again"
        ) from error


def _read_torch(path: Path, mapped: bool, met: set[str]) -> Mapping[Any, Any]:
    """What torch.save wrote, stand-ins for what is not made of tensors; `met` gets the stand-ins' names."""
    options: dict[str, Any] = {"map_location": "cpu", "mmap": mapped}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read is an error below
            try:
                contents = torch.load(path, weights_only=True, **options)
            except pickle.UnpicklingError:  # names something that PyTorch does not know to be harmless
                contents = torch.load(path, weights_only=False, pickle_module=inert_pickle(met), **options)
    except CodeInPickleError as error:
        raise ConfigError(
            f"weights: {path} asks Python to run {error}; a checkpoint needs no code, so it was not read and nothing "
            "of it was run: get the weights from their publisher, and open this file with nothing else"
        ) from error
    except Exception as error:  # bytes that are not what they claim to be can raise anything
        if "TorchScript" in str(error):
            raise ConfigError(
                f"weights: {path} is a TorchScript program, not weights by name; save its state_dict() in PyTorch"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise ConfigError(
            f"weights: {path} is cut off, damaged or no checkpoint ({reason}); fetch or copy it again"
        ) from error
    if not isinstance(contents, Mapping):
        raise ConfigError(
            f"weights: {path} holds a {type(contents).__name__}, not weights by name; "
            "save model.state_dict() where its program is installed"
        )
    return contents


def _state_dict(contents: Mapping[Any, Any], path: Path) -> tuple[str, dict[str, Tensor]]:
    """The weights in what a file holds, and the key they were under ("" for the file itself)."""
    for place in PLACES:
        inner = contents.get(place)
        if isinstance(inner, Mapping) and (tensors := _tensors(inner)):
            return place, tensors
    if tensors := _tensors(contents):
        return "", tensors
    keys = ", ".join(map(str, list(contents)[:8])) or "nothing"
    raise ConfigError(f"weights: {path} holds no tensors under {', '.join(PLACES)} or at its top; it has {keys}")


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value.detach() for name, value in values.items() if isinstance(value, Tensor)}


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without prefixes that every name has."""
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def _keypoint_names(contents: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The keypoints of mmpose's `meta.dataset_meta`, in the order of the head's rows."""
    found: Any = contents
    for key in ("meta", "dataset_meta", "keypoint_id2name"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or set(found) != set(range(len(found))):
        return None
    return tuple(str(found[row]) for row in range(len(found)))
