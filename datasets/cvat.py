"""CVAT for images 1.1: one XML file, whose images hold skeletons, points and boxes.

A skeleton is one object, its points named by their labels; `outside` is not labelled, `occluded` is hidden. Points
drawn one by one are keypoints of their label, those of one group_id are one object; points with several places are one
object whose places are the skeleton's keypoints in order. A box of the same group_id is the object's box, and so is the
only box of an image with one object, neither of them grouped. Other boxes are objects without a labelled keypoint,
unless they may be of objects that are there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from posesweep.datasets.documents import read_xml
from posesweep.datasets.gather import BOX_MARGIN, Found, Source, columns, gather, skeleton_of
from posesweep.datasets.images import folder_beside
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import DataError, did_you_mean

NO_GROUP = ("", "0")


def read_cvat(
    path: Path, images: Path | None = None, skeleton: Skeleton | None = None, box_margin: float = BOX_MARGIN
) -> Instances:
    """The objects of a CVAT file whose images lie below `images`.

    `images` None is the file's folder, or `images` in it if the names start there. `skeleton` None is the shipped one
    with the names of the file's skeleton label, or is made of them.
    DataError: no such XML, CVAT for video, or the mistakes in it, each with its image."""
    root = read_xml(path)
    if root.tag != "annotations":
        raise DataError(f"{path}: is not a CVAT file: its root is <{root.tag}>, not <annotations>")
    if root.find("track") is not None:
        raise DataError(f"{path}: is CVAT for video (it has tracks); export the task as 'CVAT for images 1.1'")
    declared = _declared(root)
    reader = _Reader(skeleton.keypoints if skeleton else tuple(declared))
    mistakes = Mistakes(path)
    for number, element in enumerate(root.iter("image"), 1):
        with mistakes.collected(f"image {element.get('name') or number}"):
            reader.read(element)
    mistakes.raise_any()
    names = declared or list(dict.fromkeys(name for item in reader.found for name in item.points))
    if not names:
        raise DataError(f"{path}: holds no skeleton and no points; nothing to learn from")
    unknown = next((name for item in reader.found for name in item.points if name not in names), None)
    if unknown:
        raise DataError(f"{path}: point '{unknown}' is not of the file's skeleton{did_you_mean(unknown, names)}")
    skeleton = skeleton or skeleton_of("cvat", names)
    folder = images or folder_beside(path, list(reader.sizes))
    source = Source(path, folder, sizes=reader.sizes, supposed=bool(declared))
    instances = gather(columns(reader.found, names), source, skeleton, box_margin)
    if not reader.spare_boxes:
        return instances
    note = f"{reader.spare_boxes} boxes are left out, nothing says whose they are; in CVAT, group each with its points"
    return replace(instances, notes=(f"{path.name}: {note}", *instances.notes))


def _declared(root: Element) -> list[str]:
    """Keypoint names of the skeleton labels, as the file's header lists them."""
    labels = [label for label in root.iter("label") if label.find("name") is not None]
    parents = {_said(label, "name") for label in labels if _said(label, "type") == "skeleton"}
    return list(dict.fromkeys(_said(label, "name") for label in labels if _said(label, "parent") in parents))


def _said(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


@dataclass
class _Reader:
    """Collects the objects of one image after the other."""

    in_order: Sequence[str]  # names of the places of points that are drawn as one
    found: list[Found] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    spare_boxes: int = 0  # left out: nothing says whose they are

    def read(self, image: Element) -> None:
        """Add the objects of one image. DataError: its mistakes."""
        name = (image.get("name") or "").replace("\\", "/")
        if not name:
            raise DataError("has no name; every image needs one")
        if name in self.sizes:
            raise DataError("is there twice; every image has one entry")
        self.sizes[name] = (_count(image, "width"), _count(image, "height"))
        groups: dict[str, Found] = {}
        items = [*self._skeletons(image, name, groups), *self._points(image, name, groups)]
        grouped = {id(item) for item in groups.values()}
        alone = [item for item in items if id(item) not in grouped]
        loose = [box for box in image.iter("box") if box.get("group_id", "") in NO_GROUP]
        for box in image.iter("box"):
            if box.get("group_id", "") not in NO_GROUP:
                self._give_box(box, _item(box, name, groups))
        if len(loose) == len(alone) == 1:
            self._give_box(loose[0], alone[0])
        elif alone:
            self.spare_boxes += len(loose)
        else:
            for box in loose:
                items.append(Found(name))
                self._give_box(box, items[-1])
        self.found += {id(item): item for item in (*items, *groups.values())}.values()

    def _skeletons(self, image: Element, name: str, groups: dict[str, Found]) -> Iterator[Found]:
        for element in image.iter("skeleton"):
            item = _item(element, name, groups)
            for points in element.iter("points"):
                if points.get("outside") != "1":
                    _add(item, points.get("label") or "", _places(points), points)
            yield item

    def _points(self, image: Element, name: str, groups: dict[str, Found]) -> Iterator[Found]:
        single = Found(image=name)
        for points in image.findall("points"):
            places = _places(points)
            if len(places) == 1:
                grouped = points.get("group_id", "") not in NO_GROUP
                item = _item(points, name, groups) if grouped else single
                item.category = "animal"
                _add(item, points.get("label") or "", places, points)
                continue
            if len(places) != len(self.in_order):
                raise DataError(
                    f"points '{points.get('label')}' has {len(places)} places and the skeleton {len(self.in_order)} "
                    "keypoints; name the skeleton whose order they follow as data.skeleton"
                )
            item = _item(points, name, groups)
            for keypoint, place in zip(self.in_order, places, strict=True):
                _add(item, keypoint, [place], points)
            yield item
        if single.points:
            yield single

    def _give_box(self, box: Element, item: Found) -> None:
        """Set the object's box; a second one is left out."""
        if item.box is not None:
            self.spare_boxes += 1
            return
        left, top, right, bottom = (_number(box, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        item.box, item.category = (left, top, right - left, bottom - top), box.get("label") or item.category


def _item(element: Element, image: str, groups: dict[str, Found]) -> Found:
    """The object of the element's group, or one of its own."""
    group, category = element.get("group_id", ""), element.get("label") or "animal"
    new = Found(image, category=category)
    return new if group in NO_GROUP else groups.setdefault(group, new)


def _add(item: Found, label: str, places: Sequence[tuple[float, float]], element: Element) -> None:
    if not label:
        raise DataError("a point has no label; every keypoint needs its name")
    if len(places) != 1:
        raise DataError(f"keypoint '{label}' has {len(places)} places; it needs one")
    if label in item.points:
        raise DataError(f"keypoint '{label}' is there twice; group the points of each object, or use a skeleton")
    item.points[label] = (*places[0], element.get("occluded") != "1")


def _places(points: Element) -> list[tuple[float, float]]:
    """x,y;x,y;..."""
    text = points.get("points") or ""
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in text.split(";")]
    except ValueError:
        pairs = []
    if not pairs or not all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in pairs):
        raise DataError(f"points of '{points.get('label')}' are '{text[:40]}'; they must be x,y;x,y;... finite numbers")
    return [(x, y) for x, y in pairs]


def _number(element: Element, key: str) -> float:
    value: Any = element.get(key)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{key} of a {element.tag} is {value!r}; it must be a finite number")
    return number


def _count(element: Element, key: str) -> int:
    value = element.get(key) or ""
    if not value.isdecimal() or len(value) > 9:
        raise DataError(f"{key} is {value!r}; it must be a whole number of pixels")
    return int(value)
