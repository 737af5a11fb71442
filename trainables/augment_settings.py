"""Settings that replace single ranges of an augmentation preset: `aug_` and the name of a field of `Augmentation`.

A sweep may fix or search each of them. They are those of `augment`; `final_augment` is the preset as it is.
"""

from typing import Any

from pydantic import Field

from posesweep.datasets.augment import MOST_HOLES
from posesweep.search_spaces.schema import Block


def _often(what: str) -> Any:
    return Field(None, ge=0, le=1, description=f"probability of {what}")


def _far(most: float, what: str) -> Any:
    return Field(None, ge=0, le=most, description=what)


class AugmentSettings(Block):
    """None: as the preset has it at aug_strength. What is given is used as it is, whatever the strength."""

    aug_flip: float | None = _often("mirroring")
    aug_rotate: float | None = _often("rotation")
    aug_rotation_deg: float | None = _far(180, "rotation up to this either way, degrees")
    aug_scale_min: float | None = Field(None, gt=0.1, le=10, description="the smallest region shown, in padded boxes")
    aug_scale_max: float | None = Field(None, gt=0.1, le=10, description="the largest region shown, in padded boxes")
    aug_move: float | None = _often("shifting")
    aug_shift: float | None = _far(1, "shift up to this share of the region in x and y")
    aug_half_body: float | None = _often("showing half of the body; the skeleton must name its upper_body")
    aug_perspective: float | None = _often("a perspective")
    aug_perspective_share: float | None = _far(0.2, "corners move up to this share of the sides")
    aug_elastic: float | None = _often("an elastic field")
    aug_elastic_share: float | None = _far(0.02, "its deviation up to this share of the shorter side")
    aug_colour: float | None = _often("brightness, contrast, saturation, hue and channel gain together")
    aug_brightness: float | None = _far(0.9, "share of white")
    aug_contrast: float | None = _far(0.9, "factor 1 +- this")
    aug_saturation: float | None = _far(0.9, "factor 1 +- this")
    aug_hue_deg: float | None = _far(180, "degrees either way")
    aug_channel_gain: float | None = _far(0.9, "factor 1 +- this for each of R, G, B")
    aug_gamma: float | None = _often("gamma")
    aug_gamma_log: float | None = _far(3, "the exponent is e to the power of +- this")
    aug_clahe: float | None = _often("local histogram equalisation")
    aug_clahe_clip: float | None = _far(20, "its clip limit, from 1 to 1 + this")
    aug_blur: float | None = _often("Gaussian blur")
    aug_blur_px: float | None = _far(4, "sigma from 0.5 to this, input pixels")
    aug_motion: float | None = _often("motion blur")
    aug_motion_px: float | None = _far(31, "length from 3 to this, input pixels")
    aug_noise: float | None = _often("Gaussian noise")
    aug_noise_std: float | None = _far(100, "deviation from 0 to this, 8-bit values")
    aug_iso: float | None = _often("a sensor's noise")
    aug_iso_intensity: float | None = _far(1, "albumentations' intensity, from 0 to this")
    aug_jpeg: float | None = _often("JPEG compression")
    aug_jpeg_loss: float | None = _far(95, "quality 100 less from 0 to this")
    aug_dropout: float | None = _often("one black rectangle (cutout)")
    aug_dropout_share: float | None = _far(0.9, "its sides, from half of this to this share of the input's")
    aug_coarse: float | None = _often("several black rectangles (coarse dropout)")
    aug_coarse_holes: float | None = _far(MOST_HOLES, "how many, from 1 to this")
    aug_coarse_share: float | None = _far(0.9, "their sides, from half of this to this share of the input's")
    aug_occlusion: float | None = _often("a patch of another image")
    aug_occlusion_share: float | None = _far(0.9, "its sides, from half of this to this share of the input's")


OWN_RANGES: dict[str, None] = dict.fromkeys(AugmentSettings.model_fields)  # the settings, with their default


def own_ranges(settings: AugmentSettings) -> dict[str, float]:
    """Field of Augmentation -> the value given for it."""
    given = {name.removeprefix("aug_"): getattr(settings, name) for name in OWN_RANGES}
    return {name: value for name, value in given.items() if value is not None}
