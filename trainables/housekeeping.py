"""What a sweep needs besides its trials: its disk, what the dead left behind, requests to stop, logs, signs of life.

Everything is a file in the sweep folder, so it works from any machine that sees the folder. No decision is made by
comparing clocks of two machines: times are for people to read.
"""

import errno
import faulthandler
import fcntl
import os
import shutil
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from posesweep.errors import StorageError, SweepError
from posesweep.files import read_json, write_json
from posesweep.trainables.folder import NO_LOCKS, beats

PROBE_BYTES = 2**20
STDOUT, STDERR = 1, 2  # descriptors
LOST_DISK = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full (your quota)",
    errno.EROFS: "is read-only",
    errno.EIO: "has errors",
    errno.ESTALE: "is gone (stale NFS handle)",
}
CHECKPOINTS = ("last", "best", "top")


@dataclass
class Orders:
    """What the driver's housekeeping tells the executor of its trials."""

    halt: str = ""  # why the sweep stops before its end; '' while it goes on
    is_fault: bool = False  # whether there is something to put right before it can go on
    ended: dict[int, str] = field(default_factory=dict)  # trials whose process we have just ended, and why
    errors: dict[int, str] = field(default_factory=dict)  # what a trial last failed of
    max_retries: int = 0
    unstarted: Counter[int] = field(default_factory=Counter)  # how often the process of a trial died before it began
    again: set[int] = field(default_factory=set)  # trials that are therefore to be begun again, after the others

    def stop(self, reason: str, is_fault: bool = False) -> None:
        """Let running epochs end, start nothing more; the first reason stands, '' is none."""
        if not self.halt:
            self.halt, self.is_fault = reason, is_fault

    def unstarted_again(self, number: int) -> None:
        """The process of a trial died before it began. Tune gives such a trial up; we do once it has no retry left."""
        self.unstarted[number] += 1
        if self.unstarted[number] <= self.max_retries:
            self.again.add(number)

    def carry_out(self, name: str) -> None:
        """When all is still: raise StopAskedError or SweepError where the sweep was stopped, and say why."""
        if self.halt:
            raise SweepError(f"{name} stopped: {self.halt}") if self.is_fault else StopAskedError(self.halt)


class StopAskedError(Exception):
    """`posesweep stop`: the sweep ends here for now."""


# --- the disk --------------------------------------------------------------------------------------------------------


def storage_error(folder: Path, error: BaseException) -> StorageError | None:
    """The error to raise in the place of `error` when it comes from a disk that cannot be written; else None.

    Libraries hide the system's error in words of their own, so the disk is asked: one megabyte is written and removed.
    """
    said = getattr(error, "errno", None) or next((n for n in LOST_DISK if os.strerror(n) in str(error)), None)
    number = said if said in LOST_DISK else _probe(folder)
    if number not in LOST_DISK:
        return None
    free = f" ({_free_gb(folder):.2f} GB free)" if number in (errno.ENOSPC, errno.EDQUOT) else ""
    return StorageError(
        f"the disk of {folder} {LOST_DISK[number]}{free}, so nothing could be saved; put that right and repeat the "
        "command: the sweep goes on from the last epochs that were saved"
    )


def _probe(folder: Path) -> int | None:
    """The number of the system's error when `folder` takes no file; None when it does."""
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    probe = place / f".probe.{os.getpid()}.tmp"
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    finally:
        if probe.exists():
            probe.unlink()
    return None


def _free_gb(folder: Path) -> float:
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(place).free / 1e9


def below_floor(folder: Path, floor_gb: float) -> str:
    """Why the disk is too full to go on, in a sentence; '' where there is room."""
    free = _free_gb(folder)
    if free >= floor_gb:
        return ""
    return (
        f"only {free:.2f} GB are free on the disk of {folder}, less than keep.disk_floor_gb ({floor_gb:g}), although "
        "what was not needed has been removed; make room, or lower keep.disk_floor_gb, and repeat the command"
    )


def sweep_up(folder: Path) -> list[Path]:
    """Remove what killed processes left half-written in a sweep folder that this process owns; returns what it was."""
    left = [folder / "ray", *folder.glob(".*.tmp")]
    for trial in folder.glob("*/*"):  # trials/0007, confirm/0007-s101
        left += [*trial.glob(".*.tmp"), *trial.glob("*/.*.tmp"), trial / "ray"]
        left += [trial / f"{name}.new" for name in CHECKPOINTS] + [trial / "best.old", *trial.glob("top/*.new")]
    found = [path for path in left if path.exists() and not path.name.endswith(f".{os.getpid()}.tmp")]
    for path in found:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return found


# --- requests to stop, signs of life ---------------------------------------------------------------------------------


def ask_to_stop(folder: Path) -> dict[str, Any]:
    """Ask the driver of a sweep to let running epochs end and to stop; returns who is asked (pid, host, since).

    Raises SweepError where no driver is at work.
    """
    if not is_driven(folder):
        raise SweepError(f"no process is at work on {folder}, so there is nothing to stop; `posesweep status` shows it")
    write_json(folder / "stop.json", {"asked": _now(), "pid": os.getpid(), "host": socket.gethostname()})
    return holder(folder)


def stop_request(folder: Path) -> str:
    """Who asked for a stop, and when, in words; '' when nobody did."""
    file = folder / "stop.json"
    if not file.is_file():
        return ""
    asked = read_json(file)
    return f"stopped as `posesweep stop` on {asked['host']} asked at {asked['asked']}"


def is_driven(folder: Path) -> bool:
    """Whether a process holds the sweep's lease, here or (NFS included) on any machine that sees the folder. On a disk
    without locks its heartbeat is waited for, where one was not given back."""
    file = folder / "lease.json"
    if not file.is_file():
        return False
    with file.open("rb") as lease:
        try:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return True
            if error.errno in NO_LOCKS:
                return beats(file)
            raise
    return False


def holder(folder: Path) -> dict[str, Any]:
    """Who wrote the lease: pid, host, since; {} where that cannot be read."""
    try:
        return dict(read_json(folder / "lease.json"))
    except (OSError, ValueError):
        return {}


def write_driver(folder: Path, **facts: Any) -> None:
    """What only the driver knows, for `posesweep status`: driver.json, with the time it was last written."""
    write_json(folder / "driver.json", {"host": socket.gethostname(), "pid": os.getpid(), "at": _now(), **facts})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- logs ------------------------------------------------------------------------------------------------------------


@contextmanager
def logged_to(file: Path, title: str, stall_s: float | None = None) -> Iterator[None]:
    """While in this block, everything this process prints goes to the end of `file`, libraries' output included.

    An error that leaves the block is written there with its traceback. Unless `heard()` is called every `stall_s`
    seconds, the file also gets what every thread is doing: where a hanging trial hangs.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8", buffering=1) as log:
        log.write(f"--- {_now()} {title}, process {os.getpid()} on {socket.gethostname()}\n")
        with _standard_streams_to(log), redirect_stdout(log), redirect_stderr(log):
            heard(stall_s)
            try:
                yield
            except Exception:
                traceback.print_exc()
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()
                log.write(f"--- {_now()} this attempt ends\n")


def heard(stall_s: float | None) -> None:
    """The trial gives a sign of life: its traceback is wanted only `stall_s` seconds from now."""
    if stall_s is not None:
        faulthandler.dump_traceback_later(stall_s, file=STDERR)


@contextmanager
def _standard_streams_to(log: TextIO) -> Iterator[None]:
    """At the descriptors, so that what compiled code prints is caught as well."""
    kept = {number: os.dup(number) for number in (STDOUT, STDERR)}
    _flush()
    for number in kept:
        os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
