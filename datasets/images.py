"""Image files that annotations name: where they may lie, and what becomes of those that are not there."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from posesweep.datasets.instances import Instances
from posesweep.errors import DataError

MOST_MISSING = 0.05  # share of the files that may be missing; above it the folder is the wrong one
PROBED = 20  # files looked for when finding the folder that their names start from
NAMED = 5  # missing files named in a note


def inside(folder: Path, name: Any) -> Path:
    """The path of file `name` below `folder`.

    DataError where it is no file name, or leads out of the folder by its parts or by a link on its way."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"file name {name!r} is not a file name; give each image one")
    name = name.replace("\\", "/")  # written on Windows
    path = os.path.join(folder, name)  # noqa: PTH118  pathlib would take a third of the time that a large file takes
    if not _is_below(os.path.abspath(path), os.path.abspath(folder)):  # noqa: PTH100
        raise DataError(f"file name '{name}' leads out of the images folder {folder}; images must lie below it")
    end = os.path.realpath(path) if os.path.islink(path) else _real(os.path.dirname(path))  # noqa: PTH114, PTH120
    if not _is_below(end, _real(str(folder))):
        raise DataError(
            f"file name '{name}' is a link that leads out of the images folder {folder} (to {end}); "
            "copy the file there, or name a folder that holds both as data.images"
        )
    return Path(path)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


@lru_cache(maxsize=4096)  # a folder of a hundred thousand images is followed once
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def folder_beside(annotations: Path, names: Sequence[str]) -> Path:
    """Where the images of a file lie if nobody says: its own folder, or `images` in it if the names start there."""
    below = annotations.parent / "images"
    probed = [os.path.abspath(below / name) for name in names[:PROBED] if "\0" not in name]  # noqa: PTH100
    found = any(_is_below(path, os.path.abspath(below)) and os.path.isfile(path) for path in probed)  # noqa: PTH100, PTH113
    return below if found else annotations.parent


def without_missing(instances: Instances, folder: Path, annotations: Path) -> Instances:
    """Without the images that are not there and their instances, which `notes` says.

    DataError: more than 5 % of the images are missing, so `folder` cannot be the right one."""
    there = np.array([file.is_file() for file in instances.image_files], dtype=bool)
    missing = [file for file, present in zip(instances.image_files, there, strict=True) if not present]
    if not missing:
        return instances
    of = f"{len(missing)} of {len(there)} images"
    if len(missing) > MOST_MISSING * len(there):
        raise DataError(
            f"{annotations}: {of} are not below the folder {folder} (looked for {missing[0]}, for example); "
            "name the folder of the images as data.images"
        )
    kept = instances.take(there[instances.image_index])
    names = ", ".join(str(file.relative_to(folder)) for file in missing[:NAMED])
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    lost = len(instances) - len(kept)
    note = f"{annotations.name}: {of} are missing, left out with their {lost} annotations: {names}{more}"
    return replace(with_images(kept, there), notes=(*instances.notes, note))


def with_images(instances: Instances, kept: np.ndarray) -> Instances:
    """Only the images of the mask `kept`; every instance must lie on one of them."""
    position = np.cumsum(kept) - 1
    at = np.flatnonzero(kept)
    return replace(
        instances,
        image_files=tuple(instances.image_files[i] for i in at),
        image_ids=instances.image_ids[at],
        image_groups=tuple(instances.image_groups[i] for i in at),
        image_index=position[instances.image_index],
        image_fields={key: tuple(values[i] for i in at) for key, values in instances.image_fields.items()},
    )
