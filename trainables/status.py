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


def write_status(folder: Path, *, idle: bool = False, **fields: Any) -> None:
    """Update the named fields of status.json. Times are kept here: when the trial was first started and last ended, and
    in `held_s` for how many seconds it was running, up to `held_until` (Unix time). `idle`: it was not since then, as
    whatever trained it was gone."""
    status = read_status(folder)
    now = datetime.now(UTC)
    status.setdefault("started", now.isoformat(timespec="seconds"))
    status["ended"] = None if fields.get("state", "running") == "running" else now.isoformat(timespec="seconds")
    held_s = status.get("held_s", 0.0)
    if status.get("state") == "running" and "held_until" in status and not idle:
        held_s += max(0.0, now.timestamp() - status["held_until"])  # another machine may have written it
    status |= {"held_s": round(held_s, 3), "held_until": now.timestamp()}
    write_json(folder / "status.json", status | fields)


def write_outcome(folder: Path, state: str, reason: str, *, idle: bool = False) -> None:
    """How the search has a trial that does not run; without a reason the trial's own words stay."""
    words: dict[str, Any] = {"reason": reason} if reason else {}
    write_status(folder, idle=idle, state=state, **words)


def versions() -> dict[str, str]:
    """What this trial ran with."""
    found = {"python": platform.python_version()}
    for package in VERSIONS_OF:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:  # a checkout that was never installed
            found[package] = "not installed"
    return found
