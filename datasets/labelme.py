"""LabelMe: one JSON file an image. Points are keypoints, rectangles are boxes, group_id says which belong together.

A point's label is its keypoint's name, a rectangle's is its category. Shapes without a group_id are one object. A point
with the flag `occluded` or `hidden` set is labelled but hidden. Polygons and other shapes are left out.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posesweep.datasets.documents import NOT_HERE, read_json
from posesweep.datasets.gather import BOX_MARGIN, Found, Point, Source, columns, gather, skeleton_of
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import DataError

HIDDEN = ("occluded", "hidden")  # flags of a point


def is_labelme(document: Any) -> bool:
    """Whether a JSON value is one image's LabelMe annotations."""
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read_labelme(
    path: Path, images: Path | None = None, skeleton: Skeleton | None = None, box_margin: float = BOX_MARGIN
) -> Instances:
    """The objects of a LabelMe file, or of all LabelMe files in a folder.

    `images` None is the folder of the files; imagePath counts from its file and must lie below `images`. `skeleton`
    None is the shipped one with the labels that occur, or is made of them in alphabetical order.
    DataError: no such files, or the mistakes in them, each with its file and shape."""
    files = _files(path)
    folder = images or (path if path.is_dir() else path.parent)
    mistakes = Mistakes(path)
    found: list[Found] = []
    sizes: dict[str, tuple[int, int]] = {}
    other: Counter[str] = Counter()
    of_image: dict[str, Path] = {}
    for file in files:
        where = file.name if path.is_dir() else ""
        with mistakes.collected(where):
            document = _document(file, path)
            name = _image_name(document, file, folder)
            if name in of_image:
                raise DataError(
                    f"imagePath '{name}' is that of {of_image[name].name} already; every image has one file"
                )
            of_image[name] = file
            sizes |= _size(document, name)
            found += _objects(document["shapes"], name, other)
    mistakes.raise_any()
    names = sorted({name for item in found for name in item.points})
    if not names:
        raise DataError(f"{path}: no point in its {len(files)} LabelMe files; keypoints are shapes of the type point")
    skeleton = skeleton or skeleton_of("labelme", names)
    source = Source(path, folder, sizes=sizes, supposed=False)
    instances = gather(columns(found, names), source, skeleton, box_margin)
    return replace(instances, notes=(*_about(other, path), *instances.notes))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: {NOT_HERE}")
    files = sorted(path.rglob("*.json"))
    if not files:
        raise DataError(f"{path}: there is no .json in this folder; LabelMe writes one for every image")
    return files


def _document(file: Path, path: Path) -> dict[str, Any]:
    try:
        document = read_json(file)
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{file}: ")) from None
    if not is_labelme(document):
        raise DataError("is not a LabelMe file, it has no list of shapes")
    return document


def _image_name(document: Mapping[str, Any], file: Path, folder: Path) -> str:
    """The image's name below `folder`: imagePath as seen from its file, where that is below the folder."""
    given = document.get("imagePath")
    if not isinstance(given, str) or not given.strip():
        raise DataError(f"imagePath is {given!r}; it must name the image, as seen from this file")
    given = given.replace("\\", "/")
    seen = Path(os.path.normpath(file.parent / given))
    if seen.is_relative_to(os.path.normpath(folder)):
        return seen.relative_to(os.path.normpath(folder)).as_posix()
    return given


def _size(document: Mapping[str, Any], name: str) -> dict[str, tuple[int, int]]:
    width, height = document.get("imageWidth"), document.get("imageHeight")
    return {name: (width, height)} if isinstance(width, int) and isinstance(height, int) else {}


def _objects(shapes: Sequence[Any], image: str, other: Counter[str]) -> list[Found]:
    """The objects of one image, in the order of their first shapes; shapes that are no keypoints are counted."""
    groups: dict[Any, Found] = {}
    mistakes = []
    for number, shape in enumerate(shapes, 1):
        try:
            kind, label, group, corners = _shape(shape)
            item = groups.setdefault(group, Found(image))
            if kind == "point":
                _add_point(item, label, shape, corners)
            elif kind == "rectangle":
                _add_box(item, label, corners)
            else:
                other[kind] += 1
        except DataError as error:
            mistakes.append(f"shape {number}: {error}")
    if mistakes:
        raise DataError("; ".join(mistakes[:3]))
    return [item for item in groups.values() if item.points or item.box]


def _shape(shape: Any) -> tuple[str, str, Any, list[tuple[float, float]]]:
    """Type, label, group and corners."""
    if not isinstance(shape, dict):
        raise DataError("is not a JSON object")
    kind, label, group = shape.get("shape_type") or "polygon", shape.get("label"), shape.get("group_id")
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"label {label!r} must be a name")
    if not isinstance(group, int | str | None) or isinstance(group, bool):
        raise DataError(f"group_id {group!r} of '{label}' must be a number, or null")
    return str(kind), label.strip(), group, list(_corners(shape.get("points"), label))


def _corners(points: Any, label: str) -> Iterator[tuple[float, float]]:
    for point in points if isinstance(points, list) else [None]:
        pair: Any = point if isinstance(point, list) and len(point) == 2 else (None, None)
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in pair):
            raise DataError(f"points of '{label}' must be pairs of finite numbers, not {point!r}")
        yield float(pair[0]), float(pair[1])


def _add_point(item: Found, label: str, shape: Mapping[str, Any], corners: Sequence[tuple[float, float]]) -> None:
    if len(corners) != 1:
        raise DataError(f"'{label}' is a point with {len(corners)} places; a point has one")
    if label in item.points:
        raise DataError(f"keypoint '{label}' is there twice; give the points of each object a group_id of their own")
    flags = shape.get("flags")
    hidden = isinstance(flags, dict) and any(flags.get(name) for name in HIDDEN)
    point: Point = (*corners[0], not hidden)
    item.points[label] = point


def _add_box(item: Found, label: str, corners: Sequence[tuple[float, float]]) -> None:
    if len(corners) not in (2, 4):
        raise DataError(f"rectangle '{label}' has {len(corners)} corners; it needs two opposite ones")
    if item.box is not None:
        raise DataError(f"rectangle '{label}' is a second box; give the shapes of each object a group_id of their own")
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    item.box, item.category = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)), label


def _about(other: Counter[str], path: Path) -> tuple[str, ...]:
    if not other:
        return ()
    kinds = ", ".join(f"{count} {kind}" for kind, count in other.most_common())
    return (f"{path.name}: shapes that are neither points nor rectangles are left out: {kinds}",)
