"""Files that are never half there: written beside their place and renamed into it."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and takes `path`'s place, else it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON to `path`, whole or not at all."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """`value` as JSON. NaN and infinity are refused (ValueError): not JSON."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json_lines(path: Path, check: Callable[[dict[str, Any]], bool] = lambda row: True) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file that pass `check`; a torn last line is left out, a missing file is []."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was never finished
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if check(row)]


def append_json_line(path: Path, row: dict[str, Any]) -> None:
    """Append one line and flush it to disk."""
    with path.open("ab") as file:
        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """The JSON value in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_record(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`; None where the file is missing, only partly copied, or holds something else."""
    try:
        value = read_json(path)
    except (FileNotFoundError, ValueError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return None
    return value if isinstance(value, dict) else None


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def trial_folder(sweep_folder: Path, number: int) -> Path:
    """Where a sweep keeps one trial."""
    return sweep_folder / "trials" / f"{number:04d}"
