"""COCO-WholeBody's dialect: 133 keypoints, spread over five keys of an annotation or flat in `keypoints`.

A part whose `<part>_valid` is false is not labelled, whatever its numbers. Hands may carry a likelihood in place of a
visibility; a keypoint with one between 0 and 1 counts as labelled but hidden (mmpose counts it as visible).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from posesweep.datasets.skeleton import Skeleton, load_skeleton
from posesweep.errors import DataError, did_you_mean

NAME = "coco_wholebody133"
PROBED = 20  # annotations looked at to tell the dialect
# part -> key of its keypoints, key of its validity, number of keypoints; in the skeleton's order
PARTS: dict[str, tuple[str, str, int]] = {
    "body": ("keypoints", "", 17),
    "foot": ("foot_kpts", "foot_valid", 6),
    "face": ("face_kpts", "face_valid", 68),
    "lefthand": ("lefthand_kpts", "lefthand_valid", 21),
    "righthand": ("righthand_kpts", "righthand_valid", 21),
}
TOTAL = sum(count for _, _, count in PARTS.values())


@cache
def whole() -> Skeleton:
    """The skeleton of all 133 keypoints."""
    return load_skeleton(NAME)


def skeleton_of_parts(parts: Collection[str]) -> Skeleton:
    """The keypoints of some of body, foot, face, lefthand and righthand, in COCO-WholeBody's order."""
    for part in parts:
        if part not in PARTS:
            raise DataError(f"there is no part '{part}' of the whole body{did_you_mean(part, PARTS)}")
    full, first = whole(), 0
    names: list[str] = []
    for part, (_, _, count) in PARTS.items():
        names += full.keypoints[first : first + count] if part in parts else []
        first += count
    return full if len(names) == TOTAL else _part_of(full, names, "_".join(p for p in PARTS if p in parts))


def _part_of(full: Skeleton, names: Sequence[str], name: str) -> Skeleton:
    if tuple(names) == load_skeleton("coco17").keypoints:
        return load_skeleton("coco17")
    rows = [full.keypoints.index(keypoint) for keypoint in names]
    kept = set(names)
    return replace(
        full,
        name=name,
        keypoints=tuple(names),
        flip_pairs=tuple(pair for pair in full.flip_pairs if kept.issuperset(pair)),
        edges=tuple(edge for edge in full.edges if kept.issuperset(edge)),
        sigmas=full.sigmas[rows],
    )


def in_parts(annotations: Sequence[Any]) -> bool:
    """Whether annotations have feet, faces or hands under keys of their own."""
    keys = {key for key, _, _ in PARTS.values()} - {"keypoints"}
    return any(isinstance(entry, dict) and not keys.isdisjoint(entry) for entry in annotations[:PROBED])


def flat(annotations: Sequence[Any]) -> bool:
    """Whether annotations have all 133 keypoints in `keypoints`."""
    lists = [entry.get("keypoints") for entry in annotations[:PROBED] if isinstance(entry, dict)]
    return any(isinstance(values, list) and len(values) == 3 * TOTAL for values in lists)


def fits(skeleton: Skeleton) -> bool:
    """Whether every keypoint of `skeleton` is one of the 133."""
    return set(skeleton.keypoints) <= set(whole().keypoints)


def keypoints_of(entry: Mapping[str, Any], skeleton: Skeleton) -> list[Any] | None:
    """x, y, visibility of the skeleton's keypoints from one annotation, flat; None where it has none at all.

    DataError: a part with another number of values."""
    given = entry.get("keypoints")
    if isinstance(given, list) and len(given) == 3 * TOTAL:
        values = list(given)
    elif not given and not any(entry.get(key) for key, _, _ in PARTS.values()):
        return None
    else:
        values = [value for key, valid, count in PARTS.values() for value in _part(entry, key, valid, count)]
    values[2::3] = [1 if isinstance(v, float) and 0 < v < 1 else v for v in values[2::3]]
    rows = [whole().keypoints.index(name) for name in skeleton.keypoints]
    return [value for row in rows for value in values[3 * row : 3 * row + 3]]


def _part(entry: Mapping[str, Any], key: str, valid: str, count: int) -> list[Any]:
    values = entry.get(key)
    if not values or (valid and entry.get(valid) is False):
        return [0] * 3 * count
    if not isinstance(values, list) or len(values) != 3 * count:
        size = len(values) if isinstance(values, list) else 0
        raise DataError(f"{key} has {size} numbers, COCO-WholeBody has {3 * count} there (x, y, visibility each)")
    return values
