"""Keypoint errors computed by hand."""

import numpy as np
import pytest

from posesweep.analysis.keypoint_ap import Truth, oks
from posesweep.analysis.keypoint_errors import KeypointErrors, error_metrics, keypoint_similarity, per_keypoint


def by_hand() -> KeypointErrors:
    """Two objects, three keypoints; distances 0, 5, (not labelled) and 10, 20, 40 px; boxes 100 x 25 and 50 x 200."""
    predicted = np.array([[[1, 1], [3, 4], [900, 900]], [[10, 0], [0, 20], [24, 32]]], float)
    true = np.zeros((2, 3, 2))
    true[0, 0] = 1
    visibility = np.array([[2, 1, 0], [2, 2, 1]], np.uint8)
    boxes = np.array([[5.0, 5.0, 100.0, 25.0], [0.0, 0.0, 50.0, 200.0]])
    return KeypointErrors.between(predicted, true, visibility, boxes)


def test_distances_are_nan_where_not_labelled() -> None:
    assert by_hand().distance_px == pytest.approx(np.array([[0, 5, np.nan], [10, 20, 40]]), nan_ok=True)


def test_metrics_by_hand() -> None:
    metrics = error_metrics(by_hand())
    assert metrics == {
        "PCK@0.05": pytest.approx(3 / 5),  # 0/100, 5/100 (the border counts), 10/200; not 20/200, 40/200
        "PCK@0.2": pytest.approx(1),  # 40/200 is the border
        "NME": pytest.approx((0 / 50 + 5 / 50 + 10 / 100 + 20 / 100 + 40 / 100) / 5),
        "RMSE_px": pytest.approx(np.sqrt((0 + 25 + 100 + 400 + 1600) / 5)),
        "mean_error_px": pytest.approx(75 / 5),
    }


def test_nothing_labelled_has_no_metrics() -> None:
    errors = KeypointErrors.between(
        np.ones((1, 2, 2)), np.zeros((1, 2, 2)), np.zeros((1, 2), np.uint8), np.ones((1, 4))
    )
    assert error_metrics(errors) == {}


def test_a_box_without_size_counts_as_a_pixel() -> None:
    errors = KeypointErrors(np.array([[0.5]]), np.zeros((1, 4)))
    assert error_metrics(errors)["NME"] == 0.5


def test_table_by_hand() -> None:
    errors = by_hand()
    table = per_keypoint(errors, np.array([[1, 0.5, np.nan], [0.5, 0.25, 0.125]]), ["nose", "eye", "tail"])
    assert table["labelled"].tolist() == [2, 2, 1]
    assert table["OKS"].tolist() == [0.75, 0.375, 0.125]
    assert table["mean_error_px"].tolist() == [5, 12.5, 40]
    assert table["RMSE_px"].tolist() == pytest.approx([np.sqrt(50), np.sqrt(212.5), 40])
    assert table["PCK@0.05"].tolist() == [1, 0.5, 0]


def test_a_keypoint_that_is_never_labelled_has_no_figures() -> None:
    table = per_keypoint(KeypointErrors(np.array([[np.nan]]), np.ones((1, 4))), np.array([[np.nan]]), ["tail"])
    assert table["labelled"].item() == 0
    assert table.drop(columns=["keypoint", "labelled"]).isna().all(axis=None)


def test_similarities_are_the_parts_of_oks() -> None:
    rng = np.random.default_rng(0)
    n, K = 20, 6
    visibility = rng.choice(np.array([0, 1, 2], np.uint8), (n, K))
    visibility[:, 0] = 2
    truth = Truth(
        image_ids=np.arange(n),
        category_ids=np.ones(n, int),
        keypoints=rng.uniform(0, 100, (n, K, 2)),
        visibility=visibility,
        areas=rng.uniform(100, 9000, n),
        boxes=rng.uniform(1, 100, (n, 4)),
        crowd=np.zeros(n, bool),
        ids=np.arange(n),
    )
    predicted, sigmas = truth.keypoints + rng.normal(0, 5, (n, K, 2)), rng.uniform(0.02, 0.1, K)
    errors = KeypointErrors.between(predicted, truth.keypoints, visibility, truth.boxes)
    assert np.nanmean(keypoint_similarity(errors, truth.areas, sigmas), axis=1) == pytest.approx(
        oks(predicted, truth, sigmas)
    )
