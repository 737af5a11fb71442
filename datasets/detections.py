"""Boxes of objects to look at: what a detector found, or what somebody drew.

    COCO detections   [{"image_id": 785, "bbox": [x, y, width, height], "score": 0.98, "category_id": 1}, ...]
    COCO annotations  a file with images, annotations and categories; the boxes of its annotations
    a table           .csv or .tsv with the columns file, x, y, w, h, and where wanted score, category_id, frame

Detections name images by id: the number in the file's name (000000000785.jpg, as COCO's are called), or the ids of the
`images.json` beside the file where `posesweep predict` wrote it. A box of a video has its frame, counted from 0; a box
without one is for every frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from posesweep.datasets.documents import read_json, read_text
from posesweep.datasets.mistakes import Mistakes
from posesweep.errors import DataError

EVERY_FRAME = -1
UNKNOWN = -1  # an image id that a table does not have
FILE_COLUMNS = ("file", "file_name", "filename", "image", "video")
COLUMNS = {"x": ("x",), "y": ("y",), "w": ("w", "width"), "h": ("h", "height")}
NEEDED = "a table of boxes has the columns file, x, y, w, h (and score, category_id, frame where wanted)"


@dataclass(frozen=True)
class Boxes:
    """m boxes, each of an image or of a frame of a video."""

    path: Path  # the file they were read from
    files: tuple[str, ...]  # m names of images or videos; "" where only the id is known
    image_ids: Int[np.ndarray, "m"]
    frames: Int[np.ndarray, "m"]
    boxes: Float[np.ndarray, "m 4"]  # x, y, width, height, image pixels
    scores: Float[np.ndarray, "m"]  # 1 where nobody gave one
    category_ids: Int[np.ndarray, "m"]

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: np.ndarray) -> "Boxes":
        """The boxes at `rows`, positions or a mask."""
        files = tuple(self.files[i] for i in np.arange(len(self))[rows])
        columns = (self.image_ids, self.frames, self.boxes, self.scores, self.category_ids)
        return Boxes(self.path, files, *(column[rows] for column in columns))


def read_boxes(path: Path) -> Boxes:
    """The boxes in a file of one of the three kinds. DataError: another kind, or the mistakes in it, ten at once."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return _read_table(path)
    if path.suffix.lower() != ".json":
        raise DataError(f"{path}: boxes are read from COCO detections or annotations (.json), or from a table (.csv)")
    document = read_json(path)
    if isinstance(document, list):
        return _of_entries(path, document, _names_beside(path))
    if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
        raise DataError(f"{path}: is neither a list of detections nor a COCO file with images and annotations")
    return _of_entries(path, document["annotations"], _names(document))


def assign(boxes: Boxes, names: Sequence[str], ids: Sequence[int] | None = None) -> list[Int[np.ndarray, "r"]]:
    """For each image or video by its name ("clips/a.mp4") the rows of its boxes.

    A box with a file name goes to the image of exactly that name, else to the only one whose last part is the same; one
    without to the image with its id, of `ids` or, without them, the number in its name. Boxes of others are left over.
    """
    exact = {name: i for i, name in enumerate(names)}
    last: dict[str, int | None] = {}
    for i, name in enumerate(names):
        short = name.rpartition("/")[2]
        last[short] = None if short in last else i
    numbers = list(ids) if ids is not None else [_number_in(name) for name in names]
    by_id = {number: i for i, number in enumerate(numbers) if number is not None}
    rows: list[list[int]] = [[] for _ in names]
    for row, (file, image_id) in enumerate(zip(boxes.files, boxes.image_ids.tolist(), strict=True)):
        file = file.replace("\\", "/")
        at = by_id.get(image_id) if not file else exact.get(file, last.get(file.rpartition("/")[2]))
        if at is not None:
            rows[at].append(row)
    return [np.array(found, dtype=np.int64) for found in rows]


def _number_in(name: str) -> int | None:
    stem = name.rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isdecimal() and stem.isascii() else None


def _names(document: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    """Image id -> file name and frame."""
    images = document.get("images")
    entries = [entry for entry in images if isinstance(entry, dict)] if isinstance(images, list) else []
    return {
        entry["id"]: (str(entry.get("file_name") or ""), int(entry.get("frame", EVERY_FRAME)))
        for entry in entries
        if isinstance(entry.get("id"), int)
    }


def _names_beside(path: Path) -> dict[int, tuple[str, int]]:
    beside = path.parent / "images.json"
    document = read_json(beside) if beside.is_file() else {}
    ours = isinstance(document, dict) and "posesweep predict" in str(document.get("info"))
    return _names(document) if ours else {}


def _of_entries(path: Path, entries: Sequence[Any], names: Mapping[int, tuple[str, int]]) -> Boxes:
    mistakes = Mistakes(path)
    rows = []
    for number, entry in enumerate(entries, 1):
        with mistakes.collected(f"entry {number}"):
            rows.append(_entry(entry, names))
    mistakes.raise_any()
    return _stacked(path, rows)


_Row = tuple[str, int, int, list[float], float, int]  # as the fields of Boxes


def _entry(entry: Any, names: Mapping[int, tuple[str, int]]) -> _Row:
    if not isinstance(entry, dict):
        raise DataError("is no object with image_id and bbox")
    image_id = entry.get("image_id")
    if isinstance(image_id, bool) or not isinstance(image_id, int):
        raise DataError(f"image_id {image_id!r} must be a whole number")
    file, frame = names.get(image_id, ("", EVERY_FRAME))
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"bbox {box!r} must be four numbers: x, y, width, height")
    category = entry.get("category_id", 1)
    if isinstance(category, bool) or not isinstance(category, int):
        raise DataError(f"category_id {category!r} must be a whole number")
    name = str(entry.get("file_name") or file)
    return name, image_id, int(entry.get("frame", frame)), _box(box), _score(entry.get("score", 1.0)), category


def _box(values: Sequence[Any]) -> list[float]:
    numbers = [_number(value, "bbox") for value in values]
    if not (numbers[2] > 0 and numbers[3] > 0):
        raise DataError(f"box {list(values)} must have a width and a height above 0")
    return numbers


def _score(value: Any) -> float:
    score = _number(value, "score")
    if not 0 <= score <= 1:
        raise DataError(f"score {value} must lie between 0 and 1")
    return score


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DataError(f"{what} has {value!r}, which is no finite number")
    return float(value)


def _stacked(path: Path, rows: Sequence[_Row]) -> Boxes:
    files, ids, frames, boxes, scores, categories = zip(*rows, strict=True) if rows else ((),) * 6
    return Boxes(
        path=path,
        files=tuple(files),
        image_ids=np.array(ids, dtype=np.int64),
        frames=np.array(frames, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        scores=np.array(scores, dtype=np.float64),
        category_ids=np.array(categories, dtype=np.int64),
    )


def _read_table(path: Path) -> Boxes:
    table = _cells(path)
    file = next((name for name in FILE_COLUMNS if name in table), None)
    columns = {key: next((name for name in names if name in table), None) for key, names in COLUMNS.items()}
    if file is None or None in columns.values():
        raise DataError(f"{path}: has the columns {', '.join(map(str, table.columns))}; {NEEDED}")
    mistakes = Mistakes(path)
    rows = []
    for number, record in enumerate(table.to_dict("records"), 2):
        with mistakes.collected(f"row {number} ({record[file]})"):
            cell = {key: _cell(record, str(name)) for key, name in columns.items()}
            frame = _cell(record, "frame", EVERY_FRAME)
            category = _cell(record, "category_id", 1)
            score = _score(_cell(record, "score", 1.0))
            rows.append((str(record[file]), UNKNOWN, int(frame), _box(list(cell.values())), score, int(category)))
    mistakes.raise_any()
    return _stacked(path, rows)


def _cells(path: Path) -> pd.DataFrame:
    import io

    text = read_text(path, "a table")
    separator = max((",", ";", "\t"), key=text.split("\n", 1)[0].count)
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: is no table ({' '.join(str(error).split())}); {NEEDED}") from None
    table.columns = [str(column).strip().lower() for column in table.columns]
    return table


def _cell(record: Mapping[Any, Any], column: str, default: float | None = None) -> float:
    """The number in a cell. DataError: none, and no default."""
    text = str(record.get(column, "")).strip()
    if not text and default is not None:
        return default
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{column} is '{text}', which is no number") from None
