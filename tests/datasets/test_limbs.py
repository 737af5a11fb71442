"""Limbs too long for the set, whatever the size of the body, and nothing else."""

import numpy as np

from posesweep.datasets.limbs import measure_limbs
from posesweep.datasets.skeleton import Skeleton, load_skeleton

MOUSE = load_skeleton("mouse4")
BARE = Skeleton("bare", ("a", "b", "c", "d"), (), (), np.full(4, 0.05))


def mice(n, seed=0):
    rng = np.random.default_rng(seed)
    body = np.array([[50.0, 0.0], [30.0, -12.0], [30.0, 12.0], [-50.0, 0.0]])
    sizes = rng.uniform(0.3, 3.0, n)
    return sizes[:, None, None] * (body + rng.normal(0, 1.0, (n, 4, 2))), sizes


def test_sizes_are_recovered_and_lengths_are_relative_to_them():
    points, sizes = mice(80)
    limbs = measure_limbs(points, np.ones((80, 4), bool), MOUSE)
    ratio = limbs.sizes / sizes
    assert ratio.std() / ratio.mean() < 0.05
    assert not limbs.improbable().any()


def test_one_wrong_keypoint_is_found_and_leaves_the_size_alone():
    points, _ = mice(80)
    before = measure_limbs(points, np.ones((80, 4), bool), MOUSE).sizes[5]
    points[5, 3] *= 3  # the tail's base, three times as far away
    limbs = measure_limbs(points, np.ones((80, 4), bool), MOUSE)
    assert np.flatnonzero(limbs.improbable().any(axis=1)).tolist() == [5]
    assert {tuple(edge) for edge in limbs.edges[limbs.improbable()[5]].tolist()} == {(1, 3), (2, 3)}
    assert np.isclose(limbs.sizes[5], before, rtol=0.25)


def test_limbs_that_point_at_the_camera_are_short_and_not_improbable():
    points, _ = mice(80)
    points[5, 3] = points[5, 1] + 0.1
    assert not measure_limbs(points, np.ones((80, 4), bool), MOUSE).improbable().any()


def test_what_is_not_labelled_is_not_measured():
    points, _ = mice(80)
    known = np.ones((80, 4), bool)
    known[:70, 3] = False
    points[75, 3] *= 9
    limbs = measure_limbs(points, known, MOUSE)
    assert np.isnan(limbs.excess[:70, 3:]).all()
    assert not limbs.improbable().any()  # ten tails do not say what is usual


def test_a_skeleton_without_limbs_learns_some():
    points, _ = mice(80)
    points[5, 3] *= 3
    limbs = measure_limbs(points, np.ones((80, 4), bool), BARE)
    assert len(limbs.edges) >= 4
    assert set(limbs.edges.ravel().tolist()) == {0, 1, 2, 3}
    assert np.flatnonzero(limbs.improbable().any(axis=1)).tolist() == [5]
    assert (
        len(measure_limbs(points[:, :1], np.ones((80, 1), bool), Skeleton("one", ("a",), (), (), np.ones(1))).edges)
        == 0
    )
