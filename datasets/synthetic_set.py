"""`posesweep synth`: a folder of synthetic horses with 26 or 68 keypoints, in 2D and in 3D with the camera.

images/000000.jpg ...  the pictures
annotations.json       COCO keypoints; each annotation also has
    points_3d          K x (X, Y, Z): metres, world, z up, every keypoint, those outside of the image too
    camera             position (3, metres), rotation (3 x 3, rows: right, down, ahead), focal_px, centre (2, pixels)
                       (x, y, z) = rotation @ (point - position); the pixel is focal_px * (x, y) / z + centre
keypoints.csv          image, instance, keypoint, x, y, visibility, X, Y, Z; x and y are blank outside of the image
overlay.png            some of the horses with their keypoints: are they where their names say?
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table

from posesweep.datasets.coco import read_coco
from posesweep.datasets.counting import counting
from posesweep.datasets.drawing import save_png
from posesweep.datasets.horse_marks import SCHEMAS
from posesweep.datasets.painter import Camera
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.synthetic import VERSION, category, draw_picture, in_order
from posesweep.errors import DataError
from posesweep.files import read_json, write_text

ANNOTATIONS, TABLE, OVERLAY, IMAGES = "annotations.json", "keypoints.csv", "overlay.png", "images"
COLUMNS = ("image", "instance", "keypoint", "x", "y", "visibility", "X", "Y", "Z")
WITHIN_PX = 0.01  # how far a written 2D keypoint may lie from the projection of its written 3D point
_LARGEST_PX = 4000
_SHARE = 100  # pictures that are worth the start of a process
_SHOWN = 6  # horses on the overlay
_ABOUT = (
    "points_3d: metres, world, z up; camera: (x, y, z) = rotation @ (point - position), "
    "pixel = focal_px * (x, y) / z + centre; the centre of the first pixel is (0, 0)"
)


@dataclass(frozen=True)
class SynthRequest:
    """What to draw. `workers` processes share the work and change nothing about it; None: one for each CPU."""

    n: int = 1000
    keypoints: int = 26
    seed: int = 0
    size: tuple[int, int] = (320, 240)  # width, height, pixels
    workers: int | None = None


@dataclass(frozen=True)
class Sanity:
    """What a set was found to hold when its files were read again."""

    instances: int
    reprojection_px: float  # the greatest distance of a keypoint from the projection of its 3D point
    visibility: Int[np.ndarray, "K 3"]  # instances with the keypoint outside of the image, hidden, seen
    names: tuple[str, ...]

    @property
    def never_seen(self) -> list[str]:
        """Keypoints that no picture shows."""
        return [name for name, seen in zip(self.names, self.visibility[:, 2], strict=True) if not seen]


def run(out: Path, request: SynthRequest) -> None:
    """Draw the set with a progress bar and print what the sanity check found."""
    console = Console(highlight=False, soft_wrap=True)
    with counting("drawing") as count:
        sanity = write_set(out, request, count)
    _print(sanity, console)
    console.print(f"written: {out / ANNOTATIONS}, {TABLE}, {OVERLAY}", markup=False)
    skeleton = SCHEMAS[request.keypoints].skeleton
    console.print(f"data: {{train: {out / ANNOTATIONS}, skeleton: {skeleton}}}", markup=False)


def write_set(out: Path, request: SynthRequest, progress: Callable[[int, int], None] | None = None) -> Sanity:
    """Make the folder `out` (see the module) and read it back; the same set already there is only read.

    The pictures and the labels of the first 26 keypoints do not depend on `request.keypoints`. The folder is drawn
    beside its place and renamed. `progress` is called with the pictures done and n.
    DataError: a request that cannot be drawn; `out` holds anything else, which is never touched."""
    _check(request)
    recipe = {"generator": "posesweep synth", "version": VERSION, "seed": request.seed, "n": request.n}
    recipe |= {"size": list(request.size), "keypoints": request.keypoints}
    if _is_there(out, recipe):
        return check_set(out)
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / IMAGES).mkdir(parents=True)
        _draw_into(folder, recipe, request, progress or (lambda _done, _n: None))
        sanity = check_set(folder)
        save_png(folder / OVERLAY, _overlay(folder))
        folder.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); name a folder elsewhere") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sanity


def check_set(folder: Path) -> Sanity:
    """Read a set again: every labelled keypoint must be the projection of its 3D point, and every picture there.

    DataError: it is not, or files are missing; such a set was changed after it was drawn."""
    document = read_json(folder / ANNOTATIONS)
    for image in document["images"]:
        if not (folder / IMAGES / image["file_name"]).is_file():
            raise DataError(f"{folder}: {IMAGES}/{image['file_name']} is missing; delete the folder and draw it again")
    names = tuple(document["categories"][0]["keypoints"])
    farthest, counts = 0.0, np.zeros((len(names), 3), int)
    for annotation in document["annotations"]:
        points = np.array(annotation["keypoints"], float).reshape(-1, 3)
        labelled = points[:, 2] > 0
        apart = np.linalg.norm(_projected(annotation) - points[:, :2], axis=1)[labelled].max(initial=0.0)
        if apart > WITHIN_PX:
            raise DataError(
                f"{folder / ANNOTATIONS}: annotation {annotation['id']} has a keypoint {apart:.3f} px from the "
                f"projection of its 3D point; at most {WITHIN_PX} is rounding, so the file was changed"
            )
        farthest = max(farthest, float(apart))
        counts[np.arange(len(names)), points[:, 2].astype(int)] += 1
    return Sanity(len(document["annotations"]), farthest, counts, names)


def _projected(annotation: Mapping[str, Any]) -> Float[np.ndarray, "K 2"]:
    given = annotation["camera"]
    position, rotation, centre = (np.array(given[key], float) for key in ("position", "rotation", "centre"))
    return Camera(position, rotation, float(given["focal_px"]), centre).project(np.array(annotation["points_3d"]))


# ------------------------------------------------------------------------------------------------------- the folder


def _check(request: SynthRequest) -> None:
    if request.keypoints not in SCHEMAS:
        known = " or ".join(map(str, SCHEMAS))
        raise DataError(f"synth: the horse has no {request.keypoints} keypoints; take {known}")
    if request.n < 1:
        raise DataError(f"synth: {request.n} pictures cannot be drawn; take 1 or more")
    if request.seed < 0:
        raise DataError(f"synth: seed {request.seed} must be 0 or more")
    if not 64 <= min(request.size) <= max(request.size) <= _LARGEST_PX:
        width, height = request.size
        raise DataError(f"synth: {width} x {height} pixels; both sides must be 64 to {_LARGEST_PX}")


def _is_there(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether `out` holds the set of this recipe; False: it is not there, or empty. DataError: anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / ANNOTATIONS).is_file():
        raise DataError(f"{out}: holds files that are not a set of synthetic horses; name a new folder")
    try:
        info = read_json(out / ANNOTATIONS).get("info")
    except (ValueError, AttributeError):
        info = None
    found = info if isinstance(info, dict) else {}
    different = [
        f"{key} {found.get(key)} instead of {value}" for key, value in recipe.items() if found.get(key) != value
    ]
    if different:
        raise DataError(f"{out}: holds another data set ({', '.join(different)}); delete it or name a new folder")
    return True


def _draw_into(
    folder: Path, recipe: dict[str, Any], request: SynthRequest, progress: Callable[[int, int], None]
) -> None:
    draw = partial(draw_picture, folder / IMAGES, request.seed, request.size, keypoints=request.keypoints)
    width, height = request.size
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, horses) in enumerate(in_order(draw, request.n, _workers(request)), start=1):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations += _numbered(horses, number, len(annotations))
        progress(number, request.n)
    schema = SCHEMAS[request.keypoints]
    info = {**recipe, "description": _ABOUT}
    document = {"info": info, "images": images, "annotations": annotations, "categories": [category(schema)]}
    write_text(folder / ANNOTATIONS, json.dumps(document, allow_nan=False) + "\n")
    write_text(folder / TABLE, _csv(images, annotations, load_skeleton(schema.skeleton).keypoints))


def _numbered(horses: list[dict[str, Any]], image: int, before: int) -> list[dict[str, Any]]:
    return [{"id": before + i, "image_id": image, **horse} for i, horse in enumerate(horses, start=1)]


def _workers(request: SynthRequest) -> int:
    """Processes to draw with: as asked for, else no more than CPUs this process may use and work for each."""
    if request.workers is not None:
        return request.workers
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, request.n // _SHARE)


def _csv(images: list[dict[str, Any]], annotations: list[dict[str, Any]], names: tuple[str, ...]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    files = {image["id"]: f"{IMAGES}/{image['file_name']}" for image in images}
    horses: dict[int, int] = {}
    for annotation in annotations:
        image = annotation["image_id"]
        horses[image] = horses.get(image, 0) + 1
        points = np.array(annotation["keypoints"]).reshape(-1, 3).tolist()
        for name, (x, y, visibility), place in zip(names, points, annotation["points_3d"], strict=True):
            at = (x, y) if visibility else ("", "")
            table.writerow([files[image], horses[image], name, *at, int(visibility), *place])
    return text.getvalue()


# ------------------------------------------------------------------------------------------------------- the looks


def _overlay(folder: Path) -> np.ndarray:
    """The horses with the most keypoints seen among the first pictures, numbered."""
    from posesweep.datasets.show import samples_page  # albumentations: not for the processes that draw

    instances = read_coco(folder / ANNOTATIONS, folder / IMAGES)
    early = np.arange(min(len(instances), 8 * _SHOWN))
    seen = (instances.visibility[early] == 2).sum(axis=1)
    best = np.sort(early[np.argsort(-seen, kind="stable")[:_SHOWN]])
    return samples_page(instances.take(best), columns=2)


def _print(sanity: Sanity, console: Console) -> None:
    """A table of the keypoints, and the sanity check in a line."""
    table = Table("keypoint", "seen", "hidden", "outside", box=None)
    for name, (outside, hidden, seen) in zip(sanity.names, sanity.visibility.tolist(), strict=True):
        table.add_row(name, str(seen), str(hidden), str(outside))
    console.print(table)
    console.print(
        f"sanity check: {sanity.instances} horses; 3D points through the camera give the 2D keypoints within "
        f"{sanity.reprojection_px:.4f} px (at most {WITHIN_PX})"
    )
    if sanity.never_seen:
        console.print(f"note: never seen in this set: {', '.join(sanity.never_seen)}", markup=False)
