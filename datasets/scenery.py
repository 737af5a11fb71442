"""What is around a synthetic horse: sky, ground, trees, fences, shadows behind; poles, boards, bushes before it."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from posesweep.datasets.painter import Camera, Polygons

_NEAR = 0.3  # metres from the camera; shadows that reach nearer are left out
_SKIES = np.array([
    [(96, 146, 205), (190, 212, 232)], [(150, 160, 172), (205, 208, 212)], [(70, 110, 180), (225, 205, 185)],
    [(40, 48, 44), (70, 84, 62)], [(120, 105, 90), (150, 135, 118)],
], float)  # fmt: skip
_GROUNDS = np.array([
    [(96, 128, 58), (134, 150, 92)], [(150, 122, 88), (182, 160, 128)], [(176, 160, 130), (200, 188, 164)],
    [(70, 96, 44), (100, 124, 80)], [(122, 112, 104), (150, 144, 138)], [(214, 216, 220), (228, 230, 234)],
], float)  # fmt: skip
_GREENS = np.array([(42, 66, 30), (66, 92, 40), (30, 50, 34), (92, 96, 48), (84, 62, 40)], float)
_WOODS = np.array([(224, 222, 214), (120, 88, 58), (72, 58, 46), (150, 140, 128), (46, 44, 44)], float)


@dataclass(frozen=True)
class Light:
    """One sun and the sky."""

    toward: Float[np.ndarray, "3"]  # unit vector to the sun, world
    ambient: float  # 0-1
    tint: Float[np.ndarray, "3"]

    def shade(self, normals: Float[np.ndarray, "F 3"]) -> Float[np.ndarray, "F 3"]:
        """Factors of colours for unit normals: wrapped Lambert, and the sky from above."""
        sun = np.clip(normals @ self.toward * 0.85 + 0.15, 0, 1)
        sky = 0.5 + 0.5 * normals[:, 2]
        return (self.ambient * (0.45 + 0.55 * sky) + (1.25 - self.ambient) * sun)[:, None] * self.tint


def random_light(rng: np.random.Generator) -> Light:
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(20, 80))
    toward = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    warmth = rng.uniform(-0.06, 0.08)
    return Light(toward, float(rng.uniform(0.40, 0.75)), np.array([1 + warmth, 1.0, 1 - warmth]))


# -- behind -----------------------------------------------------------------------------------------------------------
def backdrop(rng: np.random.Generator, camera: Camera, width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
    """Sky and ground that meet at the camera's horizon, with trees, fences and clutter."""
    ends = _horizon(camera, width)
    image = _sky_and_ground(rng, ends, width, height)
    middle = float(ends.mean())
    for _ in range(rng.integers(0, 7)):
        _tree(rng, image, middle)
    if rng.random() < 0.45:
        _fence(rng, image, middle, camera)
    for _ in range(rng.integers(0, 5)):
        _scrap(rng, image)
    return image


def _horizon(camera: Camera, width: int) -> Float[np.ndarray, "2"]:
    """Rows at which the horizon leaves the image on the left and on the right."""
    up = camera.rotation[:, 2]  # the world's up in camera axes; the horizon is where rays are square to it
    columns = (np.array([0.0, width - 1.0]) - camera.centre[0]) / camera.focal_px
    rows = -(columns * up[0] + up[2]) / up[1]
    return np.clip(rows * camera.focal_px + camera.centre[1], -4000, 4000)


def _sky_and_ground(
    rng: np.random.Generator, ends: Float[np.ndarray, "2"], width: int, height: int
) -> UInt8[np.ndarray, "H W 3"]:
    sky = _SKIES[rng.integers(len(_SKIES))] * rng.uniform(0.85, 1.1)
    ground = _GROUNDS[rng.integers(len(_GROUNDS))][::-1] * rng.uniform(0.75, 1.1)
    above = np.linspace(0, 1, height)[:, None]
    below = np.sqrt(above)
    table = np.concatenate([sky[0] + above * (sky[1] - sky[0]), ground[0] + below * (ground[1] - ground[0])])
    strip = np.repeat(table.clip(0, 255).astype(np.uint8)[:, None], 2, axis=1)
    slope = (ends[1] - ends[0]) / (width - 1)
    lookup = np.array([[0.0, 0.0, 0.0], [-slope, 1.0, height - ends[0]]])  # the strip's row `height` is the horizon
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(strip, lookup, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _tree(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"], horizon: float) -> None:
    height, width = image.shape[:2]
    colour = _GREENS[rng.integers(len(_GREENS))] * rng.uniform(0.7, 1.4)
    x, size = rng.uniform(-0.1, 1.1) * width, rng.uniform(0.05, 0.3) * height
    foot = horizon + rng.uniform(-0.02, 0.12) * height
    if rng.random() < 0.6:
        trunk = (_WOODS[2] * rng.uniform(0.7, 1.2)).tolist()
        cv2.line(image, _pixel(x, foot), _pixel(x, foot - 2 * size), trunk, max(1, int(size / 6)))
        foot -= 1.6 * size
    dx, dy, radius, light = rng.uniform(-1, 1, (4, 16))
    shades = (colour * (1 + 0.25 * light[:, None])).clip(0, 255).tolist()
    places = np.stack([x + dx * size, foot + (0.7 * dy - 0.3) * size], 1).clip(-9999, 9999).astype(int).tolist()
    for place, reach, shade in zip(places, (size * (0.3 + 0.17 * radius)).astype(int).tolist(), shades, strict=True):
        cv2.circle(image, place, reach + 1, shade, -1)


def _pixel(x: float, y: float) -> tuple[int, int]:
    return int(min(max(x, -9999), 9999)), int(min(max(y, -9999), 9999))


def _fence(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"], horizon: float, camera: Camera) -> None:
    """A straight fence some way behind: rails and posts."""
    width = image.shape[1]
    colour = (_WOODS[rng.integers(len(_WOODS))] * rng.uniform(0.8, 1.1)).clip(0, 255).tolist()
    tall = camera.focal_px * 1.3 / rng.uniform(14, 40)
    slope = rng.uniform(-0.08, 0.08)
    foot = horizon + tall * rng.uniform(0.7, 1.6)
    thick = max(1, int(tall / 10))
    for share in (0.3, 0.65, 0.98)[: rng.integers(2, 4)]:
        y = foot - share * tall
        cv2.line(image, _pixel(0, y), _pixel(width, y + slope * width), colour, thick)
    for x in np.arange(rng.uniform(0, tall), width, max(8.0, tall * 1.8)):
        cv2.line(image, _pixel(x, foot + slope * x), _pixel(x, foot - tall * 1.1 + slope * x), colour, thick + 1)


def _scrap(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Any polygon of any colour: a shed, a car, a horsebox far away."""
    height, width = image.shape[:2]
    corners = rng.integers(3, 6)
    centre, reach = rng.uniform(0, 1, 2) * [width, height * 0.8], rng.uniform(0.03, 0.16) * height
    points = centre + rng.uniform(-1, 1, (corners, 2)) * reach * [1.5, 1.0]
    hull = cv2.convexHull(points.astype(np.int32))
    colour = rng.uniform(40, 200) + rng.uniform(-45, 45, 3)
    cv2.fillConvexPoly(image, hull, colour.clip(0, 255).tolist(), cv2.LINE_AA)


def grain(rng: np.random.Generator, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """White noise, 0-255. Eight pixels of every number drawn: generation was a tenth of a picture's time."""
    size = int(np.prod(shape))
    return rng.integers(0, 1 << 64, -(-size // 8), dtype=np.uint64).view(np.uint8)[:size].reshape(shape)


def texture(rng: np.random.Generator, width: int, height: int) -> UInt8[np.ndarray, "H W"]:
    """Factors of the backdrop, times 128: blotches of two sizes, the fine ones flatter, as grass and gravel are."""
    spread = rng.integers(8, 40) / 256
    shapes = ((height // 24, width // 32), (height // 2, width // 3))
    coarse, fine = (cv2.resize(grain(rng, shape), (width, height)) for shape in shapes)
    return cv2.addWeighted(coarse, spread, fine, spread, 128 - 255 * spread)


def cast_shadow(
    factors: UInt8[np.ndarray, "H W"],
    corners: Float[np.ndarray, "_ 3"],
    ends: Int[np.ndarray, "_"],
    light: Light,
    camera: Camera,
) -> UInt8[np.ndarray, "H W"]:
    """`factors`, darker where groups of corners (metres, world) keep the sun off the ground; each group, up to its
    place in `ends`, casts its convex hull."""
    clear = np.full(factors.shape, 255, np.uint8)
    darkened = 255 - int(255 * 0.75 * (1.1 - light.ambient))
    ground = camera.see(corners - corners[:, 2:] * (light.toward / light.toward[2]))
    depth = np.maximum(ground[:, 2:], _NEAR)
    pixels = (ground[:, :2] / depth * camera.focal_px + camera.centre).clip(-8000, 8000).astype(np.int32)
    starts = np.concatenate([[0], ends[:-1]])
    in_front = np.minimum.reduceat(ground[:, 2], starts) > _NEAR
    for start, end in zip(starts[in_front].tolist(), ends[in_front].tolist(), strict=True):
        cv2.fillConvexPoly(clear, cv2.convexHull(pixels[start:end]), darkened)
    return cv2.multiply(factors, cv2.blur(clear, (3, 3)), scale=1 / 255)


# -- before -----------------------------------------------------------------------------------------------------------
def occluders(rng: np.random.Generator, count: int, box: Float[np.ndarray, "4"], depth: float) -> Polygons:
    """`count` poles, boards and bushes over `box` (x, y, width, height; pixels), `depth` metres from the camera."""
    kinds = (_pole, _board, _bush)
    shapes = [kinds[rng.integers(3)](rng, box) for _ in range(count)]
    pixels = np.concatenate([np.zeros((0, 4, 2)), *(quads for quads, _ in shapes)])
    colour = np.concatenate([np.zeros((0, 3)), *(colours for _, colours in shapes)])
    size = len(pixels)
    nothing = np.zeros(size, int)
    nearer = np.full(size, depth) - 1e-4 * np.arange(size)  # what comes later lies on top
    return Polygons(
        pixels=pixels,
        depth=nearer,
        reach=np.full((size, 2), depth),
        plane=np.tile([0.0, 0.0, 1.0, depth], (size, 1)),
        colour=colour.clip(0, 255).astype(np.uint8),
        owner=nothing,
        part=nothing,
    )


_Shape = tuple[np.ndarray, np.ndarray]  # quads [q, 4, 2] in pixels, RGB [q, 3]


def _bar(start: np.ndarray, end: np.ndarray, thick: float, colour: np.ndarray) -> _Shape:
    """A bar in three strips, lighter on one side."""
    along = (end - start) / np.linalg.norm(end - start)
    across = np.array([-along[1], along[0]]) * thick
    edges = np.array([-0.5, -0.2, 0.2, 0.5])[:, None] * across
    quads = np.stack([start + edges[:-1], end + edges[:-1], end + edges[1:], start + edges[1:]], axis=1)
    return quads, colour * np.array([1.1, 1.0, 0.75])[:, None]


def _pole(rng: np.random.Generator, box: np.ndarray) -> _Shape:
    x = box[0] + rng.uniform(0.0, 1.0) * box[2]
    lean = rng.normal(0, 0.06) * box[3]
    top, foot = box[1] - rng.uniform(-0.3, 0.5) * box[3], box[1] + 1.6 * box[3]
    colour = _WOODS[rng.integers(len(_WOODS))] * rng.uniform(0.7, 1.1)
    return _bar(np.array([x, foot]), np.array([x + lean, top]), rng.uniform(0.02, 0.09) * box[2], colour)


def _board(rng: np.random.Generator, box: np.ndarray) -> _Shape:
    y = box[1] + rng.uniform(0.35, 1.0) * box[3]
    tilt = rng.normal(0, 0.04) * box[2]
    left, right = box[0] - rng.uniform(-0.4, 1.0) * box[2], box[0] + rng.uniform(0.6, 2.0) * box[2]
    colour = _WOODS[rng.integers(len(_WOODS))] * rng.uniform(0.7, 1.1)
    return _bar(np.array([left, y]), np.array([right, y + tilt]), rng.uniform(0.03, 0.10) * box[3], colour)


def _bush(rng: np.random.Generator, box: np.ndarray) -> _Shape:
    """Leaves: diamonds thrown around a middle near the horse's feet."""
    leaves = 60
    size = rng.uniform(0.08, 0.2) * box[3]
    centre = box[:2] + box[2:] * [rng.uniform(-0.05, 1.05), rng.uniform(0.75, 1.1)]
    middle = centre + rng.normal(0, 0.5, (leaves, 2)) * size * [1.3, 1.0]
    turn, reach = rng.uniform(0, np.pi, leaves), rng.uniform(0.1, 0.28, leaves) * size
    long = np.stack([np.cos(turn), np.sin(turn)], 1) * reach[:, None]
    short = np.stack([-long[:, 1], long[:, 0]], 1) * 0.55
    colour = _GREENS[rng.integers(len(_GREENS))] * rng.uniform(0.7, 1.5, (leaves, 1))
    return np.stack([middle + long, middle + short, middle - long, middle - short], axis=1), colour
