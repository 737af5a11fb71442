"""Sigmas from two annotations of the same objects: planted ones are found again, to COCO's definition."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets.instances import Instances
from posesweep.datasets.sigmas import estimate_sigmas, match_objects, run_sigmas, skeleton_yaml
from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import DataError

COCO17 = load_skeleton("coco17")
MOUSE = load_skeleton("mouse4")


def objects(points: np.ndarray, areas: np.ndarray, skeleton=COCO17) -> Instances:
    """One object in each image, its box a square around the middle of its points."""
    n = len(points)
    corner = points.mean(axis=1) - 100
    return Instances(
        skeleton=skeleton,
        image_files=tuple(Path(f"/pictures/{i}.jpg") for i in range(n)),
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(n) + 1,
        category_ids=np.ones(n, int),
        boxes=np.concatenate([corner, np.full((n, 2), 200.0)], axis=1),
        keypoints=points,
        visibility=np.full(points.shape[:2], 2, np.uint8),
        areas=areas,
        crowd=np.zeros(n, bool),
    )


def annotators(n: int, seed: int, *noisy: bool) -> list[Instances]:
    """The same n objects as several people label them; each is off by COCO's sigmas, or exact."""
    rng = np.random.default_rng(seed)
    points, areas = rng.uniform(100, 500, (n, 17, 2)), rng.uniform(20, 200, n) ** 2
    spread = COCO17.sigmas[:, None] * np.sqrt(areas)[:, None, None] / np.sqrt(2)  # of one axis: d^2 sums two
    return [objects(points + own * spread * rng.normal(size=points.shape), areas) for own in noisy]


# ------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("seed", range(3))
def test_planted_sigmas_are_found_within_a_tenth_from_200_pairs(seed):
    found = estimate_sigmas(*annotators(200, seed, True, True))
    assert found.objects == 200
    assert found.pairs.tolist() == [200, *[400] * 16]
    np.testing.assert_allclose(found.sigmas, COCO17.sigmas, rtol=0.1)


def test_against_the_truth_nothing_is_halved():
    found = estimate_sigmas(*annotators(200, 7, True, False), second_is_truth=True)
    np.testing.assert_allclose(found.sigmas, COCO17.sigmas, rtol=0.1)
    both = annotators(200, 7, True, True)
    halved, whole = estimate_sigmas(*both), estimate_sigmas(*both, second_is_truth=True)
    np.testing.assert_allclose(whole.sigmas, halved.sigmas * np.sqrt(2))


def test_a_distance_computed_by_hand():
    # 30 objects of area 100 x 100, every label 3 right and 4 down of the other: d / s = 0.05, one annotator's share of
    # it is 0.05 / sqrt(2)
    points = np.random.default_rng(0).uniform(0, 200, (30, 17, 2))
    first, second = (objects(points + shift, np.full(30, 10_000.0)) for shift in ([0, 0], [3, 4]))
    assert estimate_sigmas(first, second).sigmas == pytest.approx([0.05 / np.sqrt(2)] * 17)
    assert estimate_sigmas(first, second, second_is_truth=True).sigmas == pytest.approx([0.05] * 17)


def test_the_interval_holds_the_planted_value_about_as_often_as_it_says():
    held = [_holds(estimate_sigmas(*annotators(100, seed, True, True), pool_sides=False)) for seed in range(20)]
    assert 0.88 < np.mean(held) < 0.99


def _holds(found) -> np.ndarray:
    return (found.low <= COCO17.sigmas) & (found.high >= COCO17.sigmas)


def test_labels_of_one_annotator_only_do_not_count():
    first, second = annotators(60, 1, True, True)
    visibility = first.visibility.copy()
    visibility[:45, 0] = 0
    found = estimate_sigmas(replace(first, visibility=visibility), second)
    assert found.pairs[0] == 15
    assert np.isnan([found.sigmas[0], found.low[0], found.high[0]]).all()
    assert np.isfinite(found.sigmas[1:]).all()


def test_mirror_images_share_a_sigma_unless_told_otherwise():
    pair = annotators(60, 2, True, True)
    pooled, apart = estimate_sigmas(*pair), estimate_sigmas(*pair, pool_sides=False)
    np.testing.assert_array_equal(pooled.sigmas, pooled.sigmas[COCO17.flip_index])
    assert (apart.sigmas[1:] != apart.sigmas[COCO17.flip_index][1:]).all()
    np.testing.assert_allclose(pooled.sigmas**2, (apart.sigmas**2 + apart.sigmas[COCO17.flip_index] ** 2) / 2)


def test_a_swapped_pair_is_counted_as_far_apart():
    first, second = annotators(100, 3, True, True)
    assert estimate_sigmas(first, second).far.sum() <= 3
    points = second.keypoints.copy()
    points[5] = points[5, COCO17.flip_index]
    assert estimate_sigmas(first, replace(second, keypoints=points)).far[1:5].tolist() == [1, 1, 1, 1]


# ------------------------------------------------------------------------------------------------- the same objects


def test_objects_are_matched_by_image_and_box_whatever_their_order():
    first, _ = annotators(12, 4, False, False)
    first = replace(first, image_index=np.arange(12) // 3)  # three in each of four images
    order = np.random.default_rng(0).permutation(12)
    ours, theirs = match_objects(first, first.take(order))
    assert len(ours) == 12
    assert order[theirs].tolist() == ours.tolist()


def test_crowds_and_objects_elsewhere_are_not_matched():
    first, second = annotators(5, 5, True, True)
    second.boxes[1] += [500, 0, 0, 0]
    crowd = np.array([False, False, True, False, False])
    ours, theirs = match_objects(replace(first, crowd=crowd), second)
    assert ours.tolist() == theirs.tolist() == [0, 3, 4]


def test_mistakes():
    first, second = annotators(25, 6, True, True)
    with pytest.raises(DataError, match=r"the keypoints of 'coco17' and of 'mouse4'; both must be of one skeleton"):
        estimate_sigmas(first, objects(second.keypoints[:, :4], second.areas, MOUSE))
    with pytest.raises(DataError, match="all labels of the 25 common objects agree to the pixel"):
        estimate_sigmas(first, first)
    elsewhere = replace(second, image_files=tuple(Path(f"/others/{i}.jpg") for i in range(25)))
    with pytest.raises(DataError, match="the files have no object in common"):
        estimate_sigmas(first, elsewhere)


# ------------------------------------------------------------------------------------------------------- the files


def test_the_skeleton_file_reads_back_with_the_measured_sigmas(tmp_path):
    found = estimate_sigmas(*annotators(60, 8, True, True))
    path = tmp_path / "own.yaml"
    path.write_text(skeleton_yaml(found))
    skeleton = load_skeleton(path)
    np.testing.assert_allclose(skeleton.sigmas, found.sigmas, rtol=1e-3)
    assert (skeleton.keypoints, skeleton.flip_pairs, skeleton.edges) == (
        COCO17.keypoints, COCO17.flip_pairs, COCO17.edges,
    )  # fmt: skip
    assert skeleton.upper_body == COCO17.upper_body
    assert skeleton.sigmas_note == ""


def test_too_few_pairs_keep_the_sigma_before_and_say_so(tmp_path):
    found = estimate_sigmas(*annotators(15, 9, True, True))  # a nose has 15 pairs, sides have 30 together
    path = tmp_path / "own.yaml"
    path.write_text(skeleton_yaml(found))
    skeleton = load_skeleton(path)
    assert skeleton.sigmas[0] == COCO17.sigmas[0]
    assert skeleton.sigmas_note == (
        "OKS sigmas of nose are not measured (fewer than 20 pairs of labels, or no difference); "
        "they are those of the skeleton before"
    )


def written(folder: Path, name: str, seed: int) -> Path:
    """A mouse in each of 40 pictures as one annotator labels it, 2 pixels off."""
    points = np.random.default_rng(0).uniform(20, 80, (40, 4, 2)) + np.random.default_rng(seed).normal(0, 2, (40, 4, 2))
    (folder / "images").mkdir(exist_ok=True)
    document = {"images": [], "annotations": [], "categories": [
        {"id": 1, "name": "mouse", "keypoints": list(MOUSE.keypoints), "skeleton": []},
    ]}  # fmt: skip
    for i, own in enumerate(points, start=1):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), np.zeros((100, 100, 3), np.uint8))
        document["images"].append({"id": i, "file_name": f"{i}.png", "width": 100, "height": 100})
        document["annotations"].append({
            "id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 80, 80], "area": 2500, "iscrowd": 0,
            "keypoints": np.column_stack([own, np.full(4, 2)]).ravel().tolist(), "num_keypoints": 4,
        })  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


def test_run_writes_a_skeleton_file_from_two_annotation_files(tmp_path, capsys):
    first, second = written(tmp_path, "anna", 1), written(tmp_path, "ben", 2)
    out = tmp_path / "mouse.yaml"
    run_sigmas(first, second, out, images=tmp_path / "images")
    # 2 px on each axis, so d = 2 sqrt(2); s = 50
    np.testing.assert_allclose(load_skeleton(out).sigmas, 2 * np.sqrt(2) / 50, rtol=0.3)
    said = capsys.readouterr().out
    assert "40 objects annotated twice; a sigma is the spread of one annotator" in said
    assert f"written: {out}" in said
    with pytest.raises(DataError, match=r"mouse.yaml: is there already; name a new file"):
        run_sigmas(first, second, out, images=tmp_path / "images")
