"""What can be said of each annotated object by counting and by one look at its pixels, and of a whole set."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from posesweep.datasets.instances import Instances

LOOKED_AT_PX = 256  # longer side to which a crop is shrunk first, so that sharpness does not grow with resolution


@dataclass(frozen=True)
class Quality:
    """One value per instance."""

    visible_share: Float[np.ndarray, "n"]  # keypoints labelled visible, of all K
    size_px: Float[np.ndarray, "n"]  # square root of the box's width x height
    sharpness: Float[np.ndarray, "n"]  # variance of the Laplacian of the grey crop; nan where it could not be read


@dataclass(frozen=True)
class Summary:
    """What a set holds. Percentiles are of the boxes' width, height and size in pixels: smallest, median, largest."""

    images: int
    instances: int
    crowds: int
    categories: dict[str, int]
    visibility: Int[np.ndarray, "3"]  # keypoints not labelled, hidden, visible
    labelled_per_keypoint: dict[str, int]
    box_width_px: tuple[float, float, float]
    box_height_px: tuple[float, float, float]


def sharpness(image: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, "4"]) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of the part of an RGB `image` in `box`, in grey.

    nan where the box lies outside the image or is under 3 pixels wide or high. Crops are shrunk to 256 pixels first."""
    low = np.clip(np.floor(box[:2]), 0, image.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(box[:2] + box[2:]), 0, image.shape[1::-1]).astype(int)
    if (high - low < 3).any():
        return float("nan")
    grey = cv2.cvtColor(image[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)
    scale = LOOKED_AT_PX / max(grey.shape)
    if scale < 1:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def quality_of(instances: Instances, measured: Float[np.ndarray, "n"]) -> Quality:
    """The quality of every instance, given the sharpness measured for each."""
    return Quality(
        visible_share=(instances.visibility == 2).mean(axis=1),
        size_px=np.sqrt(instances.boxes[:, 2] * instances.boxes[:, 3]),
        sharpness=measured,
    )


def summary_of(instances: Instances) -> Summary:
    """Counts over a set."""
    visibility, ids = instances.visibility, instances.category_ids
    return Summary(
        images=len(instances.image_files),
        instances=len(instances),
        crowds=int(instances.crowd.sum()),
        categories={name: int((ids == i).sum()) for i, name in instances.category_names.items() if (ids == i).any()},
        visibility=np.bincount(visibility.ravel(), minlength=3),
        labelled_per_keypoint=dict(
            zip(instances.skeleton.keypoints, (visibility > 0).sum(axis=0).tolist(), strict=True)
        ),
        box_width_px=_spread(instances.boxes[:, 2]),
        box_height_px=_spread(instances.boxes[:, 3]),
    )


def _spread(values: Float[np.ndarray, "n"]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [0, 50, 100]).tolist()
    return low, middle, high


def quality_rows(instances: Instances, quality: Quality, names: Sequence[str]) -> list[list[str]]:
    """quality.csv: header, then a row an instance; `names` are those of the images."""
    rows = [["id", "image", "category", "visible_share", "size_px", "sharpness"]]
    for row in range(len(instances)):
        sharp = quality.sharpness[row]
        rows.append(
            [
                str(instances.ids[row]),
                names[instances.image_index[row]],
                instances.category_names.get(int(instances.category_ids[row]), ""),
                f"{quality.visible_share[row]:.3f}",
                f"{quality.size_px[row]:.1f}",
                "" if np.isnan(sharp) else f"{sharp:.1f}",
            ]
        )
    return rows
