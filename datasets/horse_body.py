"""An articulated horse: proportions and joint angles in, a mesh of quads and 26 named points out.

Lengths are metres. x points forward, y to the horse's left, z up; the ground is z = 0 and the middle of the trunk is
above the origin. Proportions are of a riding horse of 1.55 m at the withers, read off anatomical drawings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

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
    depths = {"front": (0.14, 0.08, 0.07, 0.09), "hind": (0.16, 0.09, 0.07, 0.09)}
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
    Landmark("withers", ("trunk", "neck", "mane"), 0.12),
    Landmark("croup", ("trunk",), 0.14),
    Landmark("tail_base", ("trunk", "tail"), 0.12),
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
class Mesh:
    """F quads; the normal of a quad a b c d is (c - a) x (d - b)."""

    quads: Float[np.ndarray, "F 4 3"]
    part: Int[np.ndarray, "F"]  # position in PARTS
    along: Float[np.ndarray, "F"]  # 0 at the part's root, 1 at its end
    top: Float[np.ndarray, "F"]  # 1 on the upper (legs: fore) side, -1 on the lower one
    flat: Bool[np.ndarray, "F"]  # hair: seen from both sides

    def moved(self, quads: Float[np.ndarray, "F 4 3"]) -> "Mesh":
        return Mesh(quads, self.part, self.along, self.top, self.flat)


@dataclass(frozen=True)
class Body:
    """A posed horse."""

    mesh: Mesh
    rest: Float[np.ndarray, "F 3"]  # middles of the quads before the trunk was moved: where a coat pattern is anchored
    points: Float[np.ndarray, "26 3"]  # in the order of KEYPOINTS


def join(meshes: Iterable[Mesh]) -> Mesh:
    """One mesh of many."""
    columns = zip(*((m.quads, m.part, m.along, m.top, m.flat) for m in meshes), strict=True)
    return Mesh(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Tube:
    """A bent tube of R elliptic rings: `side` is the horizontal axis of each ring, `up` the other one."""

    centre: Float[np.ndarray, "R 3"]
    side: Float[np.ndarray, "R 3"]
    half_side: Float[np.ndarray, "R"]
    half_up: Float[np.ndarray, "R"]

    @property
    def up(self) -> Float[np.ndarray, "R 3"]:
        """Unit vectors square to `side` and to the tube's direction."""
        direction = np.empty_like(self.centre)
        direction[1:-1] = self.centre[2:] - self.centre[:-2]
        direction[0], direction[-1] = self.centre[1] - self.centre[0], self.centre[-1] - self.centre[-2]
        up = _cross(direction, self.side)
        return up / np.linalg.norm(up, axis=-1, keepdims=True)

    def mesh(self, part: str | Int[np.ndarray, "S"], around: int, along: Float[np.ndarray, "S"] | None = None) -> Mesh:
        """`around` quads between each two rings; `part` and `along` may be given per stretch between rings."""
        angle = np.arange(around) * (2 * np.pi / around)
        side = self.side * self.half_side[:, None]
        up = self.up * self.half_up[:, None]
        ring = self.centre[:, None] + side[:, None] * np.cos(angle)[:, None] + up[:, None] * np.sin(angle)[:, None]
        ahead = np.roll(ring, -1, axis=1)
        quads = np.stack([ring[:-1], ahead[:-1], ahead[1:], ring[1:]], axis=2).reshape(-1, 4, 3)
        stretches = len(ring) - 1
        numbers = np.full(stretches, PART_ID[part]) if isinstance(part, str) else part
        along = (np.arange(stretches) + 0.5) / stretches if along is None else along
        top = np.tile(np.sin(angle + np.pi / around), stretches)
        return Mesh(quads, numbers.repeat(around), along.repeat(around), top, np.zeros(len(quads), bool))


def _cross(a: Points, b: Points) -> Points:
    """np.cross without its cost for small arrays."""
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        axis=-1,
    )


# -- trunk ------------------------------------------------------------------------------------------------------------
#             x      z     half height, half width
_TRUNK = np.array([
    (-0.88, 1.22, 0.03, 0.03),
    (-0.85, 1.22, 0.12, 0.11),
    (-0.77, 1.22, 0.20, 0.20),
    (-0.64, 1.22, 0.265, 0.255),
    (-0.49, 1.215, 0.295, 0.28),
    (-0.33, 1.19, 0.295, 0.28),
    (-0.12, 1.165, 0.305, 0.285),
    (0.08, 1.165, 0.325, 0.275),
    (0.26, 1.18, 0.345, 0.25),
    (0.41, 1.19, 0.35, 0.225),
    (0.55, 1.17, 0.31, 0.21),
    (0.67, 1.14, 0.245, 0.18),
    (0.75, 1.12, 0.16, 0.13),
    (0.79, 1.12, 0.04, 0.04),
])  # fmt: skip
_WITHERS_X, _CROUP_X, _DOCK_X = 0.40, -0.46, -0.80


def _trunk(build: Build) -> tuple[Mesh, Mapping[str, np.ndarray]]:
    x, z, high, wide = _TRUNK.T
    high, wide = high * (0.6 + 0.4 * build.girth), wide * build.girth
    zeros = np.zeros_like(x)
    tube = Tube(np.stack([x, zeros, z], 1), np.tile([0.0, 1.0, 0.0], (len(x), 1)), wide, high)
    points = {}
    for name, at, inset in (("withers", _WITHERS_X, 0.03), ("croup", _CROUP_X, 0.03), ("tail_base", _DOCK_X, 0.04)):
        points[name] = np.array([at, 0.0, np.interp(at, x, z + high) - inset])
    return tube.mesh("trunk", 16), points


def _tail(pose: Pose, dock: np.ndarray) -> Mesh:
    steps = np.linspace(0, 1, 7)
    down = np.radians(35) + np.radians(52) * np.minimum(1, steps * 3) - pose.tail_lift * (1 - 0.4 * steps)
    heading = pose.tail_sway * steps
    step = -np.stack([np.cos(down) * np.cos(heading), np.cos(down) * np.sin(heading), np.sin(down)], 1)
    step[:, 1] += 0.5 * np.sin(heading)
    centre = dock + np.array([-0.02, 0, -0.01]) + np.cumsum(step * 0.14, axis=0) - step[0] * 0.14
    half = np.array([0.05, 0.055, 0.075, 0.09, 0.085, 0.06, 0.01])
    return Tube(centre, np.tile([0.0, 1.0, 0.0], (7, 1)), half * 0.9, half).mesh("tail", 8)


# -- neck, mane, head -------------------------------------------------------------------------------------------------
_NECK_HIGH = np.array([0.29, 0.245, 0.20, 0.165, 0.142, 0.125])
_NECK_WIDE = np.array([0.165, 0.13, 0.105, 0.09, 0.08, 0.075])
#  from the poll, offset up, half height, half width
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


def _axes(pitch: np.ndarray | float, yaw: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """(direction, side) unit vectors of something that looks `pitch` above the horizon, `yaw` to the left."""
    pitch, yaw = np.broadcast_arrays(pitch, yaw)
    direction = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], -1)
    return direction, np.stack([-np.sin(yaw), np.cos(yaw), np.zeros_like(yaw)], -1)


def _neck(build: Build, pose: Pose) -> Tube:
    steps = np.linspace(0, 1, len(_NECK_HIGH))
    direction, side = _axes(pose.neck_pitch + np.radians(16) * (steps - 0.5), pose.neck_yaw * steps)
    length = 0.80 * build.neck / (len(steps) - 1)
    root = np.array([0.50, 0.0, 1.24]) + 0.12 * np.array([0.0, 0.0, np.sin(pose.neck_pitch)])
    centre = root + np.cumsum(direction * length, axis=0) - direction[0] * length
    return Tube(centre, side, _NECK_WIDE, _NECK_HIGH)


def _mane(neck: Tube, mane_side: float) -> Mesh:
    """Hair from the crest down one side of the neck: two rows of quads that stand off its surface."""
    rows = [(1.10, 0.0), (0.80, 0.68), (0.20, 1.12)]  # height and side as shares of the ring's
    up, wide = neck.up * neck.half_up[:, None], neck.side * (neck.half_side[:, None] + 0.015) * mane_side
    edge = [(neck.centre + h * up + s * wide)[1:] for h, s in rows]
    quads = [np.stack([a[:-1], b[:-1], b[1:], a[1:]], 1) for a, b in pairwise(edge)]
    return _flat(np.concatenate(quads), "mane")


def _flat(quads: Float[np.ndarray, "F 4 3"], part: str, two_sided: bool = True) -> Mesh:
    size = len(quads)
    along, top = np.linspace(0, 1, size), np.zeros(size)
    return Mesh(quads, np.full(size, PART_ID[part]), along, top, np.full(size, two_sided))


@dataclass(frozen=True)
class _HeadFrame:
    """The head's own axes at the poll."""

    origin: np.ndarray
    forward: np.ndarray
    left: np.ndarray
    up: np.ndarray
    scale: float

    def at(self, forward: float, left: float, up: float) -> np.ndarray:
        return self.origin + self.scale * (forward * self.forward + left * self.left + up * self.up)


def _head_frame(build: Build, pose: Pose, neck: Tube) -> _HeadFrame:
    forward, left = _axes(pose.head_pitch, pose.neck_yaw + pose.head_yaw)
    return _HeadFrame(neck.centre[-1], forward, left, _cross(forward, left), build.head)


def _head(frame: _HeadFrame, ears_back: tuple[float, float]) -> tuple[list[Mesh], Mapping[str, np.ndarray]]:
    t, offset, high, wide = _HEAD.T
    centre = frame.at(0, 0, 0) + frame.scale * (t[:, None] * frame.forward + offset[:, None] * frame.up)
    skull = Tube(centre, np.tile(frame.left, (len(t), 1)), wide * frame.scale, high * frame.scale)
    meshes = [skull.mesh("head", 12)]
    points = {"poll": frame.at(-0.02, 0, 0.075)}
    for name, sign, back in (("left", 1.0, ears_back[0]), ("right", -1.0, ears_back[1])):
        eye = _patch(frame, (0.155, sign * 0.094, 0.045), (0.032, 0.024))
        nostril = _patch(frame, (0.565, sign * 0.052, 0.012), (0.018, 0.024))
        meshes += [_flat(eye[None, ::-1] if sign < 0 else eye[None], f"{name}_eye", two_sided=False)]
        meshes += [_flat(nostril[None, ::-1] if sign < 0 else nostril[None], f"{name}_nostril", two_sided=False)]
        points[f"{name}_eye"] = frame.at(0.155, sign * 0.092, 0.045)
        points[f"{name}_nostril"] = frame.at(0.565, sign * 0.050, 0.012)
        ear, points[f"{name}_ear_tip"] = _ear(frame, sign, back)
        meshes.append(ear.mesh(f"{name}_ear", 6))
    return meshes, points


def _patch(frame: _HeadFrame, at: tuple[float, float, float], half: tuple[float, float]) -> Float[np.ndarray, "4 3"]:
    """A small diamond on the side of the head that faces left."""
    forward, left, up = at
    lean = 0.012 * np.sign(left)  # the side of the head slopes inward above and in front of the eye
    return np.stack([
        frame.at(forward + half[0], left - lean, up), frame.at(forward, left - lean, up + half[1]),
        frame.at(forward - half[0], left + lean / 2, up), frame.at(forward, left + lean, up - half[1]),
    ])[::-1]  # fmt: skip


def _ear(frame: _HeadFrame, sign: float, back: float) -> tuple[Tube, np.ndarray]:
    root = frame.at(0.0, sign * 0.05, 0.085)
    axis = np.cos(back) * frame.up - np.sin(back) * frame.forward + 0.25 * sign * frame.left
    axis /= np.linalg.norm(axis)
    side = _cross(axis, frame.forward)
    side /= np.linalg.norm(side)
    t = np.array([-0.02, 0.05, 0.10, 0.15, 0.185]) * frame.scale
    half = np.array([0.026, 0.040, 0.036, 0.022, 0.003]) * frame.scale
    return Tube(root + t[:, None] * axis, np.tile(side, (5, 1)), half, half * 0.6), root + 0.165 * frame.scale * axis


# -- legs -------------------------------------------------------------------------------------------------------------
# lengths of upper leg, lower leg, cannon, pastern, hoof
_FRONT_LENGTHS = np.array([0.34, 0.43, 0.28, 0.125, 0.085])
_HIND_LENGTHS = np.array([0.37, 0.45, 0.37, 0.12, 0.085])
_FRONT_PIVOT = np.array([0.49, 0.155, 1.23])
_HIND_PIVOT = np.array([-0.56, 0.16, 1.23])
#  bone, share of it, half length fore and aft, half width
_FOOT_RINGS = [
    (3, 0.10, 0.048, 0.044),
    (3, 0.55, 0.037, 0.036),
    (3, 1.00, 0.048, 0.047),
    (4, 0.02, 0.056, 0.054),
    (4, 1.00, 0.072, 0.064),
    (4, 1.03, 0.010, 0.010),
]
_FRONT_RINGS = np.array([
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
])  # fmt: skip
_HIND_RINGS = np.array([
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
])  # fmt: skip
_BONE_SEGMENT = np.array([0, 1, 2, 3, 3])  # pastern and hoof are the foot


def _leg(leg: int, build: Build, pose: Pose) -> tuple[Mesh, Float[np.ndarray, "4 3"]]:
    front = leg < 2
    lengths = (_FRONT_LENGTHS if front else _HIND_LENGTHS) * build.legs
    rings = _FRONT_RINGS if front else _HIND_RINGS
    sign = LEG_SIDES[leg]
    joints = _joints(leg, lengths, pose)
    side = np.array([0.0, np.cos(pose.splay[leg]), sign * np.sin(pose.splay[leg])])
    bone = rings[:, 0].astype(int)
    centre = joints[bone] + rings[:, 1:2] * (joints[bone + 1] - joints[bone])
    tube = Tube(centre, np.tile(side, (len(rings), 1)), rings[:, 3], rings[:, 2])
    segment = _BONE_SEGMENT[bone[1:]]
    part = PART_ID[f"{LEGS[leg]}_upper"] + segment
    along = (bone[:-1] + rings[:-1, 1] + bone[1:] + rings[1:, 1]) / 10  # 0 at the pivot, 0.8 where the hoof begins
    elbow_out = sign * np.array([0.0, 0.035, 0.0])  # the bone's end can be felt on the outside
    hoof = joints[4] + 0.6 * (joints[5] - joints[4])
    return tube.mesh(part, 8, along), np.stack([joints[1] + elbow_out, joints[2], joints[3], hoof])


def _joints(leg: int, lengths: Float[np.ndarray, "5"], pose: Pose) -> Float[np.ndarray, "6 3"]:
    """Pivot, elbow or stifle, knee or hock, fetlock, coronet, ground."""
    swing = np.append(pose.legs[leg], pose.legs[leg, 3] * 0.8)
    splay = pose.splay[leg]
    inside = LEG_SIDES[leg]
    step = np.stack([np.sin(swing), inside * np.sin(splay) * np.cos(swing), -np.cos(splay) * np.cos(swing)], 1)
    pivot = (_FRONT_PIVOT if leg < 2 else _HIND_PIVOT) * [1.0, inside, 1.0]
    return np.concatenate([pivot[None], pivot + np.cumsum(step * lengths[:, None], axis=0)])


# -- the whole --------------------------------------------------------------------------------------------------------
def horse_body(build: Build, pose: Pose) -> Body:
    """Mesh and keypoints of a posed horse that stands on the ground (its lowest hoof `pose.lift` above it)."""
    trunk, points = _trunk(build)
    neck = _neck(build, pose)
    head, head_points = _head(_head_frame(build, pose, neck), pose.ears_back)
    meshes = [trunk, neck.mesh("neck", 12), _mane(neck, build.mane_side), _tail(pose, points["tail_base"]), *head]
    named = {**points, **head_points}
    for leg in range(len(LEGS)):
        mesh, joints = _leg(leg, build, pose)
        meshes.append(mesh)
        named.update(zip(KEYPOINTS[10 + 4 * leg : 14 + 4 * leg], joints, strict=True))
    mesh = join(meshes)
    placed = _place(mesh.quads, np.stack([named[name] for name in KEYPOINTS]), build, pose)
    return Body(mesh.moved(placed[0]), mesh.quads.mean(1), placed[1])


def _place(quads: np.ndarray, points: np.ndarray, build: Build, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Bend, tilt and scale the whole horse and set it on the ground."""
    every = np.concatenate([quads.reshape(-1, 3), points])
    every = _tilted(_bent(every, pose.bend), pose.pitch, pose.roll) * build.size
    every[:, 2] += pose.lift - every[:, 2].min()
    return every[: -len(points)].reshape(quads.shape), every[-len(points) :]


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
