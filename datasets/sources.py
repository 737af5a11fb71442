"""Which of the files in a folder are the annotations, and where their images lie."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from posesweep.datasets.documents import read_json, read_text, read_yaml
from posesweep.datasets.images import PROBED
from posesweep.datasets.read import FORMATS, detect
from posesweep.errors import DataError

SUFFIXES = frozenset((".json", ".csv", ".tsv", ".parquet", ".xml", ".slp", ".h5"))
OTHER_SIDES = ("val", "valid", "validation", "test")  # what stands for "train" in the name of its counterpart
PREFERRED = ("keypoint", "pose")  # of several pairs, such as COCO's captions, instances and person_keypoints
USUAL = "annotations"  # what files are called that lie beside others, as PoseSweep's own do
HEADER = ("scorer", "individuals", "bodyparts", "coords")  # first cells of a DeepLabCut table
LISTED = 5  # files named in an error


@dataclass(frozen=True)
class Sources:
    """Annotations, and what reads them. `tables` are those of a DeepLabCut project with several videos: `merged` of
    them is to be written, and takes the place of `train`."""

    train: Path
    val: Path | None = None
    images: Path | None = None  # None: the reader finds them
    tables: tuple[Path, ...] = ()


def find_sources(data: Path, images: Path | None = None) -> Sources:
    """The annotations in `data`, a file or a folder; `images` is where they lie if that is known.

    A folder is a DeepLabCut project, has a YOLO-pose data.yaml, has files for training and validation that differ in
    these words only, one file of annotations, or many of LabelMe. DataError: none of these, or several to choose from.
    """
    if not data.exists():
        raise DataError(f"{data}: no such file or folder; name the annotations or the folder that holds them")
    if data.is_file():
        return Sources(data, images=images or _images_of(data, data.parent))
    if (data / "config.yaml").is_file() and (data / "labeled-data").is_dir():
        return _deeplabcut(data, images)
    yolo = [file for file in sorted(data.glob("*.y*ml")) if b"kpt_shape" in file.read_bytes()]
    if yolo:
        return Sources(_only(yolo, data), images=images)
    found = _chosen(data)
    return replace(found, images=images or _images_of(found.train, data))


def merged(tables: Sequence[Path]) -> str:
    """The text of one DeepLabCut table with the frames of all `tables`. DataError: their columns differ."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    columns: list[list[str]] = []
    for table in tables:
        rows = list(csv.reader(read_text(table, "a DeepLabCut table").splitlines()))
        own = [row for row in rows if row and row[0] in HEADER]
        if not columns:
            columns = own
            writer.writerows(own)
        if [row for row in own if row[0] != HEADER[0]] != [row for row in columns if row[0] != HEADER[0]]:
            raise DataError(f"{table}: has other columns than {tables[0]}; label the same body parts in every video")
        writer.writerows(row for row in rows if row and row[0] not in HEADER)
    return written.getvalue()


def _deeplabcut(project: Path, images: Path | None) -> Sources:
    """A project's tables, those of its scorer where config.yaml names one; text rather than HDF5."""
    scorer = read_yaml(project / "config.yaml").get("scorer")
    names = [f"CollectedData_{scorer}"] if isinstance(scorer, str) else []
    for name in (*names, "CollectedData_*"):
        for suffix in (".csv", ".h5"):
            tables = sorted((project / "labeled-data").glob(f"*/{name}{suffix}"))
            if len(tables) == 1:
                return Sources(tables[0], images=images)
            if tables and suffix == ".csv":
                return Sources(tables[0], images=images or project, tables=tuple(tables))
            if tables:
                raise DataError(
                    f"{project}: has {len(tables)} tables, in HDF5 only; write them as CSV with DeepLabCut's "
                    "convert_h5_to_csv, or name one of them"
                )
    raise DataError(f"{project}: is a DeepLabCut project without labels: no labeled-data/*/CollectedData_*.csv or .h5")


def _chosen(folder: Path) -> Sources:
    """The annotation file or the pair of them in a folder, not more than one folder below it."""
    files = [file for file in sorted((*folder.glob("*"), *folder.glob("*/*"))) if file.suffix.lower() in SUFFIXES]
    labelme = [file for file in files if file.suffix.lower() == ".json" and detect(file) == "labelme"]
    if labelme:
        return Sources(folder)
    pairs = list(_pairs(files, folder))
    if pairs:
        train = _only([train for train, _ in pairs], folder, PREFERRED)
        return Sources(train, dict(pairs)[train])
    if not files:
        raise DataError(f"{folder}: holds no annotations that are read: {'; '.join(FORMATS.values())}")
    training = [file for file in files if "train" in file.stem]
    return Sources(_only(training or files, folder))


def _pairs(files: Sequence[Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    """(train, val) files whose paths below `folder` differ in these words only."""
    for file in files:
        name = file.relative_to(folder).as_posix()
        others = [folder / re.sub("train(ing)?", side, name) for side in OTHER_SIDES if "train" in name]
        found = [other for other in others if other in files]
        if found:
            yield file, found[0]


def _only(files: Sequence[Path], folder: Path, words: Sequence[str] = ()) -> Path:
    """The one file, or the one with one of `words` in its name, or called as annotations are. DataError: several."""
    preferred = [file for file in files if any(word in file.name for word in words)]
    candidates = preferred or [file for file in files if file.stem == USUAL] or files
    if len(candidates) > 1:
        names = ", ".join(str(file.relative_to(folder)) for file in candidates[:LISTED])
        more = f" and {len(candidates) - LISTED} more" if len(candidates) > LISTED else ""
        raise DataError(f"{folder}: holds several files of annotations ({names}{more}); name one of them")
    return candidates[0]


def _images_of(annotations: Path, folder: Path) -> Path | None:
    """Where a COCO file's images lie if its reader would not find them: in the folder it came from, or beside its own.

    None where they are nowhere: the reader then says what it misses."""
    if annotations.suffix.lower() != ".json" or detect(annotations) != "coco":
        return None
    document = read_json(annotations)
    entries = document.get("images") if isinstance(document, dict) else None
    names = [entry.get("file_name") for entry in (entries or [])[:PROBED] if isinstance(entry, dict)]
    above = annotations.parent.parent
    known = (annotations.parent, annotations.parent / "images")
    guesses = (*known, folder / "images", folder, above / "images", above)
    found = (guess for guess in guesses if any(isinstance(name, str) and (guess / name).is_file() for name in names))
    first = next(found, None)
    return None if first in known else first
