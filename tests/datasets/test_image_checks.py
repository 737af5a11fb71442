"""Copies, look-alikes, frames and groups on both sides: who is told, and how severe it is."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from posesweep.datasets.image_checks import check_groups, check_images
from posesweep.datasets.instances import Instances
from posesweep.datasets.near_duplicates import look_at_all
from posesweep.datasets.skeleton import load_skeleton


def scene(seed):
    noise = np.random.default_rng(seed).uniform(0, 255, (12, 16, 3)).astype(np.uint8)
    return cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)


def on(files, **changes):
    n = len(files)
    instances = Instances(
        skeleton=load_skeleton("mouse4"),
        image_files=tuple(files),
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(1, n + 1),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.tile([0.0, 0.0, 160.0, 120.0], (n, 1)),
        keypoints=np.ones((n, 4, 2)),
        visibility=np.full((n, 4), 2, dtype=np.uint8),
        areas=np.full(n, 81.0),
        crowd=np.zeros(n, dtype=bool),
    )
    return replace(instances, **changes)


def write(folder, images):
    for name, image in images.items():
        cv2.imwrite(str(folder / name), image)
    return [folder / name for name in images]


def told(files, sides, **changes):
    found = check_images(on(files, **changes), look_at_all(files, 1), tuple(sides))
    return [(one.kind, one.severity, Path(one.image).name, Path(one.other_image).name, one.side) for one in found]


def test_unreadable_images_are_errors(tmp_path):
    files = [*write(tmp_path, {"a.png": scene(1)}), tmp_path / "gone.png"]
    assert told(files, ["", ""]) == [("unreadable image", "error", "gone.png", "", "")]


def test_copies_within_a_side_are_a_warning_and_across_an_error(tmp_path):
    files = write(tmp_path, {"a.png": scene(1), "b.png": scene(1), "c.png": scene(2)})
    assert told(files, ["train"] * 3) == [("duplicate image", "warning", "b.png", "a.png", "train")]
    assert told(files, ["val", "train", "train"]) == [("duplicate image", "error", "a.png", "b.png", "val")]


def test_look_alikes_are_told_of_the_validation_image(tmp_path):
    files = write(tmp_path, {"a.png": scene(1), "b.jpg": scene(1), "c.png": scene(2)})
    assert told(files, ["val", "train", "train"]) == [("near-duplicate images", "error", "a.png", "b.jpg", "val")]
    assert told(files, ["train"] * 3) == [("near-duplicate images", "warning", "b.jpg", "a.png", "train")]


def clip(folder):
    frames = {f"run_{i:03d}.png": cv2.circle(scene(0), (20 + 12 * i, 60), 9, (0, 0, 0), -1) for i in range(10)}
    boxes = np.array([[10.0 + 12 * i, 50, 20, 20] for i in range(10)])
    return write(folder, frames), boxes


def test_neighbouring_frames_apart(tmp_path):
    files, boxes = clip(tmp_path)
    found = told(files, ["train"] * 6 + ["val"] * 4, boxes=boxes)
    assert found == [("neighbouring frames apart", "error", "run_006.png", "run_005.png", "val")]


def test_one_video_on_both_sides_with_a_gap_is_a_warning(tmp_path):
    files, boxes = clip(tmp_path)
    kept = [0, 1, 2, 3, 6, 7, 8, 9]
    found = told([files[i] for i in kept], ["train"] * 4 + ["val"] * 4, boxes=boxes[kept])
    assert [one[:2] for one in found] == [("group on both sides", "warning")]


def test_a_named_video_need_not_look_like_one(tmp_path):
    files = write(tmp_path, {f"{i}.png": scene(i) for i in range(4)})
    found = told(files, ["train", "train", "val", "val"], image_groups=("m4s1",) * 4)
    assert found == [("neighbouring frames apart", "error", "2.png", "1.png", "val")]


def test_groups_and_individuals_on_both_sides():
    train, val = on([Path("h1_a.png"), Path("h2_a.png")]), on([Path("h2_b.png")])
    (found,) = check_groups(train, val, r"^(h\d)")
    assert (found.severity, found.text) == ("error", "group 'h2' of data.group_by is in both train and val")
    named = replace(train, identities=("ann", "bob")), replace(val, identities=("bob",))
    (found,) = check_groups(*named, None)
    assert (found.severity, found.text[:42]) == ("warning", "individual 'bob' is in both train and val:")
    assert check_groups(train, val, None) == []
