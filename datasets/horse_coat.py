"""Colours of horses: coats, darker or lighter manes, black points, socks, blazes, patches and dapples."""

from bisect import bisect
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float, Int

from posesweep.datasets.horse_body import LEGS, PART_ID, SEGMENTS, Body, surface

#  name: body, mane and tail, lower legs (RGB), how often
_COATS = {
    "bay": ((122, 72, 40), (26, 21, 19), (30, 24, 21), 0.24),
    "chestnut": ((152, 84, 46), (128, 66, 34), (140, 78, 44), 0.20),
    "black": ((42, 38, 37), (24, 21, 21), (36, 32, 32), 0.12),
    "grey": ((188, 187, 187), (158, 156, 156), (150, 149, 150), 0.14),
    "dark grey": ((112, 113, 118), (74, 74, 78), (72, 72, 76), 0.10),
    "dun": ((190, 156, 108), (44, 36, 30), (62, 50, 40), 0.10),
    "palomino": ((208, 164, 94), (236, 224, 198), (206, 170, 112), 0.10),
}
_WHITE = np.array([232.0, 228.0, 220.0])
_FIXED = np.array([(58.0, 50.0, 44.0), (16.0, 13.0, 12.0)])  # hooves; eyes and nostrils
_FEATURES = ("left_eye", "right_eye", "left_nostril", "right_nostril")
_ODDS = tuple(accumulate(share for *_, share in _COATS.values()))


@dataclass(frozen=True)
class Coat:
    """One animal's colours."""

    name: str
    body: Float[np.ndarray, "3"]  # RGB, 0-255
    hair: Float[np.ndarray, "3"]
    points: Float[np.ndarray, "3"]
    socks: Float[np.ndarray, "4"]  # share of each leg, from the pivot, above which there is no white; 1: no sock
    blaze: float  # width of the white stripe on the face, 0 none
    patches: float  # share of white, 0 none
    dapples: float  # strength
    waves: Float[np.ndarray, "6 4"]  # the pattern's wave vectors (1/m) and phases


def random_coat(rng: np.random.Generator) -> Coat:
    name = tuple(_COATS)[bisect(_ODDS[:-1], rng.random())]
    body, hair, points = (np.array(c, float) for c in _COATS[name][:3])
    light = rng.uniform(0.85, 1.15)
    tint = 1 + rng.uniform(-0.06, 0.06, 3)
    return Coat(
        name=name,
        body=body * light * tint,
        hair=hair * light * rng.uniform(0.8, 1.2),
        points=points * light,
        socks=np.where(rng.random(4) < 0.35, rng.uniform(0.45, 0.75, 4), 1.0),
        blaze=float(rng.uniform(0.08, 0.45)) if rng.random() < 0.45 else 0.0,
        patches=float(rng.uniform(0.25, 0.6)) if rng.random() < 0.15 else 0.0,
        dapples=float(rng.uniform(0.05, 0.2)) if "grey" in name else 0.03,
        waves=np.concatenate([rng.normal(0, 5.5, (6, 3)), rng.uniform(0, 2 * np.pi, (6, 1))], axis=1),
    )


def base_colours(body: Body, coat: Coat) -> Float[np.ndarray, "F 3"]:
    """RGB (0-255) of every quad before light falls on it."""
    plan = _plan()
    colours = plan.shares @ np.concatenate([[coat.body, coat.hair, coat.points], _FIXED])
    colours *= 1 + (coat.dapples * plan.furry * _pattern(body.rest * 3, coat).clip(-1, 1))[:, None]
    white = (plan.face > 1 - coat.blaze) | (surface().along > np.append(coat.socks, np.inf)[plan.leg])
    if coat.patches:
        pattern = _pattern(body.rest, coat)
        white |= pattern > np.quantile(pattern, 1 - coat.patches)
    colours[white & (plan.furry > 0)] = _WHITE
    return colours


@dataclass(frozen=True)
class _Plan:
    """How every quad gets its colour. The same for all horses."""

    shares: Float[np.ndarray, "F 5"]  # of the coat's body, hair and points and of _FIXED in the quad's colour
    furry: Float[np.ndarray, "F"]  # 1 where dapples and white markings may be
    leg: Int[np.ndarray, "F"]  # position in LEGS, or one more than the last
    face: Float[np.ndarray, "F"]  # 1 on the ridge of the face, less to its sides, below -1 elsewhere


@cache
def _plan() -> _Plan:
    along, top = surface().along, surface().top
    leg = np.full(len(along), len(LEGS))
    for number, name in enumerate(LEGS):
        leg[_parts(*(f"{name}_{segment}" for segment in SEGMENTS))] = number
    on_leg, head = leg < len(LEGS), _parts("head")
    shares = np.zeros((len(along), 5))
    shares[:, 2] = np.where(on_leg, ((along - 0.25) / 0.15).clip(0, 1), 0)  # dark points from the knee down
    shares[:, 0] = 1 - shares[:, 2]
    shares[_parts("trunk", "neck") & (top < -0.7)] *= 0.92
    shares[head & (along > 0.75)] *= 0.72  # the muzzle is darker
    shares[_parts("left_ear", "right_ear")] *= 0.8
    places = (_parts("mane", "tail"), on_leg & (along > 0.8), _parts(*_FEATURES))
    for column, place in zip((1, 3, 4), places, strict=True):
        shares[place] = np.eye(5)[column]
    furry = 1.0 - np.any(places, axis=0)
    return _Plan(shares, furry, leg, np.where(head & (along > 0.2), top, -9.0))


def _parts(*names: str) -> Bool[np.ndarray, "F"]:
    """Which quads belong to these parts."""
    return np.isin(surface().part, [PART_ID[name] for name in names])


def _pattern(places: Float[np.ndarray, "F 3"], coat: Coat) -> Float[np.ndarray, "F"]:
    """A smooth random field over the body, mean 0, about -2 to 2."""
    return np.sin(places @ coat.waves[:, :3].T + coat.waves[:, 3]).sum(axis=1) / np.sqrt(3)
