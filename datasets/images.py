"""Image files that annotations name: where they may lie, and what becomes of those that are not there."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from posesweep.datasets.instances import Instances
from posesweep.errors import DataError

MOST_MISSING = 0.05  # share of the files that may be missing; above it the folder is the wrong one
PROBED = 20  # files looked for when finding the folder that their names start from
NAMED = 5  # missing files named in a note


def inside(folder: Path, name: Any) -> Path:
    """The path of file `name` below `folder`; DataError where it is no file name or leads out of the folder."""
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"file name {name!r} is not a file name; give each image one")
    path = folder / name.replace("\\", "/")  # written on Windows
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
        raise DataError(f"file name '{name}' leads out of the images folder {folder}; images must lie below it")
    return path


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
    )
