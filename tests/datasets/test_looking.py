"""What is seen in a set, on sets made for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posesweep.datasets.instances import Instances
from posesweep.datasets.looking import axis_range_deg, group_key, portrait_of, shipped_like
from posesweep.datasets.skeleton import load_skeleton, skeleton_from_names


def sticks(angles_deg, length_px=50.0):
    """Objects of three keypoints in images of their own: two ends, and one near the first end."""
    n = len(angles_deg)
    angles = np.deg2rad(np.asarray(angles_deg, dtype=np.float64))
    ends = 100 + length_px * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.stack([np.full((n, 2), 100.0), np.full((n, 2), 101.0), ends], axis=1)
    return Instances(
        skeleton=skeleton_from_names("stick", ["nose", "eye", "tail"]),
        image_files=tuple(Path(f"/set/{i}.png") for i in range(n)),
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(n),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.tile([50.0, 60.0, 80.0, 40.0], (n, 1)),
        keypoints=points,
        visibility=np.full((n, 3), 2, dtype=np.uint8),
        areas=np.full(n, 1000.0),
        crowd=np.zeros(n, dtype=bool),
    )


def test_the_numbers_of_a_set():
    made = sticks([0.0] * 4)
    made.boxes[0, 2:] = 800, 400  # medians do not mind
    made.visibility[1] = 0  # no object to train on
    made.visibility[2, 0] = 0
    made = replace(made, image_groups=("a", "a", "b", ""))
    seen = portrait_of(made)
    assert (seen.images, seen.objects, seen.groups) == (4, 3, 2)
    assert seen.labelled_share == pytest.approx(8 / 9)
    assert (seen.width_px, seen.height_px) == (80, 40)
    assert seen.padded_px == (100, 50)
    assert seen.axis_range_deg is None
    assert not seen.turned_freely


def test_bodies_turned_evenly_span_162_of_180_degrees():
    made = sticks(np.arange(0, 360, 1))
    assert axis_range_deg(made) == pytest.approx(162, abs=1)
    assert portrait_of(made).turned_freely


def test_looking_left_or_right_is_no_turn():
    made = sticks([*np.linspace(-20, 20, 101), *np.linspace(160, 200, 101)])
    assert axis_range_deg(made) == pytest.approx(36, abs=1)
    assert not portrait_of(made).turned_freely


def test_few_objects_say_nothing_of_turns():
    assert axis_range_deg(sticks(np.arange(19) * 19.0)) is None
    assert axis_range_deg(sticks(np.arange(20) * 18.0)) is not None


def test_keypoints_that_are_rarely_seen_are_no_ends_of_the_axis():
    made = sticks(np.zeros(40))
    made.visibility[:30, 2] = 0
    assert axis_range_deg(made) == pytest.approx(0)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([f"v{i % 5}" for i in range(20)], "video_id"),
        ([f"v{i % 4}" for i in range(20)], None),  # too few to hold out a fifth
        ([f"v{i}" for i in range(20)], None),  # every image on its own
        ([*(f"v{i % 5}" for i in range(19)), None], None),  # not every image has one
    ],
)
def test_a_key_that_groups_images(values, found):
    assert group_key(replace(sticks(np.zeros(20)), image_fields={"video_id": tuple(values)})) == found


def test_the_shipped_skeleton_with_these_keypoints():
    mouse = load_skeleton("mouse4")
    turned = skeleton_from_names("mine", mouse.keypoints[::-1])
    assert shipped_like(mouse, any_order=False) == "mouse4"
    assert shipped_like(turned, any_order=True) == "mouse4"
    assert shipped_like(turned, any_order=False) is None
    assert shipped_like(skeleton_from_names("mine", ["a", "b"]), any_order=True) is None
