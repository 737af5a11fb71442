"""Folders in a cache that processes and machines share: built once, never seen half done, removed when long unused.

A store is a folder that appears by being renamed, complete, into its place: whoever is first wins. Three files or
folders may lie beside `<store>`:

<store>.lock                               held shared by everyone who uses the store, exclusively by who builds it or
                                           takes it away. It saves double work and keeps what is used from being
                                           removed; where locks do not reach other machines, nothing else depends on it
<store>.<host>-<pid>-<random>.unfinished   a build, or a store on its way out; nobody else's
<store>/used                               its time is when the store was last opened, or its builder last alive
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from posesweep.errors import DataError

IDLE_S = 3600.0  # a store used within this time, or a folder written to within it, may still have an owner
NAMES = re.compile(r"(crops|checked)-[0-9a-f]{24}")
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # a file system without them


class Lease:
    """A lock that is held until `close`, or until the process ends. Also a context manager."""

    def __init__(self, descriptor: int, real: bool) -> None:
        self._descriptor = descriptor
        self.real = real  # False: this file system has no locks

    def close(self) -> None:
        """Let go; again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_or_build(folder: Path, build: Callable[[Path], None]) -> Lease:
    """A shared lease on the store `folder`, which `build(unfinished)` fills first if it is not there.

    Where locks work one process builds and the others wait; where they do not, each builds and the first to finish
    wins. Raises DataError when the cache cannot be written, and whatever `build` raises (nothing is left then).
    """
    while True:
        lease = _waited_for(folder, fcntl.LOCK_SH)
        if _mark_used(folder):
            return lease
        lease.close()
        with _waited_for(folder, fcntl.LOCK_EX) as lease:
            if not folder.is_dir():  # else another built it while this one waited
                _remove_leftovers(folder, lease)
                _build(folder, build)


def _mark_used(folder: Path) -> bool:
    """Note that the store is opened now; False when there is none."""
    try:
        (folder / "used").touch()
    except FileNotFoundError:
        return False
    return True


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    """Build beside the place and rename. Nothing is put there when another machine was first, or took what was
    unfinished for a dead one's: then `used`, the first file in it, is gone."""
    unfinished = _beside(folder)
    unfinished.mkdir()
    (unfinished / "used").touch()
    try:
        build(unfinished)
        if (unfinished / "used").is_file():
            unfinished.rename(folder)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def say_alive(unfinished: Path) -> None:
    """Keep other machines from taking what is being built for a dead builder's; at least once an hour."""
    with suppress(FileNotFoundError):  # taken away: seen when the build is done
        os.utime(unfinished / "used")


def _beside(folder: Path) -> Path:
    """A name that no other process, here or elsewhere, uses."""
    return folder.with_name(f"{folder.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.unfinished")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())


def _remove_leftovers(folder: Path, lease: Lease) -> None:
    """Take away what dead builders of `folder` left; called with its exclusive lock."""
    for unfinished in folder.parent.glob(f"{folder.name}.*.unfinished"):
        if _is_dead(unfinished, lease):
            _take_away(unfinished, folder)


def _is_dead(unfinished: Path, lease: Lease) -> bool:
    """Whether nobody works on it, given the exclusive lock of its store.

    Builders of this machine hold that lock. Another machine's is dead once it was silent for an hour."""
    of_this_machine = unfinished.name.split(".", 1)[1].startswith(f"{_host()}-")
    return (lease.real and of_this_machine) or idle_s(unfinished) >= IDLE_S


def _waited_for(folder: Path, kind: int) -> Lease:
    lease = _lock(folder, kind)
    assert lease is not None, "only a lock that is not waited for can be refused"
    return lease


def _lock(folder: Path, kind: int) -> Lease | None:
    """The store's lock; None when `kind` says not to wait and another process holds it."""
    path = folder.with_name(f"{folder.name}.lock")
    while True:
        lease = _locked(path, kind)
        if lease is None or _is_still(path, lease):
            return lease
        lease.close()  # removed together with its store while this process waited: it would lock out nobody


def _locked(path: Path, kind: int) -> Lease | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise DataError(
            f"{path.parent}: the cache cannot be written ({error.strerror}); set POSESWEEP_CACHE to another folder"
        ) from error
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        return Lease(descriptor, real=False)
    return Lease(descriptor, real=True)


def _is_still(path: Path, lease: Lease) -> bool:
    try:
        return os.path.samestat(os.fstat(lease._descriptor), path.stat())
    except FileNotFoundError:
        return False


# -------------------------------------------------------------------------------------------------- what a cache holds


@dataclass(frozen=True)
class Entry:
    """One store (or what an unfinished one left)."""

    folder: Path
    size: int  # bytes
    idle_s: float  # since it was last opened

    @property
    def finished(self) -> bool:
        """Whether it is a store."""
        return self.folder.suffix != ".unfinished"


def entries(cache: Path) -> list[Entry]:
    """Everything in `cache` that is a store or was to become one, the longest unused first."""
    found = [path for path in cache.glob("*-*") if NAMES.match(path.name) and path.is_dir()]
    listed = [Entry(path, _size(path), idle_s(path)) for path in found]
    return sorted(listed, key=lambda entry: -entry.idle_s)


def _size(folder: Path) -> int:
    total = 0
    for file in folder.glob("*"):
        with suppress(FileNotFoundError):  # removed meanwhile
            total += file.stat().st_size
    return total


def idle_s(folder: Path) -> float:
    """Seconds since a store was opened, or an unfinished one said that its builder lives."""
    for path in (folder / "used", folder):
        with suppress(FileNotFoundError):
            return max(0.0, time.time() - path.stat().st_mtime)
    return 0.0


def make_room(folder: Path, needed: int, most: int) -> bool:
    """Whether the store `folder` of `needed` bytes may be built, all stores beside it together having at most `most`.

    Stores that nobody holds and nobody opened within the last hour are removed for it, the longest unused first; none
    is when that would not do.
    """
    others = [entry for entry in entries(folder.parent) if not entry.folder.name.startswith(folder.name)]
    too_much = needed + sum(entry.size for entry in others) - most
    old = [entry for entry in others if entry.idle_s >= IDLE_S]
    if too_much > sum(entry.size for entry in old):
        return False
    for entry in old:
        if too_much > 0 and remove(entry):
            too_much -= entry.size
    return too_much <= 0


def remove(entry: Entry) -> bool:
    """Take a store away, or what is left of one, unless a process uses it or builds it; whether it is gone now."""
    store = entry.folder.with_name(entry.folder.name.partition(".")[0])
    lease = _lock(store, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if lease is None:
        return False
    with lease:
        if entry.finished and not lease.real and entry.idle_s < IDLE_S:
            return False
        if not entry.finished and not _is_dead(entry.folder, lease):
            return False
        _take_away(entry.folder, store)
        if not store.is_dir():
            store.with_name(f"{store.name}.lock").unlink(missing_ok=True)
    return True


def _take_away(folder: Path, store: Path) -> None:
    leaving = _beside(store)
    with suppress(FileNotFoundError):  # another process was first
        folder.rename(leaving)  # in one moment: nobody finds half a store
    shutil.rmtree(leaving, ignore_errors=True)


def remove_idle_locks(cache: Path) -> None:
    """Remove the lock files of stores that never came to be."""
    for path in cache.glob("*.lock"):
        store = path.with_suffix("")
        if NAMES.fullmatch(store.name) and not store.is_dir():
            lease = _lock(store, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lease is not None:
                with lease:
                    path.unlink(missing_ok=True)
