"""An articulated horse: proportions and joint angles in, a surface of quads and 26 named points out.

Lengths are metres. x points forward, y to the horse's left, z up; the ground is z = 0 and the middle of the trunk is
above the origin. Proportions are of a riding horse of 1.55 m at the withers, read off anatomical drawings.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

Points = Float[np.ndarray, "... 3"]

LEGS = ("left_front", "right_front", "left_hind", "right_hind")
SEGMENTS = ("upper", "lower", "cannon", "foot")
LEG_SIDES = np.array([1.0, -1.0, 1.0, -1.0])  # +1 left
LEG_PARTS = tuple(f"{leg}_{segment}" for leg in LEGS for segment in SEGMENTS)
PARTS = (
    "nothing", "trunk", "neck", "head", "left_ear", "right_ear", "mane", "tail",
    "left_eye", "right_eye", "left_nostril", "right_nostril", *LEG_PARTS,
)  # fmt: skip
PART_ID = {name: number for number, name in enumerate(PARTS)}


@dataclass(frozen=True)
class Landmark:
    """Where one keypoint shows: on which parts, and how deep below their surface it may lie (metres)."""

    name: str
    parts: tuple[str, ...]
    depth: float


def _leg_landmarks() -> Iterable[Landmark]:
    joints = {
        "front": ("elbow", "knee", "front_fetlock", "front_hoof"),
        "hind": ("stifle", "hock", "hind_fetlock", "hind_hoof"),
    }
    depths = {"front": (0.12, 0.08, 0.07, 0.09), "hind": (0.12, 0.09, 0.07, 0.09)}
    for leg in LEGS:
        side, end = leg.split("_")
        for i, (joint, depth) in enumerate(zip(joints[end], depths[end], strict=True)):
            yield Landmark(f"{side}_{joint}", tuple(f"{leg}_{segment}" for segment in SEGMENTS[i : i + 2]), depth)


LANDMARKS = (
    Landmark("left_nostril", ("left_nostril", "head"), 0.05),
    Landmark("right_nostril", ("right_nostril", "head"), 0.05),
    Landmark("left_eye", ("left_eye", "head"), 0.05),
    Landmark("right_eye", ("right_eye", "head"), 0.05),
    Landmark("left_ear_tip", ("left_ear",), 0.06),
    Landmark("right_ear_tip", ("right_ear",), 0.06),
    Landmark("poll", ("head", "neck", "mane"), 0.10),
    Landmark("withers", ("trunk", "neck", "mane"), 0.22),
    Landmark("croup", ("trunk", "left_hind_upper", "right_hind_upper"), 0.22),
    Landmark("tail_base", ("trunk", "tail", "left_hind_upper", "right_hind_upper"), 0.16),
    *_leg_landmarks(),
)
KEYPOINTS = tuple(landmark.name for landmark in LANDMARKS)


@dataclass(frozen=True)
class Build:
    """Proportions of one animal, as factors of the average one."""

    size: float = 1.0
    legs: float = 1.0
    girth: float = 1.0
    neck: float = 1.0
    head: float = 1.0
    mane_side: float = -1.0  # -1: the mane falls to the right


@dataclass(frozen=True)
class Pose:
    """Joint angles in radians."""

    legs: Float[np.ndarray, "4 4"]  # LEGS x SEGMENTS: swing from straight down, forward positive
    splay: Float[np.ndarray, "4"]  # outward
    neck_pitch: float  # above the horizon
    neck_yaw: float = 0.0  # to the left
    head_pitch: float = -0.9  # of the line from the poll to the muzzle, above the horizon
    head_yaw: float = 0.0  # beyond the neck's
    ears_back: tuple[float, float] = (0.1, 0.1)  # left, right
    tail_lift: float = 0.0
    tail_sway: float = 0.0
    bend: float = 0.0  # of the spine, 1 / metre, to the left
    pitch: float = 0.0  # of the trunk, nose up
    roll: float = 0.0
    lift: float = 0.0  # metres between the lowest hoof and the ground


@dataclass(frozen=True)
class Surface:
    """How F quads join the V vertices of every horse, and what each quad belongs to. The same for all horses."""

    faces: Int[np.ndarray, "F 4"]  # a b c d, counter-clockwise from outside: the normal is (c - a) x (d - b)
    part: Int[np.ndarray, "F"]  # position in PARTS; the quads of a part follow one another
    along: Float[np.ndarray, "F"]  # 0 at the part's root, 1 at its end; legs: 0.8 where the hoof begins
    top: Float[np.ndarray, "F"]  # 1 on the upper (legs: fore) side, -1 on the lower one
    flat: Bool[np.ndarray, "F"]  # hair: seen from both sides


@dataclass(frozen=True)
class Body:
    """A posed horse; `surface()` says how its vertices form quads."""

    vertices: Float[np.ndarray, "V 3"]
    rest: Float[np.ndarray, "F 3"]  # middles of the quads before the trunk was moved: where a coat pattern is anchored
    points: Float[np.ndarray, "26 3"]  # in the order of KEYPOINTS


@dataclass(frozen=True)
class Tube:
    """Bent tubes of R elliptic rings each: `side` is the horizontal axis of a ring, the other one is square to it."""

    centre: Float[np.ndarray, "... R 3"]
    side: Float[np.ndarray, "... 3"]  # unit vectors; broadcast against `centre`
    half_side: Float[np.ndarray, "... R"]
    half_up: Float[np.ndarray, "... R"]


def _cross(a: Points, b: Points) -> Points:
    """np.cross without its cost for small arrays."""
    out = np.empty_like(a)
    out[..., 0] = a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1]
    out[..., 1] = a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]
    out[..., 2] = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return out


def _smooth(table: Float[np.ndarray, "R C"], rings: int) -> Float[np.ndarray, "rings C"]:
    """`rings` rows on the Catmull-Rom curve through the rows of `table`."""
    at = np.linspace(0, len(table) - 1, rings)
    row = np.minimum(at.astype(int), len(table) - 2)
    t = (at - row)[:, None]
    a, b, c, d = (table[(row + k).clip(0, len(table) - 1)] for k in (-1, 0, 1, 2))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


# -- trunk and tail ---------------------------------------------------------------------------------------------------
#     x, z, half height, half width
_TRUNK = _smooth(np.array([
    (-0.88, 1.23, 0.02, 0.02),
    (-0.85, 1.23, 0.12, 0.11),
    (-0.77, 1.225, 0.205, 0.20),
    (-0.64, 1.22, 0.265, 0.255),
    (-0.49, 1.215, 0.295, 0.28),
    (-0.33, 1.20, 0.285, 0.28),
    (-0.12, 1.165, 0.29, 0.285),
    (0.08, 1.155, 0.31, 0.275),
    (0.26, 1.165, 0.335, 0.25),
    (0.41, 1.19, 0.35, 0.225),
    (0.55, 1.17, 0.31, 0.21),
    (0.67, 1.14, 0.245, 0.18),
    (0.75, 1.12, 0.16, 0.13),
    (0.79, 1.12, 0.02, 0.02),
]), 18)  # fmt: skip
_WITHERS_X, _CROUP_X, _DOCK_X = 0.40, -0.46, -0.80
_LEFT = np.array([0.0, 1.0, 0.0])
_TAIL_HALF = np.array([0.05, 0.055, 0.075, 0.09, 0.085, 0.06, 0.01])


def _trunk(build: Build) -> tuple[Tube, dict[str, np.ndarray]]:
    """Its shape, and the keypoints of the top line."""
    x, z, high, wide = _TRUNK.T
    high, wide = high * (0.6 + 0.4 * build.girth), wide * build.girth
    tube = Tube(np.stack([x, 0 * x, z], 1), _LEFT, wide, high)
    points = {}
    for name, at, inset in (("withers", _WITHERS_X, 0.025), ("croup", _CROUP_X, 0.025), ("tail_base", _DOCK_X, 0.03)):
        points[name] = np.array([at, 0.0, np.interp(at, x, z + high) - inset])
    return tube, points


def _tail(pose: Pose, dock: np.ndarray) -> Tube:
    steps = np.linspace(0, 1, len(_TAIL_HALF))
    down = np.radians(35) + np.radians(52) * np.minimum(1, steps * 3) - pose.tail_lift * (1 - 0.4 * steps)
    away = pose.tail_sway * steps
    step = -np.stack([np.cos(down) * np.cos(away), np.cos(down) * np.sin(away) - 0.5 * np.sin(away), np.sin(down)], 1)
    centre = dock + np.array([-0.02, 0, -0.01]) + 0.14 * (np.cumsum(step, axis=0) - step[0])
    return Tube(centre, _LEFT, _TAIL_HALF * 0.9, _TAIL_HALF)


# -- neck, mane, head -------------------------------------------------------------------------------------------------
#     half height, half width
_NECK = _smooth(np.array([
    (0.285, 0.17), (0.245, 0.135), (0.20, 0.105), (0.165, 0.09), (0.142, 0.08), (0.125, 0.075),
]), 8)  # fmt: skip
#     from the poll, offset up, half height, half width
_HEAD = np.array([
    (-0.07, 0.00, 0.05, 0.04),
    (-0.03, 0.00, 0.095, 0.07),
    (0.05, -0.01, 0.12, 0.09),
    (0.14, -0.02, 0.13, 0.10),
    (0.23, -0.015, 0.12, 0.088),
    (0.34, 0.005, 0.092, 0.066),
    (0.45, 0.01, 0.075, 0.055),
    (0.54, 0.00, 0.07, 0.056),
    (0.60, -0.01, 0.052, 0.046),
    (0.62, -0.015, 0.02, 0.02),
])  # fmt: skip
_EAR = np.array([(-0.02, 0.026), (0.05, 0.040), (0.10, 0.036), (0.135, 0.022), (0.165, 0.003)])  # along, half width


def _axes(pitch: np.ndarray | float, yaw: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """(direction, side) unit vectors of something that looks `pitch` above the horizon, `yaw` to the left."""
    pitch, yaw = np.broadcast_arrays(pitch, yaw)
    direction = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], -1)
    return direction, np.stack([-np.sin(yaw), np.cos(yaw), np.zeros_like(yaw)], -1)


def _neck(build: Build, pose: Pose) -> Tube:
    steps = np.linspace(0, 1, len(_NECK))
    direction, side = _axes(pose.neck_pitch + np.radians(16) * (steps - 0.5), pose.neck_yaw * steps)
    length = 0.80 * build.neck / (len(steps) - 1)
    root = np.array([0.50, 0.0, 1.24 + 0.12 * np.sin(pose.neck_pitch)])
    centre = root + np.cumsum(direction * length, axis=0) - direction[0] * length
    return Tube(centre, side, _NECK[:, 1], _NECK[:, 0])


def _mane(neck: Tube, up: Float[np.ndarray, "R 3"], mane_side: float) -> Float[np.ndarray, "V 3"]:
    """Hair from the crest down one side of the neck: three rows of vertices that stand off its surface. `up` points
    from the middle of each ring of the neck to its crest."""
    wide = neck.side * (neck.half_side[:, None] + 0.015) * mane_side
    rows = [(1.10, 0.0), (0.80, 0.68), (0.20, 1.12)]  # height and side as shares of the ring's
    return np.concatenate([(neck.centre + high * up + side * wide)[_MANE_FROM:] for high, side in rows])


_MANE_FROM = 2  # ring of the neck


@dataclass(frozen=True)
class _Skull:
    """The head's own axes at the poll."""

    origin: np.ndarray
    axes: np.ndarray  # rows: forward, left, up; times the head's size

    def at(self, places: ArrayLike) -> np.ndarray:
        """From (forward, left, up) in the head to the horse's axes."""
        return self.origin + np.asarray(places) @ self.axes


def _skull(build: Build, pose: Pose, neck: Tube) -> _Skull:
    forward, left = _axes(pose.head_pitch, pose.neck_yaw + pose.head_yaw)
    return _Skull(neck.centre[-1], np.stack([forward, left, _cross(forward, left)]) * build.head)


def _head(skull: _Skull, size: float) -> Tube:
    along, offset, high, wide = _HEAD.T
    centre = skull.at(np.stack([along, 0 * along, offset], 1))
    return Tube(centre, skull.axes[1] / size, wide * size, high * size)


def _diamond(forward: float, left: float, up: float, half: tuple[float, float]) -> list[tuple[float, float, float]]:
    """A small quad on the left side of the head, which slopes inward above and in front of the eye."""
    lean = 0.012
    return [
        (forward, left + lean, up - half[1]),
        (forward - half[0], left + lean / 2, up),
        (forward, left - lean, up + half[1]),
        (forward + half[0], left - lean, up),
    ]


_MIRROR = np.array([1.0, -1.0, 1.0])
_POLL, _EYE, _NOSTRIL = np.array([(-0.04, 0.0, 0.08), (0.155, 0.092, 0.045), (0.565, 0.050, 0.012)])
_LEFT_FEATURES = np.array(
    [_diamond(0.155, 0.094, 0.045, (0.032, 0.024)), _diamond(0.565, 0.052, 0.012, (0.018, 0.024))]
)
# left eye, left nostril, right eye, right nostril; mirrored quads turn the other way round
_FEATURES = np.concatenate([_LEFT_FEATURES, (_LEFT_FEATURES * _MIRROR)[:, ::-1]]).reshape(-1, 3)


def _ears(skull: _Skull, size: float, back: tuple[float, float]) -> tuple[Tube, Float[np.ndarray, "2 3"]]:
    """Both ears, left first, and their tips."""
    sign, turn = np.array([1.0, -1.0]), np.array(back)
    axis = np.stack([-np.sin(turn), 0.25 * sign, np.cos(turn)], 1)
    axis /= np.sqrt((axis * axis).sum(axis=1, keepdims=True))
    side = _cross(axis, np.broadcast_to([1.0, 0.0, 0.0], axis.shape))
    side /= np.sqrt((side * side).sum(axis=1, keepdims=True))
    root = np.array([(0.015, 0.05, 0.085), (0.015, -0.05, 0.085)])
    centre = skull.at(root[:, None] + _EAR[:, :1] * axis[:, None])
    half = np.tile(_EAR[:, 1] * size, (2, 1))
    return Tube(centre, (side @ skull.axes / size)[:, None], half, half * 0.6), skull.at(root + 0.148 * axis)


def _head_points(skull: _Skull, ear_tips: Float[np.ndarray, "2 3"]) -> dict[str, np.ndarray]:
    places = skull.at(np.stack([_POLL, _EYE, _EYE * _MIRROR, _NOSTRIL, _NOSTRIL * _MIRROR]))
    names = ("poll", "left_eye", "right_eye", "left_nostril", "right_nostril")
    return {**dict(zip(names, places, strict=True)), "left_ear_tip": ear_tips[0], "right_ear_tip": ear_tips[1]}


# -- legs -------------------------------------------------------------------------------------------------------------
# lengths of upper leg, lower leg, cannon, pastern, hoof
_FRONT_LENGTHS, _HIND_LENGTHS = [0.34, 0.43, 0.28, 0.125, 0.085], [0.37, 0.45, 0.37, 0.12, 0.085]
_LENGTHS = np.array([_FRONT_LENGTHS] * 2 + [_HIND_LENGTHS] * 2)
_PIVOTS = np.array([(0.49, 0.155, 1.23), (0.49, -0.155, 1.23), (-0.56, 0.16, 1.23), (-0.56, -0.16, 1.23)])
#  bone, share of it, half length fore and aft, half width
_FOOT_RINGS = [
    (3, 0.10, 0.048, 0.044),
    (3, 0.55, 0.037, 0.036),
    (3, 1.00, 0.048, 0.047),
    (4, 0.02, 0.056, 0.054),
    (4, 1.00, 0.072, 0.064),
    (4, 1.03, 0.010, 0.010),
]
_FRONT_RINGS = [
    (0, -0.35, 0.05, 0.04),
    (0, 0.00, 0.15, 0.09),
    (0, 0.50, 0.155, 0.10),
    (0, 0.95, 0.11, 0.082),
    (1, 0.22, 0.088, 0.07),
    (1, 0.55, 0.066, 0.056),
    (1, 0.88, 0.051, 0.048),
    (1, 1.00, 0.055, 0.053),
    (2, 0.14, 0.047, 0.044),
    (2, 0.50, 0.037, 0.031),
    (2, 0.85, 0.040, 0.034),
    *_FOOT_RINGS,
]
_HIND_RINGS = [
    (0, -0.40, 0.08, 0.04),
    (0, 0.05, 0.225, 0.115),
    (0, 0.55, 0.215, 0.115),
    (0, 0.95, 0.145, 0.095),
    (1, 0.28, 0.115, 0.078),
    (1, 0.62, 0.074, 0.054),
    (1, 0.90, 0.058, 0.045),
    (1, 1.00, 0.064, 0.048),
    (2, 0.14, 0.054, 0.044),
    (2, 0.50, 0.039, 0.033),
    (2, 0.86, 0.042, 0.036),
    *_FOOT_RINGS,
]
_RINGS = np.array([_FRONT_RINGS] * 2 + [_HIND_RINGS] * 2)  # leg, ring, column
_BONE = _RINGS[..., 0].astype(int)
_BONE_SEGMENT = np.array([0, 1, 2, 3, 3])  # pastern and hoof are the foot


def _legs(build: Build, pose: Pose) -> tuple[Tube, Float[np.ndarray, "16 3"]]:
    """All four, and their keypoints."""
    joints = _joints(build, pose)
    start = np.take_along_axis(joints, _BONE[..., None], axis=1)
    end = np.take_along_axis(joints, _BONE[..., None] + 1, axis=1)
    side = np.stack([np.zeros(4), np.cos(pose.splay), LEG_SIDES * np.sin(pose.splay)], axis=1)
    tube = Tube(start + _RINGS[..., 1:2] * (end - start), side[:, None], _RINGS[..., 3], _RINGS[..., 2])
    points = joints[:, 1:5].copy()
    points[:, 0, 0] += [-0.03, -0.03, 0.05, 0.05]  # the elbow sticks out behind, the kneecap before
    points[:, 0, 1] += 0.035 * LEG_SIDES  # and both can be felt on the outside
    points[:, 3] += 0.6 * (joints[:, 5] - joints[:, 4])  # the hoof's middle
    return tube, points.reshape(-1, 3)


def _joints(build: Build, pose: Pose) -> Float[np.ndarray, "4 6 3"]:
    """Of each leg: pivot, elbow or stifle, knee or hock, fetlock, coronet, ground."""
    swing = np.concatenate([pose.legs, pose.legs[:, 3:] * 0.8], axis=1)
    splay = pose.splay[:, None]
    down = np.cos(swing)
    step = np.stack([np.sin(swing), LEG_SIDES[:, None] * np.sin(splay) * down, -np.cos(splay) * down], axis=2)
    moves = np.concatenate([_PIVOTS[:, None], step * (_LENGTHS * build.legs)[..., None]], axis=1)
    return np.cumsum(moves, axis=1)


# -- the whole --------------------------------------------------------------------------------------------------------
_TUBES = {  # in the order of vertices and quads: how many, rings of each, vertices on a ring
    "trunk": (1, len(_TRUNK), 16),
    "neck": (1, len(_NECK), 12),
    "head": (1, len(_HEAD), 12),
    "ear": (2, len(_EAR), 5),
    "tail": (1, len(_TAIL_HALF), 6),
    "leg": (len(LEGS), _RINGS.shape[1], 7),
}


def horse_body(build: Build, pose: Pose) -> Body:
    """Vertices and keypoints of a posed horse that stands on the ground (its lowest hoof `pose.lift` above it)."""
    trunk, points = _trunk(build)
    neck = _neck(build, pose)
    skull = _skull(build, pose, neck)
    ears, ear_tips = _ears(skull, build.head, pose.ears_back)
    legs, leg_points = _legs(build, pose)
    tubes = [trunk, neck, _head(skull, build.head), ears, _tail(pose, points["tail_base"]), legs]  # as in _TUBES
    skin, up = _skin(tubes)
    mane = _mane(neck, up[len(_TRUNK) : len(_TRUNK) + len(_NECK)], build.mane_side)
    vertices = np.concatenate([skin, mane, skull.at(_FEATURES)])
    named = {**points, **_head_points(skull, ear_tips)}
    keypoints = np.concatenate([np.stack([named[name] for name in KEYPOINTS[:10]]), leg_points])
    placed = _place(np.concatenate([vertices, keypoints]), build, pose)
    rest = (vertices[surface().faces[:, 0]] + vertices[surface().faces[:, 2]]) / 2
    return Body(placed[: len(vertices)], rest, placed[len(vertices) :])


def _skin(tubes: list[Tube]) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, "R 3"]]:
    """Vertices of all tubes, and the upright half axis of every ring. All at once: small arrays cost by the call."""
    layout = _layout()
    rings = len(layout.ahead)
    centre, side, half = np.empty((rings, 3)), np.empty((rings, 3)), np.empty((2, rings))
    end = 0
    for tube in tubes:
        start, end = end, end + tube.half_up.size
        centre[start:end].reshape(tube.centre.shape)[:] = tube.centre
        side[start:end].reshape(tube.centre.shape)[:] = tube.side
        half[0, start:end], half[1, start:end] = tube.half_side.ravel(), tube.half_up.ravel()
    up = _cross(centre[layout.ahead] - centre[layout.behind], side)
    up *= (half[1] / np.sqrt((up * up).sum(axis=1)))[:, None]
    side *= half[0, :, None]
    ring = layout.ring
    return centre[ring] + side[ring] * layout.cos + up[ring] * layout.sin, up


@dataclass(frozen=True)
class _Layout:
    """How the R rings of all tubes follow one another and V vertices lie on them. The same for all horses."""

    behind: Int[np.ndarray, "R"]  # the ring before, and at the start of a tube the ring itself
    ahead: Int[np.ndarray, "R"]
    ring: Int[np.ndarray, "V"]  # of each vertex
    cos: Float[np.ndarray, "V 1"]  # of each vertex's place on its ring
    sin: Float[np.ndarray, "V 1"]


@cache
def _layout() -> _Layout:
    each = [(rings, around) for count, rings, around in _TUBES.values() for _ in range(count)]
    step = np.concatenate([np.arange(rings) for rings, _ in each])  # place of a ring in its tube
    last = np.concatenate([np.full(rings, rings - 1) for rings, _ in each])
    around = np.concatenate([np.full(rings, around) for rings, around in each])
    number = np.arange(len(step))
    turn = np.concatenate([np.arange(n) * (2 * np.pi / n) for n in around])[:, None]
    return _Layout(number - (step > 0), number + (step < last), number.repeat(around), np.cos(turn), np.sin(turn))


@cache
def surface() -> Surface:
    """The quads of every horse."""
    parts = [("trunk", "trunk"), ("neck", "neck"), ("head", "head"), ("left_ear", "ear"), ("right_ear", "ear")]
    parts += [("tail", "tail")]
    pieces = [_tube_surface(np.full(_TUBES[kind][1] - 1, PART_ID[part]), _TUBES[kind][2]) for part, kind in parts]
    pieces += [_leg_surface(leg) for leg in range(len(LEGS))]
    pieces += [_mane_surface()]
    pieces += [_single_quad(f"{side}_{what}") for side in ("left", "right") for what in ("eye", "nostril")]
    starts = np.cumsum([0, *(piece.faces.max() + 1 for piece in pieces[:-1])])
    return Surface(
        faces=np.concatenate([piece.faces + start for piece, start in zip(pieces, starts, strict=True)]),
        part=np.concatenate([piece.part for piece in pieces]),
        along=np.concatenate([piece.along for piece in pieces]),
        top=np.concatenate([piece.top for piece in pieces]),
        flat=np.concatenate([piece.flat for piece in pieces]),
    )


def _tube_surface(part: Int[np.ndarray, "S"], around: int, along: Float[np.ndarray, "S"] | None = None) -> Surface:
    """Of one tube with S stretches between its rings, each with its part and its place along the whole."""
    stretches = len(part)
    ring, turn = np.divmod(np.arange(stretches * around), around)
    here, ahead = ring * around + turn, ring * around + (turn + 1) % around
    along = (np.arange(stretches) + 0.5) / stretches if along is None else along
    return Surface(
        faces=np.stack([here, ahead, ahead + around, here + around], axis=1),
        part=part.repeat(around),
        along=along.repeat(around),
        top=np.tile(np.sin((np.arange(around) + 0.5) * 2 * np.pi / around), stretches),
        flat=np.zeros(stretches * around, bool),
    )


def _leg_surface(leg: int) -> Surface:
    bone, share = _BONE[leg], _RINGS[leg, :, 1]
    part = PART_ID[f"{LEGS[leg]}_upper"] + _BONE_SEGMENT[bone[1:]]
    along = (bone[:-1] + share[:-1] + bone[1:] + share[1:]) / 10  # middle of the stretch, in lengths of five bones
    return _tube_surface(part, _TUBES["leg"][2], along)


def _mane_surface() -> Surface:
    long = len(_NECK) - _MANE_FROM
    here = np.concatenate([np.arange(long - 1), np.arange(long - 1) + long])
    size = len(here)
    faces = np.stack([here, here + long, here + long + 1, here + 1], axis=1)
    return Surface(faces, np.full(size, PART_ID["mane"]), np.linspace(0, 1, size), np.zeros(size), np.ones(size, bool))


def _single_quad(part: str) -> Surface:
    return Surface(np.arange(4)[None], np.array([PART_ID[part]]), np.zeros(1), np.zeros(1), np.zeros(1, bool))


def _place(points: Float[np.ndarray, "N 3"], build: Build, pose: Pose) -> Float[np.ndarray, "N 3"]:
    """Bend, tilt and scale the whole horse and set it on the ground."""
    placed = _tilted(_bent(points, pose.bend), pose.pitch, pose.roll) * build.size
    placed[:, 2] += pose.lift - placed[:, 2].min()
    return placed


def _bent(points: Float[np.ndarray, "N 3"], bend: float) -> Float[np.ndarray, "N 3"]:
    """The x axis laid along a circle of curvature `bend`."""
    if abs(bend) < 1e-6:
        return points.copy()
    x, y, z = points.T
    angle = bend * x
    return np.stack([(1 / bend - y) * np.sin(angle), 1 / bend - (1 / bend - y) * np.cos(angle), z], 1)


def _tilted(points: Float[np.ndarray, "N 3"], pitch: float, roll: float) -> Float[np.ndarray, "N 3"]:
    """Turned nose up by `pitch` and to its right side by `roll` about the middle of the trunk."""
    hub = np.array([0.0, 0.0, 1.2])
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    matrix = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]]) @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return (points - hub) @ matrix.T + hub
