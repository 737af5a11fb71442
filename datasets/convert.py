"""`posesweep convert`: annotations in any format -> a folder of COCO JSON, YOLO-pose or CSV, with a look at the set.

A skeleton that is not shipped is written beside the annotations, whose formats have no place for all of it.

The folder is made beside its place and renamed into it: after an error, Ctrl-C or kill -9 it is whole or not there. A
second run of the same conversion finds it done; any other refuses to write over it.
"""

import csv
import fcntl
import hashlib
import io
import json
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from rich.text import Text

from posesweep.datasets.counting import bar
from posesweep.datasets.decoding import read_image
from posesweep.datasets.gather import BOX_MARGIN
from posesweep.datasets.headers import Header, read_header
from posesweep.datasets.images import MOST_MISSING, NAMED, with_images
from posesweep.datasets.instances import Instances
from posesweep.datasets.quality import Summary, quality_of, quality_rows, sharpness, summary_of
from posesweep.datasets.read import Reading, read_any
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.writers import (
    csv_fields,
    names_below,
    needs_skeleton_file,
    root_of,
    rows_by_image,
    skeleton_text,
    to_csv,
    write_coco,
    write_yolo,
)
from posesweep.errors import ConfigError, DataError, did_you_mean
from posesweep.files import cpus, write_json, write_text

TARGETS = {"coco": "annotations.json", "yolo": "data.yaml", "csv": "annotations.csv"}
RECORD = "conversion.json"
SKELETON = "skeleton.yaml"
LAYOUT = 2  # part of the record: raise it when the same source would be written differently
Result = TypeVar("Result")


@dataclass(frozen=True)
class Conversion:
    """What to make of the annotations. Everything but the last two is part of what "the same conversion" means."""

    to: str = "coco"  # coco, yolo or csv
    images: Path | None = None  # None: found from where the annotations lie
    skeleton: str | Path | None = None
    categories: tuple[str, ...] | None = None
    box_margin: float = BOX_MARGIN
    subset: str | None = None  # of a YOLO-pose set
    parts: tuple[str, ...] | None = None  # of COCO-WholeBody
    copy: bool = False  # the images too, into images/ (YOLO-pose always has them there)
    quality: bool = True  # decode every image for quality.csv
    threads: int | None = None  # None: as many as the CPUs this process may use
    console: Console | None = None  # where progress is shown; None: nowhere


@dataclass(frozen=True)
class Converted:
    """The written annotations, the folder in which their image names start, and what they hold."""

    annotations: Path
    images: Path
    summary: Summary
    notes: tuple[str, ...]
    was_there: bool  # an earlier run had made it
    skeleton: Path | None = None  # its file; None: a shipped one


def convert(source: Path, out: Path, request: Conversion | None = None) -> Converted:
    """Read `source`, whatever its format, and make the folder `out`: annotations, quality.csv, conversion.json.

    Also skeleton.yaml, unless the skeleton is a shipped one. Image names in it are relative to `Converted.images`.
    Images that cannot be read are left out, at most 5 %. DataError: mistakes in the annotations, a folder `out` that
    holds something else. ConfigError: an unknown target, a box margin that is none."""
    request = request or Conversion()
    if request.to not in TARGETS:
        raise ConfigError(f"convert: there is no target '{request.to}'{did_you_mean(request.to, TARGETS)}")
    if not 0 <= request.box_margin < math.inf:
        raise ConfigError(
            f"convert: a box margin of {request.box_margin:g} is none; give the share of the longer side to add around "
            "keypoints without a box, a number from 0"
        )
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; give the annotations to convert")
    earlier = _earlier(out)
    with _terminable(), _staged(out) as folder:
        instances, sizes = _readable(_read(source, folder, request), request)
        extracted = instances.image_files[0].is_relative_to(folder)
        root = folder / "images" if extracted else root_of(instances, request.images)
        record = _record(instances, root if not extracted else Path("images"), source, request)
        if earlier is not None:
            _check_same(out, earlier, record)
            _check_whole(out, earlier)
            return _result(out, earlier, was_there=True)
        notes = [*instances.notes, *_write(instances, folder, root, sizes, request)]
        copies = (request.copy or request.to == "yolo") and not extracted
        _look(instances, folder, names_below(instances, root), request, copies)
        own = SKELETON if needs_skeleton_file(instances.skeleton) else None
        if own:
            write_text(folder / own, skeleton_text(instances.skeleton))
        below = "" if request.to == "yolo" else "images" if copies or extracted else str(root.absolute())
        record |= {"images_below": below, "notes": notes, "skeleton": own, "summary": _plain(summary_of(instances))}
        write_json(folder / RECORD, record)
        folder.rename(out)
    return _result(out, record, was_there=False)


def run(source: Path, out: Path, request: Conversion | None = None) -> None:
    """Convert and print what came of it."""
    console = Console(highlight=False, soft_wrap=True)
    request = replace(request or Conversion(), console=Console(stderr=True))
    done = convert(source, out, request)
    for note in done.notes:
        console.print(f"note: {note}", markup=False)
    _print(done.summary, console)
    console.print(f"{'was there already' if done.was_there else 'written'}: {done.annotations}", markup=False)
    skeleton = f", skeleton: {done.skeleton}" if done.skeleton else ""
    console.print(f"data: {{train: {done.annotations}, images: {done.images}{skeleton}}}", markup=False)


# ------------------------------------------------------------------------------------------------ whole or not at all


def _record(instances: Instances, root: Path, source: Path, request: Conversion) -> dict[str, Any]:
    """What makes two conversions the same: what was read, where from, the options, and this module's layout."""
    options = {key: value for key, value in vars(request).items() if key not in ("threads", "console")}
    options |= {"images": str(root if root.is_absolute() or root == Path("images") else root.absolute())}
    options |= {"skeleton": str(request.skeleton) if request.skeleton else None}
    digest = hashlib.sha256(repr((instances.category_names, instances.image_groups, instances.identities)).encode())
    digest.update(repr((skeleton_text(instances.skeleton), instances.image_fields)).encode())
    for file in instances.image_files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
    arrays = (instances.image_ids, instances.image_index, instances.ids, instances.category_ids, instances.boxes)
    for array in (*arrays, instances.keypoints, instances.visibility, instances.areas, instances.crowd):
        digest.update(np.ascontiguousarray(array).tobytes())
    plain = json.loads(json.dumps(options))
    return {"layout": LAYOUT, "source": str(source.resolve()), "data": digest.hexdigest(), "options": plain}


def _earlier(out: Path) -> dict[str, Any] | None:
    """The record of the conversion that is at `out` already; DataError if anything else is."""
    if not out.exists() and not out.is_symlink():
        return None
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict):
        raise DataError(f"{out}: is there already and is no conversion; name a new folder, nothing is written over")
    return record


def _check_same(out: Path, earlier: dict[str, Any], record: dict[str, Any]) -> None:
    differing = [key for key in record if earlier.get(key) != record[key]]
    if differing:
        raise DataError(
            f"{out}: holds another conversion (of {earlier.get('source')}; the {' and the '.join(differing)} differ); "
            "name a new folder or remove it, nothing is written over"
        )


def _check_whole(out: Path, earlier: dict[str, Any]) -> None:
    """DataError: a file of the earlier conversion has been taken away since."""
    for name in (TARGETS[earlier["options"]["to"]], earlier["skeleton"]):
        if name and not (out / name).is_file():
            raise DataError(f"{out}: its {name} is gone; remove the folder and convert again")


def _result(out: Path, record: dict[str, Any], was_there: bool) -> Converted:
    images = out / record["images_below"]  # an absolute path stays what it is
    summary = dict(record["summary"])
    summary["visibility"] = np.array(summary["visibility"])
    for key in ("box_width_px", "box_height_px"):
        summary[key] = tuple(summary[key])
    annotations = out / TARGETS[record["options"]["to"]]
    skeleton = out / record["skeleton"] if record["skeleton"] else None
    return Converted(annotations, images, Summary(**summary), tuple(record["notes"]), was_there, skeleton)


def _plain(summary: Summary) -> dict[str, Any]:
    return vars(summary) | {"visibility": summary.visibility.tolist()}


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, gone at the end unless it was renamed into place.

    What a killed run left behind is removed by the next one, which the lock tells from a run that is still going."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = out.with_name(f".{out.name}.lock").open("a")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); name a folder elsewhere") from error
    folder = out.with_name(f".{out.name}.unfinished")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{out}: another convert is writing it; wait for it, or name another folder") from None
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
        except OSError as error:
            raise DataError(
                f"{out}: the conversion stopped ({error.strerror}: {error.filename}); nothing is left"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that it tidies up after itself."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ------------------------------------------------------------------------------------------------------- the work


def _read(source: Path, folder: Path, request: Conversion) -> Instances:
    reading = Reading(
        skeleton=load_skeleton(request.skeleton) if request.skeleton else None,
        categories=request.categories,
        box_margin=request.box_margin,
        subset=request.subset,
        parts=request.parts,
        extract_to=folder / "images",
    )
    return read_any(source, request.images, reading)


def _readable(instances: Instances, request: Conversion) -> tuple[Instances, list[Header]]:
    """The instances whose images have a readable header, and the sizes of those images."""

    def size(path: Path) -> Header | str:
        try:
            return read_header(path)
        except DataError as error:
            return f"{path.name} ({error})"

    found = _each(list(instances.image_files), size, "sizes", request)
    sizes = [header for header in found if isinstance(header, Header)]
    unreadable = [reason for reason in found if isinstance(reason, str)]
    if not unreadable:
        return instances, sizes
    of = f"{len(unreadable)} of {len(found)} images cannot be read"
    examples = f"{', '.join(unreadable[:NAMED])}{' ...' if len(unreadable) > NAMED else ''}"
    if len(unreadable) > MOST_MISSING * len(found):
        raise DataError(
            f"{instances.image_files[0].parent}: {of}, and at most {MOST_MISSING:.0%} may be left out: {examples}"
        )
    good = np.array([isinstance(header, Header) for header in found])
    kept = instances.take(good[instances.image_index])
    note = f"{of}, left out with their {len(instances) - len(kept)} annotations: {examples}"
    return replace(with_images(kept, good), notes=(*instances.notes, note)), sizes


def _write(instances: Instances, folder: Path, root: Path, sizes: list[Header], request: Conversion) -> list[str]:
    """Write the annotations; what the format cannot hold, a sentence each."""
    if request.to == "coco":
        write_coco(instances, folder / TARGETS["coco"], root, sizes)
    elif request.to == "csv":
        write_text(folder / TARGETS["csv"], to_csv(instances, root))
        left = ", ".join(csv_fields(instances)[1])
        return [f"fields of the images that are called like other columns of a table are left out: {left}"] * bool(left)
    else:
        return write_yolo(instances, folder, root, sizes)
    return []


def _look(instances: Instances, folder: Path, names: list[str], request: Conversion, copies: bool) -> None:
    """Copy the images, and measure the sharpness of every instance for quality.csv: one pass over the images."""
    if not copies and not request.quality:
        return
    rows_of = rows_by_image(instances)
    measured = np.full(len(instances), np.nan)

    def one(position: int) -> None:
        path = instances.image_files[position]
        if copies:
            target = folder / "images" / names[position]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if request.quality:
            measured[rows_of[position]] = _sharpness(path, instances.boxes[rows_of[position]])

    _each(list(range(len(names))), one, "images", request)
    if request.quality:
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(
            quality_rows(instances, quality_of(instances, measured), names)
        )
        write_text(folder / "quality.csv", table.getvalue())


def _sharpness(path: Path, boxes: Float[np.ndarray, "r 4"]) -> Float[np.ndarray, "r"]:
    try:
        image = read_image(path)
    except DataError:  # its header is good and its pixels are not: the crop store leaves it out, with its reason
        return np.full(len(boxes), np.nan)
    return np.array([sharpness(image, box) for box in boxes], dtype=np.float64)


Item = TypeVar("Item")


def _each(items: list[Item], work: Callable[[Item], Result], what: str, request: Conversion) -> list[Result]:
    """`work` for every item, in threads (decoding, copying and OpenCV release the lock), with a progress bar."""
    threads = request.threads or cpus()
    pool = ThreadPoolExecutor(threads)
    try:
        with bar(request.console or Console(quiet=True)) as shown:
            return list(shown.track(pool.map(work, items), total=len(items), description=what))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest


# ------------------------------------------------------------------------------------------------------- the words


def _print(summary: Summary, console: Console) -> None:
    """A table of the set and one of its keypoints."""
    unlabelled, hidden, visible = summary.visibility.tolist()
    total = max(1, unlabelled + hidden + visible)
    table = Table(show_header=False, box=None)
    table.add_row("images", str(summary.images))
    crowds = f" ({summary.crowds} crowds)" if summary.crowds else ""
    table.add_row("instances", f"{summary.instances}{crowds}")
    categories = ", ".join(f"{name} {count}" for name, count in summary.categories.items())
    table.add_row("categories", Text(categories))  # names may look like markup
    shares = ((visible, "visible"), (hidden, "hidden"), (unlabelled, "not labelled"))
    table.add_row("keypoints", ", ".join(f"{count} {what} ({count / total:.0%})" for count, what in shares))
    for what, (low, middle, high) in (("box width", summary.box_width_px), ("box height", summary.box_height_px)):
        table.add_row(what, f"{low:.0f} to {high:.0f} px, median {middle:.0f}")
    console.print(table)
    names = Table("keypoint", "labelled", "share", box=None)
    for name, count in summary.labelled_per_keypoint.items():
        names.add_row(Text(name), str(count), f"{count / max(1, summary.instances):.0%}")
    console.print(names)
