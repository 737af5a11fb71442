"""What augmentation does to a sample's pixels without moving them: colour, blur, noise, compression, holes.

albumentations is used by this module only, and only where it is fast. Its ISO noise, Gaussian noise and CLAHE take 15,
70 and 3 times as long as what stands here instead, which follows the same distributions.
"""

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16

from posesweep.datasets.augment import PLACES, Augmentation, Draws

_STREAM = 1  # second word of the seed
NOISE_STD = 32.0  # of the stored noise, in 8-bit values; clipped at four times that
_TILES = (8, 8)  # of CLAHE, albumentations' default
_UNIFORM = 1 << 16  # values of the stored uniform noise

Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Noise:
    """Random numbers from which every sample's own are cut: drawing them afresh would cost five times the warp."""

    normal: UInt8[np.ndarray, "values"]  # about 128, standard deviation NOISE_STD
    uniform: UInt16[np.ndarray, "uniform_values"]

    @classmethod
    def enough_for(cls, augmentation: Augmentation, imgsz: tuple[int, int], seed: int) -> "Noise":
        """As many as `augmentation` takes for inputs of `imgsz`; none of a kind that never happens."""
        pixels = imgsz[0] * imgsz[1]
        rng = np.random.default_rng([seed, _STREAM])
        normals = PLACES + 3 * pixels if augmentation.noise or augmentation.elastic else 0
        values = rng.standard_normal(normals, dtype=np.float32)
        uniforms = PLACES + pixels if augmentation.iso else 0
        return cls(
            normal=np.clip(np.rint(values * NOISE_STD + 128), 0, 255).astype(np.uint8),
            uniform=rng.integers(0, _UNIFORM, uniforms, dtype=np.uint16),
        )


def change_pixels(image: Picture, draws: Draws, i: int, noise: Noise) -> None:
    """Do to `image`, in place, everything of sample `i` that moves and hides no pixel."""
    if draws.recolour[i]:
        cv2.transform(image, draws.colour[i], dst=image)
    if draws.gamma[i] != 1:
        table = 255 * (np.arange(256) / 255) ** draws.gamma[i]
        cv2.LUT(image, np.rint(table).astype(np.uint8), dst=image)
    if draws.clahe_clip[i]:
        equalise(image, float(draws.clahe_clip[i]))
    if draws.blur_px[i]:
        side = 3 if draws.blur_px[i] < 0.8 else 5 if draws.blur_px[i] < 1.4 else 9
        cv2.GaussianBlur(image, (side, side), float(draws.blur_px[i]), dst=image)
    if draws.motion_px[i]:
        cv2.filter2D(image, -1, _motion_kernel(int(draws.motion_px[i]), round(draws.motion_deg[i])), dst=image)
    if draws.noise_std[i]:
        add_gaussian_noise(image, float(draws.noise_std[i]), noise.normal[draws.noise_at[i] :])
    if draws.iso_intensity[i]:
        add_iso_noise(image, float(draws.iso_intensity[i]), noise.uniform[draws.iso_at[i] :])
    if draws.jpeg_quality[i]:
        compress(image, int(draws.jpeg_quality[i]))


# ------------------------------------------------------------------------------------------------------------ covers


@dataclass(frozen=True)
class Covers:
    """What hides parts of B inputs: left, top, right and bottom (not part of it) in input pixels, all 0 for none."""

    holes: Int[np.ndarray, "B most 4"]  # black
    patches: Int[np.ndarray, "B 4"]  # of another image

    @classmethod
    def of(cls, draws: Draws, imgsz: tuple[int, int]) -> "Covers":
        """The rectangles drawn, in whole pixels."""
        sides = np.tile(imgsz, 2)
        holes = np.concatenate([draws.hole[:, None], draws.holes], axis=1)
        return cls(np.rint(holes * sides).astype(int), np.rint(draws.patch * sides).astype(int))

    def hide(self, points: Float[np.ndarray, "B K 2"]) -> Bool[np.ndarray, "B K"]:
        """Which input points lie on a pixel of a hole or a patch."""
        every = np.concatenate([self.holes, self.patches[:, None]], axis=1)[:, None]
        some = every.any(axis=(1, 2, 3))
        pixel, every = np.rint(points[some])[:, :, None], every[some]
        hidden = np.zeros(points.shape[:2], dtype=bool)
        hidden[some] = ((pixel >= every[..., :2]) & (pixel < every[..., 2:])).all(axis=3).any(axis=2)
        return hidden

    def paste(self, image: Picture, i: int, other: UInt8[np.ndarray, "h w 3"], start: Float[np.ndarray, "2"]) -> None:
        """Put a part of the picture `other` over the patch of sample `i`, or as much as `other` has.

        `start`: where in `other` it is taken, from 0 (left, top) to 1."""
        left, top, right, bottom = self.patches[i].tolist()
        width, height = min(right - left, other.shape[1]), min(bottom - top, other.shape[0])
        x, y = (start * (other.shape[1] - width, other.shape[0] - height)).astype(int).tolist()
        image[top : top + height, left : left + width] = other[y : y + height, x : x + width]

    def cut(self, image: Picture, i: int) -> None:
        """Blacken the holes of sample `i`."""
        for left, top, right, bottom in self.holes[i].tolist():
            image[top:bottom, left:right] = 0


# ------------------------------------------------------------------------------------------------------------- noise


def add_gaussian_noise(image: Picture, std: float, normal: UInt8[np.ndarray, "at_least"]) -> None:
    """albumentations' GaussNoise of this standard deviation (in 8-bit values), its values taken from `normal`.

    Rounded; albumentations cuts the decimals off, which makes its noise narrower by 0.4."""
    field = normal[: image.size].reshape(image.shape)
    share = std / NOISE_STD
    cv2.addWeighted(image, 1.0, field, share, -128 * share, dst=image)


def add_iso_noise(image: Picture, intensity: float, uniform: UInt16[np.ndarray, "at_least"]) -> None:
    """albumentations' ISONoise: the lightness of some pixels is raised; how many follows from the image's contrast.

    Lightness L (of HLS, 0 to 1) becomes L + k x intensity x (1 - L), k being Poisson with mean intensity x std(L), so
    most pixels stay as they are, and only the others are computed here. Its hue noise has a standard deviation of
    color_shift x intensity degrees, 0.025 with its defaults, which no 8-bit image can hold, and is left out.
    """
    red, green, blue = cv2.split(image)
    twice = np.add(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue), dtype=np.uint16)  # 2 L
    mean = float(cv2.meanStdDev(twice)[1][0, 0]) / 510 * intensity
    limits = _poisson_limits(mean)
    chance = uniform[: twice.size]
    where = np.flatnonzero(chance >= limits[0])
    if not len(where):
        return
    times = np.searchsorted(limits, chance.take(where), side="right")
    pixels = image.reshape(-1, 3)
    lightness = twice.reshape(-1).take(where) / 510
    pixels[where] = _lighter(pixels.take(where, axis=0), lightness, np.minimum(times * intensity, 1.0))


def _poisson_limits(mean: float) -> Int[np.ndarray, "limits"]:
    """From limits[k] on, a uniform 16-bit number stands for more than k events."""
    probability, below, limits = np.exp(-mean), 0.0, []
    for k in range(1, 64):
        below += probability
        limits.append(round(below * _UNIFORM))
        if limits[-1] >= _UNIFORM:
            break
        probability *= mean / k
    return np.array(limits)


def _lighter(
    pixels: UInt8[np.ndarray, "n 3"], lightness: Float[np.ndarray, "n"], share: Float[np.ndarray, "n"]
) -> UInt8[np.ndarray, "n 3"]:
    """`share` of the way from their lightness to white, hue and saturation of HLS unchanged.

    Saturation fixes chroma / (1 - |2 L - 1|), so every channel's distance from L grows as that room does.
    """
    raised = lightness + share * (1 - lightness)
    room = np.maximum(1 - np.abs(2 * lightness - 1), 1e-6)
    growth = (1 - np.abs(2 * raised - 1)) / room
    channels = 255 * raised[:, None] + (pixels - 255 * lightness[:, None]) * growth[:, None]
    return np.clip(np.rint(channels), 0, 255).astype(np.uint8)


# ----------------------------------------------------------------------------------------------- contrast, compression


def equalise(image: Picture, clip: float) -> None:
    """albumentations' CLAHE: contrast limited equalisation (limit `clip`, 8 x 8 tiles) of Lab's lightness, in place.

    Lab's lightness is taken as that of the grey with the pixel's luma, and its change is added to R, G and B: exact
    for grey, 1.7 (clip 1.5) to 2.7 (clip 4) 8-bit values away on average on COCO's photographs, which CLAHE itself
    changes by 12 to 27; further where colours are stronger.
    """
    to_lightness, to_grey = _lightness_tables()
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    clahe = cv2.createCLAHE(clip, _TILES)
    changed = cv2.LUT(clahe.apply(cv2.LUT(luma, to_lightness)), to_grey)
    for change, apply in ((cv2.subtract(changed, luma), cv2.add), (cv2.subtract(luma, changed), cv2.subtract)):
        apply(image, cv2.cvtColor(change, cv2.COLOR_GRAY2RGB), dst=image)


@cache
def _lightness_tables() -> tuple[UInt8[np.ndarray, "256"], UInt8[np.ndarray, "256"]]:
    """Of every grey, OpenCV's 8-bit Lab lightness; of every lightness, the grey."""
    levels = np.arange(256, dtype=np.uint8)
    lab = np.full((1, 256, 3), 128, np.uint8)
    lab[0, :, 0] = levels
    grey = np.repeat(levels[None, :, None], 3, axis=2)
    to_lightness = cv2.cvtColor(grey, cv2.COLOR_RGB2LAB)[0, :, 0]
    return to_lightness.copy(), cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[0, :, 1].copy()


def compress(image: Picture, quality: int) -> None:
    """What JPEG of this quality (1-100) leaves of `image`, in place."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    image[:] = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)


# -------------------------------------------------------------------------------------------------------- motion blur


@lru_cache(maxsize=1 << 12)  # every length and degree there is: albumentations takes 0.3 ms for one
def _motion_kernel(length_px: int, angle_deg: int) -> Float[np.ndarray, "k k"]:
    functions = _albumentations_blur()
    kernel = functions.create_motion_kernel(length_px, angle_deg, 0.0, allow_shifted=False, random_state=None)
    return np.asarray(kernel / kernel.sum())


@cache
def _albumentations_blur() -> ModuleType:
    """Imported when first needed: it costs seconds, and asks a server for a newer version unless told not to."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from albumentations.augmentations.blur import functional

    return functional
