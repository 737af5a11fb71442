"""From objects as an annotation file lists them to `Instances`: what every reader but COCO's has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from posesweep.datasets.boxes import areas_of, box_around
from posesweep.datasets.headers import upright
from posesweep.datasets.images import inside, without_missing
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import DEFAULT_NOTE, Skeleton, load_skeleton, shipped, skeleton_from_names
from posesweep.errors import DataError, did_you_mean

BOX_MARGIN = 0.25  # of the longer side: openfield's mouse, labelled from snout to tail base, lies whole in its box
FEWEST = 2  # labels of which a box can be drawn
Point = tuple[float, float, bool]  # x, y, visible


@dataclass
class Found:
    """One object as a reader meets it."""

    image: str  # as the file names it, with slashes
    points: dict[str, Point] = field(default_factory=dict)  # only the labelled ones
    box: tuple[float, float, float, float] | None = None  # x, y, width, height
    category: str = "animal"
    identity: str = ""


@dataclass(frozen=True)
class Objects:
    """n objects of K keypoints as columns, in the file's own words."""

    names: tuple[str, ...]  # K
    images: Sequence[str]  # n file names, with slashes
    points: Float[np.ndarray, "n K 2"]  # nan where not labelled
    visible: Bool[np.ndarray, "n K"]  # False: labelled, but hidden
    boxes: Float[np.ndarray, "n 4"]  # x, y, width, height; nan where none is given
    categories: Sequence[str]  # n
    identities: Sequence[str]  # n, "" where unknown
    areas: Float[np.ndarray, "n"]  # nan where none is given
    crowd: Bool[np.ndarray, "n"]

    @property
    def labelled(self) -> Bool[np.ndarray, "n K"]:
        """Which keypoints are labelled."""
        return np.asarray(np.isfinite(self.points).all(axis=2))

    def take(self, rows: np.ndarray) -> "Objects":
        """The objects at the integer positions `rows`, in that order."""
        return replace(
            self,
            images=[self.images[i] for i in rows],
            points=self.points[rows],
            visible=self.visible[rows],
            boxes=self.boxes[rows],
            categories=[self.categories[i] for i in rows],
            identities=[self.identities[i] for i in rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
        )


def unboxed(
    names: Sequence[str], images: Sequence[str], points: Float[np.ndarray, "n K 2"], identities: Sequence[str]
) -> Objects:
    """Objects of which only the places of their keypoints are known; all labels are visible."""
    n = len(points)
    return Objects(
        names=tuple(names),
        images=images,
        points=points,
        visible=np.ones(points.shape[:2], dtype=bool),
        boxes=np.full((n, 4), np.nan),
        categories=["animal"] * n,
        identities=identities,
        areas=np.full(n, np.nan),
        crowd=np.zeros(n, dtype=bool),
    )


@dataclass(frozen=True)
class Source:
    """Where objects came from: the annotation file, the folder their image names start in, and what else it says."""

    path: Path
    folder: Path
    groups: Mapping[str, str] = field(default_factory=dict)  # image name -> video or other group
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # image name -> stated width, height
    supposed: bool = True  # whether the file declares its keypoint names, so that one it lacks is a mistake


def columns(found: Sequence[Found], names: Sequence[str]) -> Objects:
    """The objects as columns, their points in the order of `names`, which has all of them."""
    position = {name: k for k, name in enumerate(names)}
    points = np.full((len(found), len(names), 2), np.nan)
    visible = np.ones((len(found), len(names)), dtype=bool)
    for row, item in enumerate(found):
        for name, (x, y, seen) in item.points.items():
            points[row, position[name]] = x, y
            visible[row, position[name]] = seen
    boxes = [item.box or (np.nan,) * 4 for item in found]
    objects = unboxed(names, [item.image for item in found], points, [item.identity for item in found])
    return replace(
        objects,
        visible=visible,
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        categories=[item.category for item in found],
    )


def skeleton_of(name: str, keypoints: Sequence[str]) -> Skeleton:
    """The shipped skeleton with exactly these keypoints in any order, else one made of them, in their order."""
    wanted = sorted(keypoints)
    for candidate in map(load_skeleton, shipped()):
        if sorted(candidate.keypoints) == wanted:
            return candidate
    return skeleton_from_names(name, keypoints)


def gather(objects: Objects, source: Source, skeleton: Skeleton, box_margin: float = BOX_MARGIN) -> Instances:
    """Checked instances in the order of their images' names, and within an image in the file's.

    Points go to the skeleton's keypoints by name. A missing box is drawn around the labelled keypoints, widened on
    every side by `box_margin` x the longer side; areas follow from the boxes. Objects with neither a box nor two
    labels are left out, as are missing images; each is said once in `notes`. Coordinates of images that EXIF turns are
    turned along where the stated sizes show that they were not (see `headers`).
    DataError: a name the skeleton lacks, a file name that leads out of the folder, a box without area, nothing left."""
    path = source.path
    _check_points(objects, path)
    objects, about_names = _in_order_of(skeleton, objects, source)
    objects = objects.take(np.argsort(np.array(objects.images, dtype=object), kind="stable"))
    objects, about_rows = _with_place(objects, path)
    boxes, about_boxes = _boxes(objects, box_margin, path)
    names = list(dict.fromkeys(objects.images))
    files = _files(names, source)
    instances = _as_instances(replace(objects, boxes=boxes), files, skeleton)
    groups = tuple(source.groups.get(name, "") for name in names)
    said = (*about_names, *about_rows, *about_boxes)
    instances = replace(instances, image_groups=groups, notes=tuple(f"{path.name}: {note}" for note in said))
    instances = upright(instances, [source.sizes.get(name) for name in names])
    return without_missing(instances, source.folder, path)


def _check_points(objects: Objects, path: Path) -> None:
    """DataError: a coordinate that is infinite, or without its other half."""
    mistakes = Mistakes(path)
    wrong = np.isinf(objects.points).any(axis=2) | (np.isnan(objects.points).sum(axis=2) == 1)
    for row, k in np.argwhere(wrong):
        x, y = objects.points[row, k].tolist()
        place = f"image {objects.images[row]}: keypoint '{objects.names[k]}' is at ({x:g}, {y:g})"
        mistakes.add(f"{place}; both coordinates must be finite numbers, or both blank where it is not labelled")
    mistakes.raise_any()


def _in_order_of(skeleton: Skeleton, objects: Objects, source: Source) -> tuple[Objects, list[str]]:
    """The objects with the skeleton's keypoints as their columns, and what is to be said about that."""
    unknown = [name for name in objects.names if name not in skeleton.keypoints]
    missing = [name for name in skeleton.keypoints if name not in objects.names]
    mistakes = Mistakes(source.path)
    if source.supposed:
        for name in missing:
            hint = did_you_mean(name, objects.names)
            mistakes.add(f"there is no keypoint '{name}' of skeleton {skeleton.name}{hint}")
    else:
        for name in unknown:
            hint = did_you_mean(name, skeleton.keypoints)
            mistakes.add(f"keypoint '{name}' is not of skeleton {skeleton.name}{hint}")
    mistakes.raise_any()
    notes = [skeleton.sigmas_note] if skeleton.sigmas_note == DEFAULT_NOTE else []
    if unknown:
        notes.append(f"keypoints that skeleton {skeleton.name} does not have are left out: {', '.join(unknown)}")
    position = {name: k for k, name in enumerate(objects.names)}
    at = np.array([position.get(name, len(position)) for name in skeleton.keypoints])
    blank = np.full((len(objects.images), 1, 2), np.nan)  # for keypoints that nothing in the file is labelled with
    points = np.concatenate([objects.points, blank], axis=1)[:, at]
    visible = np.concatenate([objects.visible, np.ones_like(blank[..., 0], dtype=bool)], axis=1)[:, at]
    return replace(objects, names=skeleton.keypoints, points=points, visible=visible), notes


def _with_place(objects: Objects, path: Path) -> tuple[Objects, list[str]]:
    """The objects with a box or with labels enough to draw one, and what is to be said about the others."""
    enough = np.isfinite(objects.boxes).all(axis=1) | (objects.labelled.sum(axis=1) >= FEWEST)
    if not (enough & objects.labelled.any(axis=1)).any():
        raise DataError(
            f"{path}: none of its {len(enough)} objects has a labelled keypoint and a box, or two labels to draw one; "
            "nothing to learn from"
        )
    notes = []
    if not enough.all():
        notes.append(f"{(~enough).sum()} objects have no box and fewer than two labels, too few to draw one; left out")
    unlabelled = int((~objects.labelled[enough].any(axis=1)).sum())
    if unlabelled:
        notes.append(f"{unlabelled} objects have no labelled keypoint: never trained on, ignored by AP")
    return objects.take(np.flatnonzero(enough)), notes


def _boxes(objects: Objects, margin: float, path: Path) -> tuple[Float[np.ndarray, "n 4"], list[str]]:
    """Boxes of all objects, drawn where none is given, and what is to be said about them."""
    mistakes = Mistakes(path)
    boxes, labelled = objects.boxes.copy(), objects.labelled.astype(np.uint8)
    drawn = 0
    for row, box in enumerate(boxes):
        with mistakes.collected(f"image {objects.images[row]}"):
            if not np.isfinite(box).all():
                boxes[row] = box_around(objects.points[row], labelled[row], margin)
                drawn += 1
            elif not (box[2:] > 0).all():
                raise DataError(f"box {box.tolist()} has no area; width and height must be above 0")
    mistakes.raise_any()
    which = "boxes are" if drawn == len(boxes) else f"{drawn} of {len(boxes)} boxes are"
    said = f"{which} drawn around the keypoints, {margin:g} of the longer side added on every side"
    return boxes, [said] if drawn else []


def _files(names: Sequence[str], source: Source) -> list[Path]:
    mistakes = Mistakes(source.path)
    files = []
    for name in names:
        with mistakes.collected(f"image {name}"):
            files.append(inside(source.folder, name))
    mistakes.raise_any()
    return files


def _as_instances(objects: Objects, files: Sequence[Path], skeleton: Skeleton) -> Instances:
    position = {name: i for i, name in enumerate(dict.fromkeys(objects.images))}
    categories = {name: i for i, name in enumerate(dict.fromkeys(sorted(objects.categories)), 1)}
    labelled = objects.labelled
    count = len(objects.images)
    return Instances(
        skeleton=skeleton,
        image_files=tuple(files),
        image_ids=np.arange(1, len(files) + 1),
        image_groups=("",) * len(files),
        image_index=np.array([position[name] for name in objects.images], dtype=np.int64),
        ids=np.arange(1, count + 1),
        category_ids=np.array([categories[name] for name in objects.categories], dtype=np.int64),
        boxes=objects.boxes,
        keypoints=np.where(labelled[:, :, None], objects.points, 0.0),
        visibility=np.where(labelled, np.where(objects.visible, 2, 1), 0).astype(np.uint8),
        areas=np.where(np.isfinite(objects.areas), objects.areas, areas_of(objects.boxes)),
        crowd=objects.crowd,
        category_names={i: name for name, i in categories.items()},
        identities=tuple(objects.identities) if any(objects.identities) else (),
    )
