"""HDF5 files that strangers wrote: opened with h5py, which runs nothing that is in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posesweep.datasets.documents import NOT_HERE
from posesweep.errors import DataError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST = 4 * 2**30  # bytes of one array; a file of a few bytes can declare any size


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Any]:
    """The open h5py.File; `kind` names what it should be. DataError: no h5py, no such file, no HDF5 or a broken one.

    Errors of h5py inside the block mean a file cut short or laid out otherwise, and become one sentence too."""
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path}: {kind} needs h5py; pip install 'posesweep[formats]'") from None
    if not path.is_file():
        raise DataError(f"{path}: {NOT_HERE}")
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise DataError(f"{path}: is no HDF5 file, so not {kind}; is it a table of another format, or cut off?")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, IndexError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: is not readable as {kind} ({reason}); is it cut off, or of another version?"
        ) from None


def array(node: Any) -> Any:
    """A dataset, to be read by slicing. DataError: it is none, has its values in other files, or is of absurd size."""
    if not hasattr(node, "nbytes"):
        raise DataError(f"{node.file.filename}: {node.name} is a group, not an array; save the file again")
    if node.external or node.is_virtual:
        raise DataError(f"{node.file.filename}: {node.name} keeps its values in other files, which are not read")
    if node.nbytes > LARGEST:
        raise DataError(f"{node.file.filename}: {node.name} declares {node.nbytes / 1e9:.0f} GB, more than is read")
    return node


def text(value: Any) -> str:
    """A string from HDF5, stored as bytes or as text."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
