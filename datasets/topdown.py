"""Top-down samples: one annotated object each, cropped, augmented and made a batch at a time."""

from threading import Lock
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from posesweep.datasets import augment
from posesweep.datasets.augment import Augmentation, Draws
from posesweep.datasets.crops import CropSpec, image_to_crop
from posesweep.datasets.instances import Instances


@runtime_checkable
class Rows(Protocol):
    """An array of pictures, or what is indexed like one."""

    def __getitem__(self, row: int, /) -> UInt8[np.ndarray, "h w 3"]: ...


@runtime_checkable
class Pictures(Protocol):
    """Where the pixels come from: `crops.Crops`, or anything that has a picture and its place for every instance."""

    @property
    def images(self) -> Rows: ...
    @property
    def from_image(self) -> Float[np.ndarray, "n 2 3"]:
        """Affines: image pixels -> pixels of the picture."""
        ...

    @property
    def usable(self) -> Bool[np.ndarray, "n"]: ...


class TopDownSamples:
    """The usable instances as a `task.Dataset`. `augmentation` None: validation, the plain input and nothing else.

    What is drawn for a sample depends on (seed, epoch, its position) only. Safe to use from several threads.
    """

    def __init__(
        self,
        pictures: Pictures,
        instances: Instances,
        imgsz: tuple[int, int],
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        rows = np.flatnonzero(pictures.usable)
        kept = instances.take(rows)
        self.ids: Int[np.ndarray, "n"] = kept.ids.astype(np.int64)
        self._rows = rows
        self._images = pictures.images
        self._keypoints, self._visibility = kept.keypoints, kept.visibility
        self._flip_index = kept.skeleton.flip_index
        self._imgsz = imgsz
        to_input = image_to_crop(kept.boxes, CropSpec(*imgsz))
        self._to_image = _inverse(to_input)
        self._to_picture = _chain(pictures.from_image[rows], self._to_image)  # plain input -> picture
        self._augmentation = augmentation or Augmentation()
        self._noise = augment.noise_field(imgsz, seed) if self._augmentation.noise else np.empty(0, np.uint8)
        self._seed = seed
        self._chances: dict[int, Float32[np.ndarray, "n columns"]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, positions: Int[np.ndarray, "B"], epoch: int) -> dict[str, np.ndarray]:
        """The samples at `positions`, stacked:

        "id" int64 [B]; "image" uint8 [B, H, W, 3] RGB; "keypoints" float32 [B, K, 2] input pixels; "visibility" uint8
        [B, K], 0 where the point is outside the input; "to_image" float64 [B, 2, 3], input -> image pixels.
        """
        draws = Draws.of(self._augmentation, self._chances_of(epoch)[positions])
        changed = augment.input_to_box(draws, self._imgsz)
        to_image = _chain(self._to_image[positions], changed)
        keypoints, visibility = self._labels(positions, to_image, draws.flip)
        return {
            "id": self.ids[positions],
            "image": self._pixels(positions, _chain(self._to_picture[positions], changed), draws),
            "keypoints": keypoints.astype(np.float32),
            "visibility": visibility,
            "to_image": to_image,
        }

    def _chances_of(self, epoch: int) -> Float32[np.ndarray, "n columns"]:
        """Random numbers of the whole epoch; those of two epochs are kept, as one begins while the other ends."""
        with self._lock:
            if epoch not in self._chances:
                self._chances = {e: c for e, c in self._chances.items() if abs(e - epoch) == 1}
                self._chances[epoch] = augment.chances(len(self), self._seed, epoch)
            return self._chances[epoch]

    def _labels(
        self, positions: Int[np.ndarray, "B"], to_image: Float[np.ndarray, "B 2 3"], flip: Bool[np.ndarray, "B"]
    ) -> tuple[Float[np.ndarray, "B K 2"], UInt8[np.ndarray, "B K"]]:
        """Keypoints in input pixels and their visibility, left and right swapped where mirrored."""
        from_image = _inverse(to_image)
        points = self._keypoints[positions] @ from_image[:, :, :2].swapaxes(1, 2) + from_image[:, None, :, 2]
        visibility = self._visibility[positions]
        points = np.where(flip[:, None, None], points[:, self._flip_index], points)
        visibility = np.where(flip[:, None], visibility[:, self._flip_index], visibility)
        inside = ((points >= 0) & (points <= np.array(self._imgsz) - 1)).all(axis=2)
        return points, np.where(inside, visibility, np.uint8(0))

    def _pixels(
        self, positions: Int[np.ndarray, "B"], to_picture: Float[np.ndarray, "B 2 3"], draws: Draws
    ) -> UInt8[np.ndarray, "B H W 3"]:
        width, height = self._imgsz
        images = np.empty((len(positions), height, width, 3), np.uint8)
        warp = Warp(to_picture, self._imgsz)
        for i, row in enumerate(self._rows[positions].tolist()):
            warp(i, self._images[row], images[i])
            augment.change_pixels(images[i], draws, i, self._noise)
        return images


class Warp:
    """Samples pictures bilinearly into the inputs of one batch, black outside; for one thread (it has scratch memory).

    Only the part of a picture that is looked at is touched. Pixels pass through four channels: OpenCV warps those twice
    as fast as three (200 us against 400 at 192x256), and adding and dropping the fourth costs 15 us each.
    """

    def __init__(self, to_picture: Float[np.ndarray, "B 2 3"], imgsz: tuple[int, int]) -> None:
        right, bottom = imgsz[0] - 1, imgsz[1] - 1
        self._affines = np.round(to_picture, 9)  # what should be whole pixels is, whatever inverting rounded
        corners = self._affines @ np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
        self._first = np.floor(corners.min(axis=2)).astype(int).tolist()
        self._last = np.ceil(corners.max(axis=2)).astype(int).tolist()
        whole = self._affines[:, :, 2] % 1 == 0
        self._copied = ((self._affines[:, :, :2] == np.eye(2)).all(axis=(1, 2)) & whole.all(axis=1)).tolist()
        self._imgsz = imgsz
        self._four = np.empty((imgsz[1], imgsz[0], 4), np.uint8)
        self._source = np.empty(0, np.uint8)

    def __call__(self, i: int, picture: UInt8[np.ndarray, "h w 3"], out: UInt8[np.ndarray, "H W 3"]) -> None:
        """Fill `out`, the input of sample `i`."""
        height, width = picture.shape[:2]
        left, top = max(0, self._first[i][0]), max(0, self._first[i][1])
        right, bottom = min(width, self._last[i][0] + 1), min(height, self._last[i][1] + 1)
        if right <= left or bottom <= top:  # looks past the picture
            out[:] = 0
            return
        part = picture[top:bottom, left:right]
        if self._copied[i] and part.shape == out.shape:
            out[:] = part
            return
        source = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA, dst=self._scratch(bottom - top, right - left))
        affine = self._affines[i].copy()
        affine[:, 2] -= (left, top)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(source, affine, self._imgsz, dst=self._four, flags=flags, borderMode=cv2.BORDER_CONSTANT)
        cv2.cvtColor(self._four, cv2.COLOR_RGBA2RGB, dst=out)

    def _scratch(self, height: int, width: int) -> np.ndarray:
        size = height * width * 4
        if self._source.size < size:
            self._source = np.empty(size, np.uint8)
        return self._source[:size].reshape(height, width, 4)


def _inverse(affines: Float[np.ndarray, "n 2 3"]) -> Float[np.ndarray, "n 2 3"]:
    linear = np.linalg.inv(affines[:, :, :2])
    return np.concatenate([linear, -linear @ affines[:, :, 2:]], axis=2)


def _chain(outer: Float[np.ndarray, "n 2 3"], inner: Float[np.ndarray, "n 2 3"]) -> Float[np.ndarray, "n 2 3"]:
    """First `inner`, then `outer`."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    return np.concatenate([linear, outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]], axis=2)
