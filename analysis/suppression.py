"""OKS NMS: of several predictions of one object, the best."""

import numpy as np
from jaxtyping import Float, Int


def oks_nms(
    keypoints: Float[np.ndarray, "n K 2"],
    scores: Float[np.ndarray, "n"],
    areas: Float[np.ndarray, "n"],
    sigmas: Float[np.ndarray, "K"],
    threshold: float,
) -> Int[np.ndarray, "k"]:
    """Rows kept of the predictions of one image and category, the best score first (of equals, the earlier).

    A prediction goes when its OKS to a better one that stays is above `threshold`: the mean over all keypoints of
    exp(-d^2 / (2 s^2 k^2)), k = 2 sigma, s^2 the mean of the two areas (HRNet's evaluation; mmpose's `oks_nms`).
    """
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[_similarity(best, left, keypoints, areas, sigmas) <= threshold]
    return np.array(kept, dtype=np.int64)


def _similarity(
    one: np.integer,
    others: Int[np.ndarray, "m"],
    keypoints: Float[np.ndarray, "n K 2"],
    areas: Float[np.ndarray, "n"],
    sigmas: Float[np.ndarray, "K"],
) -> Float[np.ndarray, "m"]:
    distance2 = ((keypoints[others] - keypoints[one]) ** 2).sum(axis=2)
    area = (areas[others] + areas[one]) / 2 + np.spacing(1.0)
    return np.exp(-distance2 / (2 * area[:, None] * (2 * sigmas) ** 2)).mean(axis=1)
