"""The sweep folder: who owns it, what it was started with, which checkpoints stay."""

import errno
import fcntl
import itertools
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from posesweep.errors import SweepError
from posesweep.files import read_json, trial_folder, write_json, write_text
from posesweep.search_spaces.space import Sweep, differences
from posesweep.trainables.stopping import BASELINE

BEAT_S = 5.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # Lustre without -o flock, some FUSE disks


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Own the sweep folder while in this block; the kernel gives it back when this process dies, however it dies.

    Linux carries these locks to other hosts over NFS. On a disk without locks the owner rewrites lease.json every five
    seconds, and who comes later watches it for a while: no two clocks are compared.
    Raises SweepError when another living process owns the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lease.json").open("a+", encoding="utf-8") as file:
        locked = _lock(file, folder)
        if not locked and beats(folder / "lease.json"):
            raise SweepError(_in_use(folder, file))
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        json.dump(mine, file)
        file.flush()
        with nullcontext() if locked else _beating(folder / "lease.json", mine):
            (folder / "stop.json").unlink(missing_ok=True)  # asked of another
            try:
                yield
            finally:
                (folder / "stop.json").unlink(missing_ok=True)


def _lock(file: TextIO, folder: Path) -> bool:
    """Lock the lease; False where the disk has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SweepError(_in_use(folder, file)) from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return True


def _in_use(folder: Path, file: TextIO) -> str:
    file.seek(0)
    holder = json.loads(file.read() or "{}")
    stop = (
        f", or `posesweep stop {folder}`" if (folder / "driver.json").is_file() else ""
    )  # what else trains hears none
    return (
        f"{folder} is in use by process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')}); "
        f"wait until it ends{stop}, then repeat the command"
    )


def beats(lease: Path) -> bool:
    """Whether a process rewrites the lease, on a disk without locks: it is watched for a while. One that was given
    back, or never held, needs no watching."""
    before = lease.read_bytes()
    if b'"beat"' not in before:
        return False
    end = time.monotonic() + 3 * BEAT_S
    while time.monotonic() < end:
        if lease.read_bytes() != before:
            return True
        time.sleep(BEAT_S / 10)
    return False


@contextmanager
def _beating(lease: Path, mine: dict[str, Any]) -> Iterator[None]:
    """Rewrite the lease for as long as the block lasts; at its end nobody holds it."""
    over = threading.Event()

    def beat() -> None:
        for number in itertools.count(1):
            if over.wait(BEAT_S):
                return
            write_json(lease, {**mine, "beat": number})

    write_json(lease, {**mine, "beat": 0})
    thread = threading.Thread(target=beat, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        write_json(lease, mine)


FREE_TO_CHANGE = ("confirm", "budget", "failure", "keep", "track")  # blocks that no result of a trial depends on


def refuse_changes(sweep: Sweep, folder: Path) -> None:
    """SweepError naming every difference when the folder holds a sweep that was started with another file.

    What decides nothing of the trials that were trained may change: budget, failure, keep and track; what confirm
    trains again, before it has begun; the test split, before it was used.
    """
    changed = changes(sweep, folder)
    begun = [line for line in changed if _block(line) == "confirm"] if has_begun(folder, "confirm") else []
    if begun:
        raise SweepError(
            f"{folder}: confirm was begun and stays as it is ({'; '.join(begun)}); put it back, or remove "
            f"{folder / 'confirm'} to confirm anew"
        )
    tested = [line for line in changed if _is_of_test(line)] if (folder / "test.json").is_file() else []
    if tested:
        raise SweepError(
            f"{folder}: the test split was used already ({folder / 'test.json'}), and another one would be chosen by "
            f"its outcome ({'; '.join(tested)}); put it back"
        )
    changed = [line for line in changed if _block(line) not in FREE_TO_CHANGE and not _is_of_test(line)]
    if changed:
        longer = any(line.startswith("search.trials") for line in changed)
        raise SweepError(
            f"{folder} holds a sweep of the same name with other settings; give the changed one another name:, or put "
            f"these back{' (more trials: --extend N)' if longer else ''}:\n"
            + "\n".join(f"  {line}" for line in changed)
        )


def changes(sweep: Sweep, folder: Path) -> list[str]:
    """What is other in the sweep than in the file it was started with: 'search.trials: 60 -> 80'."""
    record = folder / "sweep.yaml"
    return differences(record.read_text(encoding="utf-8"), sweep.text) if record.is_file() else []


def _block(line: str) -> str:
    return line.partition(":")[0].partition(".")[0]


def _is_of_test(line: str) -> bool:
    return line.partition(":")[0] in ("data.test", "data.test_images")


def has_begun(folder: Path, what: str) -> bool:
    """Whether any training of `what`, such as confirm, was begun."""
    return any((folder / what).glob("*/status.json"))


def record_sweep(sweep: Sweep, folder: Path) -> None:
    """Keep the sweep file in the folder, as it was when the sweep began, with what may change as it is now."""
    if not (folder / "sweep.yaml").is_file() or changes(sweep, folder):
        write_text(folder / "sweep.yaml", sweep.text)


def record_split(folder: Path, record: dict) -> None:
    """Freeze the split in split.json; SweepError when the data are no longer those the sweep began with."""
    file = folder / "split.json"
    if file.is_file() and (before := read_json(file)["hash"]) != record["hash"]:
        raise SweepError(
            f"the data changed since {folder} was started (split {before}, now {record['hash']}), so its trials could "
            "not be compared with new ones; give the sweep another name:, or put the data back"
        )
    write_json(file, record)


def spared(sweep: Sweep) -> list[int]:
    """The trials whose weights stay in any case: those that a test split needs in the end."""
    return [BASELINE] if sweep.data.test is not None else []


def thin_checkpoints(folder: Path, ended: Collection[int], keep: Collection[int]) -> None:
    """Remove the weights of ended trials that are not to be kept; metrics, evidence and config stay. Of those that are,
    the checkpoint before the last goes: it was for a training that may be cut off."""
    for number in set(ended) & set(keep):
        shutil.rmtree(trial_folder(folder, number) / "last.old", ignore_errors=True)
    for number in set(ended) - set(keep):
        remove_checkpoints(trial_folder(folder, number))


def remove_checkpoints(trial: Path) -> None:
    """Remove the weights of one training."""
    remove_last(trial)
    for checkpoint in ("best", "best.new", "best.old", "top"):
        shutil.rmtree(trial / checkpoint, ignore_errors=True)


def remove_last(trial: Path) -> None:
    """Remove what one training would go on from."""
    for checkpoint in ("last", "last.new", "last.old"):
        shutil.rmtree(trial / checkpoint, ignore_errors=True)
