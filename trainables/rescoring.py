"""From boxes and the keypoints found in them to detections, as COCO's keypoint results are made."""

import numpy as np
from jaxtyping import Float, Int

from posesweep.analysis.suppression import oks_nms
from posesweep.datasets.crops import regions
from posesweep.trainables.tasks.topdown import object_score

OKS_THRESHOLD = 0.9  # as in HRNet's and mmpose's COCO configs


def rescored(box_scores: Float[np.ndarray, "n"], rows: Float[np.ndarray, "n K 3"]) -> Float[np.ndarray, "n"]:
    """The box's score times the mean of the keypoint scores above 0.2 (HRNet, mmpose)."""
    return box_scores * object_score(rows[..., 2])


def best_of_each(
    rows: Float[np.ndarray, "n K 3"],
    scores: Float[np.ndarray, "n"],
    areas: Float[np.ndarray, "n"],
    categories: Int[np.ndarray, "n"],
    sigmas: Float[np.ndarray, "K"],
    threshold: float = OKS_THRESHOLD,
) -> Int[np.ndarray, "k"]:
    """Rows of one image left by OKS NMS among those of each category, in their old order; `areas` are `seen_areas`."""
    kept: list[int] = []
    for category in np.unique(categories):
        of = np.flatnonzero(categories == category)
        kept += of[oks_nms(rows[of, :, :2], scores[of], areas[of], sigmas, threshold)].tolist()
    return np.array(sorted(kept), dtype=np.int64)


def seen_areas(boxes: Float[np.ndarray, "n 4"], imgsz: tuple[int, int]) -> Float[np.ndarray, "n"]:
    """Image pixels^2 that the network sees of each box, padded and enlarged to the input's aspect: what HRNet and
    mmpose take for an object's area in NMS."""
    return regions(boxes, imgsz)[1].prod(axis=1)
