"""Boxes and areas for annotations that come without them."""

import numpy as np
from jaxtyping import Float, UInt8

from posesweep.errors import DataError

# Share of its box that an object fills, where nobody drew a segment: the figure of CrowdPose's evaluation for people.
# AP-10K and Animal-Pose count the whole box, which makes their OKS more lenient; COCO's own people fill 0.25 to 0.67.
FILLED = 0.53


def areas_of(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n"]:
    """The s^2 of OKS for objects of which only the box (x, y, width, height) is known: 0.53 x width x height."""
    return FILLED * boxes[:, 2] * boxes[:, 3]


def box_around(
    keypoints: Float[np.ndarray, "K 2"], visibility: UInt8[np.ndarray, "K"], margin: float
) -> Float[np.ndarray, "4"]:
    """x, y, width, height around the labelled keypoints, widened on all four sides by `margin` x the longer side.

    Of the longer side, because a body seen along one axis has keypoints almost on a line and is not as thin as that.
    DataError: fewer than two labelled keypoints, or all of them on one horizontal or vertical line and no margin."""
    labelled = keypoints[visibility > 0]
    if len(labelled) < 2:
        raise DataError(f"a box cannot be drawn around {len(labelled)} labelled keypoint(s); give it a box")
    low, high = labelled.min(axis=0), labelled.max(axis=0)
    widened = margin * (high - low).max()
    low, high = low - widened, high + widened
    if (high <= low).any():
        raise DataError("its keypoints lie on one line, so their box has no area; give it a box, or raise box_margin")
    return np.concatenate([low, high - low])
