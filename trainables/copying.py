"""A copy of the sweep folder in a bucket or on another disk, for machines that do not last: `keep: {copy_to: s3://...}`.

A thread of the process that runs the sweep brings the copy up to date every few minutes and at the end; the same
command on a new machine, where there is no folder yet, goes on from it. Trials themselves write to the folder only.

At every moment the copy is a state from which the sweep can go on, wherever a copying broke off. An object is replaced
whole. A checkpoint, `last/`, is one object: `last.tar`. The journal and how each trial stands are read first and
written last, so they never tell of what is not there yet.
"""

import io
import json
import os
import socket
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from posesweep.errors import ConfigError, SweepError
from posesweep.files import read_json, replacing, to_json, write_json
from posesweep.search_spaces.space import Sweep

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

OBJECT_STORES = ("s3", "gcs", "abfs")  # without folders, and an object appears whole or not at all
BLOCK_BYTES = 2**22
MARKER = "copy.json"  # in the copy: who wrote it last; in the folder: what of it has been copied
CHECKPOINT, ARCHIVE = "last", "last.tar"
JOURNAL = "journal.log"
TOLD_LAST = (JOURNAL, "status.json")
OF_THIS_MACHINE = (MARKER, "lease.json", "stop.json", "driver.json")
PASSING = (".tmp", ".new", ".old", ".lock")  # ends of names of what is half-written or done with

Say = Callable[[str], None]


@contextmanager
def copied(sweep: Sweep, folder: Path, say: Say = print) -> Iterator[None]:
    """While in this block, `folder` is copied to where the sweep file says; nothing happens where it says nothing.

    First, a folder in which no sweep was begun is filled from the copy. Raises ConfigError for a place that cannot be
    written, SweepError when what lies there is no copy, or is ahead of the folder.
    """
    if sweep.keep.copy_to is None:
        yield
        return
    copy = Copy.open(sweep.keep.copy_to, sweep.name)
    copy.take_over(folder, say)
    keeper = Keeper(copy, folder, say, 60 * sweep.keep.copy_minutes)
    try:
        yield
    finally:
        keeper.close()


class Keeper:
    """The thread that brings the copy up to date."""

    def __init__(self, copy: "Copy", folder: Path, say: Say, every_s: float) -> None:
        self._copy, self._folder, self._say, self._every_s = copy, folder, say, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="copy")
        self._thread.start()

    def close(self) -> None:
        """Copy the rest, however long it takes."""
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        from pyarrow import ArrowException

        trouble, over = "", False
        while not over:
            over = self._over.wait(self._every_s)  # then once more
            before, trouble = trouble, ""
            try:
                self._copy.bring_up_to_date(self._folder)
            except SweepError as error:
                self._say(f"note: nothing more is copied: {error}")
                return
            except (ArrowException, OSError) as error:  # the sweep is worth more than its copy
                trouble = first_line(error)
            if trouble and trouble != before and not over:
                self._say(f"note: {self._copy} could not be brought up to date ({trouble}); it is tried again")
        self._say(
            f"note: the copy {self._copy} lacks what is newest ({trouble}); nothing is lost in {self._folder}, and the "
            "same command copies the rest"
            if trouble
            else f"copy: {self._copy} is up to date"
        )


class Copy:
    """A sweep's copy at `root` of a file system of Arrow."""

    def __init__(self, files: "FileSystem", root: str, shown: str) -> None:
        self.files, self.root, self.shown = files, root.rstrip("/"), shown
        self.by = uuid4().hex  # who writes, in the marker

    def __str__(self) -> str:
        return self.shown

    @classmethod
    def open(cls, place: str, name: str) -> "Copy":
        """The copy of sweep `name` below `place`: s3://bucket/runs, gs://bucket/runs, or a folder.

        ConfigError where nothing can be written there."""
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        where, _, options = place.partition("?")
        shown = f"{where.rstrip('/')}/{name}"
        if "://" in place and ("@" in where or "key=" in options):
            raise ConfigError(
                "keep.copy_to: has a key in it, and the sweep file is kept for others to read; take it out, and give "
                "the key as the bucket's own tools take it, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        probe = f".probe.{socket.gethostname()}.tmp"
        try:
            files, path = FileSystem.from_uri(place if "://" in place else str(Path(place).expanduser().absolute()))
            copy = cls(files, f"{path.rstrip('/')}/{name}", shown)
            copy.write(probe, b"")
            copy.remove(probe)
        except (ArrowException, OSError) as error:
            raise ConfigError(
                f"keep.copy_to: {shown} cannot be written ({first_line(error)}); give a bucket that this machine may "
                "write, such as s3://bucket/runs or gs://bucket/runs, or a folder"
            ) from error
        return copy

    # --- objects -----------------------------------------------------------------------------------------------------

    def write(self, name: str, content: bytes) -> None:
        """One object, whole."""
        self._put(name, io.BytesIO(content))

    def remove(self, name: str) -> None:
        """One object, where it is there."""
        with suppress(FileNotFoundError):
            self.files.delete_file(f"{self.root}/{name}")

    def names(self) -> list[str]:
        """Of all objects, below the root."""
        from pyarrow.fs import FileSelector, FileType

        found = self.files.get_file_info(FileSelector(self.root, recursive=True, allow_not_found=True))
        names = [info.path.removeprefix(f"{self.root}/") for info in found if info.type == FileType.File]
        return [name for name in names if not name.endswith(PASSING)]

    def marker(self) -> dict[str, Any]:
        """{"number": how often the copy was written, "by", "host", "at": who last did, and when}; {} without a copy."""
        try:
            with self.files.open_input_stream(f"{self.root}/{MARKER}") as stream:
                return dict(json.loads(stream.read()))
        except FileNotFoundError:
            return {}

    def _put(self, name: str, file: Any) -> None:
        path = f"{self.root}/{name}"
        is_store = self.files.type_name in OBJECT_STORES
        target = path if is_store else f"{path}.tmp"
        if not is_store:
            self.files.create_dir(str(PurePosixPath(path).parent), recursive=True)
        with self.files.open_output_stream(target) as stream:
            while block := file.read(BLOCK_BYTES):
                stream.write(block)
        if target != path:
            self.files.move(target, path)

    # --- the whole ---------------------------------------------------------------------------------------------------

    def take_over(self, folder: Path, say: Say) -> None:
        """From now on this process writes the copy. A folder in which no sweep was begun is filled from it; where there
        is nothing to go on from, because the first copying broke off, the copy is emptied.

        SweepError for files that are no copy, and for one with which another machine has gone on."""
        names, there, begun = self.names(), self.marker(), (folder / JOURNAL).is_file()
        if names and not there:
            raise SweepError(
                f"{self} holds files that are no copy of a sweep, such as {names[0]}; remove them, or give "
                "keep.copy_to another place"
            )
        if begun and there.get("number", 0) > _known(folder)["number"]:
            raise SweepError(
                f"{self} is ahead of {folder}: {there['host']} went on with it at {there['at']}; to go on from there, "
                f"move {folder} away, else give the sweep another name:"
            )
        if not begun and JOURNAL in names:
            say(f"{folder} is fetched from {self}")
            self.fetch(folder)
        elif not begun:
            for name in names:
                self.remove(name)
        known = _known(folder)
        self._mark(folder, known["number"] + 1, known["files"])

    def bring_up_to_date(self, folder: Path) -> int:
        """Copy what is new in the folder, remove what is gone from it; returns how many objects were written.

        SweepError when another process has taken it over."""
        there = self.marker()
        if there.get("by") != self.by:
            raise SweepError(f"{there.get('host', 'somebody')} has taken {self} over; two must not train one sweep")
        known = _known(folder)
        read = {path: _read(folder, path) for path in _objects(folder) if Path(path).name in TOLD_LAST}
        now = {path: _state(folder, path) for path in _objects(folder)} | {path: had[0] for path, had in read.items()}
        new = [path for path, state in now.items() if state is not None and known["files"].get(path) != state]
        gone = [path for path in known["files"] if now.get(path) is None]
        if not new and not gone:
            return 0
        files = {path: state for path, state in known["files"].items() if path not in (*new, *gone)}
        for path in sorted(new, key=read.__contains__):
            if path in read:
                self.write(path, read[path][1])
            elif not self._put_from(folder, path):
                continue  # it has just gone, or been replaced: the next time
            files[path] = now[path]
        for path in gone:
            self.remove(path)
        self._mark(folder, known["number"] + 1, files)
        return len(new)

    def fetch(self, folder: Path) -> None:
        """Fill the folder from the copy."""
        number, names = self.marker()["number"], [name for name in self.names() if name != MARKER]
        for name in sorted(names, key=lambda name: Path(name).name in TOLD_LAST):  # cut off, it is fetched again
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise SweepError(f"{self} holds {name}, which would lie outside {folder}; it is not a copy of ours")
            with self.files.open_input_stream(f"{self.root}/{name}") as stream:
                if Path(name).name == ARCHIVE:
                    _unpack(stream, (folder / name).with_name(CHECKPOINT))
                    continue
                with replacing(folder / name) as temporary, temporary.open("wb") as file:
                    while block := stream.read(BLOCK_BYTES):
                        file.write(block)
        write_json(folder / MARKER, {"number": number, "files": {name: _state(folder, name) for name in names}})

    def _mark(self, folder: Path, number: int, files: dict[str, Any]) -> None:
        """The folder first: cut off between the two, it is not behind its copy."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / MARKER, {"number": number, "files": files})
        facts = {"number": number, "by": self.by, "host": socket.gethostname(), "at": at}
        self.write(MARKER, to_json(facts).encode())

    def _put_from(self, folder: Path, path: str) -> bool:
        """Copy one object from the folder; False when it is no longer there as a whole."""
        try:
            if Path(path).name == ARCHIVE:
                with tempfile.TemporaryFile() as archive:
                    _pack((folder / path).with_name(CHECKPOINT), archive)
                    archive.seek(0)
                    self._put(path, archive)
            else:
                with (folder / path).open("rb") as file:
                    self._put(path, file)
        except FileNotFoundError:
            return False
        return True


def _known(folder: Path) -> dict[str, Any]:
    """What the folder knows of its copy: its number, and each object's state when it was copied."""
    file = folder / MARKER
    return dict(read_json(file)) if file.is_file() else {"number": 0, "files": {}}


def _files(folder: Path) -> list[str]:
    """The files of a sweep that are to be copied, below its folder."""
    found = []
    for place, folders, names in os.walk(folder):
        below = Path(place).relative_to(folder)
        folders[:] = [
            name for name in folders if name != "ray" and not name.endswith(PASSING) and not name.startswith(".")
        ]
        found += [
            (below / name).as_posix()
            for name in names
            if name not in OF_THIS_MACHINE and not name.startswith(".") and not name.endswith(PASSING)
        ]
    return sorted(found)


def _objects(folder: Path) -> list[str]:
    """What they are in the copy: a checkpoint's files are one."""
    return sorted({_object(path) for path in _files(folder)})


def _object(path: str) -> str:
    parts = PurePosixPath(path)
    return str(parts.parent.with_name(ARCHIVE)) if parts.parent.name == CHECKPOINT else path


def _state(folder: Path, path: str) -> list[int] | None:
    """An object's bytes and time of change; None when it is not there. A checkpoint changes as a whole."""
    file = folder / path
    try:
        stat = (file.with_name(CHECKPOINT) / "state.json" if file.name == ARCHIVE else file).stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _read(folder: Path, path: str) -> tuple[list[int] | None, bytes]:
    """An object's state and then its content, which is not older."""
    return _state(folder, path), (folder / path).read_bytes()


def _pack(checkpoint: Path, archive: Any) -> None:
    """A checkpoint as one file. It is opened once, so that it is the same one throughout, whatever takes its place.

    FileNotFoundError when it is removed meanwhile."""
    place = os.open(checkpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in sorted(os.listdir(place)):  # noqa: PTH208  a descriptor, not a path
                with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=place), "rb") as file:
                    info = tarfile.TarInfo(name)
                    info.size = os.fstat(file.fileno()).st_size
                    tar.addfile(info, file)
    finally:
        os.close(place)


def _unpack(stream: Any, checkpoint: Path) -> None:
    """The files of an archive, none of which may leave the checkpoint's folder."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        tar.extractall(checkpoint, filter="data")


def first_line(error: Exception) -> str:
    """Of what it says; libraries add pages."""
    return str(error).strip().partition("\n")[0]
