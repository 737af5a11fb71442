"""Plain tables of keypoints: CSV, TSV or Parquet, long (a row a keypoint) or wide (a row an object).

long   image, keypoint, x, y[, visibility]
wide   image, nose_x, nose_y[, nose_v], tail_x, tail_y[, tail_v], ...
both   [, instance][, category][, group][, identity][, box_x, box_y, box_width, box_height][, area][, crowd]

A blank x and y, or visibility 0, is not labelled; without visibility every label is visible. `instance` tells several
objects of one image apart.
"""

import io
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from posesweep.datasets.documents import NOT_HERE, read_text
from posesweep.datasets.gather import BOX_MARGIN, Objects, Source, gather, skeleton_of
from posesweep.datasets.images import folder_beside
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

IMAGE = ("image", "file_name", "filename", "image_path", "path")
LONG = ("keypoint", "x", "y")
BOX = ("box_x", "box_y", "box_width", "box_height")


@dataclass(frozen=True)
class _Table:
    """The cells of a table as text, "" where blank."""

    cells: "pd.DataFrame"
    path: Path
    image: str  # the column that names the image

    def __contains__(self, column: str) -> bool:
        return column in self.cells.columns

    def text(self, column: str, default: str = "") -> list[str]:
        """A column as text, or `default` in every row where the table lacks it."""
        return self.cells[column].tolist() if column in self else [default] * len(self.cells)

    def numbers(self, column: str, mistakes: Mistakes) -> Float[np.ndarray, "r"]:
        """A column as numbers, nan where blank; cells that are neither are mistakes."""
        import pandas as pd

        given = self.cells[column]
        values = pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64)
        blank = given.str.lower().isin(("", "nan", "na", "null", "none")).to_numpy()
        for row in np.flatnonzero(~blank & ~np.isfinite(values)).tolist():
            mistakes.add(f"{self.row(row)}: {column} is '{given.iloc[row]}', which is no finite number")
        return values

    def row(self, row: int) -> str:
        """How a row is named in a sentence: as the user sees it, the header being row 1."""
        return f"row {row + 2} ({self.cells[self.image].iloc[row]})"


def read_table(
    path: Path, images: Path | None = None, skeleton: Skeleton | None = None, box_margin: float = BOX_MARGIN
) -> Instances:
    """The objects of a plain table whose images lie below `images`, in the order of their images' names.

    `images` None is the table's folder, or `images` in it if the names start there. Keypoints go by name; `skeleton`
    None is the shipped one with these names, or is made of them. Boxes that the table lacks are drawn (see `gather`).
    DataError: columns that are missing, rows that contradict each other, cells that are no numbers."""
    table = _opened(path)
    mistakes = Mistakes(path)
    long = all(column in table for column in LONG)
    objects = _from_long(table, mistakes) if long else _from_wide(table, mistakes)
    mistakes.raise_any()
    skeleton = skeleton or skeleton_of("table", objects.names)
    group = next((name for name in ("group", "video") if name in table), None)
    groups = dict(zip(_names(table), table.text(group), strict=True)) if group else {}
    folder = images or folder_beside(path, list(objects.images))
    return gather(objects, Source(path, folder, groups, supposed=not long), skeleton, box_margin)


def _opened(path: Path) -> _Table:
    cells = _parquet(path) if path.suffix.lower() == ".parquet" else _delimited(path)
    cells.columns = [str(column).strip() for column in cells.columns]
    image = next((name for name in IMAGE if name in cells.columns), None)
    if image is None:
        raise DataError(
            f"{path}: has no column 'image' (columns: {', '.join(map(str, cells.columns[:8]))}); a table of keypoints "
            "has image, keypoint, x, y, or image, nose_x, nose_y, ..."
        )
    if cells.columns.has_duplicates:
        twice = cells.columns[cells.columns.duplicated()][0]
        raise DataError(f"{path}: has two columns '{twice}'; every column needs its own name")
    if cells.empty:
        raise DataError(f"{path}: has a header and no rows; nothing to learn from")
    return _Table(cells, path, image)


def _delimited(path: Path) -> "pd.DataFrame":
    import pandas as pd

    text = read_text(path, "a table")
    header = text.split("\n", 1)[0]
    separator = max((",", ";", "\t"), key=header.count)
    try:
        rows = pd.read_csv(io.StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: is not a table of rows of equal length ({reason})") from None
    return rows.iloc[1:].reset_index(drop=True).set_axis(rows.iloc[0].tolist(), axis=1)  # pandas would rename twins


def _parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path}: {NOT_HERE}")
    try:
        cells = pd.read_parquet(path)
    except ImportError:
        raise DataError(
            f"{path}: a Parquet table needs pyarrow; pip install pyarrow, or save the table as CSV"
        ) from None
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path}: is not readable as a Parquet table; is it cut off? write or copy it again") from error
    blank = cells.isna()
    return cells.astype(object).where(~blank, "").astype(str).reset_index(drop=True)


def _names(table: _Table) -> list[str]:
    return [name.strip().replace("\\", "/") for name in table.text(table.image)]


# ------------------------------------------------------------------------------------------------------------- long


def _from_long(table: _Table, mistakes: Mistakes) -> Objects:
    keys = list(zip(_names(table), table.text("instance"), strict=True))
    row = _positions(keys)
    parts = [name.strip() for name in table.text("keypoint")]
    names = list(dict.fromkeys(parts))
    if "" in names:
        mistakes.add(f"{table.row(parts.index(''))}: keypoint is blank; every row names one")
    k = _positions(parts)
    _refuse_twice(table, row * len(names) + k, [f"keypoint '{part}'" for part in parts], mistakes)
    first = np.unique(row, return_index=True)[1]
    points = np.full((len(first), len(names), 2), np.nan)
    points[row, k] = np.stack([table.numbers("x", mistakes), table.numbers("y", mistakes)], axis=1)
    visibility = np.full(points.shape[:2], 2.0)
    column = next((name for name in ("visibility", "v") if name in table), None)
    if column:
        visibility[row, k] = _visibility(table, column, mistakes)
    return _objects(table, names, points, visibility, first, mistakes)


def _positions(keys: Sequence[Hashable]) -> Int[np.ndarray, "r"]:
    """Each key's place among the different ones, in the order of their first appearance."""
    position = {key: at for at, key in enumerate(dict.fromkeys(keys))}
    return np.array([position[key] for key in keys], dtype=np.int64)


# ------------------------------------------------------------------------------------------------------------- wide


def _from_wide(table: _Table, mistakes: Mistakes) -> Objects:
    names = _wide_names(table, mistakes)
    mistakes.raise_any()
    images = _names(table)
    what = "instance" if "instance" in table else "image"
    keys = list(zip(images, table.text("instance"), strict=True))
    _refuse_twice(table, _positions(keys), [what] * len(images), mistakes)
    axes = [[table.numbers(f"{name}_{axis}", mistakes) for axis in "xy"] for name in names]
    points = np.array(axes).transpose(2, 0, 1)
    visibility = np.full(points.shape[:2], 2.0)
    for k, name in enumerate(names):
        column = next((f"{name}{end}" for end in ("_v", "_visibility") if f"{name}{end}" in table), None)
        if column:
            visibility[:, k] = _visibility(table, column, mistakes)
    return _objects(table, names, points, visibility, np.arange(len(images)), mistakes)


def _wide_names(table: _Table, mistakes: Mistakes) -> list[str]:
    """Keypoints that have a column x and a column y, in the order of the columns."""
    xs = [str(c)[:-2] for c in table.cells.columns if str(c).endswith("_x") and c != BOX[0]]
    ys = [str(c)[:-2] for c in table.cells.columns if str(c).endswith("_y") and c != BOX[1]]
    for name in dict.fromkeys([*xs, *ys]):
        if name not in xs or name not in ys:
            mistakes.add(f"keypoint '{name}' has only one of the columns {name}_x and {name}_y; it needs both")
    if not xs and not ys:
        mistakes.add(
            "has neither the columns keypoint, x, y (a row a keypoint) nor columns like nose_x and nose_y "
            "(a row an object)"
        )
    return xs


# ------------------------------------------------------------------------------------------------------ both layouts


def _refuse_twice(table: _Table, keys: Int[np.ndarray, "r"], what: Sequence[str], mistakes: Mistakes) -> None:
    first = np.unique(keys, return_index=True)[1]
    for row in np.setdiff1d(np.arange(len(keys)), first).tolist():
        mistakes.add(
            f"{table.row(row)}: {what[row]} is on an earlier row already; "
            "a column 'instance' tells several objects of one image apart"
        )


def _visibility(table: _Table, column: str, mistakes: Mistakes) -> Float[np.ndarray, "r"]:
    """0, 1 or 2; visible where blank."""
    values = table.numbers(column, mistakes)
    values = np.where(np.isnan(values), 2.0, values)
    for row in np.flatnonzero(~np.isin(values, (0, 1, 2))).tolist():
        mistakes.add(f"{table.row(row)}: {column} is {values[row]:g}, which must be 0 (not labelled), 1 (hidden) or 2")
    return values


def _objects(
    table: _Table,
    names: Sequence[str],
    points: Float[np.ndarray, "n K 2"],
    visibility: Float[np.ndarray, "n K"],
    rows: Int[np.ndarray, "n"],
    mistakes: Mistakes,
) -> Objects:
    """The objects whose box and category stand on `rows`."""
    points = np.where(visibility[:, :, None] > 0, points, np.nan)
    boxes, areas, crowd = np.full((len(rows), 4), np.nan), np.full(len(rows), np.nan), np.zeros(len(rows))
    if all(column in table for column in BOX):
        boxes = np.stack([table.numbers(column, mistakes)[rows] for column in BOX], axis=1)
    if "area" in table:
        areas = table.numbers("area", mistakes)[rows]
    if "crowd" in table:
        crowd = table.numbers("crowd", mistakes)[rows]
    images, categories, identities = _names(table), table.text("category", "animal"), table.text("identity")
    return Objects(
        names=tuple(names),
        images=[images[row] for row in rows],
        points=points,
        visible=visibility != 1,
        boxes=boxes,
        categories=[categories[row] for row in rows],
        identities=[identities[row] for row in rows],
        areas=areas,
        crowd=crowd == 1,
    )
