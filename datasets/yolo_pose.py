"""YOLO-pose data sets: data.yaml, and beside every .../images/x.jpg a .../labels/x.txt with a line an object.

A line is the class, the box (centre x, centre y, width, height) and 2 or 3 values a keypoint, all but class and
visibility as shares of the image's width and height. With 2 values a keypoint at (0, 0) is not labelled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from posesweep.datasets.documents import read_text, read_yaml
from posesweep.datasets.gather import Found, Source, columns, gather
from posesweep.datasets.headers import read_header
from posesweep.datasets.images import MOST_MISSING, inside
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import (
    DEFAULT_NOTE,
    DEFAULT_SIGMA,
    Pairs,
    Skeleton,
    infer_flip_pairs,
    skeleton_from_names,
)
from posesweep.errors import DataError, did_you_mean

SUBSETS = ("train", "val", "test")
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
MOST_KEYPOINTS = 10_000
_ROUNDING = 1e-6  # a point on the border may be written as 1.0000001


@dataclass(frozen=True)
class _Data:
    """A checked data.yaml."""

    root: Path
    subsets: dict[str, list[str]]  # subset -> folders of images, or lists of them (.txt), below root
    classes: dict[int, str]
    keypoints: int
    values_per_keypoint: int
    flip_idx: list[int] | None
    names: tuple[str, ...] | None


def subsets_of(path: Path) -> list[str]:
    """Which of train, val and test a data.yaml has, without those that are the same images as an earlier one."""
    return list(_read_data(path, None).subsets)


def read_yolo(
    path: Path, images: Path | None = None, skeleton: Skeleton | None = None, subset: str | None = None
) -> Instances:
    """The objects of a YOLO-pose data set, in the order of their images' names.

    `path` is its data.yaml; `images` the folder in which the paths in it start (None: its `path`, or where it lies);
    `subset` train, val or test, None for all of them. Keypoints go by their order; `skeleton` None takes
    `kpt_names`, else numbers them; flip pairs are those of `flip_idx` where it is given, else of the names. Images
    without a label file hold nothing. DataError: every mistake in data.yaml, a `flip_idx` that the skeleton or its
    names contradict, and the first ten mistakes in the label files, with file and line."""
    data = _read_data(path, images)
    chosen = _choose(data, subset, path)
    skeleton, notes = _agree_on_skeleton(data, skeleton, path)
    mistakes = Mistakes(path)
    found: list[Found] = []
    of_image: dict[str, str] = {}
    unreadable: list[str] = []
    for name, label, of_subset in _labelled_images(data, chosen, path):
        of_image[name] = of_subset
        lines = [line.split() for line in read_text(label, "a label file").splitlines()] if label.stat().st_size else []
        size = _size(data.root / name, unreadable)
        reader = _Lines(data, skeleton, label.relative_to(data.root).as_posix(), name, size)
        found += reader.read(lines, mistakes)
    mistakes.raise_any()
    found, notes = _without_unreadable(found, unreadable, len(of_image), path, notes)
    instances = gather(columns(found, skeleton.keypoints), Source(path, data.root), skeleton)
    names = [file.relative_to(data.root).as_posix() for file in instances.image_files]
    fields = {"subset": tuple(of_image[name] for name in names)}
    said = tuple(f"{path.name}: {note}" for note in notes)
    return replace(instances, image_fields=fields, notes=(*said, *instances.notes))


# ------------------------------------------------------------------------------------------------------- data.yaml


def _read_data(path: Path, images: Path | None) -> _Data:
    document = read_yaml(path)
    mistakes = Mistakes(path)
    with mistakes.collected("kpt_shape"):
        keypoints, values = _shape(document.get("kpt_shape"))
    with mistakes.collected("names"):
        classes = _numbered(document.get("names"), "names of classes")
    mistakes.raise_any()
    with mistakes.collected("flip_idx"):
        flip_idx = _flips(document.get("flip_idx"), keypoints)
    with mistakes.collected("kpt_names"):
        names = _keypoint_names(document.get("kpt_names"), keypoints)
    root = images or _root(document.get("path"), path)
    subsets: dict[str, list[str]] = {}
    for subset in SUBSETS:
        with mistakes.collected(subset):
            if document.get(subset) and (places := _places(document[subset], root)) not in subsets.values():
                subsets[subset] = places
    mistakes.raise_any()
    if not subsets:
        raise DataError(f"{path}: names no images: give train, val or test, a folder of images each")
    return _Data(root, subsets, classes, keypoints, values, flip_idx, names)


def _shape(given: Any) -> tuple[int, int]:
    whole = isinstance(given, list) and len(given) == 2 and all(type(v) is int for v in given)
    if not whole or not 1 <= given[0] <= MOST_KEYPOINTS or given[1] not in (2, 3):
        raise DataError(
            f"{given!r} must be [number of keypoints, 2 or 3]; a data.yaml without it is of boxes, not of keypoints"
        )
    return given[0], given[1]


def _numbered(given: Any, what: str) -> dict[int, str]:
    pairs = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(pairs, dict) or not pairs or not all(type(key) is int for key in pairs):
        raise DataError(f"{given!r} must be a list of {what}, or a mapping from 0, 1, ... to them")
    return {key: str(name) for key, name in pairs.items()}


def _flips(given: Any, keypoints: int) -> list[int] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not all(type(i) is int for i in given) or sorted(given) != list(range(keypoints)):
        raise DataError(f"must list each of 0 to {keypoints - 1} once: the keypoint that each becomes in a mirror")
    wrong = [i for i, j in enumerate(given) if given[j] != i]
    if wrong:
        i = wrong[0]
        raise DataError(f"sends {i} to {given[i]} but {given[i]} to {given[given[i]]}; a mirror swaps pairs")
    return given


def _keypoint_names(given: Any, keypoints: int) -> tuple[str, ...] | None:
    if given is None:
        return None
    per_class = list(given.values()) if isinstance(given, dict) else given
    if isinstance(per_class, list) and per_class and isinstance(per_class[0], list):
        if any(names != per_class[0] for names in per_class):
            raise DataError("differ between classes; keypoints of all classes must be the same")
        per_class = per_class[0]
    if not isinstance(per_class, list) or len(set(map(str, per_class))) != keypoints or len(per_class) != keypoints:
        raise DataError(f"must be {keypoints} different names, as many as kpt_shape says")
    return tuple(map(str, per_class))


def _root(given: Any, path: Path) -> Path:
    """The folder in which paths start: `path:` where that is below the file's own folder, else the file's folder."""
    if isinstance(given, str):
        below = (path.parent / given).resolve()
        if below.is_dir() and below.is_relative_to(path.parent.resolve()):
            return path.parent / given
    return path.parent


def _places(given: Any, root: Path) -> list[str]:
    places = given if isinstance(given, list) else [given]
    checked = []
    for place in places:
        if not isinstance(place, str):
            raise DataError(f"{place!r} must be a folder of images or a list of such folders")
        upwards = place.removeprefix("../")  # Roboflow writes ../train/images for train/images
        name = upwards if place.startswith("../") and (root / upwards).exists() else place
        file = inside(root, name)
        if not file.exists():
            raise DataError(f"there is no {place} below {root}; name the folder in which it lies as data.images")
        checked.append(name)
    return checked


def _choose(data: _Data, subset: str | None, path: Path) -> list[str]:
    if subset is None:
        return list(data.subsets)
    if subset not in data.subsets:
        raise DataError(f"{path}: there is no subset '{subset}'{did_you_mean(subset, data.subsets)}")
    return [subset]


def _agree_on_skeleton(data: _Data, skeleton: Skeleton | None, path: Path) -> tuple[Skeleton, list[str]]:
    """The skeleton, its keypoints in the file's order, and what is to be said about it."""
    if skeleton is None:
        return (_named_skeleton(data, data.names, path), []) if data.names else (_numbered_skeleton(data), [_UNNAMED])
    if len(skeleton.keypoints) != data.keypoints:
        raise DataError(
            f"{path}: kpt_shape has {data.keypoints} keypoints, skeleton {skeleton.name} has "
            f"{len(skeleton.keypoints)}; give the skeleton that fits"
        )
    differ = data.names is not None and data.names != skeleton.keypoints
    if differ and sorted(data.names or ()) == sorted(skeleton.keypoints):
        raise DataError(
            f"{path}: kpt_names has the keypoints of skeleton {skeleton.name} in another order; give a skeleton in "
            "the file's order"
        )
    _check_flips(data, skeleton, f"skeleton {skeleton.name}", path)
    notes = [f"kpt_names are not those of skeleton {skeleton.name}; they go by their order"] if differ else []
    return skeleton, notes


_UNNAMED = "keypoints have no names (kpt_names); they are numbered, and flip pairs come from flip_idx"


def _named_skeleton(data: _Data, names: tuple[str, ...], path: Path) -> Skeleton:
    """The shipped skeleton of these names, which `flip_idx` must agree with, or one whose flip pairs are `flip_idx`."""
    skeleton = skeleton_from_names("yolo", names)
    if data.flip_idx is None:
        return skeleton
    if skeleton.sigmas_note != DEFAULT_NOTE:
        _check_flips(data, skeleton, f"skeleton {skeleton.name}, whose names these are,", path)
        return skeleton
    pairs = _pairs(data.flip_idx, names)
    if pairs and not set(skeleton.flip_pairs) <= set(pairs):
        _check_flips(data, skeleton, "their names", path)
    return replace(skeleton, flip_pairs=pairs)


def _numbered_skeleton(data: _Data) -> Skeleton:
    names = tuple(f"keypoint_{i}" for i in range(1, data.keypoints + 1))
    pairs = _pairs(data.flip_idx or [], names)
    return Skeleton("yolo", names, pairs, (), np.full(len(names), DEFAULT_SIGMA), DEFAULT_NOTE)


def _pairs(flip_idx: Sequence[int], names: Sequence[str]) -> Pairs:
    """The pairs that `flip_idx` swaps as (left, right) where the names tell, else in the keypoints' order."""
    inferred = set(infer_flip_pairs(names))
    pairs = [(names[i], names[j]) for i, j in enumerate(flip_idx) if i < j]
    return tuple((b, a) if (b, a) in inferred else (a, b) for a, b in pairs)


def _check_flips(data: _Data, skeleton: Skeleton, whose: str, path: Path) -> None:
    """DataError: `flip_idx` is given and the skeleton mirrors a keypoint to another one."""
    mirrored = skeleton.flip_index.tolist()
    differing = [k for k, (i, j) in enumerate(zip(data.flip_idx or mirrored, mirrored, strict=True)) if i != j]
    if data.flip_idx and differing:
        k, names = differing[0], skeleton.keypoints
        raise DataError(
            f"{path}: flip_idx mirrors '{names[k]}' to '{names[data.flip_idx[k]]}', and {whose} to "
            f"'{names[mirrored[k]]}'; correct flip_idx, or leave it out"
        )


# ------------------------------------------------------------------------------------------------- images and labels


def _labelled_images(data: _Data, chosen: Sequence[str], path: Path) -> Iterator[tuple[str, Path, str]]:
    """Name below the root, label file and subset of every image that has a label file."""
    count = 0
    taken: dict[str, str] = {}
    for subset in chosen:
        for place in data.subsets[subset]:
            for name in _images_of(data.root, place, path):
                if taken.setdefault(name, subset) != subset:
                    raise DataError(f"{path}: {name} is in {taken[name]} and in {subset}; an image has one subset")
                label = data.root / label_name(name)
                if label.is_file():
                    count += 1
                    yield name, label, subset
    if not count:
        raise DataError(
            f"{path}: no image of {', '.join(chosen)} has a label file "
            f"(looked in {data.root} for labels/ beside images/)"
        )


def _images_of(root: Path, place: str, path: Path) -> Iterator[str]:
    """Names, below the root, of the images in a folder or in a list of files."""
    where = root / place
    if where.is_dir():
        files = sorted(file for file in where.rglob("*") if file.suffix.lower() in SUFFIXES)
        yield from (file.relative_to(root).as_posix() for file in files)
        return
    mistakes = Mistakes(path)
    for line in filter(None, map(str.strip, read_text(where, "a list of images").splitlines())):
        with mistakes.collected(place):
            yield inside(root, line.removeprefix("./")).relative_to(root).as_posix()
    mistakes.raise_any()


def label_name(image: str) -> str:
    """The label file of an image: at its last folder `images` that becomes `labels`; without one it lies beside it."""
    parts = list(PurePosixPath(image).parts)
    at = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if at:
        parts[at[-1]] = "labels"
    return str(PurePosixPath(*parts).with_suffix(".txt"))


def _size(image: Path, unreadable: list[str]) -> tuple[int, int]:
    """Width and height as shown; an image without is added to `unreadable`, and its objects are dropped later."""
    try:
        header = read_header(image)
    except DataError as error:
        unreadable.append(f"{image.name} ({error})")
        return 0, 0
    return header.width, header.height


def _without_unreadable(
    found: list[Found], unreadable: Sequence[str], count: int, path: Path, notes: Sequence[str]
) -> tuple[list[Found], list[str]]:
    if not unreadable:
        return found, list(notes)
    examples = ", ".join(unreadable[:5])
    if len(unreadable) > MOST_MISSING * count:
        raise DataError(f"{path}: {len(unreadable)} of {count} images cannot be read: {examples}; copy them again")
    note = f"{len(unreadable)} of {count} images cannot be read, left out with their annotations: {examples}"
    return [item for item in found if np.isfinite(item.box or np.nan).all()], [*notes, note]


@dataclass(frozen=True)
class _Lines:
    """The label file of one image."""

    data: _Data
    skeleton: Skeleton
    label: str
    image: str
    size: tuple[int, int]  # width, height

    def read(self, lines: Sequence[Sequence[str]], mistakes: Mistakes) -> list[Found]:
        """Its objects; mistakes are collected."""
        found: list[Found] = []
        seen: Mapping[tuple[str, ...], int] = {}
        for number, cells in enumerate(lines, 1):
            if not cells:
                continue
            with mistakes.collected(f"{self.label} line {number}"):
                if tuple(cells) in seen:
                    raise DataError("is the same as an earlier line; every object has one")
                seen = {**seen, tuple(cells): number}
                found.append(self._object(self._numbers(cells)))
        return found

    def _numbers(self, cells: Sequence[str]) -> Float[np.ndarray, "n"]:
        count, values = self.data.keypoints, self.data.values_per_keypoint
        if len(cells) != 5 + count * values:
            raise DataError(
                f"has {len(cells)} numbers, kpt_shape [{count}, {values}] needs {5 + count * values}: "
                f"class, box and {count} x {values}"
            )
        try:
            numbers = np.array(cells, dtype=np.float64)
        except ValueError:
            raise DataError("has something that is not a number; a line is class, box, keypoints") from None
        if not np.isfinite(numbers).all():
            raise DataError("has a number that is not finite")
        return numbers

    def _object(self, numbers: Float[np.ndarray, "n"]) -> Found:
        if numbers[0] not in self.data.classes:
            raise DataError(f"class {numbers[0]:g} is not among the {len(self.data.classes)} names of data.yaml")
        box, points = numbers[1:5], numbers[5:].reshape(self.data.keypoints, -1)
        self._check_shares(box, points[:, :2])
        visibility = points[:, 2] if points.shape[1] == 3 else np.where((points > 0).any(axis=1), 2, 0)
        if not np.isin(visibility, (0, 1, 2)).all():
            k = int(np.flatnonzero(~np.isin(visibility, (0, 1, 2)))[0])
            raise DataError(f"visibility {visibility[k]:g} of '{self.skeleton.keypoints[k]}' must be 0, 1 or 2")
        width, height = self.size if all(self.size) else (np.nan, np.nan)
        labelled = {
            name: (float(x * width), float(y * height), bool(v == 2))
            for name, (x, y), v in zip(self.skeleton.keypoints, points[:, :2], visibility, strict=True)
            if v > 0
        }
        cx, cy, w, h = (box * np.array([width, height, width, height])).tolist()
        category = self.data.classes[int(numbers[0])]
        return Found(self.image, labelled, (cx - w / 2, cy - h / 2, w, h), category)

    def _check_shares(self, box: Float[np.ndarray, "4"], points: Float[np.ndarray, "K 2"]) -> None:
        rule = "is not between 0 and 1; YOLO's coordinates are shares of the image's width and height"
        outside = np.abs(box - 0.5) > 0.5 + _ROUNDING
        if outside.any():
            raise DataError(f"the box's {box[outside][0]:g} {rule}")
        if not (box[2:] > 0).all():
            raise DataError("the box has no area; width and height must be above 0")
        outside = np.abs(points - 0.5) > 0.5 + _ROUNDING
        if outside.any():
            k, axis = np.argwhere(outside)[0].tolist()
            raise DataError(f"{'xy'[axis]} of '{self.skeleton.keypoints[k]}', {points[k, axis]:g}, {rule}")
