"""Where the pixels and keypoints of an input come from: affines, perspective, elastic fields, and one warp for all.

A point of an input goes through `Bends` (elastic field, then perspective), which lead to the straight input, and from
there through one affine (mirroring, rotation, scale, shift, half of the body, crop) to a picture or to the image.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from posesweep.datasets.augment import Augmentation, Draws, chances
from posesweep.datasets.pixels import NOISE_STD, Noise

Affines = Float[np.ndarray, "n 2 3"]

_MAX_LOSS = 0.01  # share of the input's pixels that may fall outside a stored crop, on average
_STEPS = 8  # margins are multiples of 1/8
SMOOTHNESS = 0.08  # sigma of elastic fields, in shorter sides of the input
_NODES_PER_SIGMA = 3  # of an elastic field; straight lines between nodes lose 0.7 % of its deviation
_UNDO_STEPS = 10
_HALF_PADDING, _HALF_TOTAL, _HALF_LEAST = 1.5, 8, 2  # mmpose's RandomHalfBody
_HALF_SMALLEST = 0.25  # of the plain input: two points side by side would be enlarged without end
_INVERSE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def inverse(affines: Affines) -> Affines:
    """The affines that lead back."""
    linear = np.linalg.inv(affines[:, :, :2])
    return np.concatenate([linear, -linear @ affines[:, :, 2:]], axis=2)


def chain(outer: Affines, inner: Affines) -> Affines:
    """First `inner`, then `outer`."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    return np.concatenate([linear, outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]], axis=2)


def remap(picture: np.ndarray, where: Float32[np.ndarray, "H W 2"], **how: Any) -> np.ndarray:
    """cv2.remap, bilinear: the picture at each (x, y) of `where`."""
    return np.asarray(cv2.remap(picture, where, None, cv2.INTER_LINEAR, **how))  # type: ignore[call-overload]


def moved(affines: Affines, points: Float[np.ndarray, "n K 2"]) -> Float[np.ndarray, "n K 2"]:
    """The points of each sample through its affine."""
    return np.asarray(points @ affines[:, :, :2].swapaxes(1, 2) + affines[:, None, :, 2])


# ----------------------------------------------------------------------------------------------------------- affines


def input_to_box(draws: Draws, imgsz: tuple[int, int]) -> Affines:
    """Affines from input pixels to the pixels of the plain input (the one nothing was done to), `imgsz` wide and high.

    Rotation is in the image's own pixels, as in mmpose's get_udp_warp_matrix, about the middle of the region; then the
    region is scaled and shifted; mirroring comes last, about the middle of the input.
    """
    size = np.array(imgsz) - 1.0
    cos, sin = np.cos(draws.angle_rad) * draws.scale, np.sin(draws.angle_rad) * draws.scale
    # the density of a crop is (W-1)/W : (H-1)/H, not quite 1 : 1; going through image pixels puts it right
    ratio = (size[0] / imgsz[0]) / (size[1] / imgsz[1])
    mirror = np.where(draws.flip, -1.0, 1.0)
    linear = np.stack([cos * mirror, -sin * ratio, sin / ratio * mirror, cos], axis=1).reshape(-1, 2, 2)
    offset = size / 2 + draws.shift * size - linear @ (size / 2)
    return np.concatenate([linear, offset[:, :, None]], axis=2)


@dataclass(frozen=True)
class Halves:
    """Of n samples, affines from the region of the upper and of the lower body to the plain input, and which exist."""

    affines: Float[np.ndarray, "n 2 2 3"]  # upper, lower
    there: Bool[np.ndarray, "n 2"]

    @classmethod
    def of(
        cls,
        keypoints: Float[np.ndarray, "n K 2"],
        labelled: Bool[np.ndarray, "n K"],
        upper: Bool[np.ndarray, "K"],
        imgsz: tuple[int, int],
    ) -> "Halves":
        """`keypoints` in pixels of the plain input. The rule is mmpose's RandomHalfBody: at least 8 labelled points, 2
        in the half; the region is centred on their mean and 1.5 times as large as their box."""
        size = np.array(imgsz) - 1.0
        affines = np.tile(np.eye(2, 3), (len(keypoints), 2, 1, 1))
        there = np.zeros((len(keypoints), 2), dtype=bool)
        for side, chosen in enumerate((upper, ~upper)):
            used = (labelled & chosen)[:, :, None]
            count = used.sum(axis=1)
            there[:, side] = (labelled.sum(axis=1) >= _HALF_TOTAL) & (count[:, 0] >= _HALF_LEAST)
            middle = (keypoints * used).sum(axis=1) / np.maximum(count, 1)
            far = np.where(used, keypoints, -np.inf).max(axis=1) - np.where(used, keypoints, np.inf).min(axis=1)
            scale = np.maximum((_HALF_PADDING * far / size).max(axis=1), _HALF_SMALLEST)
            affines[:, side, [0, 1], [0, 1]] = scale[:, None]
            affines[:, side, :, 2] = middle - scale[:, None] * size / 2
        return cls(np.where(there[:, :, None, None], affines, np.eye(2, 3)), there)

    def chosen(self, rows: np.ndarray, draws: Draws) -> Affines:
        """Of the samples `rows`, those of the half that was drawn; of the other half where that one does not exist."""
        preferred = np.where(draws.upper, 0, 1)
        side = np.where(self.there[rows, preferred], preferred, 1 - preferred)
        return np.where(draws.half_body[:, None, None], self.affines[rows, side], np.eye(2, 3))


def on_whole_pixels(to_picture: Affines, imgsz: tuple[int, int]) -> tuple[Affines, Bool[np.ndarray, "n"]]:
    """Where nothing is turned, the affine moved so that the input shows a rectangle of whole pixels; which were moved.

    By half a pixel at most, at its middle and at its sides. Such a rectangle can be resized, which takes half as long
    as a warp; the keypoints go through the affine returned.
    """
    size = np.array(imgsz, dtype=np.float64)
    slope = to_picture[:, [0, 1], [0, 1]]
    straight = (np.abs(to_picture[:, [0, 1], [1, 0]]) < 1e-9).all(axis=1) & (slope[:, 1] > 0)
    middle = slope * (size - 1) / 2 + to_picture[:, :, 2]
    sides = np.maximum(1, np.rint(np.abs(slope) * size))
    middle = np.rint(middle + 0.5 - sides / 2) + sides / 2 - 0.5
    whole = np.zeros_like(to_picture)
    whole[:, [0, 1], [0, 1]] = np.sign(slope) * sides / size
    whole[:, :, 2] = middle - whole[:, [0, 1], [0, 1]] * (size - 1) / 2
    changed = straight & (np.abs(whole - to_picture).max(axis=(1, 2)) > 1e-9)
    return np.where(straight[:, None, None], whole, to_picture), changed


def margin_for(augmentation: Augmentation, imgsz: tuple[int, int] = (192, 256)) -> tuple[float, float]:
    """How much wider and higher than the input a stored crop must be, in steps of 1/8, the smallest in area.

    Of the pixels that `augmentation` shows (1,024 draws, fixed seed), at most 1 % may lie outside the stored crop. That
    share depends on the aspect of `imgsz`, because rotation takes the long side across the short one. Elastic fields
    (they move pixels by 1 % of a side) and halves of the body (which lie inside) are not counted.
    """
    draws = Draws.of(augmentation, chances(1024, 0, 0))
    half = (np.array(imgsz) - 1) / 2
    grid = np.stack(np.meshgrid(*(np.linspace(0, 2 * h, 17) for h in half)), -1).reshape(-1, 2)
    bent = _through(perspectives(draws, imgsz), np.broadcast_to(grid, (1024, *grid.shape)))
    needed = np.abs(moved(input_to_box(draws, imgsz), bent) - half).reshape(-1, 2) / half  # this margin takes it in
    steps = np.maximum(0, np.ceil((needed - 1) * _STEPS - 1e-6)).astype(int)
    counts = np.zeros(steps.max(axis=0) + 1)
    np.add.at(counts, (steps[:, 0], steps[:, 1]), 1)
    lost = 1 - counts.cumsum(0).cumsum(1) / len(steps)
    margins = 1 + np.indices(lost.shape) / _STEPS
    area = np.where(lost <= _MAX_LOSS, margins.prod(axis=0), np.inf)
    across, down = np.unravel_index(int(area.argmin()), area.shape)
    return 1 + float(across) / _STEPS, 1 + float(down) / _STEPS


# ------------------------------------------------------------------------------------------- perspective and elastic


def perspectives(draws: Draws, imgsz: tuple[int, int]) -> Float[np.ndarray, "B 3 3"]:
    """Homographies of input pixels that take the corners of the input to where they were drawn."""
    right, bottom = np.array(imgsz) - 1.0
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]])
    matrices = np.tile(np.eye(3), (len(draws.corners), 1, 1))
    for i in np.flatnonzero(draws.corners.any(axis=(1, 2))):
        ends = corners + draws.corners[i] * (right, bottom)
        matrices[i] = cv2.getPerspectiveTransform(corners.astype(np.float32), ends.astype(np.float32))
    return matrices


def _through(matrices: Float[np.ndarray, "n 3 3"], points: Float[np.ndarray, "n K 2"]) -> Float[np.ndarray, "n K 2"]:
    lifted = points @ matrices[:, :, :2].swapaxes(1, 2) + matrices[:, None, :, 2]
    return np.asarray(lifted[..., :2] / lifted[..., 2:])


@dataclass(frozen=True)
class ElasticField:
    """Displacements in input pixels at nodes `cell` pixels apart, the first at (cell - 1) / 2; straight in between.

    An input shows at p what the straight input has at p + d(p)."""

    nodes: Float32[np.ndarray, "down across 2"]
    cell: int

    @classmethod
    def drawn(cls, share: float, normal: UInt8[np.ndarray, "at_least"], imgsz: tuple[int, int]) -> "ElasticField":
        """Displacements with a standard deviation of `share` shorter sides, drawn from the white noise `normal`.

        albumentations' ElasticTransform divides white noise by its largest value M, blurs it with a Gaussian of sigma
        (here 0.08 shorter sides) and multiplies it by alpha. Far from the border that is a Gaussian field whose
        correlation at distance d is exp(-d^2 / 4 sigma^2) and whose deviation is alpha / (2 sqrt(pi) sigma M). Here it
        is drawn at its nodes only, which takes 0.1 ms instead of 7. Near the border albumentations repeats the noise
        of the edge: its displacements are up to 15 times larger there and fold the image. This field goes on as if the
        input were cut from a larger image.
        """
        side = min(imgsz)
        cell = max(1, round(SMOOTHNESS * side / _NODES_PER_SIGMA))
        across, down = -(-imgsz[0] // cell), -(-imgsz[1] // cell)
        white = (normal[: 2 * across * down].astype(np.float32) - 128) / NOISE_STD
        step = cell / (SMOOTHNESS * side)
        field = _roots(down, step) @ white.reshape(2, down, across) @ _roots(across, step).T
        return cls(np.ascontiguousarray(field.transpose(1, 2, 0)) * np.float32(share * side), cell)

    def at(self, points: Float[np.ndarray, "K 2"]) -> Float[np.ndarray, "K 2"]:
        """Displacements of input points; outside the nodes those of the nearest."""
        place = ((points + 0.5) / self.cell - 0.5).astype(np.float32)[None]
        return remap(self.nodes, place, borderMode=cv2.BORDER_REPLICATE)[0].astype(float)

    def undo(self, points: Float[np.ndarray, "K 2"]) -> Float[np.ndarray, "K 2"]:
        """The input points that show these points of the straight input: p with p + d(p) = point, by iteration."""
        found = points
        for _ in range(_UNDO_STEPS):
            found = points - self.at(found)
        return found

    def looked_up(self, matrix: Float[np.ndarray, "3 3"]) -> Float32[np.ndarray, "more_down more_across 2"]:
        """Where the nodes, and one more on every side, are looked up once `matrix` follows the displacement."""
        padded = cv2.copyMakeBorder(self.nodes, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        return cv2.perspectiveTransform(padded + _grid(padded.shape[:2], self.cell), matrix)

    def spread(
        self, nodes: Float32[np.ndarray, "more_down more_across 2"], imgsz: tuple[int, int]
    ) -> Float32[np.ndarray, "H W 2"]:
        """What `looked_up` says, for every input pixel: a map for cv2.remap."""
        size = (nodes.shape[1] * self.cell, nodes.shape[0] * self.cell)
        inner = slice(self.cell, self.cell + imgsz[1]), slice(self.cell, self.cell + imgsz[0])
        return cv2.resize(nodes, size, interpolation=cv2.INTER_LINEAR)[inner]


@cache
def _grid(shape: tuple[int, int], cell: int) -> Float32[np.ndarray, "down across 2"]:
    """Input pixels of nodes, of which the first of each row and column lies outside."""
    down, across = np.indices(shape) * cell - (cell + 1) / 2
    return np.stack([across, down], axis=2).astype(np.float32)


@cache
def _roots(count: int, step: float) -> Float32[np.ndarray, "count count"]:
    """A square root of the correlations of `count` points of a blurred white noise, `step` blurring sigmas apart."""
    apart = np.subtract.outer(np.arange(count), np.arange(count)) * step
    values, vectors = np.linalg.eigh(np.exp(-(apart**2) / 4))
    return (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)


@dataclass(frozen=True)
class Bends:
    """What happens to B inputs that no affine can do, first to last: elastic fields, perspective."""

    fields: dict[int, ElasticField]  # of the samples that drew one
    matrices: Float[np.ndarray, "B 3 3"]
    there: Bool[np.ndarray, "B"]

    @classmethod
    def of(cls, draws: Draws, noise: Noise, imgsz: tuple[int, int]) -> "Bends":
        """Fields and matrices of the samples that drew them."""
        fields = {
            int(i): ElasticField.drawn(float(draws.elastic_share[i]), noise.normal[draws.elastic_at[i] :], imgsz)
            for i in np.flatnonzero(draws.elastic_share)
        }
        bent = draws.corners.any(axis=(1, 2)) | (draws.elastic_share != 0)
        return cls(fields, perspectives(draws, imgsz), bent)

    def undo(self, points: Float[np.ndarray, "B K 2"]) -> Float[np.ndarray, "B K 2"]:
        """From pixels of the straight input to those of the input."""
        if not self.there.any():
            return points
        found = points.copy()
        found[self.there] = _through(np.linalg.inv(self.matrices[self.there]), points[self.there])
        for i, field in self.fields.items():
            found[i] = field.undo(found[i])
        return found


# -------------------------------------------------------------------------------------------------------------- warp


class Warp:
    """Samples pictures bilinearly into the inputs of one batch, black outside; for one thread (it has scratch memory).

    Only the part of a picture that is looked at is touched. Pixels pass through four channels: OpenCV warps those twice
    as fast as three (145 us against 365 at 192x256), and adding and dropping the fourth costs 20 and 6 us. What is
    neither turned nor bent is resized (90 us).
    """

    def __init__(self, to_picture: Affines, bends: Bends, imgsz: tuple[int, int]) -> None:
        self._affines = np.round(to_picture, 9)  # what should be whole pixels is, whatever inverting rounded
        self._bends = bends
        self._imgsz = imgsz
        self._bent = bends.there.tolist()
        right, bottom = imgsz[0] - 1.0, imgsz[1] - 1.0
        corners = np.tile([[0, 0], [right, 0], [0, bottom], [right, bottom]], (len(to_picture), 1, 1))
        seen = moved(self._affines, _through(bends.matrices, corners) if bends.there.any() else corners)
        self._windows = _windows(seen)
        self._rectangles = _rectangles(self._affines, seen.min(axis=1), imgsz)
        self._four = np.empty((imgsz[1], imgsz[0], 4), np.uint8)
        self._source = np.empty(0, np.uint8)

    def __call__(self, i: int, picture: UInt8[np.ndarray, "h w 3"], out: UInt8[np.ndarray, "H W 3"]) -> None:
        """Fill `out`, the input of sample `i`."""
        affine = self._affines[i]
        if not self._bent[i]:
            if not self._resize(i, picture, out):
                self._sample(picture, self._windows[i], affine, out)
            return
        matrix = np.vstack([affine, [0, 0, 1]]) @ self._bends.matrices[i]
        if i not in self._bends.fields:
            self._sample(picture, self._windows[i], matrix, out)
            return
        field = self._bends.fields[i]
        nodes = field.looked_up(matrix)
        window = _windows(nodes.reshape(1, -1, 2))[0]
        self._sample(picture, window, nodes, out, field)

    def _resize(self, i: int, picture: np.ndarray, out: np.ndarray) -> bool:
        """Resize whole pixels of the picture; False where they do not all exist, or are no whole pixels."""
        left, top, right, bottom = self._rectangles[i]
        if left < 0 or top < 0 or right > picture.shape[1] or bottom > picture.shape[0]:
            return False
        cv2.resize(picture[top:bottom, left:right], self._imgsz, dst=out, interpolation=cv2.INTER_LINEAR)
        if self._affines[i, 0, 0] < 0:
            cv2.flip(out, 1, dst=out)
        return True

    def _sample(
        self,
        picture: np.ndarray,
        window: list[int],
        how: np.ndarray,
        out: np.ndarray,
        field: ElasticField | None = None,
    ) -> None:
        """`window` holds all that is looked at; `how`: an affine, a homography, or where a `field`'s nodes look."""
        left, top = max(0, window[0]), max(0, window[1])
        right, bottom = min(picture.shape[1], window[2]), min(picture.shape[0], window[3])
        if right <= left or bottom <= top:  # looks past the picture
            out[:] = 0
            return
        source = self._scratch(bottom - top, right - left)
        cv2.cvtColor(picture[top:bottom, left:right], cv2.COLOR_RGB2RGBA, dst=source)
        if field is not None:
            where = field.spread(how - np.array([left, top], np.float32), self._imgsz)
            remap(source, where, dst=self._four)
        elif how.shape == (2, 3):
            cv2.warpAffine(source, how - [[0, 0, left], [0, 0, top]], self._imgsz, dst=self._four, flags=_INVERSE)
        else:
            there = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]) @ how
            cv2.warpPerspective(source, there, self._imgsz, dst=self._four, flags=_INVERSE)
        cv2.cvtColor(self._four, cv2.COLOR_RGBA2RGB, dst=out)

    def _scratch(self, height: int, width: int) -> np.ndarray:
        size = height * width * 4
        if self._source.size < size:
            self._source = np.empty(size, np.uint8)
        return self._source[:size].reshape(height, width, 4)


_NOWHERE = -1


def _windows(seen: Float[np.ndarray, "n points 2"]) -> list[list[int]]:
    """Left, top, right, bottom (not part of it) of the pixels about the points of each sample."""
    return np.concatenate([np.floor(seen.min(axis=1)), np.ceil(seen.max(axis=1)) + 1], axis=1).astype(int).tolist()


def _rectangles(affines: Affines, start: Float[np.ndarray, "n 2"], imgsz: tuple[int, int]) -> list[list[int]]:
    """The whole pixels that each input shows, as `on_whole_pixels` makes them; left is -1 where it shows others.

    `start`: what the input's upper left pixel, or upper right one in the mirror, looks at."""
    slope = affines[:, [0, 1], [0, 1]]
    edge = start + 0.5 - np.abs(slope) / 2
    edges = np.concatenate([edge, edge + np.abs(slope) * imgsz], axis=1)
    whole = np.rint(edges)
    straight = (affines[:, [0, 1], [1, 0]] == 0).all(axis=1) & (slope[:, 1] > 0)
    found = straight & (np.abs(edges - whole).max(axis=1) < 1e-4)
    whole[~found, 0] = _NOWHERE
    return whole.astype(int).tolist()
