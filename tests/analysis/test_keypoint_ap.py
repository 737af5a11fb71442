"""Keypoint AP against pycocotools, bit for bit, against cases done by hand, and its bootstrap."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import posesweep.analysis.keypoint_ap as module
from posesweep.analysis.keypoint_ap import (
    THRESHOLDS,
    Detections,
    Matches,
    Truth,
    bootstrap_ap,
    defined,
    keypoint_ap,
    match,
    oks,
)
from posesweep.benchmarks.evaluation import coco_objects, pycocotools_ap
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import DataError

NAMES = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
BORDER_AREAS = [0.0, 32.0**2 - 1, 32.0**2, 50.0**2, 96.0**2, 96.0**2 + 1, 200.0**2, 1e10, 2e10]


@dataclass(frozen=True)
class Case:
    """A random data set; small numbers so that every rule of the matching is met often."""

    seed: int
    images: int
    objects: int
    detections: int
    categories: int
    keypoints: int
    score_levels: int  # few: many ties
    whole_pixels: bool  # whole numbers make equal OKS likely


def build(case: Case) -> tuple[Truth, Detections, np.ndarray, list[int]]:
    """Truth, detections, sigmas, and the category ids COCO is told of (one has neither truth nor meaning)."""
    rng = np.random.default_rng(case.seed)
    images = rng.choice(np.arange(1, 1000), case.images, replace=False)
    categories = rng.choice(np.arange(1, 100), case.categories + 1, replace=False)
    n, m, K = case.objects, case.detections, case.keypoints
    side = rng.choice([20.0, 60.0, 200.0], n)
    points = rng.uniform(0, 1, (n, K, 2)) * side[:, None, None] + rng.uniform(0, 40, (n, 1, 2))
    visibility = rng.choice(np.array([0, 1, 2], np.uint8), (n, K), p=[0.3, 0.2, 0.5])
    visibility[rng.random(n) < 0.15] = 0
    points = np.round(points) if case.whole_pixels else points
    truth = Truth(
        image_ids=images[rng.integers(0, case.images, n)],
        category_ids=categories[rng.integers(0, case.categories, n)],
        keypoints=points * (visibility > 0)[..., None],
        visibility=visibility,
        areas=np.where(rng.random(n) < 0.3, rng.choice(BORDER_AREAS, n), side**2 * rng.uniform(0.3, 1, n)),
        boxes=np.concatenate([points.min(axis=1, initial=0), rng.uniform(0, 1, (n, 2)) * side[:, None]], axis=1),
        crowd=rng.random(n) < 0.15,
        ids=rng.permutation(np.arange(1, n + 1)),
        images=images,
    )
    of = rng.integers(0, max(n, 1), m) if n else np.zeros(m, int)
    start = points[of] if n else rng.uniform(0, 60, (m, K, 2))
    spread = rng.exponential(2.0, (m, 1, 1)) * rng.choice([0, 1, 4], (m, 1, 1))
    moved = start + rng.normal(0, 1, (m, K, 2)) * spread
    same = rng.random(m) < (0.8 if n else 0)
    detections = Detections(
        image_ids=np.where(same, truth.image_ids[of] if n else 0, images[rng.integers(0, case.images, m)]),
        category_ids=np.where(
            same, truth.category_ids[of] if n else 0, categories[rng.integers(0, len(categories), m)]
        ),
        keypoints=np.round(moved) if case.whole_pixels else moved,
        scores=rng.integers(0, case.score_levels, m) / 7,
    )
    return truth, detections, rng.uniform(0.02, 0.2, K), sorted(categories.tolist())


CASES = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 8),
    objects=st.integers(0, 40),
    detections=st.integers(0, 120),
    categories=st.integers(1, 4),
    keypoints=st.sampled_from([1, 2, 7, 8, 9, 17, 26]),
    score_levels=st.sampled_from([1, 3, 10**6]),
    whole_pixels=st.booleans(),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(CASES)
@example(Case(0, images=1, objects=0, detections=0, categories=1, keypoints=3, score_levels=1, whole_pixels=True))
@example(Case(1, images=1, objects=0, detections=9, categories=1, keypoints=3, score_levels=1, whole_pixels=True))
@example(Case(2, images=3, objects=9, detections=0, categories=2, keypoints=3, score_levels=1, whole_pixels=True))
@example(Case(3, images=1, objects=30, detections=100, categories=1, keypoints=17, score_levels=4, whole_pixels=True))
def test_all_ten_numbers_equal_pycocotools_to_the_last_bit(case: Case) -> None:
    truth, detections, sigmas, categories = build(case)
    known, found = coco_objects(truth, detections, categories)
    ours = keypoint_ap(match(truth, detections, sigmas))
    assert list(ours) == NAMES
    assert list(ours.values()) == pycocotools_ap(known, found, sigmas)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(5, images=30, objects=90, detections=200, categories=2, keypoints=5, score_levels=9, whole_pixels=False)
    truth, detections, sigmas, _ = build(case)
    weights = np.random.default_rng(0).integers(0, 3, (7, case.images))
    at_once = match(truth, detections, sigmas)
    resampled = bootstrap_ap(at_once, weights)
    monkeypatch.setattr(module, "PAIRS_PER_BLOCK", 10)
    monkeypatch.setattr(module, "CURVE_POINTS_PER_BLOCK", 10)
    in_pieces = match(truth, detections, sigmas)
    assert all(np.array_equal(getattr(in_pieces, name), value) for name, value in vars(at_once).items())
    assert bootstrap_ap(in_pieces, weights) == pytest.approx(resampled, abs=1e-12)


# ------------------------------------------------------------------------------------------------- by hand


def one_point_truth(n: int, **changes: np.ndarray) -> Truth:
    """n objects of 100 x 100 pixels, one keypoint at the origin each, one image each."""
    truth = Truth(
        image_ids=np.arange(n),
        category_ids=np.zeros(n, int),
        keypoints=np.zeros((n, 1, 2)),
        visibility=np.full((n, 1), 2, np.uint8),
        areas=np.full(n, 100.0**2),
        boxes=np.tile([0.0, 0.0, 100.0, 100.0], (n, 1)),
        crowd=np.zeros(n, bool),
        ids=np.arange(n),
    )
    return replace(truth, **changes)


def at_oks(similarities: list[float], scores: list[float]) -> Detections:
    """One detection per image whose OKS is as given, for sigma 0.05 and an area of 100 x 100."""
    distance = 100 * 2 * 0.05 * np.sqrt(-2 * np.log(similarities))
    points = np.stack([distance, np.zeros_like(distance)], axis=1)[:, None]
    n = len(scores)
    return Detections(np.arange(n), np.zeros(n, int), points, np.array(scores))


SIGMA = np.array([0.05])


def test_oks_by_hand() -> None:
    truth = one_point_truth(3)
    predicted = np.array([[[0.0, 0.0]], [[6.0, 8.0]], [[10.0, 10.0]]])  # k s = 10 px: d^2 / (2 s^2 k^2) = 0, 1/2, 1
    assert oks(predicted, truth, SIGMA) == pytest.approx(np.exp([0, -0.5, -1]))


def test_oks_counts_labelled_keypoints_only() -> None:
    truth = replace(one_point_truth(1), keypoints=np.zeros((1, 3, 2)), visibility=np.array([[1, 0, 2]], np.uint8))
    predicted = np.array([[[0.0, 0.0], [500.0, 0.0], [10.0, 0.0]]])
    assert oks(predicted, truth, SIGMA.repeat(3)) == pytest.approx([(1 + np.exp(-0.5)) / 2])


def test_oks_to_an_object_without_labels_is_the_distance_to_its_widened_box() -> None:
    truth = one_point_truth(2, visibility=np.zeros((2, 1), np.uint8))
    predicted = np.array([[[199.0, -99.0]], [[210.0, 0.0]]])  # the box from -100 to 200: inside; 10 px outside
    assert oks(predicted, truth, SIGMA) == pytest.approx([1, np.exp(-0.5)])


def test_ap_by_hand() -> None:
    """Two objects, the better ranked found at OKS 0.82, the other at 0.62: thresholds .5 .55 .6 have both (AP 1),
    .65 to .8 the first only: precision 1 up to recall 0.5, which 51 of the 101 recalls are; .85 up have none."""
    metrics = keypoint_ap(match(one_point_truth(2), at_oks([0.82, 0.62], [0.9, 0.8]), SIGMA))
    assert metrics["AP"] == pytest.approx((3 * 1 + 4 * 51 / 101) / 10)
    assert metrics["AP50"] == pytest.approx(1)
    assert metrics["AP75"] == pytest.approx(51 / 101)
    assert metrics["AR"] == pytest.approx((3 * 1 + 4 * 0.5) / 10)
    assert metrics["APm"] == -1
    assert "APm" not in defined(metrics)
    assert defined(metrics)["APl"] == metrics["AP"]


def test_a_wrong_detection_ranked_first_halves_precision() -> None:
    metrics = keypoint_ap(match(one_point_truth(2), at_oks([0.1, 0.99], [0.9, 0.8]), SIGMA))
    assert metrics["AP"] == pytest.approx(51 / 101 / 2)  # recall 0.5 at precision 1/2


def test_a_truth_with_id_zero_is_a_truth() -> None:
    assert keypoint_ap(match(one_point_truth(1), at_oks([0.99], [0.5]), SIGMA))["AP"] == pytest.approx(1)


def test_truth_of_instances_has_the_images_that_hold_one() -> None:
    skeleton = Skeleton("dot", ("dot",), (), (), SIGMA)
    truth = one_point_truth(2)
    instances = Instances(
        skeleton=skeleton,
        image_files=(Path("a"), Path("b"), Path("c")),
        image_ids=np.array([7, 8, 9]),
        image_groups=("", "", ""),
        image_index=np.array([2, 0]),
        ids=truth.ids,
        category_ids=truth.category_ids,
        boxes=truth.boxes.astype(np.float32),
        keypoints=truth.keypoints.astype(np.float32),
        visibility=truth.visibility,
        areas=truth.areas,
        crowd=truth.crowd,
    )
    made = Truth.from_instances(instances)
    assert made.image_ids.tolist() == [9, 7]
    assert made.evaluated_images().tolist() == [7, 9]
    assert made.keypoints.dtype == np.float64


def test_a_prediction_that_is_not_finite_is_refused() -> None:
    keypoints = np.array([[[0.0, 0]], [[np.nan, 0]]])
    with pytest.raises(DataError, match="detection 1 in image 1: its keypoints are not finite"):
        match(one_point_truth(2), replace(at_oks([0.9] * 2, [1.0] * 2), keypoints=keypoints), SIGMA)


def test_a_truth_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="annotation 1: its areas are not finite"):
        match(one_point_truth(2, areas=np.array([1.0, np.inf])), at_oks([0.9] * 2, [1.0] * 2), SIGMA)


def test_a_detection_in_an_unknown_image_is_refused() -> None:
    with pytest.raises(DataError, match="detection in image 1: that image is not among the 1 evaluated"):
        match(one_point_truth(1), at_oks([0.9, 0.9], [1.0, 1.0]), SIGMA)


# ------------------------------------------------------------------------------------- saved, and resampled


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CASES)
def test_saved_matches_come_back_whole(case: Case) -> None:
    truth, detections, sigmas, _ = build(case)
    matches = match(truth, detections, sigmas)
    back = Matches.from_arrays(matches.arrays())
    assert all(np.array_equal(getattr(back, name), value) for name, value in vars(matches).items())
    assert keypoint_ap(back) == keypoint_ap(matches)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(CASES)
def test_bootstrap_with_every_image_once_is_ap(case: Case) -> None:
    truth, detections, sigmas, _ = build(case)
    matches = match(truth, detections, sigmas)
    once = bootstrap_ap(matches, np.ones((3, len(matches.images)), np.int64))
    ap = keypoint_ap(matches)["AP"]
    assert np.isnan(once).all() if ap == -1 else once == pytest.approx([ap] * 3, abs=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(CASES)
def test_bootstrap_is_pycocotools_on_repeated_images(case: Case) -> None:
    truth, detections, sigmas, categories = build(case)
    detections = replace(detections, scores=-rank_within(detections.image_ids).astype(float))  # ties across images only
    matches = match(truth, detections, sigmas)
    weights = np.random.default_rng(case.seed).integers(0, 4, (1, len(matches.images)))
    expected = pycocotools_ap(*coco_objects(*repeated(truth, detections, weights[0]), categories), sigmas)[0]
    assert np.nan_to_num(bootstrap_ap(matches, weights), nan=-1) == pytest.approx([expected], abs=1e-12)


def rank_within(groups: np.ndarray) -> np.ndarray:
    """0, 1, 2 ... for the members of each group."""
    return np.array([np.count_nonzero(groups[:i] == group) for i, group in enumerate(groups)], int)


def repeated(truth: Truth, detections: Detections, times: np.ndarray) -> tuple[Truth, Detections]:
    """The data set with image i written out `times[i]` times, copies next to each other."""
    copies = [10 * image + copy for image, n in zip(truth.evaluated_images(), times, strict=True) for copy in range(n)]
    rows, images = copied(truth.image_ids, copies)
    known = replace(truth.take(rows), image_ids=images, ids=np.arange(1, len(rows) + 1), images=np.array(copies, int))
    rows, images = copied(detections.image_ids, copies)
    columns = (getattr(detections, name)[rows] for name in ("category_ids", "keypoints", "scores"))
    return known, Detections(images, *columns)


def copied(image_ids: np.ndarray, copies: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of each copy's image, and the copy each is for."""
    rows = [np.flatnonzero(image_ids == copy // 10) for copy in copies]
    return np.concatenate([np.zeros(0, int), *rows]), np.repeat(copies, [len(each) for each in rows]).astype(int)


def test_thresholds_hold_the_two_that_have_a_name() -> None:
    assert THRESHOLDS[[0, 5]].tolist() == [0.5, 0.75]
