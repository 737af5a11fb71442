"""DeepLabCut's tables of labels: CollectedData_<scorer>.csv of single-animal projects.

Three header rows (scorer, bodyparts, coords), then a row a frame. Older versions name the frame in one column
("labeled-data/video/img0001.png"), newer ones in three. A blank coordinate is not labelled. One table may hold the
frames of one video or, as in a project's training-datasets folder, of all.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float

from posesweep.datasets.boxes import areas_of, box_around
from posesweep.datasets.images import PROBED, inside, without_missing
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import DEFAULT_NOTE, Skeleton, skeleton_from_names
from posesweep.errors import DataError, did_you_mean

HEADER = ["scorer", "bodyparts", "coords"]
BOX_MARGIN = 0.25  # of the longer side: openfield's mouse, labelled from snout to tail base, lies whole in its box
LEVELS = 6  # folders tried, from the table's upwards


@dataclass(frozen=True)
class _Table:
    bodyparts: list[str]
    frames: list[str]  # n names, with slashes
    points: Float[np.ndarray, "n B 2"]  # pixels; nan where not labelled

    @property
    def labelled(self) -> Bool[np.ndarray, "n B"]:
        return np.asarray(np.isfinite(self.points).all(axis=2))


def read_dlc(
    csv_path: Path, images: Path | None = None, skeleton: Skeleton | None = None, box_margin: float = BOX_MARGIN
) -> Instances:
    """The labelled frames of a DeepLabCut project, one animal each, in the order of their names.

    `images` None looks for the frames from the table's folder upwards, so a table in its project needs nothing. Body
    parts go to the skeleton's keypoints by name; `skeleton` None is the shipped one with these names, or is made of
    them. DeepLabCut has no boxes: they are drawn around the labelled keypoints, widened on every side by `box_margin`
    x the longer side; areas follow from the boxes. Frames of one video are one group. Frames with no label, or with
    one (which makes no box), are left out and noted. DataError: everything else that is wrong, ten mistakes at once."""
    table = _read_table(csv_path)
    skeleton = skeleton or skeleton_from_names("dlc", table.bodyparts)
    table, notes_on_columns = _in_order_of(skeleton, table, csv_path)
    table, notes_on_frames = _with_enough_labels(table, csv_path)
    boxes = _boxes(table, box_margin, csv_path)
    folder, names = _locate(table.frames, csv_path, images)
    mistakes = Mistakes(csv_path)
    files = []
    for frame, name in zip(table.frames, names, strict=True):
        with mistakes.collected(f"frame {frame}"):
            files.append(inside(folder, name))
    mistakes.raise_any()
    drawn = f"boxes are drawn around the keypoints, {box_margin:g} of the longer side added on every side"
    notes = tuple(f"{csv_path.name}: {note}" for note in (*notes_on_columns, *notes_on_frames, drawn))
    return without_missing(replace(_as_instances(table, files, boxes, skeleton), notes=notes), folder, csv_path)


# ------------------------------------------------------------------------------------------------------ the table


def _read_table(path: Path) -> _Table:
    """The table with its frames in the order of their names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; data.train and data.val name the annotations") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path}: is not a text table; a DeepLabCut table is CollectedData_<scorer>.csv") from None
    index_columns, bodyparts = _header(rows, path)
    mistakes = Mistakes(path)
    points: dict[str, list[float]] = {}
    for row in rows[len(HEADER) :]:
        frame = "/".join(cell.strip() for cell in row[:index_columns]).replace("\\", "/")
        with mistakes.collected(f"frame {frame}"):
            if frame in points:
                raise DataError("is listed twice; every frame has one row")
            points[frame] = []
            points[frame] = _coordinates(row[index_columns:], bodyparts)
    mistakes.raise_any()
    frames = sorted(points)
    values = np.array([points[frame] for frame in frames], dtype=np.float64)
    return _Table(bodyparts, frames, values.reshape(len(frames), len(bodyparts), 2))


def _header(rows: Sequence[Sequence[str]], path: Path) -> tuple[int, list[str]]:
    """Number of columns that name the frame, and the body parts."""
    first_cells = [row[0].strip() for row in rows[:4]]
    if "individuals" in first_cells:
        raise DataError(f"{path}: is a multi-animal DeepLabCut table (row 'individuals'); convert it to COCO")
    if first_cells[:3] != HEADER or len(rows) < 4:
        raise DataError(f"{path}: is not a DeepLabCut table of labels: rows scorer, bodyparts, coords, then frames")
    coords = [cell.strip() for cell in rows[2]]
    if "likelihood" in coords:
        raise DataError(f"{path}: holds predictions (it has likelihood columns), not labels; give CollectedData_*.csv")
    index_columns = next((i for i, cell in enumerate(coords) if cell == "x"), len(coords))
    bodyparts = [cell.strip() for cell in rows[1][index_columns::2]]
    if coords[index_columns:] != ["x", "y"] * len(bodyparts) or len(set(bodyparts)) < len(bodyparts) or not bodyparts:
        raise DataError(f"{path}: every body part needs one column x and one column y, side by side")
    return index_columns, bodyparts


def _coordinates(cells: Sequence[str], bodyparts: Sequence[str]) -> list[float]:
    """x and y of every body part, nan where blank."""
    if len(cells) != 2 * len(bodyparts):
        raise DataError(f"has {len(cells)} coordinates, {len(bodyparts)} body parts need {2 * len(bodyparts)}")
    values = []
    for i, cell in enumerate(cells):
        where = f"{'xy'[i % 2]} of '{bodyparts[i // 2]}'"
        try:
            value = float(cell.strip() or "nan")
        except ValueError:
            raise DataError(f"{where} is '{cell}'; coordinates are numbers, or blank where not labelled") from None
        if np.isinf(value):
            raise DataError(f"{where} is '{cell}'; coordinates must be finite numbers")
        values.append(value)
    for name, x, y in zip(bodyparts, values[::2], values[1::2], strict=True):
        if np.isnan(x) != np.isnan(y):
            raise DataError(f"only one of x and y of '{name}' is given; fill in both or neither")
    return values


def _in_order_of(skeleton: Skeleton, table: _Table, path: Path) -> tuple[_Table, list[str]]:
    """The table with the skeleton's keypoints as its body parts, and what is to be said about that."""
    mistakes = Mistakes(path)
    for name in skeleton.keypoints:
        if name not in table.bodyparts:
            hint = did_you_mean(name, table.bodyparts)
            mistakes.add(f"there is no body part '{name}' of skeleton {skeleton.name}{hint}")
    mistakes.raise_any()
    notes = [skeleton.sigmas_note] if skeleton.sigmas_note == DEFAULT_NOTE else []
    unused = [name for name in table.bodyparts if name not in skeleton.keypoints]
    if unused:
        notes.append(f"body parts that skeleton {skeleton.name} does not have are left out: {', '.join(unused)}")
    columns = [table.bodyparts.index(name) for name in skeleton.keypoints]
    return _Table(list(skeleton.keypoints), table.frames, table.points[:, columns]), notes


def _with_enough_labels(table: _Table, path: Path) -> tuple[_Table, list[str]]:
    """The frames with two labels or more, and what is to be said about the others."""
    enough = table.labelled.sum(axis=1) >= 2
    if not enough.any():
        raise DataError(f"{path}: no frame has two labelled keypoints, so no box can be drawn; convert it to COCO")
    left_out = f"{(~enough).sum()} frames have fewer than two labels, too few to draw a box; left out"
    frames = [frame for frame, keep in zip(table.frames, enough, strict=True) if keep]
    return _Table(table.bodyparts, frames, table.points[enough]), [] if enough.all() else [left_out]


def _boxes(table: _Table, margin: float, path: Path) -> Float[np.ndarray, "n 4"]:
    mistakes = Mistakes(path)
    boxes = []
    for frame, points, labelled in zip(table.frames, table.points, table.labelled, strict=True):
        with mistakes.collected(f"frame {frame}"):
            boxes.append(box_around(points, labelled.astype(np.uint8), margin))
    mistakes.raise_any()
    return np.array(boxes)


# ------------------------------------------------------------------------------------------------------ the frames


def _locate(frames: Sequence[str], csv_path: Path, images: Path | None) -> tuple[Path, list[str]]:
    """The folder below which the frames lie and their names in it; a first guess where none is found."""
    guesses = list(_guesses(frames, csv_path, images))
    found = (guess for guess in guesses if any((guess[0] / name).is_file() for name in guess[1][:PROBED]))
    return next(found, guesses[0])


def _guesses(frames: Sequence[str], csv_path: Path, images: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """Names as they are written, below `images` or a folder above the table; then without their leading folders."""
    above = [images] if images else list(csv_path.absolute().parents)[:LEVELS]
    for folder in above:
        yield folder, list(frames)
    for folders_dropped in (1, 2):
        names = ["/".join(PurePosixPath(frame).parts[folders_dropped:]) for frame in frames]
        if len(set(names)) == len(names) and all(names):
            yield above[0], names


def _as_instances(
    table: _Table, files: Sequence[Path], boxes: Float[np.ndarray, "n 4"], skeleton: Skeleton
) -> Instances:
    count = np.arange(len(files))
    return Instances(
        skeleton=skeleton,
        image_files=tuple(files),
        image_ids=count + 1,
        image_groups=tuple(PurePosixPath(frame).parent.name for frame in table.frames),
        image_index=count,
        ids=count + 1,
        category_ids=np.ones_like(count),
        boxes=boxes,
        keypoints=np.where(table.labelled[:, :, None], table.points, 0.0),
        visibility=np.where(table.labelled, 2, 0).astype(np.uint8),
        areas=areas_of(boxes),
        crowd=np.zeros(len(count), dtype=bool),
        category_names={1: "animal"},
    )
