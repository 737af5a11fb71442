"""status.json: how a trial stands, in words; the driver and the trial's first worker write it."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posesweep.files import read_json, write_json

VERSIONS_OF = ("posesweep", "torch", "timm", "ray", "optuna", "numpy", "opencv-python-headless")


def read_status(folder: Path) -> dict[str, Any]:
    """The trial's status; {} before its first."""
    file = folder / "status.json"
    return read_json(file) if file.is_file() else {}


def write_status(folder: Path, **fields: Any) -> None:
    """Update the named fields of status.json; times are kept here."""
    status = read_status(folder)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status.setdefault("started", now)
    status["ended"] = None if fields.get("state", "running") == "running" else now
    write_json(folder / "status.json", status | fields)


def versions() -> dict[str, str]:
    """What this trial ran with."""
    found = {"python": platform.python_version()}
    for package in VERSIONS_OF:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:  # a checkout that was never installed
            found[package] = "not installed"
    return found
