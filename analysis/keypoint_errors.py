"""How far predicted keypoints lie from the truth: PCK, NME and pixel errors, overall and per keypoint.

Only labelled keypoints (visibility 1 or 2) count, and each counts once, whichever object it belongs to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped, UInt8

PCK_FRACTIONS = (0.05, 0.2)  # of the longer side of the box
SMALLEST_SIDE_PX = 1.0  # a box around one point has no size; errors are then measured against a pixel


@dataclass(frozen=True)
class KeypointErrors:
    """Distances of n predicted objects, K keypoints each, to the truth."""

    distance_px: Float[np.ndarray, "n K"]  # NaN where not labelled
    boxes: Float[np.ndarray, "n 4"]  # of the truth: x, y, width, height, pixels

    @classmethod
    def between(
        cls,
        predicted: Float[np.ndarray, "n K 2"],
        true: Float[np.ndarray, "n K 2"],
        visibility: UInt8[np.ndarray, "n K"],
        boxes: Float[np.ndarray, "n 4"],
    ) -> "KeypointErrors":
        """The errors of predictions against the truth of the same row, both in image pixels."""
        offset = np.asarray(predicted, np.float64) - true
        return cls(np.where(visibility > 0, np.hypot(offset[..., 0], offset[..., 1]), np.nan), boxes)

    @property
    def of_longer_side(self) -> Float[np.ndarray, "n K"]:
        """Distance / the longer side of the box."""
        return self.distance_px / self._sides().max(axis=1, keepdims=True)

    @property
    def of_box_size(self) -> Float[np.ndarray, "n K"]:
        """Distance / sqrt(width x height) of the box."""
        return self.distance_px / np.sqrt(self._sides().prod(axis=1, keepdims=True))

    def _sides(self) -> Float[np.ndarray, "n 2"]:
        return np.maximum(self.boxes[:, 2:], SMALLEST_SIDE_PX)

    def column(self, keypoint: int) -> "KeypointErrors":
        """The errors of one keypoint alone."""
        return KeypointErrors(self.distance_px[:, [keypoint]], self.boxes)


def error_metrics(errors: KeypointErrors) -> dict[str, float]:
    """The named errors of all labelled keypoints; empty where none is labelled.

    - ``PCK@0.05``, ``PCK@0.2``: the share within that fraction of the longer side of the box, the border included
      (as mmpose's PCKAccuracy with norm_item="bbox", but pooled: every labelled keypoint has the same weight)
    - ``NME``: mean distance / sqrt(box width x box height), the box normalisation of face alignment (AFLW)
    - ``RMSE_px``: the root of the mean squared distance
    - ``mean_error_px``: the mean distance, the figure that DeepLabCut calls RMSE
    """
    labelled = ~np.isnan(errors.distance_px)
    if not labelled.any():
        return {}
    distance = errors.distance_px[labelled]
    share = errors.of_longer_side[labelled]
    metrics = {f"PCK@{fraction}": float(np.mean(share <= fraction)) for fraction in PCK_FRACTIONS}
    return metrics | {
        "NME": float(errors.of_box_size[labelled].mean()),
        "RMSE_px": float(np.sqrt(np.mean(distance**2))),
        "mean_error_px": float(distance.mean()),
    }


def keypoint_similarity(
    errors: KeypointErrors, areas: Float[np.ndarray, "n"], sigmas: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "n K"]:
    """Each keypoint's part of OKS, exp(-d^2 / (2 s^2 k^2)) with k = 2 sigma and s^2 = area; NaN where not labelled."""
    scale2 = (areas + np.spacing(1.0))[:, None] * (2 * sigmas) ** 2
    return np.exp(-(errors.distance_px**2) / (2 * scale2))


def per_keypoint(errors: KeypointErrors, similarity: Shaped[np.ndarray, "n K"], names: Sequence[str]) -> pd.DataFrame:
    """One row per keypoint: keypoint, labelled (how often), the `error_metrics` and OKS (its mean similarity).

    What a keypoint that is never labelled would have is NaN.
    """
    rows = []
    for k, name in enumerate(names):
        part = similarity[:, k][~np.isnan(similarity[:, k])]
        mean = {"OKS": float(part.mean())} if len(part) else {}
        rows.append({"keypoint": name, "labelled": len(part), **error_metrics(errors.column(k)), **mean})
    columns = ["keypoint", "labelled", *(f"PCK@{f}" for f in PCK_FRACTIONS), "NME", "RMSE_px", "mean_error_px", "OKS"]
    return pd.DataFrame(rows, columns=columns)
