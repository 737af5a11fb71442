"""Colours of horses: coats, darker or lighter manes, black points, socks, blazes, patches and dapples."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float

from posesweep.datasets.horse_body import LEG_PARTS, LEGS, PART_ID, SEGMENTS, Body, surface

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
_HOOF = np.array([58.0, 50.0, 44.0])
_DARK = np.array([16.0, 13.0, 12.0])  # eyes, nostrils


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
    names = list(_COATS)
    shares = np.array([_COATS[name][3] for name in names])
    name = names[rng.choice(len(names), p=shares / shares.sum())]
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
    along, top = surface().along, surface().top
    colours = np.tile(coat.body, (len(along), 1))
    colours[_parts("trunk", "neck") & (top < -0.7)] *= 0.92
    _colour_legs(colours, coat)
    colours *= 1 + coat.dapples * _pattern(body.rest * 3, coat).clip(-1, 1)[:, None]
    if coat.patches:
        pattern = _pattern(body.rest, coat)
        colours[pattern > np.quantile(pattern, 1 - coat.patches)] = _WHITE
    head = _parts("head")
    colours[head & (along > 0.75)] *= 0.72  # the muzzle is darker
    colours[head & (top > 1 - coat.blaze) & (along > 0.2)] = _WHITE
    colours[_parts(*LEG_PARTS) & (along > 0.8)] = _HOOF
    colours[_parts("mane", "tail")] = coat.hair
    colours[_parts("left_ear", "right_ear")] *= 0.8
    colours[_parts("left_eye", "right_eye", "left_nostril", "right_nostril")] = _DARK
    return colours


@cache
def _parts(*names: str) -> Bool[np.ndarray, "F"]:
    """Which quads belong to these parts."""
    return np.isin(surface().part, [PART_ID[name] for name in names])


def _colour_legs(colours: Float[np.ndarray, "F 3"], coat: Coat) -> None:
    """Dark points from the knee down, white socks over them, in place."""
    along = surface().along
    darker = np.where(_parts(*LEG_PARTS), ((along - 0.25) / 0.15).clip(0, 1), 0)[:, None]
    colours[:] = colours * (1 - darker) + coat.points * darker
    for leg, sock in zip(LEGS, coat.socks, strict=True):
        colours[_parts(*(f"{leg}_{segment}" for segment in SEGMENTS)) & (along > sock)] = _WHITE


def _pattern(places: Float[np.ndarray, "F 3"], coat: Coat) -> Float[np.ndarray, "F"]:
    """A smooth random field over the body, mean 0, about -2 to 2."""
    return np.sin(places @ coat.waves[:, :3].T + coat.waves[:, 3]).sum(axis=1) / np.sqrt(3)
