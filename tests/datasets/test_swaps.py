"""Exchanged labels are found in poses that face any way, and the regression is what it says it is."""

import numpy as np
import pytest

from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.swaps import _left_out, exchanged, find_swaps, swap_units

MOUSE, HORSE = load_skeleton("mouse4"), load_skeleton("horse26")


def mice(n, seed=0):
    """n mice seen from above, heading anywhere: snout ahead, left ear to the left, tail behind."""
    rng = np.random.default_rng(seed)
    body = np.array([[0.5, 0.0], [0.3, -0.12], [0.3, 0.12], [-0.5, 0.0]])  # y down: left is up when heading right
    angles = rng.uniform(0, 2 * np.pi, n)
    turn = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], axis=1).reshape(n, 2, 2)
    return body @ turn + rng.normal(0, 0.01, (n, 4, 2))


def test_swapped_ears_of_mice_that_head_anywhere():
    poses = mice(120)
    poses[:10, [1, 2]] = poses[:10, [2, 1]]
    swaps = find_swaps(poses, np.full((120, 4), 2), MOUSE)
    assert swaps.suspected.tolist() == [True] * 10 + [False] * 110
    assert swaps.units[0].name == "leftear and rightear"


def test_what_cannot_be_told_is_not_suspected():
    poses = mice(120)
    poses[:, 1:3] = np.random.default_rng(1).normal(0, 0.2, (120, 2, 2))  # ears anywhere
    assert not find_swaps(poses, np.full((120, 4), 2), MOUSE).suspected.any()


def test_a_set_too_small_to_know_better():
    swaps = find_swaps(mice(29), np.full((29, 4), 2), MOUSE)
    assert not swaps.suspected.any()
    assert swaps.units == []


def test_unlabelled_ears_are_not_suspected():
    poses, visibility = mice(60), np.full((60, 4), 2)
    visibility[:5, 1] = 0
    poses[:5, 1] = 0
    assert not find_swaps(poses, visibility, MOUSE).suspected[:5].any()


def test_the_units_of_a_horse_are_pairs_legs_and_all():
    units = swap_units(HORSE)
    assert [len(unit.pairs) for unit in units] == [1] * 11 + [2, 4, 4, 11]
    assert units[0].name == "left_nostril and right_nostril"
    assert units[12].name.startswith("left_elbow/right_elbow, left_knee/right_knee")
    assert units[-1].name == "all left and right keypoints"


def test_exchanging_twice_changes_nothing():
    units = [swap_units(HORSE)[i] for i in (0, 12, 14)]
    points = np.random.default_rng(0).normal(size=(3, 26, 2))
    once = exchanged(points, units)
    assert np.array_equal(exchanged(once, units), points)
    assert np.array_equal(once[0, [0, 1]], points[0, [1, 0]])
    assert np.array_equal(once[0, 2:], points[0, 2:])


@pytest.mark.parametrize("ridge", [0.1, 3.0])
def test_left_out_predictions_are_those_of_a_fit_without_the_row(ridge):
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(12, 5)), rng.normal(size=(12, 2))
    kernel = features @ features.T
    left_out, weights = _left_out(kernel, ridge, target)
    for i in range(12):
        rest = np.arange(12) != i
        fitted = np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(11), target[rest])
        assert np.allclose(left_out[i], kernel[i, rest] @ fitted)
    assert np.allclose((kernel + ridge * np.eye(12)) @ weights, target)
