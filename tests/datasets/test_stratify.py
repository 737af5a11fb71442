"""Shares of everything on every side, whatever the groups, and the same each time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.stratify import hash_order, image_strata, spread_out
from posesweep.errors import DataError


def objects(image_index, areas, labelled, categories):
    n, m = len(areas), max(image_index) + 1
    visibility = np.zeros((n, 4), dtype=np.uint8)
    for row, count in enumerate(labelled):
        visibility[row, :count] = 2
    return Instances(
        skeleton=load_skeleton("mouse4"),
        image_files=tuple(Path(f"{i}.png") for i in range(m)),
        image_ids=np.arange(m),
        image_groups=("",) * m,
        image_index=np.array(image_index),
        ids=np.arange(n),
        category_ids=np.array(categories),
        boxes=np.ones((n, 4)),
        keypoints=np.ones((n, 4, 2)),
        visibility=visibility,
        areas=np.array(areas, dtype=float),
        crowd=np.zeros(n, dtype=bool),
    )


def test_strata_by_hand():
    strata = image_strata(objects([0, 0, 1, 2], [1, 2, 3, 4], [4, 4, 1, 2], [7, 7, 9, 9]))
    assert strata.tolist() == [
        # images, 4 sizes, 3 classes of labelled keypoints (1; 2; both 4), categories 7 and 9
        [1, 1, 1, 0, 0, 0, 0, 2, 2, 0],
        [1, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        [1, 0, 0, 0, 1, 0, 1, 0, 0, 1],
    ]


def test_a_class_that_most_belong_to_does_not_swallow_the_others():
    strata = image_strata(objects(range(10), range(10), [4] * 7 + [1] * 3, [1] * 10))
    assert strata[:, 5:7].tolist() == [[0, 1]] * 7 + [[1, 0]] * 3


def test_every_side_gets_its_share_of_everything():
    rng = np.random.default_rng(0)
    kinds = np.eye(5, dtype=np.int64)[rng.choice(5, 400, p=[0.5, 0.3, 0.1, 0.05, 0.05])]
    strata = np.concatenate([np.ones((400, 1), np.int64), kinds], axis=1)
    sides = spread_out(strata, [str(i) for i in range(400)], (0.75, 0.25), 0)
    share = strata[sides == 1].sum(axis=0) / strata.sum(axis=0)
    assert np.abs(share - 0.25).max() < 0.03
    by_hash = np.isin(np.arange(400), hash_order([str(i) for i in range(400)], 0)[:100])
    worst = strata[by_hash].sum(axis=0) / strata.sum(axis=0)
    assert np.abs(worst - 0.25).max() > 0.06  # what chance alone does


@given(st.lists(st.integers(1, 30), min_size=2, max_size=25), st.integers(2, 5), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_no_side_stays_empty(sizes, sides, seed):
    strata = np.array(sizes)[:, None] * np.array([[1, 1]])
    names = [str(i) for i in range(len(sizes))]
    if len(sizes) < sides:
        with pytest.raises(DataError, match=r"groups of images cannot be spread over"):
            spread_out(strata, names, (1 / sides,) * sides, seed)
        return
    found = spread_out(strata, names, (1 / sides,) * sides, seed)
    assert set(found.tolist()) == set(range(sides))


def test_the_order_is_the_same_on_every_machine():
    assert hash_order(["a", "b", "c", "d", "e"], 0) == [3, 0, 1, 4, 2]
    strata = np.ones((10, 1), dtype=np.int64)
    sides = spread_out(strata, [str(i) for i in range(10)], (0.7, 0.3), 0)
    assert np.flatnonzero(sides).tolist() == [5, 7, 8]


def test_one_video_cannot_be_spread():
    with pytest.raises(DataError, match=r"all 9 images are of one group, or one video, .* set split: auto"):
        spread_out(np.array([[9, 2]]), ["v"], (0.5, 0.5), 0)
