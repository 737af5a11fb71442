"""Where a trial runs: in this process, in a Tune trial (one worker), or in Ray Train workers (DDP, several nodes).

The same `run_trial` runs in all three; it sees only a `Context`. Ray is imported inside the functions that need it, so
that a debug trial never loads it.
"""

import ctypes
import faulthandler
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posesweep.errors import PoseSweepError
from posesweep.files import read_json, write_json

Report = Callable[[dict[str, Any]], None]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
MALLOC_THRESHOLD_BYTES = 1 << 30
STDERR = 2  # the descriptor: sys.stderr may be another object in a Ray worker


class SupersededError(PoseSweepError):
    """A newer attempt at this trial has begun; this one must not write any more."""


@dataclass(frozen=True)
class Context:
    """One worker of one trial. `report` hands a finished epoch to whoever decides whether the trial goes on; it may
    not return (Tune ends a stopped trial by SystemExit)."""

    folder: Path  # trials/<id>: everything this trial leaves behind
    report: Report
    device: torch.device
    rank: int = 0
    world: int = 1
    attempt: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker writes the files and speaks for the trial."""
        return self.rank == 0

    def check_not_superseded(self) -> None:
        """Raise SupersededError when a newer attempt owns the trial: an orphan of a killed driver must not write."""
        if current_attempt(self.folder) != self.attempt:
            raise SupersededError(
                f"{self.folder.name}: attempt {self.attempt} was superseded; it stops without a trace"
            )


def current_attempt(folder: Path) -> int:
    """The number of the attempt that owns the trial; 0 before the first."""
    file = folder / "attempt.json"
    return int(read_json(file)["attempt"]) if file.is_file() else 0


def begin_attempt(folder: Path) -> int:
    """Take the trial over from any earlier attempt, dead or alive; return the new attempt's number."""
    attempt = current_attempt(folder) + 1
    write_json(folder / "attempt.json", {"attempt": attempt, "pid": os.getpid(), "host": socket.gethostname()})
    return attempt


def default_cache() -> Path:
    """Where this node keeps crop stores: $POSESWEEP_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("POSESWEEP_CACHE") or Path(base) / "posesweep")


def pick_device(local_rank: int = 0) -> torch.device:
    """The GPU of this worker where there is one, else the CPU."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def prepare_process(threads: int, seed: int) -> None:
    """Set what is per process and must be the same wherever a trial runs: threads, allocator, random state.

    Threads never exceed the CPUs the trial holds: two trials with two threads each on two cores run 12 times slower.
    glibc hands large blocks back to the kernel after every step unless its thresholds are raised.
    """
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(M_MMAP_THRESHOLD, MALLOC_THRESHOLD_BYTES)
            libc.mallopt(M_TRIM_THRESHOLD, MALLOC_THRESHOLD_BYTES)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def end_with(driver_pid: int, driver_host: str) -> None:
    """Leave this process within a second of the driver's death, when both are on one machine.

    Ray ends the workers of a killed driver only after up to a minute; until then they would train on for nobody.
    """
    if driver_host != socket.gethostname():
        return

    def watch() -> None:
        while _is_alive(driver_pid):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-driver").start()


def _is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc").is_dir()


@contextmanager
def ended_when_silent(limit_s: float, last_words: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """While in this block, end this process when the function that is handed out was not called for `limit_s` seconds.

    What every thread is doing then goes to standard error, and `last_words` is called. For one worker of a group: the
    others wait for it where no exception reaches them.
    """
    over, heard_s = threading.Event(), time.monotonic()

    def heard() -> None:
        nonlocal heard_s
        heard_s = time.monotonic()

    def watch() -> None:
        while not over.wait(min(1.0, limit_s / 4)):
            if time.monotonic() - heard_s > limit_s:
                faulthandler.dump_traceback(file=STDERR)
                last_words()
                os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-when-silent").start()
    try:
        yield heard
    finally:
        over.set()


def in_this_process(folder: Path, report: Report) -> Context:
    """A trial with one worker, in the current process: a debug trial, `posesweep train`, a (reused) Tune actor."""
    folder.mkdir(parents=True, exist_ok=True)
    return Context(folder, report, pick_device(), attempt=begin_attempt(folder))


def in_ray_train_worker(folder: Path, attempt: int, as_report: Callable[[dict[str, Any]], dict[str, Any]]) -> Context:
    """One of several workers of a trial; the process group is already up. `attempt` was begun by the trial's driver,
    `as_report` says how a row is reported."""
    from ray import train

    ray_context = train.get_context()
    return Context(
        folder,
        report=lambda row: train.report(as_report(row)),
        device=pick_device(torch.cuda.current_device() if torch.cuda.is_available() else 0),
        rank=ray_context.get_world_rank(),
        world=ray_context.get_world_size(),
        attempt=attempt,
    )
