"""Each fault of a label by hand: what is said, and that its neighbours are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posesweep.datasets.instances import Instances
from posesweep.datasets.label_checks import Labels, check_labels
from posesweep.datasets.skeleton import load_skeleton

BODY = np.array([[90.0, 50.0], [70.0, 40.0], [70.0, 60.0], [20.0, 50.0]])  # snout, ears, tail base; heading right


def labels(n=40, sides=("",), **changes):
    """n mice of several sizes in images of 200 x 100, one hidden keypoint among them, with `changes` to columns."""
    rng = np.random.default_rng(0)
    points = BODY * rng.uniform(0.6, 1.0, (n, 1, 1)) + rng.normal(0, 0.5, (n, 4, 2))
    low, high = points.min(axis=1) - 5, points.max(axis=1) + 5
    visibility = np.full((n, 4), 2, dtype=np.uint8)
    visibility[0, 0] = 1
    instances = Instances(
        skeleton=load_skeleton("mouse4"),
        image_files=tuple(Path(f"{i}.png") for i in range(n)),
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(n) + 100,
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.concatenate([low, high - low], axis=1),
        keypoints=points,
        visibility=visibility,
        areas=np.full(n, 81.0),
        crowd=np.zeros(n, dtype=bool),
    )
    of_images = (list(sides) * n)[:n]
    return Labels(replace(instances, **changes), np.tile([200, 100], (n, 1)), tuple(of_images))


def told(labels):
    return [(one.kind, one.severity, one.annotation, one.keypoint, one.text) for one in check_labels(labels)]


def moved(labels, row, k, x, y):
    points = labels.instances.keypoints.copy()
    points[row, k] = x, y
    return replace(labels, instances=replace(labels.instances, keypoints=points))


def test_sound_labels_are_not_complained_about():
    assert told(labels()) == []


def test_a_keypoint_outside_the_image():
    assert told(moved(labels(), 3, 0, 230, 50)) == [
        (
            "keypoint outside the image",
            "error",
            103,
            "snout",
            "snout at (230.0, 50.0) is 30.5 px outside the image of 200 x 100 pixels",
        )
    ]


@pytest.mark.parametrize(("y", "severities"), [(-1.4, []), (-2.0, ["warning"]), (-8.0, ["error"])])
def test_how_far_outside_counts(y, severities):
    found = told(moved(labels(), 3, 1, 60, y))
    assert [one[1] for one in found if one[0] == "keypoint outside the image"] == severities


def test_a_keypoint_far_from_its_own_box():
    far = labels()
    box = far.instances.boxes[3]
    x = box[0] + box[2] + 0.6 * box[2]
    assert told(moved(far, 3, 0, x, 50)) == [
        (
            "keypoint far from its box",
            "error",
            103,
            "snout",
            "snout lies 0.60 x the longer side of its own box outside of it",
        )
    ]
    near = moved(far, 3, 0, box[0] + box[2] + 0.3 * box[2], 50)
    assert [one[:2] for one in told(near)] == [("keypoint far from its box", "warning")]


def test_a_box_outside_the_image_is_told_and_not_its_keypoints():
    away = labels()
    boxes = away.instances.boxes.copy()
    boxes[3] = 190, 20, 60, 40
    assert told(replace(away, instances=replace(away.instances, boxes=boxes))) == [
        (
            "box outside the image",
            "error",
            103,
            "",
            "the middle of its box (190, 20, 60, 40) lies outside the image, which is 200 x 100 pixels",
        )
    ]


def test_images_that_cannot_be_read_have_no_outside():
    unread = moved(labels(), 3, 0, 230, 50)
    sizes = unread.sizes.copy()
    sizes[3] = 0
    assert not [one for one in told(replace(unread, sizes=sizes)) if "outside the image" in one[0]]


def test_labelled_at_the_origin():
    assert told(moved(labels(), 3, 2, 0, 0)) == [
        (
            "visibility",
            "error",
            103,
            "rightear",
            "rightear has visibility 2 at exactly (0, 0), where unlabelled keypoints are written",
        )
    ]


def test_a_limb_too_long_blames_the_keypoint_that_explains_it():
    whole = labels()
    boxes = whole.instances.boxes.copy()
    boxes[3] = 5, 5, 190, 90
    ((kind, severity, annotation, keypoint, text),) = told(moved(labels(boxes=boxes), 3, 3, 180, 50))
    assert (kind, severity, annotation, keypoint) == ("improbable limb", "warning", 103, "tailbase")
    assert text.startswith("tailbase to ")
    assert text.endswith(" x as long as is usual in this set for a body of this size")


def test_swapped_ears_are_told_once():
    swapped = labels()
    points = swapped.instances.keypoints.copy()
    points[7, [1, 2]] = points[7, [2, 1]]
    ((kind, severity, annotation, keypoint, text),) = told(
        replace(swapped, instances=replace(swapped.instances, keypoints=points))
    )
    assert (kind, severity, annotation, keypoint) == ("left and right swapped", "warning", 107, "leftear")
    assert text.startswith("left and right look exchanged: leftear and rightear (log odds ")


def test_annotations_without_labels():
    empty = labels()
    visibility = empty.instances.visibility.copy()
    visibility[4:6] = 0
    crowd = np.arange(40) == 5
    assert told(replace(empty, instances=replace(empty.instances, visibility=visibility, crowd=crowd))) == [
        ("empty annotation", "warning", 104, "", "has no labelled keypoint")
    ]


def test_a_set_that_hides_nothing_is_noted():
    everything = np.full((40, 4), 2, dtype=np.uint8)
    ((kind, severity, _, _, text),) = told(labels(visibility=everything))
    assert (kind, severity) == ("visibility", "note")
    assert text.startswith("every keypoint of every annotation is visible (2)")
    everything[0, 0] = 0
    ((_, severity, _, _, text),) = told(labels(visibility=everything))
    assert (severity, text) == ("note", "no keypoint is marked as hidden (1); OKS counts 1 and 2 alike")


def test_keypoints_that_are_never_labelled():
    visibility = labels().instances.visibility.copy()
    visibility[:, 3] = 0
    assert told(labels(visibility=visibility))[-1] == (
        "rare keypoint",
        "warning",
        None,
        "tailbase",
        "tailbase is labelled never; it cannot be learned",
    )


def test_categories_that_are_rare_or_in_val_only():
    categories = np.array([1] * 35 + [2] * 5)
    rare = labels(category_ids=categories, category_names={1: "mouse", 2: "rat"})
    assert [one[-1] for one in told(rare)] == ["category 'rat' has 5 annotations, the largest 35"]
    sides = ("train",) * 35 + ("val",) * 5
    assert [one[-1] for one in told(replace(rare, sides=sides))] == ["category 'rat' is in val, never in train"]


def test_an_empty_set_is_no_crash():
    whole = labels()
    assert told(replace(whole, instances=whole.instances.take(np.zeros(40, dtype=bool)))) == []
