"""How horses stand and go: joint angles of the gaits at a phase, and random poses with plausible ranges."""

from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from jaxtyping import Float

from posesweep.datasets.horse_body import LEG_SIDES, Build, Pose

# swing of upper leg, lower leg, cannon and foot from straight down, forward positive, of a horse at rest
_FRONT_REST = np.radians([-14.0, 2.0, 0.0, 36.0])
_HIND_REST = np.radians([30.0, -34.0, 4.0, 36.0])
# how far each segment follows the leg's stride, and how far it turns (radians) when the leg is lifted
_FRONT_STRIDE, _FRONT_FOLD = np.array([0.5, 1.0, 1.05, 0.8]), np.radians([10.0, 28.0, -62.0, -105.0])
_HIND_STRIDE, _HIND_FOLD = np.array([0.75, 1.0, 1.1, 0.8]), np.radians([14.0, -26.0, -8.0, -80.0])


@dataclass(frozen=True)
class Gait:
    """Footfall of one gait. Order of the legs: left front, right front, left hind, right hind."""

    offsets: tuple[float, float, float, float]  # shares of a stride after the left hind's
    stance: float  # share of a stride on the ground
    reach: float  # radians the leg swings to either side
    fold: float  # how much the leg is lifted
    lift: float  # metres of suspension


GAITS = {
    "walk": Gait((0.25, 0.75, 0.0, 0.5), 0.62, np.radians(17), 0.55, 0.0),
    "trot": Gait((0.5, 0.0, 0.0, 0.5), 0.45, np.radians(21), 0.85, 0.05),
    "canter": Gait((0.68, 0.35, 0.3, 0.0), 0.36, np.radians(27), 1.0, 0.10),
}
MOODS = ("stand", "graze", "walk", "trot", "canter")
_MOOD_ODDS = tuple(accumulate((0.24, 0.18, 0.24, 0.20, 0.14)))


def standing() -> Pose:
    """Square and symmetric."""
    legs = np.stack([_FRONT_REST, _FRONT_REST, _HIND_REST, _HIND_REST])
    return Pose(legs=legs, splay=np.zeros(4), neck_pitch=np.radians(44), head_pitch=np.radians(-52))


def striding(gait: Gait, phase: float) -> Float[np.ndarray, "4 4"]:
    """Angles of the legs (LEGS x SEGMENTS, radians) at `phase`, in strides."""
    own = (phase - np.array(gait.offsets)) % 1.0
    flight = np.clip((own - gait.stance) / (1 - gait.stance), 0, 1)
    swing = gait.reach * np.where(own < gait.stance, 1 - 2 * own / gait.stance, -np.cos(np.pi * flight))
    fold = gait.fold * np.sin(np.pi * flight)
    front = _FRONT_REST + swing[:2, None] * _FRONT_STRIDE + fold[:2, None] * _FRONT_FOLD
    hind = _HIND_REST + swing[2:, None] * _HIND_STRIDE + fold[2:, None] * _HIND_FOLD
    return np.concatenate([front, hind])


def random_build(rng: np.random.Generator) -> Build:
    """Proportions from pony to warmblood."""
    size, legs, girth, neck, head = (1 + rng.uniform(-1, 1, 5) * [0.13, 0.08, 0.09, 0.10, 0.08]).tolist()
    return Build(size, legs, girth, neck, head, mane_side=1.0 if rng.random() < 0.3 else -1.0)


def random_pose(rng: np.random.Generator, mood: str | None = None) -> Pose:
    """A pose of one of MOODS (drawn when None), with its joints a little off the book."""
    mood = mood or MOODS[bisect(_MOOD_ODDS[:-1], rng.random())]
    legs = _random_legs(rng, mood)
    neck, head = _neck_and_head(rng, mood)
    fast = mood in ("trot", "canter")
    return Pose(
        legs=legs + rng.normal(0, np.radians(2.5), (4, 4)),
        splay=rng.normal(np.radians(0.5), np.radians(2.0), 4),
        neck_pitch=neck,
        neck_yaw=float(np.clip(rng.normal(0, np.radians(12 if fast else 24)), -1.0, 1.0)),
        head_pitch=head,
        head_yaw=float(rng.normal(0, np.radians(9))),
        ears_back=(float(rng.uniform(-0.35, 0.7)), float(rng.uniform(-0.35, 0.7))),
        tail_lift=float(rng.uniform(0.2, 1.1) if fast else rng.uniform(0, 0.25)),
        tail_sway=float(rng.normal(0, 0.35)),
        bend=float(rng.normal(0, 0.12)),
        pitch=float(rng.normal(0, np.radians(5 if mood == "canter" else 1.5))),
        roll=float(rng.normal(0, np.radians(2))),
        lift=float(rng.uniform(0, GAITS[mood].lift)) if mood in GAITS else 0.0,
    )


def _random_legs(rng: np.random.Generator, mood: str) -> Float[np.ndarray, "4 4"]:
    if mood in GAITS:
        legs = striding(GAITS[mood], rng.random())
        mirrored = mood == "canter" and rng.random() < 0.5  # the other lead
        return legs[[1, 0, 3, 2]] if mirrored else legs
    step = rng.normal(0, np.radians(6), 4)
    legs = standing().legs + step[:, None] * np.stack([_FRONT_STRIDE] * 2 + [_HIND_STRIDE] * 2)
    if rng.random() < 0.15:  # a front foot stamps, a hind one rests
        leg = rng.integers(4)
        legs[leg] += rng.uniform(0.3, 0.8) * (_FRONT_FOLD if LEG_SIDES.size // 2 > leg else _HIND_FOLD)
    return legs


def _neck_and_head(rng: np.random.Generator, mood: str) -> tuple[float, float]:
    """Pitches of neck and head."""
    if mood == "graze":
        return float(np.radians(rng.uniform(-52, -30))), float(np.radians(rng.uniform(-80, -55)))
    low, high = {"stand": (15, 62), "walk": (12, 50), "trot": (30, 60), "canter": (22, 52)}[mood]
    neck = rng.uniform(low, high)
    return float(np.radians(neck)), float(np.radians(np.clip(rng.normal(-48, 12), -85, -10)))
