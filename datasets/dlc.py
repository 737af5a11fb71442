"""DeepLabCut's tables of labels: CollectedData_<scorer>.csv or .h5, of one animal or of several.

Header rows (scorer, individuals where there are several animals, bodyparts, coords), then a row a frame. Older
versions name the frame in one column ("labeled-data/video/img0001.png"), newer ones in three. A blank coordinate is not
labelled. One table may hold the frames of one video or, as in a project's training-datasets folder, of all.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from posesweep.datasets.dlc_h5 import read_table_h5
from posesweep.datasets.documents import read_text
from posesweep.datasets.gather import BOX_MARGIN, Objects, Source, gather, unboxed
from posesweep.datasets.images import PROBED
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import Skeleton, skeleton_from_names
from posesweep.errors import DataError

HEADER = ["scorer", "bodyparts", "coords"]
INDIVIDUALS = "individuals"
UNIQUE = "single"  # the "individual" of DeepLabCut's unique body parts: things of the cage, of no animal
LEVELS = 6  # folders tried, from the table's upwards


@dataclass(frozen=True)
class _Table:
    header: list[tuple[str, str, str]]  # one per column: individual ("" in a table of one animal), body part, x or y
    frames: list[str]  # n names, with slashes
    values: Float[np.ndarray, "n C"]  # pixels; nan where not labelled


def read_dlc(
    path: Path, images: Path | None = None, skeleton: Skeleton | None = None, box_margin: float = BOX_MARGIN
) -> Instances:
    """The labelled animals of a DeepLabCut project, in the order of their frames' names.

    `images` None looks for the frames from the table's folder upwards, so a table in its project needs nothing. Body
    parts go to the skeleton's keypoints by name; `skeleton` None is the shipped one with these names, or is made of
    them. DeepLabCut has no boxes: they are drawn around the labelled keypoints, widened on every side by `box_margin`
    x the longer side; areas follow from the boxes. Frames of one video are one group. Animals with no label, or with
    one (which makes no box), are left out, as are unique body parts; noted. DataError: everything else that is wrong,
    ten mistakes at once."""
    table = _read_h5(path) if path.suffix.lower() in {".h5", ".hdf5"} else _read_csv(path)
    objects, notes = _objects(table, path)
    skeleton = skeleton or skeleton_from_names("dlc", objects.names)
    folder, names = _locate(table.frames, path, images)
    name_of = dict(zip(table.frames, names, strict=True))
    groups = {name_of[frame]: PurePosixPath(frame).parent.name for frame in table.frames}
    objects = replace(objects, images=[name_of[frame] for frame in objects.images])
    instances = gather(objects, Source(path, folder, groups), skeleton, box_margin)
    return replace(instances, notes=(*notes, *instances.notes))


def _objects(table: _Table, path: Path) -> tuple[Objects, tuple[str, ...]]:
    """One object per frame and animal with a label, its points in the order of the body parts."""
    individuals = [name for name in dict.fromkeys(column[0] for column in table.header) if name != UNIQUE]
    parts = list(dict.fromkeys(part for name, part, _ in table.header if name != UNIQUE))
    unique = list(dict.fromkeys(part for name, part, _ in table.header if name == UNIQUE))
    if not individuals:
        raise DataError(f"{path}: has unique body parts only, of no animal; nothing to learn from")
    position = {column: at for at, column in enumerate(table.header)}
    n = len(table.frames)
    points = np.full((n, len(individuals), len(parts), 2), np.nan)
    for (individual, part, axis), at in position.items():
        if individual != UNIQUE:
            points[:, individuals.index(individual), parts.index(part), "xy".index(axis)] = table.values[:, at]
    images = [frame for frame in table.frames for _ in individuals]
    objects = unboxed(parts, images, points.reshape(-1, len(parts), 2), individuals * n)
    if individuals != [""]:  # an animal that is not in a frame is no object with too few labels
        objects = objects.take(np.flatnonzero(~np.isnan(objects.points).all(axis=(1, 2))))
    note = f"{path.name}: unique body parts, which belong to no animal, are left out: {', '.join(unique)}"
    return objects, (note,) if unique else ()


# ------------------------------------------------------------------------------------------------------ the table


def _read_h5(path: Path) -> _Table:
    """The table with its frames in the order of their names."""
    levels, frames, values = read_table_h5(path)
    header = _checked_header(levels, path)
    if len(set(frames)) < len(frames):
        twice = next(frame for frame in frames if frames.count(frame) > 1)
        raise DataError(f"{path}: frame {twice}: is listed twice; every frame has one row")
    order = np.argsort(np.array(frames, dtype=object), kind="stable")
    return _Table(header, [frames[i] for i in order], values[order])


def _read_csv(path: Path) -> _Table:
    """The table with its frames in the order of their names."""
    text = read_text(path, "a table (a DeepLabCut table is CollectedData_<scorer>.csv)")
    try:
        rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    except csv.Error:
        raise DataError(f"{path}: is not a text table; a DeepLabCut table is CollectedData_<scorer>.csv") from None
    first_cells = [row[0].strip() for row in rows[:4]]
    titles = [HEADER[0], INDIVIDUALS, *HEADER[1:]] if INDIVIDUALS in first_cells else HEADER
    if first_cells[: len(titles)] != titles or len(rows) <= len(titles):
        raise DataError(f"{path}: is not a DeepLabCut table of labels: rows scorer, bodyparts, coords, then frames")
    coords = [cell.strip() for cell in rows[len(titles) - 1]]
    index_columns = next((i for i, cell in enumerate(coords) if cell == "x"), len(coords))
    levels = {title: [cell.strip() for cell in row[index_columns:]] for title, row in zip(titles, rows, strict=False)}
    header = _checked_header(levels, path)
    mistakes = Mistakes(path)
    values: dict[str, list[float]] = {}
    for row in rows[len(titles) :]:
        frame = "/".join(cell.strip() for cell in row[:index_columns]).replace("\\", "/")
        with mistakes.collected(f"frame {frame}"):
            if frame in values:
                raise DataError("is listed twice; every frame has one row")
            values[frame] = []
            values[frame] = _coordinates(row[index_columns:], header)
    mistakes.raise_any()
    frames = sorted(values)
    return _Table(header, frames, np.array([values[frame] for frame in frames], dtype=np.float64))


def _checked_header(levels: dict[str, list[str]], path: Path) -> list[tuple[str, str, str]]:
    """Individual, body part and coordinate of every column."""
    coords, parts = levels.get("coords", []), levels.get("bodyparts", [])
    if "likelihood" in coords:
        raise DataError(f"{path}: holds predictions (it has likelihood columns), not labels; give CollectedData_*.csv")
    individuals = levels.get(INDIVIDUALS, [""] * len(parts))
    header = list(zip(individuals, parts, coords, strict=False))
    whole = len(individuals) == len(parts) == len(coords) == len(set(header))
    side_by_side = coords == ["x", "y"] * (len(coords) // 2) and [c[:2] for c in header[::2]] == [
        c[:2] for c in header[1::2]
    ]
    if not whole or not side_by_side or not header:
        raise DataError(f"{path}: every body part needs one column x and one column y, side by side")
    return header


def _coordinates(cells: Sequence[str], header: Sequence[tuple[str, str, str]]) -> list[float]:
    """The numbers of one row, nan where blank."""
    if len(cells) != len(header):
        raise DataError(f"has {len(cells)} coordinates, {len(header) // 2} body parts need {len(header)}")
    values = []
    for cell, (_, part, axis) in zip(cells, header, strict=True):
        try:
            value = float(cell.strip() or "nan")
        except ValueError:
            raise DataError(
                f"{axis} of '{part}' is '{cell}'; coordinates are numbers, or blank where not labelled"
            ) from None
        if np.isinf(value):
            raise DataError(f"{axis} of '{part}' is '{cell}'; coordinates must be finite numbers")
        values.append(value)
    for (_, part, _), x, y in zip(header[::2], values[::2], values[1::2], strict=True):
        if np.isnan(x) != np.isnan(y):
            raise DataError(f"only one of x and y of '{part}' is given; fill in both or neither")
    return values


# ------------------------------------------------------------------------------------------------------ the frames


def _locate(frames: Sequence[str], table: Path, images: Path | None) -> tuple[Path, list[str]]:
    """The folder below which the frames lie and their names in it; a first guess where none is found."""
    guesses = list(_guesses(frames, table, images))
    found = (guess for guess in guesses if any((guess[0] / name).is_file() for name in guess[1][:PROBED]))
    return next(found, guesses[0])


def _guesses(frames: Sequence[str], table: Path, images: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """Names as they are written, below `images` or a folder above the table; then without their leading folders."""
    above = [images] if images else list(table.absolute().parents)[:LEVELS]
    for folder in above:
        yield folder, list(frames)
    for folders_dropped in (1, 2):
        names = ["/".join(PurePosixPath(frame).parts[folders_dropped:]) for frame in frames]
        if len(set(names)) == len(names) and all(names):
            yield above[0], names
