"""One way in: any annotation file or folder -> `Instances`, its format told from its name and its first bytes."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posesweep.datasets.coco import read_coco
from posesweep.datasets.cvat import read_cvat
from posesweep.datasets.dlc import read_dlc
from posesweep.datasets.documents import NOT_HERE
from posesweep.datasets.gather import BOX_MARGIN
from posesweep.datasets.instances import Instances
from posesweep.datasets.labelme import read_labelme
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.sleap import read_sleap
from posesweep.datasets.table import read_table
from posesweep.datasets.wholebody import skeleton_of_parts
from posesweep.datasets.yolo_pose import read_yolo
from posesweep.errors import ConfigError, DataError, did_you_mean

FORMATS = {
    "coco": "COCO keypoints (.json)",
    "yolo": "YOLO-pose (data.yaml)",
    "dlc": "DeepLabCut (CollectedData_*.csv or .h5)",
    "table": "a table of keypoints (.csv, .tsv or .parquet)",
    "labelme": "LabelMe (.json, or a folder of them)",
    "cvat": "CVAT for images (.xml)",
    "sleap": "SLEAP (.slp)",
}
_BY_SUFFIX = {".yaml": "yolo", ".yml": "yolo", ".h5": "dlc", ".hdf5": "dlc", ".xml": "cvat", ".slp": "sleap"}
_BY_SUFFIX |= {".tsv": "table", ".parquet": "table"}
_NAMES = ("data.yaml", "data.yml", "annotations.json", "annotations.csv", "annotations.xml")
_LOOKED_AT = 65_536  # bytes of a file whose suffix two formats share


@dataclass(frozen=True)
class Reading:
    """How annotations are read; what a format does not know is refused where it is given."""

    skeleton: Skeleton | None = None  # None: what the annotations say
    categories: Collection[str] | None = None  # names; None: all with keypoints
    box_margin: float = BOX_MARGIN  # around keypoints that come without a box, x the longer side
    subset: str | None = None  # YOLO-pose: train, val or test; None: all
    parts: Collection[str] | None = None  # COCO-WholeBody: some of body, foot, face, lefthand, righthand
    extract_to: Path | None = None  # SLEAP packages: where their frames are written


def read_any(path: Path, images: Path | None = None, reading: Reading | None = None) -> Instances:
    """The annotated objects in `path`, whatever its format; their images lie below `images`.

    `images` None is found from where the annotations lie, as each reader says. ConfigError: a format that is not known,
    or an option that it does not have. DataError: the mistakes in it."""
    reading = reading or Reading()
    path = _file_of(path)
    kind = detect(path)
    _check_options(kind, reading)
    skeleton, margin = reading.skeleton, reading.box_margin
    if kind == "coco":
        return read_coco(
            path, images, skeleton_of_parts(reading.parts) if reading.parts else skeleton, reading.categories
        )
    if kind == "yolo":
        instances = read_yolo(path, images, skeleton, reading.subset)
    elif kind == "sleap":
        instances = read_sleap(path, images, skeleton, margin, reading.extract_to)
    else:
        readers = {"dlc": read_dlc, "table": read_table, "labelme": read_labelme, "cvat": read_cvat}
        instances = readers[kind](path, images, skeleton, margin)
    return _of_categories(instances, reading.categories, path)


def detect(path: Path) -> str:
    """The format of an annotation file or folder, a key of FORMATS. ConfigError: none of them."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return "labelme"
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix == ".json":
        return "labelme" if b'"shapes"' in _start(path) and b'"annotations"' not in _start(path) else "coco"
    if suffix == ".csv":
        return "dlc" if _start(path).lstrip(b"\xef\xbb\xbf").startswith((b"scorer", b'"scorer"')) else "table"
    raise ConfigError(f"data: '{path}' is none of the formats that are read: {'; '.join(FORMATS.values())}")


def _file_of(path: Path) -> Path:
    """The annotation file in a folder: one by a known name, or the only one; the folder itself where it is LabelMe's.

    DataError: several, or none."""
    if not path.is_dir():
        return path
    known = [path / name for name in _NAMES if (path / name).is_file()]
    tables = sorted(path.glob("CollectedData_*.csv")) or sorted(path.glob("CollectedData_*.h5"))
    candidates = known or tables
    if not candidates and not any(map(_may_be_labelme, path.glob("*.json"))):
        candidates = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (*_BY_SUFFIX, ".csv", ".json")]
        if not candidates:
            raise DataError(f"{path}: holds no annotations that are read: {'; '.join(FORMATS.values())}")
    if len(candidates) > 1:
        names = ", ".join(file.name for file in candidates)
        raise DataError(f"{path}: holds several annotation files ({names}); name one of them")
    return candidates[0] if candidates else path


def _may_be_labelme(file: Path) -> bool:
    """By its beginning, or because what tells comes after an embedded image."""
    return detect(file) == "labelme" or (file.stat().st_size > _LOOKED_AT and b'"annotations"' not in _start(file))


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LOOKED_AT)
    except FileNotFoundError:
        raise DataError(f"{path}: {NOT_HERE}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _check_options(kind: str, reading: Reading) -> None:
    wrong = {"subset": ("yolo", reading.subset), "parts": ("coco", reading.parts)}
    for option, (known_to, value) in wrong.items():
        if value is not None and kind != known_to:
            raise ConfigError(
                f"{option}: is an option of {FORMATS[known_to]}, and this is {FORMATS[kind]}; leave it out"
            )
    if reading.parts and reading.skeleton is not None:
        raise ConfigError("parts: the skeleton chooses the keypoints already; give one of the two")


def _of_categories(instances: Instances, names: Collection[str] | None, path: Path) -> Instances:
    """Only the objects of the categories `names`; their images stay, as those of a COCO file do not."""
    if names is None:
        return instances
    known = {name: i for i, name in instances.category_names.items()}
    for name in names:
        if name not in known:
            raise DataError(f"{path}: there is no category '{name}'{did_you_mean(name, known)}")
    kept = {known[name]: name for name in names}
    chosen = instances.take(np.isin(instances.category_ids, list(kept)))
    left_out = len(instances) - len(chosen)
    note = f"{path.name}: {left_out} annotations are of other categories; left out"
    return replace(chosen, category_names=kept, notes=(*instances.notes, *([note] if left_out else [])))
