"""A copy of the sweep folder in a bucket or on another disk, for machines that do not last: `keep: {copy_to: s3://...}`.

A thread of the process that runs the sweep brings the copy up to date every few minutes and at the end; the same
command on a new machine, where there is no folder yet, goes on from it. Trials themselves write to the folder only.

At every moment the copy is a state from which the sweep can go on, although trials write while it is made, and wherever
it breaks off. A training writes in each epoch its best weights and evidence, then `last/`, `metrics.jsonl`,
`status.json`, and is then heard of in the journal. Here they are read in the opposite order and written in that one, so
nothing in the copy tells of what is not there yet; what is there too early is written again, equally, by the training
that goes on. `last/` is one object, `last.tar`. Each object is first read to its end and put in its place as a whole.
"""

import io
import json
import os
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import ESTALE
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from posesweep.errors import ConfigError, SweepError
from posesweep.files import read_json, replacing, to_json, write_json
from posesweep.search_spaces.space import Sweep

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

BLOCK_BYTES = 2**22
IN_MEMORY_BYTES = 2**25  # of one object; a larger one is read into a temporary file
NO_ANSWER_S = 60  # from Google's store, which would else be tried for a quarter of an hour
MARKER = "copy.json"  # in the copy: who wrote it last; in the folder: what of it has been copied, and where to
CHECKPOINT, ARCHIVE = "last", "last.tar"
JOURNAL = "journal.log"
TOLD = ("metrics.jsonl", "status.json")  # in the order in which a training writes them, after its checkpoint
OF_THIS_MACHINE = (MARKER, "lease.json", "stop.json", "driver.json")
PASSING = (".tmp", ".new", ".old", ".lock")  # ends of names of what is half-written or done with
SWAP_S, TRIES = 0.05, 3  # a folder that takes another's place is gone for less

State = list[int]  # bytes, time of change in ns
Say = Callable[[str], object]


@contextmanager
def copied(sweep: Sweep, folder: Path, say: Say = print) -> Iterator[None]:
    """While in this block, `folder` is copied to where the sweep file says; nothing happens where it says nothing.

    First, a folder in which no sweep was begun is filled from the copy. Raises ConfigError for a place that cannot be
    written, SweepError when what lies there is no copy, is ahead of the folder, or cannot be fetched.
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
        trouble, over = "", False
        while not over:
            over = self._over.wait(self._every_s)  # then once more
            before, trouble = trouble, ""
            try:
                self._copy.bring_up_to_date(self._folder)
            except SweepError as error:
                self._say(f"note: nothing more is copied: {error}")
                return
            except Exception as error:  # noqa: BLE001  whatever goes wrong with a copy, the sweep is worth more
                trouble = first_line(error)
            if trouble and trouble != before and not over:
                self._say(f"note: {self._copy} could not be brought up to date ({trouble}); it is tried again")
        self._say(
            f"note: the copy {self._copy} lacks what is newest ({trouble}); nothing is lost in {self._folder}, and the "
            "same command copies the rest"
            if trouble
            else f"copy: {self._copy} is up to date"
        )


@dataclass
class Taken:
    """An object as it was at one moment."""

    path: str
    state: State
    content: IO[bytes]


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
        if "://" in place and (_has_key(where) or "key=" in options):
            raise ConfigError(
                "keep.copy_to: has a key in it, and the sweep file is kept for others to read; take it out, and give "
                "the key as the bucket's own tools take it, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if place.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in options:
            place = f"{where}?{'&'.join(filter(None, [options, f'retry_limit_seconds={NO_ANSWER_S}']))}"
        probe = f".probe.{socket.gethostname()}.tmp"
        try:
            files, path = FileSystem.from_uri(place if "://" in place else str(Path(place).expanduser().absolute()))
            copy = cls(files, f"{path.rstrip('/')}/{name}", shown)
            copy.put(probe, io.BytesIO())
            copy.remove(probe)
        except (ArrowException, OSError) as error:
            raise ConfigError(
                f"keep.copy_to: {shown} cannot be written ({first_line(error)}); give a bucket that this machine may "
                "write, such as s3://bucket/runs or gs://bucket/runs, or a folder"
            ) from error
        return copy

    # --- objects -----------------------------------------------------------------------------------------------------

    def put(self, name: str, content: Any) -> None:
        """One object, whole or not at all: closing a stream after an error would leave the part that was written."""
        path = f"{self.root}/{name}"
        if self.files.type_name == "local":
            self.files.create_dir(str(PurePosixPath(path).parent), recursive=True)
        with self.files.open_output_stream(f"{path}.tmp") as stream:
            while block := content.read(BLOCK_BYTES):
                stream.write(block)
        self.files.move(f"{path}.tmp", path)

    def remove(self, name: str) -> None:
        """One object, where it is there."""
        with suppress(FileNotFoundError):
            self.files.delete_file(f"{self.root}/{name}")

    def names(self) -> set[str]:
        """Of all objects, below the root."""
        from pyarrow.fs import FileSelector, FileType

        found = self.files.get_file_info(FileSelector(self.root, recursive=True, allow_not_found=True))
        names = (info.path.removeprefix(f"{self.root}/") for info in found if info.type == FileType.File)
        return {name for name in names if not name.endswith(PASSING)}

    def marker(self) -> dict[str, Any]:
        """{"number": how often the copy was written, "by", "host", "at": who last did, and when}; {} without a copy."""
        try:
            with self.files.open_input_stream(f"{self.root}/{MARKER}") as stream:
                return dict(json.loads(stream.read()))
        except FileNotFoundError:
            return {}

    # --- the whole ---------------------------------------------------------------------------------------------------

    def take_over(self, folder: Path, say: Say) -> None:
        """From now on this process writes the copy. A folder in which no sweep was begun is filled from it; where there
        is nothing to go on from, because the first copying broke off, the copy is emptied.

        ConfigError for a place that has to do with the folder itself; SweepError for files that are no copy, for one
        with which another machine has gone on, and for one that cannot be fetched."""
        from pyarrow import ArrowException

        if self.files.type_name == "local":
            root, here = Path(self.root).resolve(), folder.resolve()
            if root.is_relative_to(here) or here.is_relative_to(root):
                raise ConfigError(f"keep.copy_to: {self} and the sweep folder lie in each other; give another place")
        try:
            self._take_over(folder, say)
        except (ArrowException, OSError, tarfile.TarError, ValueError, KeyError) as error:
            raise SweepError(
                f"{self} could not be taken over ({type(error).__name__}: {first_line(error)}); put that right and "
                "repeat the command, or go on without it: keep.copy_to=null"
            ) from error

    def _take_over(self, folder: Path, say: Say) -> None:
        names, there, begun = self.names(), self.marker(), (folder / JOURNAL).is_file()
        if names and not there:
            raise SweepError(
                f"{self} holds files that are no copy of a sweep, such as {min(names)}; remove them, or give "
                "keep.copy_to another place"
            )
        if begun and there and there["number"] > self._known(folder)["number"]:
            raise SweepError(
                f"{self} is ahead of {folder}: {there['host']} went on with it at {there['at']}; to go on from there, "
                f"move {folder} away, else give the sweep another name:"
            )
        if not begun and JOURNAL in names:
            say(f"{folder} is fetched from {self}")
            self._fetch(folder, names - {MARKER}, there["number"])
        elif not begun:
            for name in names:
                self.remove(name)
        known = self._known(folder)
        self._mark(folder, known["number"] + 1, {n: state for n, state in known["files"].items() if n in names})

    def bring_up_to_date(self, folder: Path) -> int:
        """Copy what is new in the folder, remove what is gone from it; returns how many objects were written.

        SweepError when another process has taken it over."""
        there = self.marker()
        self._check_ours(there)
        known = self._known(folder)
        files: dict[str, State] = dict(known["files"]) if there else {}  # without a marker, all is written anew
        before = _objects(folder)
        journal = _taken(folder, JOURNAL, files, before)
        written = 0
        for training in sorted({"/".join(PurePosixPath(path).parts[:2]) for path in before if path.count("/") > 1}):
            written += self._copy_training(folder, training, files, before)
        rest = [path for path in before if path.count("/") <= 1 and path != JOURNAL]
        written += sum(self._put_taken(_taken(folder, path, files, before), files) for path in rest)
        self._check_ours(self.marker())  # it may have taken long
        gone = [path for path in files if path not in before and _state_surely(folder, path) is None]
        for path in gone:
            self.remove(path)
            del files[path]
        written += self._put_taken(journal, files)
        if written or gone or not there:
            self._mark(folder, known["number"] + 1, files)
        return written

    def _copy_training(self, folder: Path, training: str, files: dict[str, State], before: set[str]) -> int:
        """A training's folder: read from the last that it writes to the first, written the other way round."""
        last_to_first = [*reversed(TOLD), ARCHIVE]
        told = [f"{training}/{name}" for name in last_to_first]
        taken = [_taken(folder, path, files, before) for path in told]
        others = {f"{training}/{path}" for path in _objects(folder / training)} - {*told}
        written = sum(self._put_taken(_taken(folder, path, files, others), files) for path in sorted(others))
        return written + sum(self._put_taken(one, files) for one in reversed(taken))

    def _put_taken(self, taken: Taken | None, files: dict[str, State]) -> int:
        if taken is None:
            return 0
        with taken.content as content:
            self.put(taken.path, content)
        files[taken.path] = taken.state
        return 1

    def _fetch(self, folder: Path, names: set[str], number: int) -> None:
        """Fill the folder; cut off, it is begun anew: the journal comes last."""
        files = {}
        for name in sorted(names - {JOURNAL}):
            self._fetch_one(folder, name)
            if (state := _state_surely(folder, name)) is not None:
                files[name] = state
        write_json(folder / MARKER, {"place": self.shown, "number": number, "files": files})
        self._fetch_one(folder, JOURNAL)

    def _fetch_one(self, folder: Path, name: str) -> None:
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise SweepError(f"{self} holds {name}, which would lie outside {folder}; it is not a copy of ours")
        with self.files.open_input_stream(f"{self.root}/{name}") as stream:
            if target.name == ARCHIVE:
                checkpoint = target.with_name(CHECKPOINT)
                checkpoint.mkdir(parents=True, exist_ok=True)
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    tar.extractall(checkpoint, filter="data")
                return
            with replacing(target) as temporary, temporary.open("wb") as file:
                while block := stream.read(BLOCK_BYTES):
                    file.write(block)

    def _known(self, folder: Path) -> dict[str, Any]:
        """What the folder knows of this copy: its number, and each object's state when it was copied."""
        file = folder / MARKER
        known = dict(read_json(file)) if file.is_file() else {}
        return known if known.get("place") == self.shown else {"number": 0, "files": {}}

    def _mark(self, folder: Path, number: int, files: dict[str, State]) -> None:
        """The folder first: cut off between the two, it is not behind its copy."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / MARKER, {"place": self.shown, "number": number, "files": files})
        facts = {"number": number, "by": self.by, "host": socket.gethostname(), "at": at}
        self.put(MARKER, io.BytesIO(to_json(facts).encode()))

    def _check_ours(self, there: dict[str, Any]) -> None:
        if there and there["by"] != self.by:
            raise SweepError(f"{there['host']} has taken {self} over; two must not train one sweep")


def _has_key(where: str) -> bool:
    """Whether a URI names somebody; abfs://container@account does not."""
    user, at, _ = where.partition("://")[2].partition("/")[0].rpartition("@")
    return bool(at) and (":" in user or not where.startswith("abfs"))


def _objects(folder: Path) -> set[str]:
    """What of a folder is to be copied, below it; a checkpoint's files are one object."""
    found = set()
    for place, folders, names in os.walk(folder):
        below = PurePosixPath(Path(place).relative_to(folder).as_posix())
        folders[:] = [
            name for name in folders if name != "ray" and not name.endswith(PASSING) and not name.startswith(".")
        ]
        for name in names:
            if name not in OF_THIS_MACHINE and not name.startswith(".") and not name.endswith(PASSING):
                found.add(str(below.with_name(ARCHIVE) if below.name == CHECKPOINT else below / name))
    return found


def _taken(folder: Path, path: str, files: dict[str, State], seen: set[str]) -> Taken | None:
    """An object of the folder, read; None when it is in the copy already, or not there. What was `seen`, or is in the
    copy, may have been taken away for a moment, to be replaced."""
    state = _state_surely(folder, path) if path in seen or path in files else _state(folder, path)
    if state is None or files.get(path) == state:
        return None
    for _ in range(TRIES):
        try:
            return _take(folder, path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and error.errno != ESTALE:
                raise
            time.sleep(SWAP_S)
    return None


def _state_surely(folder: Path, path: str) -> State | None:
    """An object's state; None when it is not there, and has not just been taken away to be replaced."""
    for _ in range(TRIES):
        if (state := _state(folder, path)) is not None:
            return state
        time.sleep(SWAP_S)
    return None


def _state(folder: Path, path: str) -> State | None:
    """An object's state, None when it is not there. A checkpoint changes as a whole."""
    file = folder / path
    try:
        return _of_stat((file.with_name(CHECKPOINT) / "state.json" if file.name == ARCHIVE else file).stat())
    except FileNotFoundError:
        return None


def _of_stat(stat: os.stat_result) -> State:
    return [stat.st_size, stat.st_mtime_ns]


def _take(folder: Path, path: str) -> Taken:
    """Read an object to its end. A checkpoint's folder is opened once, so that it is the same one throughout, whatever
    takes its place; its state is that of its state.json.

    FileNotFoundError when it is not there."""
    file = folder / path
    content = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115  closed by who puts it
    if file.name == ARCHIVE:
        state = _pack(file.with_name(CHECKPOINT), content)
    else:
        with file.open("rb") as source:
            state = _of_stat(os.fstat(source.fileno()))  # of what is read now, or of a little less
            while block := source.read(BLOCK_BYTES):
                content.write(block)
    content.seek(0)
    return Taken(path, state, content)


def _pack(checkpoint: Path, archive: Any) -> State:
    place = os.open(checkpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        state = _of_stat(os.stat("state.json", dir_fd=place))
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in sorted(os.listdir(place)):  # noqa: PTH208  a descriptor, not a path
                with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=place), "rb") as file:
                    info = tarfile.TarInfo(name)
                    info.size = os.fstat(file.fileno()).st_size
                    tar.addfile(info, file)
    finally:
        os.close(place)
    return state


def first_line(error: Exception) -> str:
    """The beginning of what it says; libraries add pages."""
    return shorten(str(error).strip().partition("\n")[0], 200, placeholder=" ...")
