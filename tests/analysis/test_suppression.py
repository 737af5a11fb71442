"""OKS NMS by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posesweep.analysis.suppression import oks_nms

SIGMAS = np.array([0.05, 0.05])
SQUARE = np.array([[0.0, 0.0], [10.0, 0.0]])


def at(*shifts: float) -> np.ndarray:
    """One pose for each shift along x."""
    return np.stack([SQUARE + np.array([shift, 0.0]) for shift in shifts])


def nms(keypoints, scores, threshold=0.9, area=100.0, sigmas=SIGMAS) -> list[int]:
    areas = np.full(len(scores), area)
    return oks_nms(keypoints, np.array(scores, float), areas, sigmas, threshold).tolist()


def test_of_two_alike_the_better_stays():
    assert nms(at(0, 0), [0.3, 0.8]) == [1]


def test_of_two_equal_in_all_the_earlier_stays():
    assert nms(at(0, 0), [0.5, 0.5]) == [0]


def test_the_threshold_itself_is_not_above_it():
    """Shift d of both keypoints: OKS = exp(-d^2 / (2 * 100 * 0.1^2)) = exp(-d^2 / 2); d = 1: 0.60653."""
    oks = float(np.exp(-0.5))
    assert nms(at(0, 1), [0.9, 0.8], threshold=oks + 1e-9) == [0, 1]
    assert nms(at(0, 1), [0.9, 0.8], threshold=oks - 1e-9) == [0]


def test_the_area_is_the_mean_of_both():
    """Areas 100 and 300: s^2 = 200, so d = 1 gives exp(-1 / 4) = 0.7788."""
    keypoints, scores = at(0, 1), np.array([0.9, 0.8])
    kept = {t: len(oks_nms(keypoints, scores, np.array([100.0, 300.0]), SIGMAS, t)) for t in (0.77, 0.78)}
    assert kept == {0.77: 1, 0.78: 2}


def test_what_was_removed_removes_nothing():
    """b is like a, c is like b but not like a: a removes b, and c stays."""
    assert nms(at(0, 1, 2), [0.9, 0.8, 0.7], threshold=0.5) == [0, 2]  # OKS 0.61 for 1 pixel, 0.14 for 2


def test_nothing_of_nothing():
    assert nms(np.zeros((0, 2, 2)), []) == []


@given(arrays(np.float64, (6, 2, 2), elements=st.floats(-20, 20)), st.permutations([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
def test_no_two_that_are_kept_are_more_alike_than_the_threshold(keypoints, scores):
    kept = nms(keypoints, scores, 0.5)
    assert kept[0] == int(np.argmax(scores))
    left = keypoints[kept]
    distance2 = ((left[:, None] - left[None]) ** 2).sum(3)
    oks = np.exp(-distance2 / (2 * 100 * 0.01)).mean(2)
    assert (oks[~np.eye(len(kept), dtype=bool)] <= 0.5).all()
