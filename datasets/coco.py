"""COCO keypoint files (images, annotations, categories), those of AP-10K, AnimalPose and Horse-10, and whole bodies."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float, UInt8

from posesweep.datasets import wholebody
from posesweep.datasets.boxes import FILLED, areas_of, box_around
from posesweep.datasets.documents import read_json
from posesweep.datasets.headers import upright
from posesweep.datasets.images import folder_beside, inside, without_missing
from posesweep.datasets.instances import Instances
from posesweep.datasets.mistakes import Mistakes
from posesweep.datasets.skeleton import DEFAULT_NOTE, Skeleton, skeleton_from_coco_category
from posesweep.errors import DataError, did_you_mean

VISIBILITIES = frozenset((0.0, 1.0, 2.0))
KEYS = ("images", "annotations", "categories")
NUMBERS = frozenset((int, float, type(None)))  # what JSON gives for numbers; None stands where nothing is labelled
NOT_FIELDS = frozenset(("id", "file_name", "width", "height", "license", "date_captured", "coco_url", "flickr_url"))
MARGIN_WITHOUT_BOX = 0.25  # of the longer side, around the keypoints of an annotation without a box


class _Annotation(NamedTuple):
    id: int
    image_id: int
    category_id: int
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "K 2"]
    visibility: UInt8[np.ndarray, "K"]
    area: float
    crowd: bool
    identity: str


def read_coco(
    json_path: Path,
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    categories: Collection[str] | None = None,
) -> Instances:
    """The annotated objects of a COCO keypoint file whose images lie below the folder `images`.

    `images` None is the file's own folder, or `images` in it where the file names start there. `skeleton` None takes
    the file's own; `categories` are names, None is every category with keypoints. Rows are in the order of their ids
    and only images that hold one are listed, so the order within the file means nothing. An image's `group` names its
    video or the like, an annotation's `identity` its individual. A missing box is drawn around the labelled keypoints,
    a missing or zero area is 0.53 of the box; images that are not there are left out; each is said once in `notes`.
    Annotations without a labelled keypoint stay, with visibility 0: evaluation ignores them, training has to leave
    them out. Coordinates of images that EXIF turns are turned along where `width` and `height` show that they were not
    (see `headers`). Of COCO-WholeBody files the skeleton chooses: coco_wholebody133, coco17, or any other whose names
    are among its 133, takes those keypoints.
    DataError: everything else that is wrong, the first ten mistakes of the file at once; detections with scores."""
    document = _load(json_path)
    chosen, declared = _choose_categories(document["categories"], categories, json_path)
    whole = _choose_of_whole_body(document["annotations"], list(chosen.values()), skeleton)
    notes: list[str] = []
    if whole:
        skeleton = whole
    else:
        skeleton, notes = _agree_on_skeleton(list(chosen.values()), skeleton, json_path)
        notes += [MORE_PARTS] if wholebody.in_parts(document["annotations"]) else []
    images = images or _folder_beside(json_path, document["images"])
    mistakes = Mistakes(json_path)
    files = _image_files(document["images"], images, mistakes)
    reader = _Reader(skeleton, files.keys(), chosen.keys(), declared, whole_body=whole is not None)
    rows = reader.read(document["annotations"], mistakes)
    mistakes.raise_any()
    if not any(row.visibility.any() for row in rows):
        raise DataError(
            f"{json_path}: none of the {len(rows)} annotations has a labelled keypoint; nothing to learn from"
        )
    instances = _as_instances(rows, files, skeleton, chosen)
    said = (*notes, *reader.notes(), *_about_empty(document, files))
    instances = replace(instances, notes=tuple(f"{json_path.name}: {note}" for note in said))
    entries = {entry["id"]: entry for entry in document["images"]}
    entries_in_order = [entries[i] for i in instances.image_ids.tolist()]
    fields = _fields(entries_in_order)
    fields.pop("group", None)
    groups = tuple(_named(entry.get("group"), "group") for entry in entries_in_order)
    instances = replace(instances, image_fields=fields, image_groups=groups)
    instances = upright(instances, [_size(entry) for entry in entries_in_order])
    return without_missing(instances, images, json_path)


# --------------------------------------------------------------------------------------------------- the document


def _load(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if isinstance(document, list) and document and isinstance(document[0], dict) and "score" in document[0]:
        raise DataError(
            f"{path}: is a list of detections with scores, as detectors write, not annotations; "
            "give the file with images, annotations and categories"
        )
    missing = [key for key in KEYS if not isinstance(document, dict) or not isinstance(document.get(key), list)]
    if missing:
        raise DataError(f"{path}: is not a COCO keypoint file, it has no list of {' and no list of '.join(missing)}")
    return document


def _choose_of_whole_body(
    annotations: Sequence[Any], categories: Sequence[dict[str, Any]], skeleton: Skeleton | None
) -> Skeleton | None:
    """The skeleton by which keypoints are taken out of COCO-WholeBody's; None in every other file.

    Without a skeleton, a file with 133 flat keypoints gives all of them, one with parts under keys of their own the
    body that its category names."""
    named = [category["keypoints"] for category in categories if isinstance(category.get("keypoints"), list)]
    own = any(len(names) == wholebody.TOTAL and tuple(names) != wholebody.whole().keypoints for names in named)
    if own or (skeleton is not None and not wholebody.fits(skeleton)):
        return None
    if wholebody.flat(annotations):
        return skeleton or wholebody.whole()
    return skeleton if wholebody.in_parts(annotations) else None


MORE_PARTS = (
    f"holds feet, faces and hands too; data.skeleton: {wholebody.NAME} reads all, one with some of its names a part"
)


def _choose_categories(
    entries: Sequence[Any], names: Collection[str] | None, path: Path
) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """Category id -> category of those asked for, and the ids of all."""
    by_id: dict[int, dict[str, Any]] = {}
    mistakes = Mistakes(path)
    for number, category in enumerate(entries, 1):
        with mistakes.collected(f"category entry {number}"):
            by_id[_unused_id(category, by_id)] = category
    known = [str(category.get("name")) for category in by_id.values()]
    for name in names or ():
        if name not in known:
            mistakes.add(f"there is no category '{name}'{did_you_mean(name, known)}")
    mistakes.raise_any()
    with_keypoints = {i: category for i, category in by_id.items() if category.get("keypoints")}
    asked_for = {i: category for i, category in by_id.items() if category.get("name") in (names or ())}
    return (asked_for if names else with_keypoints or by_id), set(by_id)


def _agree_on_skeleton(
    categories: Sequence[dict[str, Any]], skeleton: Skeleton | None, path: Path
) -> tuple[Skeleton, list[str]]:
    """The skeleton of all `categories` and what is to be said about it."""
    described = [category for category in categories if category.get("keypoints")]
    notes: list[str] = []
    if skeleton is None:
        skeleton = _own_skeleton(described, path)
        notes += [_about_inferred(skeleton)] if skeleton.sigmas_note == DEFAULT_NOTE else []
    mistakes = Mistakes(path)
    for category in described:
        with mistakes.collected(f"category '{category.get('name')}'"):
            notes += _compare_names(category["keypoints"], skeleton)
    mistakes.raise_any()
    return skeleton, list(dict.fromkeys(notes))


def _own_skeleton(described: Sequence[dict[str, Any]], path: Path) -> Skeleton:
    if not described:
        raise DataError(f"{path}: its categories list no keypoint names; give data.skeleton")
    try:
        return skeleton_from_coco_category(described[0], str(described[0].get("name")))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _about_inferred(skeleton: Skeleton) -> str:
    pairs = ", ".join(f"{left}/{right}" for left, right in skeleton.flip_pairs) or "none"
    return (
        f"skeleton taken from category '{skeleton.name}', flip pairs inferred from its names: {pairs}; {DEFAULT_NOTE}"
    )


def _compare_names(names: Sequence[Any], skeleton: Skeleton) -> list[str]:
    """What is to be said where names differ. DataError: another number of keypoints, or the same in another order."""
    if len(names) != len(skeleton.keypoints):
        raise DataError(
            f"has {len(names)} keypoints, skeleton {skeleton.name} has {len(skeleton.keypoints)}; "
            "give the skeleton that fits, or choose with data.categories"
        )
    differing = [(a, b) for a, b in zip(names, skeleton.keypoints, strict=True) if a != b]
    if not differing:
        return []
    (a, b), fits = differing[0], sorted(map(str, names)) == sorted(skeleton.keypoints)
    if fits:
        raise DataError(
            f"lists the keypoints of skeleton {skeleton.name} in another order (first '{a}' where the skeleton has "
            f"'{b}'); give a skeleton in the file's order"
        )
    return [f"its keypoint names are not those of skeleton {skeleton.name} ('{a}' for '{b}'); they go by their order"]


def _about_empty(document: Mapping[str, Any], image_ids: Collection[int]) -> list[str]:
    empty = len(set(image_ids) - {entry["image_id"] for entry in document["annotations"]})
    return [f"{empty} images hold no annotation; left out"] if empty else []


def _folder_beside(path: Path, entries: Sequence[Any]) -> Path:
    return folder_beside(path, [str(entry.get("file_name")) for entry in entries if isinstance(entry, dict)])


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = entry.get("width"), entry.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _fields(entries: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """What else the file says of its images: video, background and the like; only single values."""
    keys = dict.fromkeys(key for entry in entries for key in entry if key not in NOT_FIELDS)
    columns = {str(key): tuple(entry.get(key) for entry in entries) for key in keys}
    return {k: v for k, v in columns.items() if all(isinstance(x, str | int | float | None) for x in v)}


def _image_files(entries: Iterable[Any], folder: Path, mistakes: Mistakes) -> dict[int, Path]:
    """Image id -> path below `folder`."""
    files: dict[int, Path] = {}
    first_id: dict[Path, int] = {}
    for number, entry in enumerate(entries, 1):
        with mistakes.collected(f"image entry {number}"):
            image_id = _unused_id(entry, files)
            files[image_id] = folder  # the id is known, even if the name is at fault
            _named(entry.get("group"), "group")
            files[image_id] = file = inside(folder, entry.get("file_name"))
            if first_id.setdefault(file, image_id) != image_id:
                raise DataError(f"{entry['file_name']} is image {first_id[file]} already; every file has one entry")
    return files


def _unused_id(entry: Any, taken: Collection[int]) -> int:
    if not isinstance(entry, dict):
        raise DataError("is not a JSON object")
    entry_id = _whole_number(entry.get("id"), "id")
    if entry_id in taken:
        raise DataError(f"id {entry_id} is used twice; every entry needs its own")
    return entry_id


def _whole_number(value: Any, what: str) -> int:
    """`value` if it is an integer that fits 64 bits; DataError beginning with `what` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise DataError(f"{what} {value!r} is not a whole number; ids are whole numbers, without quotes")
    return value


def _named(value: Any, what: str) -> str:
    """The name of a group or an individual, which may be a number; "" for None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise DataError(f"{what} {value!r} is neither text nor a number; give its name, or leave it out")
    return "" if value is None else str(value)


# ------------------------------------------------------------------------------------------------ the annotations


class _Reader:
    """Checks annotations one by one and counts what it had to derive or leave out."""

    def __init__(
        self,
        skeleton: Skeleton,
        image_ids: Collection[int],
        chosen: Collection[int],
        declared: Collection[int],
        whole_body: bool = False,
    ) -> None:
        self.skeleton, self.image_ids, self.chosen, self.declared = skeleton, image_ids, chosen, declared
        self.whole_body = whole_body
        self.counts: Counter[str] = Counter()

    def read(self, entries: Iterable[Any], mistakes: Mistakes) -> list[_Annotation]:
        """The usable annotations of the chosen categories, in the order of their ids."""
        rows: dict[int, _Annotation | None] = {}
        for number, entry in enumerate(entries, 1):
            with mistakes.collected(f"annotation entry {number}"):
                annotation_id = _unused_id(entry, rows)
                rows[annotation_id] = None
                with mistakes.collected(f"annotation {annotation_id}"):
                    rows[annotation_id] = self._annotation(annotation_id, entry)
        return [row for _, row in sorted(rows.items()) if row is not None]

    def _annotation(self, annotation_id: int, entry: Mapping[str, Any]) -> _Annotation | None:
        image_id = _whole_number(entry.get("image_id"), "image_id")
        category_id = _whole_number(entry.get("category_id"), "category_id")
        if category_id not in self.declared:
            raise DataError(f"category_id {category_id} is not among the file's categories")
        if image_id not in self.image_ids:
            raise DataError(f"image_id {image_id} is not among the file's images")
        if category_id not in self.chosen:
            self.counts["other categories"] += 1
            return None
        given = wholebody.keypoints_of(entry, self.skeleton) if self.whole_body else entry.get("keypoints")
        keypoints, visibility = _keypoints(given, self.skeleton)
        crowd = entry.get("iscrowd") or 0
        if crowd not in (0, 1):
            raise DataError(f"iscrowd {crowd!r} must be 0 or 1")
        box = self._box(entry.get("bbox"), keypoints, visibility, needed=bool(visibility.any() and not crowd))
        if box is None:
            self.counts["no box"] += 1
            return None
        self.counts["unlabelled"] += not visibility.any()
        area = self._area(entry.get("area"), box)
        identity = _named(entry.get("identity"), "identity")
        return _Annotation(
            annotation_id, image_id, category_id, box, keypoints, visibility, area, bool(crowd), identity
        )

    def _box(
        self, given: Any, keypoints: np.ndarray, visibility: np.ndarray, needed: bool
    ) -> Float[np.ndarray, "4"] | None:
        """The box, drawn around the keypoints where none is given; None where there is none and none is needed."""
        if given is None or given == []:
            if not needed:
                return None
            self.counts["drawn"] += 1
            return box_around(keypoints, visibility, MARGIN_WITHOUT_BOX)
        box = _numbers(given, "bbox")
        if len(box) != 4 or not np.isfinite(box).all():
            raise DataError(f"bbox {given} must be four finite numbers: x, y, width, height")
        if box[2] > 0 and box[3] > 0:
            return box
        if needed:
            raise DataError(f"bbox {given} has no area; width and height must be above 0")
        return None

    def _area(self, given: Any, box: Float[np.ndarray, "4"]) -> float:
        area = 0.0 if given is None else given
        if isinstance(area, bool) or not isinstance(area, int | float) or not 0 <= area < 1e18:
            raise DataError(f"area {given!r} must be a number of square pixels, 0 or more")
        if area == 0:
            self.counts["area"] += 1
            return float(areas_of(box[None])[0])
        return float(area)

    def notes(self) -> list[str]:
        """One sentence for each kind of thing that was derived or left out."""
        sentences = {
            "drawn": "have no box; it was drawn around their labelled keypoints, a quarter of the longer side to spare",
            "area": f"have no area; {FILLED} x width x height of the box stands for it, as in CrowdPose",
            "unlabelled": "have no labelled keypoint: never trained on, ignored by AP",
            "no box": "have no box and nothing to train on; left out",
            "other categories": "are of other categories; left out",
        }
        return [f"{self.counts[key]} annotations {text}" for key, text in sentences.items() if self.counts[key]]


def _numbers(given: Any, what: str) -> Float[np.ndarray, "n"]:
    if not isinstance(given, list) or not NUMBERS.issuperset(map(type, given)):
        wrong = [value for value in given if type(value) not in NUMBERS] if isinstance(given, list) else [given]
        raise DataError(f"{what} must be a flat list of numbers{_such_as(wrong[0])}")
    try:
        return np.asarray(given, dtype=np.float64)
    except OverflowError:
        raise DataError(f"{what} has a number too large to be a coordinate") from None


def _such_as(value: Any) -> str:
    if isinstance(value, str):
        return f", without quotes around them (found '{value[:20]}')"
    return f" (found {str(value).lower()})" if isinstance(value, bool) else ""


def _keypoints(given: Any, skeleton: Skeleton) -> tuple[Float[np.ndarray, "K 2"], UInt8[np.ndarray, "K"]]:
    """Coordinates (of any value where not labelled) and visibility."""
    count = len(skeleton.keypoints)
    if given is None or given == []:
        return np.zeros((count, 2)), np.zeros(count, dtype=np.uint8)
    values = _numbers(given, "keypoints")
    if len(values) != 3 * count:
        raise DataError(
            f"keypoints has {len(values)} numbers, skeleton {skeleton.name} needs {3 * count} "
            f"(x, y, visibility for {count} keypoints)"
        )
    points = values.reshape(-1, 3)
    if not VISIBILITIES.issuperset(points[:, 2].tolist()):
        _refuse_visibility(points, skeleton)
    if not np.isfinite(values).all():
        _refuse_labelled_without_place(points, skeleton)
    return points[:, :2], points[:, 2].astype(np.uint8)


def _refuse_visibility(points: Float[np.ndarray, "K 3"], skeleton: Skeleton) -> NoReturn:
    k = next(k for k, visibility in enumerate(points[:, 2].tolist()) if visibility not in VISIBILITIES)
    raise DataError(
        f"visibility {points[k, 2]:g} of keypoint '{skeleton.keypoints[k]}' must be "
        "0 (not labelled), 1 (hidden) or 2 (visible)"
    )


def _refuse_labelled_without_place(points: Float[np.ndarray, "K 3"], skeleton: Skeleton) -> None:
    for name, (x, y, visibility) in zip(skeleton.keypoints, points.tolist(), strict=True):
        if visibility > 0 and not np.isfinite((x, y)).all():
            raise DataError(f"keypoint '{name}' is at ({x:g}, {y:g}); coordinates must be finite numbers")


# --------------------------------------------------------------------------------------------------- as instances


def _as_instances(
    rows: Sequence[_Annotation], files: Mapping[int, Path], skeleton: Skeleton, chosen: Mapping[int, Mapping[str, Any]]
) -> Instances:
    image_ids = np.unique(np.array([row.image_id for row in rows], dtype=np.int64))
    count = len(skeleton.keypoints)
    keypoints = np.array([row.keypoints for row in rows]).reshape(-1, count, 2)
    visibility = np.array([row.visibility for row in rows], dtype=np.uint8).reshape(-1, count)
    return Instances(
        skeleton=skeleton,
        image_files=tuple(files[i] for i in image_ids.tolist()),
        image_ids=image_ids,
        image_groups=("",) * len(image_ids),
        image_index=np.searchsorted(image_ids, np.array([row.image_id for row in rows], dtype=np.int64)),
        ids=np.array([row.id for row in rows], dtype=np.int64),
        category_ids=np.array([row.category_id for row in rows], dtype=np.int64),
        boxes=np.array([row.box for row in rows]).reshape(-1, 4),
        keypoints=np.where(visibility[:, :, None] > 0, keypoints, 0.0),
        visibility=visibility,
        areas=np.array([row.area for row in rows], dtype=np.float64),
        crowd=np.array([row.crowd for row in rows], dtype=bool),
        category_names={i: str(category.get("name", i)) for i, category in chosen.items()},
        supercategories={i: str(c["supercategory"]) for i, c in chosen.items() if c.get("supercategory")},
        identities=tuple(row.identity for row in rows) if any(row.identity for row in rows) else (),
    )
