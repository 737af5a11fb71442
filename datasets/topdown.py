"""Top-down samples: one annotated object each, cropped, augmented and made a batch at a time."""

from dataclasses import dataclass
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from posesweep.datasets import pixels, warps
from posesweep.datasets.augment import Augmentation, Draws, chances
from posesweep.datasets.crops import CropSpec, image_to_crop
from posesweep.datasets.instances import Instances
from posesweep.datasets.pixels import Covers
from posesweep.datasets.warps import Affines, Bends, Halves, Warp, chain, inverse, moved


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


@dataclass(frozen=True)
class Part:
    """The pictures of some of the instances; the others are there and not usable. One crop store serves every part."""

    images: Rows
    from_image: Float[np.ndarray, "n 2 3"]
    usable: Bool[np.ndarray, "n"]

    @classmethod
    def of(cls, pictures: Pictures, kept: Bool[np.ndarray, "n"]) -> "Part":
        return cls(pictures.images, pictures.from_image, pictures.usable & kept)


class TopDownSamples:
    """The usable instances as a `task.Dataset`. `augmentation` None: validation, the plain input and nothing else.

    What is drawn for a sample depends on (seed, epoch, its position) only. Safe to use from several threads. Halves of
    bodies are shown only where the skeleton names the upper one.
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
        self._from_picture = inverse(pictures.from_image[rows])  # picture -> image
        to_input = image_to_crop(kept.boxes, CropSpec(*imgsz))
        self._to_image = inverse(to_input)  # plain input -> image
        self._to_picture = chain(pictures.from_image[rows], self._to_image)  # plain input -> picture
        self._augmentation = augmentation or Augmentation()
        self._halves = self._halves_of(kept, to_input)
        self._noise = pixels.Noise.enough_for(self._augmentation, imgsz, seed)
        self._seed = seed
        self._chances: dict[int, Float32[np.ndarray, "n columns"]] = {}
        self._lock = Lock()

    def _halves_of(self, kept: Instances, to_input: Affines) -> Halves | None:
        upper = np.isin(kept.skeleton.keypoints, kept.skeleton.upper_body)
        if not self._augmentation.half_body or not upper.any():
            return None
        return Halves.of(moved(to_input, kept.keypoints), kept.visibility > 0, upper, self._imgsz)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, positions: Int[np.ndarray, "B"], epoch: int) -> dict[str, np.ndarray]:
        """The samples at `positions`, stacked:

        "id" int64 [B]; "image" uint8 [B, H, W, 3] RGB; "keypoints" float32 [B, K, 2] input pixels; "visibility" uint8
        [B, K], 0 where the point is outside the input, 1 where something was put over it; "to_image" float64 [B, 2, 3],
        input -> image pixels (its affine part, where a sample was given a perspective or an elastic field).
        """
        draws = Draws.of(self._augmentation, self._chances_of(epoch)[positions])
        bends = Bends.of(draws, self._noise, self._imgsz)
        to_image, to_picture = self._affines(positions, draws, bends)
        covers = Covers.of(draws, self._imgsz)
        points = bends.undo(moved(inverse(to_image), self._keypoints[positions]))
        keypoints, visibility = self._labels(positions, points, draws, covers)
        return {
            "id": self.ids[positions],
            "image": self._pixels(positions, Warp(to_picture, bends, self._imgsz), draws, covers),
            "keypoints": keypoints.astype(np.float32),
            "visibility": visibility,
            "to_image": to_image,
        }

    def _chances_of(self, epoch: int) -> Float32[np.ndarray, "n columns"]:
        """Random numbers of the whole epoch; those of two epochs are kept, as one begins while the other ends."""
        with self._lock:
            if epoch not in self._chances:
                self._chances = {e: c for e, c in self._chances.items() if abs(e - epoch) == 1}
                self._chances[epoch] = chances(len(self), self._seed, epoch)
            return self._chances[epoch]

    def _affines(self, positions: Int[np.ndarray, "B"], draws: Draws, bends: Bends) -> tuple[Affines, Affines]:
        """From straight input pixels to the image's and to the picture's."""
        changed = warps.input_to_box(draws, self._imgsz)
        if self._halves is not None:
            changed = chain(self._halves.chosen(positions, draws), changed)
        to_image, to_picture = chain(self._to_image[positions], changed), chain(self._to_picture[positions], changed)
        whole, differs = warps.on_whole_pixels(to_picture, self._imgsz)
        differs &= ~bends.there
        if not differs.any():
            return to_image, to_picture
        there = differs[:, None, None]
        return (
            np.where(there, chain(self._from_picture[positions], whole), to_image),
            np.where(there, whole, to_picture),
        )

    def _labels(
        self, positions: Int[np.ndarray, "B"], points: Float[np.ndarray, "B K 2"], draws: Draws, covers: Covers
    ) -> tuple[Float[np.ndarray, "B K 2"], UInt8[np.ndarray, "B K"]]:
        """Keypoints in input pixels and their visibility, left and right swapped where mirrored."""
        visibility = self._visibility[positions]
        points = np.where(draws.flip[:, None, None], points[:, self._flip_index], points)
        visibility = np.where(draws.flip[:, None], visibility[:, self._flip_index], visibility)
        inside = ((points >= 0) & (points <= np.array(self._imgsz) - 1)).all(axis=2)
        visibility = np.where(covers.hide(points), np.minimum(visibility, np.uint8(1)), visibility)
        return points, np.where(inside, visibility, np.uint8(0))

    def _pixels(
        self, positions: Int[np.ndarray, "B"], warp: Warp, draws: Draws, covers: Covers
    ) -> UInt8[np.ndarray, "B H W 3"]:
        width, height = self._imgsz
        images = np.empty((len(positions), height, width, 3), np.uint8)
        for i, position in enumerate(positions.tolist()):
            warp(i, self._picture(position), images[i])
            if draws.patch[i, 2]:
                other = self._picture(int(draws.patch_row[i] * len(self)))
                covers.paste(images[i], i, other, draws.patch_from[i])
            pixels.change_pixels(images[i], draws, i, self._noise)
            if draws.hole[i, 2] or draws.holes[i, 0, 2]:
                covers.cut(images[i], i)
        return images

    def _picture(self, position: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of the sample at `position`: the only place that reads pixels."""
        return self._images[int(self._rows[position])]
