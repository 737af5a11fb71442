"""What `posesweep predict` writes, whole or not at all:

predictions.json  COCO results: image_id, category_id, keypoints [x, y, score] x K, score, bbox
images.json       a COCO dataset without annotations whose images give the ids their files; of a frame also its video's
                  name as file_name, and frame and time_s. pycocotools: COCO("images.json").loadRes("predictions.json")
tables/           DeepLabCut's tables: one for each video, and images.csv; several objects at once: individuals
overlays/         the pictures and videos with skeletons drawn in
"""

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from posesweep.datasets.drawing import draw_box, draw_pose
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import SweepError
from posesweep.files import write_json, write_text

RESULTS = "predictions.json"
IMAGES = "images.json"
OURS = frozenset((RESULTS, IMAGES, "tables", "overlays"))
DRAWN_ABOVE = 0.2  # score of a keypoint
OVERLAY_PX = (480, 1280)  # longer side of an overlay: smaller pictures are enlarged, larger ones shrunk
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Found:
    """The n objects of one picture (an image, or a frame of a video)."""

    rows: Float[np.ndarray, "n K 3"]  # x, y in image pixels, score
    scores: Float[np.ndarray, "n"]
    boxes: Float[np.ndarray, "n 4"]
    category_ids: Int[np.ndarray, "n"]


@dataclass(frozen=True)
class Picture:
    """Which picture it is. `frame` and `time_s` are None for an image."""

    name: str
    width: int
    height: int
    frame: int | None = None
    time_s: float | None = None


@dataclass
class Predictions:
    """All that was found so far, in the order of the pictures."""

    skeleton: Skeleton
    pictures: list[Picture] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)

    def add(self, picture: Picture, found: Found) -> None:
        """One more picture."""
        self.pictures.append(picture)
        self.found.append(found)

    @property
    def objects(self) -> int:
        """How many were found in all."""
        return sum(len(found.scores) for found in self.found)

    def write(self, folder: Path, source: str, stems: dict[str, str], videos: set[str]) -> None:
        """predictions.json, images.json and the tables, into `folder`."""
        write_text(folder / RESULTS, results_text(self._entries()))
        write_json(folder / IMAGES, self._dataset(source))
        by_video: dict[str, list[int]] = {}
        for i, picture in enumerate(self.pictures):
            by_video.setdefault(picture.name if picture.name in videos else "", []).append(i)
        for name, positions in by_video.items():
            table = folder / "tables" / (f"{stems[name]}.csv" if name else "images.csv")
            self._write_table(_unused(table), positions)

    def _entries(self) -> Iterator[dict[str, Any]]:
        for image_id, found in enumerate(self.found, start=1):
            yield from results_of(image_id, found)

    def _dataset(self, source: str) -> dict[str, Any]:
        position = {name: k for k, name in enumerate(self.skeleton.keypoints, start=1)}
        used = sorted({int(c) for found in self.found for c in found.category_ids} or {1})
        return {
            "info": {"description": f"pictures that {source} was run on by posesweep predict"},
            "images": [_entry(i, picture) for i, picture in enumerate(self.pictures, start=1)],
            "annotations": [],
            "categories": [
                {
                    "id": category,
                    "name": self.skeleton.name,
                    "keypoints": list(self.skeleton.keypoints),
                    "skeleton": [[position[a], position[b]] for a, b in self.skeleton.edges],
                }
                for category in used
            ],
        }

    def _write_table(self, path: Path, positions: Sequence[int]) -> None:
        """The pictures at `positions` as DeepLabCut writes predictions: three header rows, or four with individuals."""
        path.parent.mkdir(parents=True, exist_ok=True)
        several = max((len(self.found[i].scores) for i in positions), default=1)
        individuals = max(1, several)
        columns = [(f"object{n + 1}", k) for n in range(individuals) for k in self.skeleton.keypoints]
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["scorer", *["posesweep"] * (3 * len(columns))])
            if individuals > 1:
                out.writerow(["individuals", *[name for name, _ in columns for _ in range(3)]])
            out.writerow(["bodyparts", *[k for _, k in columns for _ in range(3)]])
            out.writerow(["coords", *["x", "y", "likelihood"] * len(columns)])
            for i in positions:
                picture, rows = self.pictures[i], self.found[i].rows
                cells: list[float | str] = [value for row in rows.reshape(-1, 3) for value in _rounded(row)]
                cells += [""] * (3 * len(columns) - len(cells))
                out.writerow([picture.name if picture.frame is None else picture.frame, *cells])


def results_text(entries: Iterable[dict[str, Any]]) -> str:
    """COCO results, an entry a line."""
    return "[" + ",\n ".join(json.dumps(entry, allow_nan=False) for entry in entries) + "]\n"


def results_of(image_id: int, found: Found) -> Iterator[dict[str, Any]]:
    """The objects of a picture as entries of COCO results, coordinates rounded to 1/1000 pixel."""
    for row, score, box, category in zip(found.rows, found.scores, found.boxes, found.category_ids, strict=True):
        yield {
            "image_id": image_id,
            "category_id": int(category),
            "keypoints": [value for point in row for value in _rounded(point)],
            "score": round(float(score), 6),
            "bbox": [round(float(value), 3) for value in box],
        }


def exact_results_of(image_id: int, found: Found) -> Iterator[dict[str, Any]]:
    """The same for scoring: to the last bit, and without boxes, from which pycocotools would take the objects' areas
    in place of their keypoints' extent, which APm and APl are meant by."""
    for row, score, category in zip(found.rows, found.scores, found.category_ids, strict=True):
        yield {
            "image_id": image_id,
            "category_id": int(category),
            "keypoints": row.ravel().tolist(),
            "score": float(score),
        }


def _rounded(point: Float[np.ndarray, "3"]) -> list[float]:
    x, y, score = point.tolist()
    return [round(x, 3), round(y, 3), round(score, 5)]


def _entry(image_id: int, picture: Picture) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": image_id, "file_name": picture.name}
    entry |= {"width": picture.width, "height": picture.height}
    if picture.frame is not None:
        entry |= {"frame": picture.frame, "time_s": picture.time_s}
    return entry


def _unused(path: Path) -> Path:
    """The path, or with a number in its name where a file has it: a video may be called images.mp4."""
    number, free = 2, path
    while free.exists():
        free, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return free


# --------------------------------------------------------------------------------------------------------- overlays


def overlay(pixels: UInt8[np.ndarray, "H W 3"], found: Found, skeleton: Skeleton) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with boxes, limbs and keypoints drawn in, brought to a size at which their lines are fine."""
    longer = max(pixels.shape[:2])
    scale = min(max(1.0, OVERLAY_PX[0] / longer), OVERLAY_PX[1] / longer)
    size = (max(2, round(pixels.shape[1] * scale)), max(2, round(pixels.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(pixels, size, interpolation=way) if scale != 1 else pixels.copy()
    for row, box in zip(found.rows, found.boxes, strict=True):
        draw_box(picture, box * scale)
        points = (row[:, :2] + 0.5) * scale - 0.5
        draw_pose(picture, points, np.where(row[:, 2] > DRAWN_ABOVE, 2, 0), skeleton)
    return np.asarray(picture)


def write_jpeg(path: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """RGB pixels to a JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    path.write_bytes(encoded.tobytes())


# ------------------------------------------------------------------------------------------------------- the folder


def check_folder(folder: Path) -> None:
    """Raise SweepError where `folder` holds what no earlier prediction wrote: nothing of the user's is replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SweepError(f"--out {folder}: is a file; give a folder")
    there = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    if there and (RESULTS not in there or not there <= OURS):
        strange = min(there - OURS) if there - OURS else min(there)
        raise SweepError(f"--out {folder}: holds other files ({strange}); give a new folder")


@contextmanager
def whole_folder(folder: Path, ours: frozenset[str] = OURS) -> Iterator[Path]:
    """Yield a folder to write into, beside `folder`; on success its content, if there is any, takes the place of an
    earlier one, whose entries are called `ours`; else it goes."""
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if not any(temporary.iterdir()):
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in ours:
            _remove(folder / name)
        for entry in sorted(temporary.iterdir()):
            entry.rename(folder / entry.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
