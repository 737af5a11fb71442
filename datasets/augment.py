"""Augmentation: how far it may go (`Augmentation`), what each sample gets (`Draws`), and doing it to an image.

Every random number of an epoch comes from (seed, epoch) and is found by a sample's position: neither the batch, the
rank nor the thread changes what happens to a sample. albumentations is used by this module only.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from types import ModuleType

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from posesweep.errors import ConfigError, did_you_mean

_STREAM = 1  # second word of the seed; the order of samples uses another (loading.py), so they are independent
_NOISE_STD = 32.0  # of the stored noise field, in 8-bit values; clipped at four times that
_NOISE_PLACES = 1 << 18  # different fields that can be cut from it
_MAX_LOSS = 0.01  # share of the input's pixels that may fall outside a stored crop, on average
_STEPS = 8  # margins are multiples of 1/8


@dataclass(frozen=True)
class Augmentation:
    """Probabilities (0-1) and widest values; drawn uniformly from -widest to widest unless said otherwise."""

    flip: float = 0.0  # probability of mirroring; left and right labels change places

    rotate: float = 0.0  # probability
    rotation_deg: float = 0.0
    scale_min: float = 1.0  # the region shown is the padded box times a factor from scale_min to scale_max
    scale_max: float = 1.0
    move: float = 0.0  # probability
    shift: float = 0.0  # share of the region, in x and in y

    colour: float = 0.0  # probability of all of the next five together
    brightness: float = 0.0  # share of white
    contrast: float = 0.0  # factor 1 +- this, about mid-grey
    saturation: float = 0.0  # factor 1 +- this
    hue_deg: float = 0.0
    channel_gain: float = 0.0  # factor 1 +- this for each of R, G, B: the light's colour
    gamma: float = 0.0  # probability
    gamma_log: float = 0.0  # the exponent is e to the power of +- this

    blur: float = 0.0  # probability of a Gaussian
    blur_px: float = 0.0  # sigma from 0.5 to this
    motion: float = 0.0  # probability of motion blur
    motion_px: float = 0.0  # length from 3 to this, odd
    noise: float = 0.0  # probability of Gaussian noise
    noise_std: float = 0.0  # in 8-bit values, from 0 to this
    dropout: float = 0.0  # probability of one black rectangle
    dropout_share: float = 0.0  # its sides, as shares of the input's, from half of this to this


PROBABILITIES = ("flip", "rotate", "move", "colour", "gamma", "blur", "motion", "noise", "dropout")

# "medium": the rotation, scale and shift of mmpose's HRNet recipes (RandomBBoxTransform, rotation 40, probabilities 0.6
# and 0.3) with mild colour; "aggressive": those of its RTMPose recipes (rotation 80, scale 0.5-1.5, coarse dropout).
# mmpose draws from a normal cut at one sigma, which is nearly flat; here it is flat.
PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(
        flip=0.5,
        rotate=0.6,
        rotation_deg=20.0,
        scale_min=0.85,
        scale_max=1.15,
        move=0.3,
        shift=0.08,
        colour=0.3,
        brightness=0.1,
        contrast=0.1,
        saturation=0.1,
    ),
    "medium": Augmentation(
        flip=0.5,
        rotate=0.6,
        rotation_deg=40.0,
        scale_min=0.7,
        scale_max=1.3,
        move=0.3,
        shift=0.16,
        colour=0.5,
        brightness=0.15,
        contrast=0.2,
        saturation=0.2,
        hue_deg=5.0,
        channel_gain=0.05,
        gamma=0.1,
        gamma_log=0.3,
        blur=0.1,
        blur_px=1.2,
        noise=0.1,
        noise_std=8.0,
        dropout=0.2,
        dropout_share=0.3,
    ),
    "aggressive": Augmentation(
        flip=0.5,
        rotate=0.6,
        rotation_deg=80.0,
        scale_min=0.5,
        scale_max=1.5,
        move=0.3,
        shift=0.16,
        colour=0.8,
        brightness=0.25,
        contrast=0.35,
        saturation=0.4,
        hue_deg=12.0,
        channel_gain=0.1,
        gamma=0.3,
        gamma_log=0.5,
        blur=0.15,
        blur_px=2.0,
        motion=0.1,
        motion_px=9.0,
        noise=0.2,
        noise_std=16.0,
        dropout=0.5,
        dropout_share=0.4,
    ),
}


def preset(name: str, strength: float = 0.5) -> Augmentation:
    """The preset `name` at `strength`: 0 nothing at all, 0.5 as it is, 1 twice as strong.

    Probabilities and ranges are multiplied by 2 x strength: probabilities up to 1 (flip up to 0.5, where variety is
    greatest), rotation up to 180 degrees, factor ranges (contrast ...) up to 0.9; scale_min and scale_max are raised to
    that power, so 0.7 becomes 0.49 and not 0.4 at twice the strength, and none ever reaches 0.

    Raises ConfigError for an unknown name or a strength outside 0-1.
    """
    if name not in PRESETS:
        raise ConfigError(f"augment: '{name}' is not a preset{did_you_mean(name, PRESETS)}")
    if not 0 <= strength <= 1:
        raise ConfigError(f"aug_strength: {strength} must be from 0 (none) to 1 (twice as strong); try 0.5")
    if strength == 0:
        return Augmentation()
    times = 2 * strength
    base = PRESETS[name]
    most = dict.fromkeys(PROBABILITIES, 1.0) | {"flip": 0.5, "rotation_deg": 180.0, "shift": 0.5}
    most |= dict.fromkeys(("brightness", "contrast", "saturation", "channel_gain", "dropout_share"), 0.9)
    scaled = {f.name: min(getattr(base, f.name) * times, most.get(f.name, np.inf)) for f in fields(base)}
    return replace(
        base, **scaled | {"scale_min": float(base.scale_min**times), "scale_max": float(base.scale_max**times)}
    )


def widest(augmentations: Iterable[Augmentation]) -> Augmentation:
    """Goes at least as far as each of `augmentations` in everything: the one to derive a search space's margin from."""
    every = [Augmentation(), *augmentations]
    furthest = {f.name: max(getattr(a, f.name) for a in every) for f in fields(Augmentation)}
    return Augmentation(**furthest | {"scale_min": min(a.scale_min for a in every)})


_COLUMNS = (
    *PROBABILITIES,
    *("angle", "scale", "shift_x", "shift_y", "brightness", "contrast", "saturation", "hue", "red", "green", "blue"),
    *("gamma_log", "blur_px", "motion_px", "motion_angle", "noise_std", "noise_at", "hole_x", "hole_y"),
    *("hole_width", "hole_height"),
)


def chances(n: int, seed: int, epoch: int) -> Float32[np.ndarray, "n columns"]:
    """Uniform random numbers of one epoch, a row for each sample; row i does not depend on `n`."""
    return np.random.default_rng([seed, _STREAM, epoch]).random((n, len(_COLUMNS)), dtype=np.float32)


@dataclass(frozen=True)
class Draws:
    """What happens to each of B samples. A value of 0 (`gamma`: 1) means that nothing of that kind does."""

    flip: Bool[np.ndarray, "B"]
    angle_rad: Float[np.ndarray, "B"]
    scale: Float[np.ndarray, "B"]
    shift: Float[np.ndarray, "B 2"]  # share of the region, x and y
    recolour: Bool[np.ndarray, "B"]
    colour: Float[np.ndarray, "B 3 4"]  # RGB -> RGB, last column added
    gamma: Float[np.ndarray, "B"]
    blur_px: Float[np.ndarray, "B"]
    motion_px: Int[np.ndarray, "B"]
    motion_deg: Float[np.ndarray, "B"]
    noise_std: Float[np.ndarray, "B"]
    noise_at: Int[np.ndarray, "B"]
    hole: Float[np.ndarray, "B 4"]  # left, top, right, bottom as shares of the input's sides

    @classmethod
    def of(cls, augmentation: Augmentation, chance: Float32[np.ndarray, "B columns"]) -> "Draws":
        """Turn uniform numbers (rows of `chances`) into what `augmentation` makes of them."""
        a = augmentation
        u = dict(zip(_COLUMNS, chance.T.astype(np.float64), strict=True))
        hit = {name: u[name] < getattr(a, name) for name in PROBABILITIES}
        signed = {name: 2 * u[name] - 1 for name in _COLUMNS}
        holes = np.stack([u["hole_width"], u["hole_height"]], 1) / 2 + 0.5
        return cls(
            flip=hit["flip"],
            angle_rad=np.deg2rad(a.rotation_deg) * signed["angle"] * hit["rotate"],
            scale=a.scale_min + (a.scale_max - a.scale_min) * u["scale"],
            shift=a.shift * np.stack([signed["shift_x"], signed["shift_y"]], 1) * hit["move"][:, None],
            recolour=hit["colour"],
            colour=_colour_affines(a, signed),
            gamma=np.exp(a.gamma_log * signed["gamma_log"] * hit["gamma"]),
            blur_px=np.where(hit["blur"], 0.5 + max(0.0, a.blur_px - 0.5) * u["blur_px"], 0),
            motion_px=np.where(hit["motion"], 3 + 2 * (max(0.0, a.motion_px - 1) / 2 * u["motion_px"]).astype(int), 0),
            motion_deg=180 * u["motion_angle"],
            noise_std=a.noise_std * u["noise_std"] * hit["noise"],
            noise_at=(u["noise_at"] * _NOISE_PLACES).astype(int),
            hole=_holes(a.dropout_share * holes * hit["dropout"][:, None], np.stack([u["hole_x"], u["hole_y"]], 1)),
        )


def _holes(sides: Float[np.ndarray, "B 2"], place: Float[np.ndarray, "B 2"]) -> Float[np.ndarray, "B 4"]:
    start = place * (1 - sides)
    return np.concatenate([start, start + sides], axis=1)


# RGB -> YIQ (FCC NTSC), where saturation scales I and Q and hue turns them: both stay one 3x3 matrix.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)


def _colour_affines(a: Augmentation, signed: dict[str, np.ndarray]) -> Float[np.ndarray, "B 3 4"]:
    """Saturation, hue, gain, contrast and brightness as one affine of RGB.

    One cv2.transform (47 us at 192x256) does what took a lookup table per channel (157 us) and an HSV round trip.
    """
    turn, saturation = np.deg2rad(a.hue_deg) * signed["hue"], 1 + a.saturation * signed["saturation"]
    chroma = np.zeros((len(turn), 3, 3))
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * np.cos(turn)
    chroma[:, 2, 1] = saturation * np.sin(turn)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    contrast = 1 + a.contrast * signed["contrast"]
    gain = 1 + a.channel_gain * np.stack([signed["red"], signed["green"], signed["blue"]], 1)
    matrix = (contrast[:, None] * gain)[:, :, None] * (_RGB @ chroma @ _YIQ)
    added = 127.5 * (1 - contrast) + 255 * a.brightness * signed["brightness"]
    return np.concatenate([matrix, np.broadcast_to(added[:, None, None], (len(turn), 3, 1))], axis=2)


def input_to_box(draws: Draws, imgsz: tuple[int, int]) -> Float[np.ndarray, "B 2 3"]:
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


def margin_for(augmentation: Augmentation, imgsz: tuple[int, int] = (192, 256)) -> tuple[float, float]:
    """How much wider and higher than the input a stored crop must be, in steps of 1/8, the smallest in area.

    Of the pixels that `augmentation` shows (1,024 draws, fixed seed), at most 1 % may lie outside the stored crop. That
    share depends on the aspect of `imgsz`, because rotation takes the long side across the short one.
    """
    affines = input_to_box(Draws.of(augmentation, chances(1024, 0, 0)), imgsz)
    half = (np.array(imgsz) - 1) / 2
    grid = np.stack(np.meshgrid(*(np.linspace(0, 2 * h, 17) for h in half)), -1).reshape(-1, 2)
    points = np.einsum("bij,pj->bpi", affines[:, :, :2], grid) + affines[:, None, :, 2]
    needed = np.abs(points - half).reshape(-1, 2) / half  # a margin of this much takes the point in
    steps = np.maximum(0, np.ceil((needed - 1) * _STEPS - 1e-6)).astype(int)
    counts = np.zeros(steps.max(axis=0) + 1)
    np.add.at(counts, (steps[:, 0], steps[:, 1]), 1)
    lost = 1 - counts.cumsum(0).cumsum(1) / len(steps)
    margins = 1 + np.indices(lost.shape) / _STEPS
    area = np.where(lost <= _MAX_LOSS, margins.prod(axis=0), np.inf)
    across, down = np.unravel_index(int(area.argmin()), area.shape)
    return 1 + float(across) / _STEPS, 1 + float(down) / _STEPS


def noise_field(imgsz: tuple[int, int], seed: int) -> UInt8[np.ndarray, "values"]:
    """Gaussian noise about 128 from which every sample's own is cut at `noise_at`: drawing 147,456 normals a sample
    would cost five times the warp."""
    values = np.random.default_rng([seed, _STREAM]).standard_normal(
        _NOISE_PLACES + 3 * imgsz[0] * imgsz[1], dtype=np.float32
    )
    return np.clip(np.rint(values * _NOISE_STD + 128), 0, 255).astype(np.uint8)


def change_pixels(image: UInt8[np.ndarray, "H W 3"], draws: Draws, i: int, noise: UInt8[np.ndarray, "values"]) -> None:
    """Do to `image`, in place, everything of sample `i` that moves no pixel; `noise` is a `noise_field`."""
    if draws.recolour[i]:
        cv2.transform(image, draws.colour[i], dst=image)
    if draws.gamma[i] != 1:
        table = 255 * (np.arange(256) / 255) ** draws.gamma[i]
        cv2.LUT(image, np.rint(table).astype(np.uint8), dst=image)
    if draws.blur_px[i]:
        side = 3 if draws.blur_px[i] < 0.8 else 5 if draws.blur_px[i] < 1.4 else 9
        cv2.GaussianBlur(image, (side, side), float(draws.blur_px[i]), dst=image)
    if draws.motion_px[i]:
        image[:] = _motion_blur(image, int(draws.motion_px[i]), float(draws.motion_deg[i]))
    if draws.noise_std[i]:
        field = noise[draws.noise_at[i] :][: image.size].reshape(image.shape)
        share = float(draws.noise_std[i]) / _NOISE_STD
        cv2.addWeighted(image, 1.0, field, share, -128 * share, dst=image)
    if draws.hole[i, 2] > draws.hole[i, 0]:
        left, top, right, bottom = np.rint(draws.hole[i] * np.tile(image.shape[1::-1], 2)).astype(int)
        image[top:bottom, left:right] = 0


def _motion_blur(image: np.ndarray, length_px: int, angle_deg: float) -> np.ndarray:
    functions = _albumentations_blur()
    kernel = functions.create_motion_kernel(length_px, angle_deg, 0.0, allow_shifted=False, random_state=None)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


@cache
def _albumentations_blur() -> ModuleType:
    """Imported when first needed: it costs seconds, and asks a server for a newer version unless told not to."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from albumentations.augmentations.blur import functional

    return functional
