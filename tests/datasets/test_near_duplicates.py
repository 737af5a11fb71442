"""Copies are alike however they were stored; other pictures are not; frames know their neighbours."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets import near_duplicates
from posesweep.datasets.instances import Instances
from posesweep.datasets.near_duplicates import (
    Looks,
    alike_pairs,
    find_videos,
    in_order,
    look_at,
    look_at_all,
    neighbours,
    perceptual_hash,
)
from posesweep.datasets.skeleton import load_skeleton


def scene(seed, width=160, height=120):
    """Soft blobs: a picture with something at every scale."""
    noise = np.random.default_rng(seed).uniform(0, 255, (12, 16, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def arena(x, y):
    """A camera that stands still, and a dark animal at (x, y)."""
    return cv2.circle(scene(0), (x, y), 12, (10, 10, 10), -1)


def write(folder, images):
    files = []
    for name, image in images.items():
        cv2.imwrite(str(folder / name), image)
        files.append(folder / name)
    return tuple(files)


def on(files, boxes=None):
    n = len(files)
    return Instances(
        skeleton=load_skeleton("mouse4"),
        image_files=files,
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(1, n + 1),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.array(boxes or [[0.0, 0.0, 160.0, 120.0]] * n, dtype=float),
        keypoints=np.ones((n, 4, 2)),
        visibility=np.full((n, 4), 2, dtype=np.uint8),
        areas=np.full(n, 81.0),
        crowd=np.zeros(n, dtype=bool),
    )


def pairs_of(files, boxes=None):
    looks = look_at_all(files, 1)
    alike = alike_pairs(looks, on(files, boxes))
    return list(zip(alike.first.tolist(), alike.second.tolist(), strict=True)), alike.likeness


def test_copies_are_alike_however_they_were_stored(tmp_path):
    picture = scene(1)
    files = write(
        tmp_path,
        {
            "a.png": picture,
            "smaller.jpg": cv2.resize(picture, (100, 75), interpolation=cv2.INTER_AREA),
            "brighter.jpg": cv2.convertScaleAbs(picture, alpha=0.9, beta=20),
            "other.png": scene(2),
        },
    )
    boxes = [[0, 0, 160, 120], [0, 0, 100, 75], [0, 0, 160, 120], [0, 0, 160, 120]]
    pairs, likeness = pairs_of(files, boxes)
    assert pairs == [(0, 1), (0, 2), (1, 2)]
    assert likeness.min() > 0.95


def test_before_a_camera_that_stands_still_the_animal_decides(tmp_path):
    places = [(30, 30), (32, 30), (120, 80)]
    files = write(tmp_path, {f"{i}.png": arena(x, y) for i, (x, y) in enumerate(places)})
    pairs, _ = pairs_of(files, [[x - 15, y - 15, 30, 30] for x, y in places])
    assert pairs == [(0, 1)]


def test_many_unrelated_pictures_are_not_alike():
    pictures = np.stack([cv2.resize(scene(i)[:, :, 0], (64, 64), interpolation=cv2.INTER_AREA) for i in range(150)])
    hashes = np.array([perceptual_hash(picture) for picture in pictures], dtype=np.uint64)
    looks = Looks(hashes, pictures, np.tile([160, 120], (150, 1)), (b"",) * 150, ("",) * 150)
    assert not len(alike_pairs(looks, on(tuple(Path(f"{i}.png") for i in range(150)))).first)
    assert hashes.max() < 2**63


def test_flat_pictures_are_alike_where_they_are_equally_bright(tmp_path):
    grey = np.full((120, 160, 3), 90, np.uint8)
    files = write(tmp_path, {"a.png": grey, "b.png": grey + 1, "c.png": grey + 100})
    pairs, _ = pairs_of(files)
    assert (0, 1) in pairs


def test_unreadable_images_are_like_nothing(tmp_path):
    files = (*write(tmp_path, {"a.png": scene(1), "b.png": scene(1)}), tmp_path / "gone.png")
    looks = look_at_all(files, 2)
    assert looks.reasons == ("", "", "missing")
    assert looks.readable.tolist() == [True, True, False]
    assert looks.contents[0] == looks.contents[1]
    assert looks.sizes[:2].tolist() == [[160, 120]] * 2
    assert alike_pairs(looks, on(files)).second.tolist() == [1]
    assert looks.take(np.array([True, False, True])).reasons == ("", "missing")


def test_progress_is_told(tmp_path):
    told = []
    look_at_all(write(tmp_path, {"a.png": scene(1), "b.png": scene(2)}), 1, lambda *now: told.append(now))
    assert told == [(1, 2), (2, 2)]
    assert look_at(tmp_path / "a.png").size == (160, 120)


def test_frames_of_a_video_are_told_from_numbered_photographs(tmp_path):
    video = {f"run_{i:03d}.png": arena(30 + 5 * i, 30) for i in range(6)}
    photographs = {f"{i:06d}.png": scene(i + 5) for i in range(6)}
    files = write(tmp_path, video | photographs)
    found = find_videos(files, look_at_all(files, 1))
    assert [one.name for one in found] == [f"{tmp_path.name}/run_*"]
    assert found[0].numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert found[0].step == 1


def test_neighbours_are_the_nearest_within_reach():
    video = in_order("v", [Path(f"f{i}.png") for i in (0, 10, 20, 30, 41)], [4, 0, 1, 2, 3])
    assert video.images.tolist() == [0, 1, 2, 3, 4]
    assert video.step == 10
    val = np.array([False, False, True, False, True])
    assert neighbours(video, ~val, val, 10).tolist() == [[1, 2]]  # 41 is 11 after 30
    assert neighbours(video, ~val, val, 11).tolist() == [[1, 2], [3, 4]]
    assert neighbours(video, val, val & False, 10).tolist() == []


def test_names_without_numbers_are_in_the_order_of_names():
    video = in_order("v", [Path("b.png"), Path("a.png"), Path("c.png")], [0, 1, 2])
    assert video.images.tolist() == [1, 0, 2]
    assert video.numbers.tolist() == [0, 1, 2]


@pytest.mark.parametrize("bits", [16, 17])
def test_candidates_differ_in_at_most_sixteen_bits(bits):
    pictures = np.stack([np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))] * 2)
    looks = Looks(np.array([0, 2**bits - 1], dtype=np.uint64), pictures, np.full((2, 2), 64), (b"a", b"b"), ("", ""))
    instances = replace(on((Path("a.png"), Path("b.png"))), boxes=np.array([[0.0, 0.0, 64.0, 64.0]] * 2))
    assert len(alike_pairs(looks, instances).first) == (bits == 16)


def still(count):
    """Looks of as many equal pictures."""
    picture = cv2.cvtColor(cv2.resize(scene(0), (64, 64)), cv2.COLOR_RGB2GRAY)
    hashes = np.full(count, perceptual_hash(picture), dtype=np.uint64)
    return Looks(hashes, np.stack([picture] * count), np.tile([160, 120], (count, 1)), (b"",) * count, ("",) * count)


@pytest.fixture
def few(monkeypatch):
    """A bound that a hundred images reach."""
    monkeypatch.setattr(near_duplicates, "FEW", 0)
    monkeypatch.setattr(near_duplicates, "REACH", 3)
    monkeypatch.setattr(near_duplicates, "MOST", 4)


@pytest.mark.parametrize("count", [100, 200])
def test_frames_of_a_still_video_cost_as_much_each_however_many(few, count):
    alike = alike_pairs(still(count), on(tuple(Path(f"{i:03d}.png") for i in range(count))))
    assert len(alike.first) == 3 * count - 6
    assert (alike.second - alike.first).max() == 3


def test_of_many_images_of_no_video_each_is_judged_against_a_few(few):
    alike = alike_pairs(still(100), on(tuple(Path(f"{chr(97 + i // 26)}{chr(97 + i % 26)}.png") for i in range(100))))
    assert np.bincount(alike.first).max() == 4
    assert set(range(100)) == {*alike.first.tolist(), *alike.second.tolist()}


def test_two_videos_are_compared_with_each_other(few):
    files = tuple(Path(f"{name}/{i:03d}.png") for i in range(10) for name in "ab")
    alike = alike_pairs(still(20), on(files))
    pairs = list(zip(alike.first.tolist(), alike.second.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert sum((a + b) % 2 for a, b in pairs) == 10 * 4
    assert all(a < b for a, b in pairs)


def test_few_images_are_all_compared():
    alike = alike_pairs(still(80), on(tuple(Path(f"{i:03d}.png") for i in range(80))))
    assert len(alike.first) == 80 * 79 // 2
