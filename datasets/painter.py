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
    level = np.hypot(ahead[0], ahead[1])
    right = np.array([ahead[1], -ahead[0], 0.0]) / level
    down = np.array([ahead[0] * ahead[2], ahead[1] * ahead[2], -level * level]) / level
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, ahead])


@dataclass(frozen=True)
class Polygons:
    """P convex quads as the camera sees them."""

    pixels: Float[np.ndarray, "P 4 2"]  # image pixels
    depth: Float[np.ndarray, "P"]  # metres: the order of painting
    reach: Float[np.ndarray, "P 2"]  # least and greatest depth of the corners, metres
    plane: Float[np.ndarray, "P 4"]  # normal n and n . x of the points x on it, camera axes, metres
    colour: UInt8[np.ndarray, "P 3"]  # RGB
    owner: Int[np.ndarray, "P"]  # 1, 2, ... the horses, 0 everything else
    part: Int[np.ndarray, "P"]  # of the horse

    def take(self, rows: Int[np.ndarray, "..."] | Bool[np.ndarray, "..."]) -> "Polygons":
        return Polygons(*(column[rows] for column in vars(self).values()))


def join(groups: Iterable[Polygons]) -> Polygons:
    """One set of polygons of many."""
    columns = zip(*(vars(group).values() for group in groups), strict=True)
    return Polygons(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Painting:
    """What is seen where: `seen` is 0 for nothing, else 1 + the position of a polygon. FINE pixels per image pixel."""

    polygons: Polygons
    seen: UInt16[np.ndarray, "FH FW"]
    box: tuple[slice, slice]  # rows and columns of the image outside of which nothing is painted

    def look_up(self, column: Int[np.ndarray, "P"]) -> UInt8[np.ndarray, "H W"]:
        """The value (0-255) of a column of `polygons` at every image pixel, 0 where nothing is."""
        table = np.zeros(len(column) + 1, np.uint8)
        table[1:] = column
        values = np.zeros((self.seen.shape[0] // FINE, self.seen.shape[1] // FINE), np.uint8)
        values[self.box] = table.take(self._fine()[::FINE, ::FINE])
        return values

    def _fine(self) -> UInt16[np.ndarray, "FH FW"]:
        """What is seen within `box`."""
        rows, columns = self.box
        return self.seen[rows.start * FINE : rows.stop * FINE, columns.start * FINE : columns.stop * FINE]

    def colours(self) -> UInt8[np.ndarray, "h w 4"]:
        """RGB times coverage, and coverage (0-255), of the image's pixels within `box`."""
        table = np.zeros((len(self.polygons.depth) + 1, 4), np.uint8)
        table[1:, :3], table[1:, 3] = self.polygons.colour, 255
        seen = self._fine()
        height, width = seen.shape
        fine = np.empty((height, width), np.uint32)
        for top in range(0, height, _STRIP):
            rows = slice(top, top + _STRIP)
            table.view(np.uint32)[:, 0].take(seen[rows], out=fine[rows], mode="clip")
        return cv2.resize(
            fine.view(np.uint8).reshape(height, width, 4), (width // FINE, height // FINE), interpolation=cv2.INTER_AREA
        )

    def depth_at(
        self, rows: Int[np.ndarray, "..."], camera: Camera, pixels: Float[np.ndarray, "... 2"]
    ) -> Float[np.ndarray, "..."]:
        """Depth in metres of polygons `rows` at image `pixels`: where the line of sight meets the polygon's plane."""
        plane, reach = self.polygons.plane[rows], self.polygons.reach[rows]
        toward = (plane[..., :3] * camera.rays(pixels)).sum(-1)
        toward = np.where(np.abs(toward) < 1e-9, 1e-9, toward)
        return np.clip(plane[..., 3] / toward, reach[..., 0], reach[..., 1])


def paint(polygons: Polygons, width: int, height: int) -> Painting:
    """Draw `polygons` far to near into a buffer FINE times the size of the image (width, height)."""
    ordered = polygons.take(np.argsort(-polygons.depth, kind="stable"))
    fine = (ordered.pixels + 0.5) * FINE - 0.5
    fixed = np.rint(np.clip(fine, -8000, 8000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    seen = np.zeros((height * FINE, width * FINE), np.uint16)
    for number, corners in enumerate(fixed, start=1):
        cv2.fillConvexPoly(seen, corners, number, cv2.LINE_8, _SUBPIXEL_BITS)  # names would cost a quarter more
    return Painting(ordered, seen, _bounds(ordered.pixels, width, height))


def _bounds(pixels: Float[np.ndarray, "P 4 2"], width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns of the image that polygons may touch, at least one each."""
    flat = pixels.reshape(-1, 2)
    left, top = np.floor(flat.min(axis=0)).clip(1, [width, height]).astype(int) - 1
    right, bottom = np.ceil(flat.max(axis=0)).clip(0, [width - 2, height - 2]).astype(int) + 2
    return slice(int(top), int(bottom)), slice(int(left), int(right))
