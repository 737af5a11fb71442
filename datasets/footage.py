"""What `posesweep predict` is given, told apart: images and videos, in folders or by patterns, each with its name."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from posesweep.datasets.crops import shown

IMAGES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm", ".pnm", ".jp2", ".avif")
)
VIDEOS = frozenset((".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts", ".ts"))


@dataclass(frozen=True)
class Footage:
    """One image or video. `name` is what it is called in the results: its path from the folder that was given, else
    the file's name; with / between the parts, and no two alike."""

    path: Path
    name: str
    is_video: bool


def find_footage(inputs: Iterable[str], left_out: Path | None = None) -> tuple[list[Footage], list[str]]:
    """The images and videos in `inputs` (files, folders with all that is below them, patterns such as 'a/*.png'), each
    once, and a line for each input that gives none. What lies below the folder `left_out` is passed over."""
    found: dict[Path, Footage] = {}
    problems = []
    for given in inputs:
        pieces = list(_pieces(given))
        kept = [piece for piece in pieces if left_out is None or not _is_below(piece.path, left_out)]
        if not kept:
            problems.append(f"{shown(given)}: {_why_nothing(given)}")
        for piece in kept:
            found.setdefault(piece.path.absolute(), piece)
    return _named_apart(list(found.values())), problems


def outputs_of(footage: Sequence[Footage]) -> dict[str, str]:
    """Name of a picture or video -> where its own files go, without a suffix: as it is called, and with its suffix in
    the name where two differ in nothing else ('a.png' and 'a.jpg')."""
    stems = {piece.name: str(PurePosixPath(piece.name).with_suffix("")) for piece in footage}
    uses = Counter(stems.values())
    return {name: stem if uses[stem] == 1 else name for name, stem in stems.items()}


def _pieces(given: str) -> Iterator[Footage]:
    path = Path(given).expanduser()
    if path.is_dir():
        for file in _files_below(path):
            yield Footage(file, file.relative_to(path).as_posix(), _is_video(file))
    elif path.exists() or not glob.has_magic(given):
        if path.exists():
            yield Footage(path, path.name, _is_video(path))
    else:
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
            if Path(match).is_file():
                yield Footage(Path(match), Path(match).name, _is_video(Path(match)))


def _files_below(folder: Path) -> Iterator[Path]:
    """Images and videos by their suffix, in the order of their names; hidden files and folders are passed over."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGES | VIDEOS:
                yield Path(at, name)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _why_nothing(given: str) -> str:
    path = Path(given).expanduser()
    if path.is_dir():
        return "holds no image and no video"
    return "no file fits this pattern" if glob.has_magic(given) and not path.exists() else "missing"


def _named_apart(footage: list[Footage]) -> list[Footage]:
    """All under the names they have, or, where two are alike, all by their paths from the folder they share."""
    if len({piece.name for piece in footage}) == len(footage):
        return footage
    paths = [piece.path.absolute() for piece in footage]
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [
        replace(piece, name=path.relative_to(shared).as_posix()) for piece, path in zip(footage, paths, strict=True)
    ]
