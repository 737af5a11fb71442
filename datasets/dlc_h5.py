"""DeepLabCut's H5 tables: pandas' two HDF5 layouts ("fixed" and "table"), read without pandas.

`pandas.read_hdf` unpickles what it finds in the file, and a pickle can run anything. Here arrays are read as arrays,
and the one pickle that is needed (the column names of the layout "table") by an unpickler that knows no classes.
"""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float

from posesweep.datasets.hdf5 import array, opened, text
from posesweep.errors import DataError

KIND = "a DeepLabCut table (CollectedData_<scorer>.h5)"
LEVELS = {3: ("scorer", "bodyparts", "coords"), 4: ("scorer", "individuals", "bodyparts", "coords")}


def read_table_h5(path: Path) -> tuple[dict[str, list[str]], list[str], Float[np.ndarray, "n C"]]:
    """Header (level -> its name in every column), frame names with slashes, and values.

    DataError: h5py is not installed, or the file is no such table."""
    with opened(path, KIND) as file:
        groups = [group for group in file.values() if hasattr(group, "attrs") and "pandas_type" in group.attrs]
        if len(groups) != 1:
            raise DataError(f"{path}: holds {len(groups)} pandas tables where {KIND} holds one")
        kind = text(groups[0].attrs["pandas_type"])
        if kind == "frame":
            columns, frames, values = _fixed(groups[0], path)
        elif kind == "frame_table" and "table" in groups[0]:
            columns, frames, values = _table(groups[0], path)
        else:
            raise DataError(
                f"{path}: its table has the layout '{kind}', which {KIND} never has; give the .csv beside it"
            )
    names = LEVELS.get(len(columns[0]) if columns else 0)
    if names is None or values.shape != (len(frames), len(columns)):
        raise DataError(f"{path}: is not {KIND}: its columns are not named by scorer, bodyparts and coords")
    header = {name: [column[at] for column in columns] for at, name in enumerate(names)}
    return header, [frame.replace("\\", "/") for frame in frames], values


def _fixed(group: Any, path: Path) -> tuple[list[tuple[str, ...]], list[str], np.ndarray]:
    """pandas' layout "fixed": one array per axis and per block of columns."""
    columns = _axis(group, "axis0")
    frames = ["/".join(labels) for labels in _axis(group, "axis1")]
    position = {column: at for at, column in enumerate(columns)}
    values = np.full((len(frames), len(columns)), np.nan)
    for block in range(int(group.attrs["nblocks"])):
        content = array(group[f"block{block}_values"])
        if content.dtype.kind not in "fiu":
            raise DataError(f"{path}: has columns that are not numbers; coordinates are numbers, or blank")
        at = [position[column] for column in _axis(group, f"block{block}_items")]
        values[:, at] = content[()].reshape(len(frames), len(at))
    return columns, frames, values


def _axis(group: Any, name: str) -> list[tuple[str, ...]]:
    """The labels along one axis, a tuple of levels each."""
    if name in group:
        return [(text(label),) for label in array(group[name])[()]]
    count = int(group.attrs[f"{name}_nlevels"])
    levels = [[text(label) for label in array(group[f"{name}_level{i}"])[()]] for i in range(count)]
    codes = [array(group[f"{name}_label{i}"])[()].tolist() for i in range(count)]
    return [tuple(level[code] for level, code in zip(levels, row, strict=True)) for row in zip(*codes, strict=True)]


def _table(group: Any, path: Path) -> tuple[list[tuple[str, ...]], list[str], np.ndarray]:
    """pandas' layout "table": one compound array, its column names pickled in an attribute."""
    rows = array(group["table"])
    if rows.dtype.names != ("index", "values_block_0") or rows.dtype["values_block_0"].base.kind not in "fiu":
        raise DataError(f"{path}: has columns {rows.dtype.names} where {KIND} has an index and one block of numbers")
    names = _plain_pickle(rows.attrs["values_block_0_kind"], path)
    if not isinstance(names, list) or not all(isinstance(name, tuple) for name in names):
        raise DataError(f"{path}: is not {KIND}: its columns are not named by scorer, bodyparts and coords")
    content = rows[()]
    values = content["values_block_0"].astype(np.float64).reshape(len(content), -1)
    return [tuple(map(str, name)) for name in names], [text(label) for label in content["index"]], values


class _NoClasses(pickle.Unpickler):
    """Lists, tuples, text and numbers; anything that names a class or a function is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _plain_pickle(data: bytes, path: Path) -> Any:
    try:
        return _NoClasses(io.BytesIO(bytes(data))).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, MemoryError) as error:
        raise DataError(
            f"{path}: its column names are not plain text ({error}); such a file could run code and is not read; "
            "give the .csv beside it"
        ) from None
