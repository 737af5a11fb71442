"""A pinhole camera and a painter's algorithm: polygons drawn far to near into a buffer that keeps *which* one is seen.

Colour, body part and depth of every pixel then follow from that one buffer by table look-up.
Image coordinates are pixels; the centre of the first pixel is (0, 0).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16

FINE = 2  # the buffer's pixels per image pixel, in each direction
_SUBPIXEL_BITS = 4
_STRIP = 32  # rows looked up at a time: take() widens indices to 8 bytes, and fresh memory costs more than the work


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion."""

    position: Float[np.ndarray, "3"]  # metres, world
    rotation: Float[np.ndarray, "3 3"]  # rows: the image's right, down and the viewing direction in the world
    focal_px: float
    centre: Float[np.ndarray, "2"]  # principal point, image pixels

    def see(self, points: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
        """World -> camera: right, down, depth in metres."""
        return (points - self.position) @ self.rotation.T

    def project(self, points: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 2"]:
        """World -> image pixels. Points must lie in front of the camera."""
        seen = self.see(points)
        return seen[..., :2] / seen[..., 2:] * self.focal_px + self.centre

    def rays(self, pixels: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 3"]:
        """Image pixels -> directions in camera axes, of depth 1."""
        flat = (pixels - self.centre) / self.focal_px
        return np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1)


def look(position: np.ndarray, target: np.ndarray, roll: float) -> Float[np.ndarray, "3 3"]:
    """Rotation of a camera at `position` that looks at `target`, its horizon turned by `roll` radians."""
    ahead = (target - position) / np.linalg.norm(target - position)
    right = np.array([ahead[1], -ahead[0], 0.0]) / np.hypot(ahead[0], ahead[1])
    down = np.cross(ahead, right)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, ahead])


@dataclass(frozen=True)
class Polygons:
    """P convex quads as the camera sees them."""

    corners: Float[np.ndarray, "P 4 3"]  # camera axes: right, down, depth in metres
    pixels: Float[np.ndarray, "P 4 2"]  # image pixels
    depth: Float[np.ndarray, "P"]  # metres: the order of painting
    colour: UInt8[np.ndarray, "P 3"]  # RGB
    owner: Int[np.ndarray, "P"]  # 1, 2, ... the horses, 0 everything else
    part: Int[np.ndarray, "P"]  # of the horse

    def take(self, rows: Int[np.ndarray, "..."] | Bool[np.ndarray, "..."]) -> "Polygons":
        columns = (self.corners, self.pixels, self.depth, self.colour, self.owner, self.part)
        return Polygons(*(column[rows] for column in columns))


def join(groups: Iterable[Polygons]) -> Polygons:
    """One set of polygons of many."""
    columns = zip(*((g.corners, g.pixels, g.depth, g.colour, g.owner, g.part) for g in groups), strict=True)
    return Polygons(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Painting:
    """What is seen where: `seen` is 0 for nothing, else 1 + the position of a polygon. FINE pixels per image pixel."""

    polygons: Polygons
    seen: UInt16[np.ndarray, "FH FW"]

    def look_up(self, column: Int[np.ndarray, "P"]) -> UInt8[np.ndarray, "H W"]:
        """The value (0-255) of a column of `polygons` at every image pixel, 0 where nothing is."""
        table = np.zeros(len(column) + 1, np.uint8)
        table[1:] = column
        return table.take(self.seen[::FINE, ::FINE])

    def colours(self) -> UInt8[np.ndarray, "H W 4"]:
        """RGB times coverage, and coverage (0-255), at the image's own size."""
        table = np.zeros((len(self.polygons.depth) + 1, 4), np.uint8)
        table[1:, :3], table[1:, 3] = self.polygons.colour, 255
        fine = np.empty(self.seen.shape, np.uint32)
        height, width = self.seen.shape
        for top in range(0, height, _STRIP):
            rows = slice(top, top + _STRIP)
            table.view(np.uint32)[:, 0].take(self.seen[rows], out=fine[rows], mode="clip")
        return cv2.resize(
            fine.view(np.uint8).reshape(height, width, 4), (width // FINE, height // FINE), interpolation=cv2.INTER_AREA
        )

    def depth_at(
        self, rows: Int[np.ndarray, "..."], camera: Camera, pixels: Float[np.ndarray, "... 2"]
    ) -> Float[np.ndarray, "..."]:
        """Depth in metres of polygons `rows` at image `pixels`: where the line of sight meets the polygon's plane."""
        corners = self.polygons.corners[rows]
        normal = np.cross(corners[..., 2, :] - corners[..., 0, :], corners[..., 3, :] - corners[..., 1, :])
        toward = (normal * camera.rays(pixels)).sum(-1)
        toward = np.where(np.abs(toward) < 1e-9, 1e-9, toward)
        plane = (normal * corners.mean(axis=-2)).sum(-1) / toward
        return np.clip(plane, corners[..., 2].min(-1), corners[..., 2].max(-1))


def paint(polygons: Polygons, width: int, height: int) -> Painting:
    """Draw `polygons` far to near into a buffer FINE times the size of the image (width, height)."""
    ordered = polygons.take(np.argsort(-polygons.depth, kind="stable"))
    fine = (ordered.pixels + 0.5) * FINE - 0.5
    fixed = np.rint(np.clip(fine, -8000, 8000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    seen = np.zeros((height * FINE, width * FINE), np.uint16)
    for number, corners in enumerate(fixed, start=1):
        cv2.fillConvexPoly(seen, corners, number, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return Painting(ordered, seen)
