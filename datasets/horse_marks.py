"""The 42 points of horse68 that horse26 lacks: fixed places on the skin of the articulated horse.

Each is a weighted sum of vertices of its surface, so it moves with the body in every pose and needs no joint angles:
`marks(body.vertices)`. They are found again on a real horse: bony points, corners, outlines, the ends of hooves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from posesweep.datasets.horse_body import (
    _HEAD,
    _RINGS,
    _TRUNK,
    _TUBES,
    LANDMARKS,
    LEG_PARTS,
    LEGS,
    PART_ID,
    SEGMENTS,
    Body,
    Landmark,
)

_TOP, _BOTTOM = 90.0, 270.0  # degrees around a tube; 0 is the animal's left. Of a leg the fore and the hind side
_SIDES = {"left": 1.0, "right": -1.0}


@dataclass(frozen=True)
class Mark:
    """A landmark that is the sum of `weights` x the body's `vertices`."""

    landmark: Landmark
    vertices: tuple[int, ...]
    weights: tuple[float, ...]


def marks(vertices: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "42 3"]:
    """The places of MARKS on a body, in the axes of its vertices."""
    numbers, weights = _table()
    return np.asarray((vertices[numbers] * weights[..., None]).sum(axis=1))


@cache
def _table() -> tuple[Int[np.ndarray, "42 4"], Float[np.ndarray, "42 4"]]:
    return np.array([mark.vertices for mark in MARKS]), np.array([mark.weights for mark in MARKS])


# -- places on tubes --------------------------------------------------------------------------------------------------
def _first_vertex(kind: str, number: int = 0) -> int:
    """Of the `number`-th tube of a kind."""
    first = 0
    for name, (count, rings, around) in _TUBES.items():
        if name == kind:
            return first + number * rings * around
        first += count * rings * around
    return first  # "mane", and what follows the tubes


def _on(landmark: Landmark, tube: tuple[str, int], ring: float, degrees: float) -> Mark:
    """On a tube (kind, number): between two rings, and between two vertices of a ring in the direction `degrees`."""
    first, (_, rings, around) = _first_vertex(*tube), _TUBES[tube[0]]
    lower = min(int(ring), rings - 2)
    along = ring - lower
    step = 360 / around
    left = int(degrees // step) % around
    before, after = np.sin(np.radians([degrees % step, step - degrees % step]))
    across = float(before / (before + after))
    numbers = [first + r * around + v % around for r in (lower, lower + 1) for v in (left, left + 1)]
    weights = [a * b for a in (1 - along, along) for b in (1 - across, across)]
    return Mark(landmark, tuple(numbers), tuple(weights))


def _inside(landmark: Landmark, tube: tuple[str, int], ring: int) -> Mark:
    """The middle of a tube's ring, of two vertices across it: only a ring with an even number of them has it."""
    around = _TUBES[tube[0]][2]
    start = _first_vertex(*tube) + ring * around
    return Mark(landmark, (start, start + around // 2, start, start), (0.5, 0.5, 0.0, 0.0))


def _corner(landmark: Landmark, vertex: int) -> Mark:
    return Mark(landmark, (vertex,) * 4, (1.0, 0.0, 0.0, 0.0))


# -- the places -------------------------------------------------------------------------------------------------------
def _eye_corners() -> Iterator[Mark]:
    """Both ends of the eyes' quads. A mirrored quad counts its corners the other way round (horse_body._FEATURES)."""
    after_mane = _first_vertex("mane") + 3 * (_TUBES["neck"][1] - 2)
    corners = {("left", "front"): 3, ("right", "front"): 8, ("left", "back"): 1, ("right", "back"): 10}
    for (side, end), vertex in corners.items():
        yield _corner(Landmark(f"{side}_eye_{end}_corner", (f"{side}_eye", "head"), 0.05), after_mane + vertex)


def _head_marks() -> Iterator[Mark]:
    yield from _eye_corners()
    for number, side in enumerate(_SIDES):
        yield _ear_base(side, number)
    for name, along, degrees, depth in (
        ("forehead", 0.10, _TOP, 0.06),
        ("nose_bridge", 0.38, _TOP, 0.06),
        ("muzzle_tip", 0.61, _TOP, 0.06),
        ("chin", 0.57, _BOTTOM, 0.06),
    ):
        yield _on(Landmark(name, ("head",), depth), ("head", 0), _ring_at(_HEAD, along), degrees)
    for name, along, degrees in (("mouth_corner", 0.50, -35.0), ("jaw", 0.13, -58.0)):
        for side, sign in _SIDES.items():
            landmark = Landmark(f"{side}_{name}", ("head", "neck") if name == "jaw" else ("head",), 0.05)
            yield _on(landmark, ("head", 0), _ring_at(_HEAD, along), degrees % 360 if sign > 0 else 180 - degrees)
    yield _on(Landmark("throat", ("neck", "head"), 0.12), ("neck", 0), 5.0, _BOTTOM)


def _ear_base(side: str, number: int) -> Mark:
    """Where the ear leaves the skull, in its middle: between the ring within the skull and the widest one."""
    return _on(Landmark(f"{side}_ear_base", (f"{side}_ear", "head", "mane"), 0.07), ("ear", number), 0.4, _TOP)


def _neck_and_trunk_marks() -> Iterator[Mark]:
    for name, ring in (("crest_upper", 5.0), ("crest_lower", 3.0)):
        yield _on(Landmark(name, ("neck", "mane"), 0.12), ("neck", 0), ring, _TOP)
    hind = tuple(f"{side}_hind_upper" for side in _SIDES)
    for name, x, degrees, parts, depth in (
        ("back", 0.05, _TOP, (), 0.12),
        ("loin", -0.24, _TOP, hind, 0.12),
        ("breast", 0.74, _BOTTOM, ("neck",), 0.10),
        ("belly", -0.10, _BOTTOM, (), 0.15),
    ):
        yield _on(Landmark(name, ("trunk", *parts), depth), ("trunk", 0), _ring_at(_TRUNK, x), degrees)
    for name, x, degrees, end, depth in (
        ("shoulder_point", 0.68, -25.0, "front", 0.08),
        ("ribs", -0.05, 0.0, "front", 0.05),
        ("hip_bone", -0.36, 40.0, "hind", 0.08),
        ("buttock", -0.82, 10.0, "hind", 0.08),
    ):
        for side, sign in _SIDES.items():
            landmark = Landmark(f"{side}_{name}", ("trunk", f"{side}_{end}_upper"), depth)
            turned = degrees % 360 if sign > 0 else 180 - degrees
            yield _on(landmark, ("trunk", 0), _ring_at(_TRUNK, x), turned)
    yield _inside(Landmark("tail_tip", ("tail",), 0.07), ("tail", 0), _TUBES["tail"][1] - 1)


def _leg_marks() -> Iterator[Mark]:
    for number, leg in enumerate(LEGS):
        side, end = leg.split("_")
        foot = LEG_PARTS[number * len(SEGMENTS) + len(SEGMENTS) - 1]
        for name, share, degrees in (("coronet", 0.02, _TOP), ("toe", 1.0, _TOP), ("heel", 1.0, _BOTTOM)):
            landmark = Landmark(f"{side}_{end}_{name}", (foot,), 0.05)
            yield _on(landmark, ("leg", number), _leg_ring(number, share), degrees)


def _ring_at(table: Float[np.ndarray, "R C"], along: float) -> float:
    """Where a tube's table says `along` in its first column, in rings."""
    return float(np.interp(along, table[:, 0], np.arange(len(table))))


def _leg_ring(leg: int, share: float) -> int:
    """The ring of the hoof that lies at a share of its height."""
    bone, shares = _RINGS[leg, :, 0], _RINGS[leg, :, 1]
    return int(np.flatnonzero((bone == 4) & (shares == share))[0])


MARKS = (*_head_marks(), *_neck_and_trunk_marks(), *_leg_marks())


# -- what a picture is labelled with ----------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Schema:
    """The K points of a skeleton as they lie on the synthetic horse."""

    skeleton: str
    landmarks: tuple[Landmark, ...]
    depths: Float[np.ndarray, "K"]  # metres below the skin of an average horse that each may lie
    allowed: Bool[np.ndarray, "K P"]  # on which of PARTS each shows

    def points(self, body: Body) -> Float[np.ndarray, "K 3"]:
        """Their places, in the axes of the body."""
        if len(self.landmarks) == len(LANDMARKS):
            return body.points
        return np.concatenate([body.points, marks(body.vertices)])


def _schema(skeleton: str, landmarks: tuple[Landmark, ...]) -> Schema:
    allowed = np.zeros((len(landmarks), len(PART_ID)), bool)
    for row, landmark in zip(allowed, landmarks, strict=True):
        row[[PART_ID[part] for part in landmark.parts]] = True
    return Schema(skeleton, landmarks, np.array([landmark.depth for landmark in landmarks]), allowed)


HORSE26 = _schema("horse26", LANDMARKS)
HORSE68 = _schema("horse68", (*LANDMARKS, *(mark.landmark for mark in MARKS)))
SCHEMAS = {len(schema.landmarks): schema for schema in (HORSE26, HORSE68)}
