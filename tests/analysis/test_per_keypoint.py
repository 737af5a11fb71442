import numpy as np
import pytest
from matplotlib.figure import Figure

from posesweep.analysis.per_keypoint import (
    PerKeypoint,
    Unlearned,
    comparison,
    draw_keypoint_map,
    keypoint_map,
    per_keypoint,
    unlearned,
)
from posesweep.analysis.results import Evidence
from posesweep.datasets.skeleton import Skeleton

SKELETON = Skeleton("three", ("nose", "left_ear", "right_ear"), (("left_ear", "right_ear"),), (), np.full(3, 0.05))


def _evidence(errors: list[list[float]], visibility: list[list[int]]) -> Evidence:
    """Objects of area 10,000 in boxes of 100 x 60; so 2 s^2 k^2 = 2 * 10,000 * 0.1^2 = 200."""
    error = np.array(errors, dtype=np.float64)
    n, K = error.shape
    truth = np.zeros((n, K, 2))
    arrays = {
        "id": np.arange(n),
        "image_id": np.arange(n),
        "box": np.tile([0.0, 0.0, 100.0, 60.0], (n, 1)),
        "area": np.full(n, 10_000.0),
        "keypoints": truth + np.stack([np.nan_to_num(error), np.zeros((n, K))], axis=-1),
        "true_keypoints": truth,
        "visibility": np.array(visibility, np.uint8),
        "oks": np.ones(n),
        "error_px": error,
    }
    return Evidence.from_arrays(arrays)


def test_by_hand() -> None:
    nan = np.nan
    numbers = per_keypoint(_evidence([[10, 0, nan], [20, 4, nan]], [[2, 1, 0], [2, 2, 0]]), SKELETON)
    assert numbers.names == SKELETON.keypoints
    assert numbers.count.tolist() == [2, 2, 0]
    # exp(-100 / 200) and exp(-400 / 200); 1 and exp(-16 / 200); nothing
    assert numbers.oks[:2] == pytest.approx([(np.exp(-0.5) + np.exp(-2)) / 2, (1 + np.exp(-0.08)) / 2])
    assert numbers.error_px[:2] == pytest.approx([15, 2])
    assert numbers.pck[:2] == pytest.approx([0, 1])  # within 5 px, 5 % of 100
    assert np.isnan([numbers.oks[2], numbers.error_px[2], numbers.pck[2]]).all()


def test_unlabelled_points_never_count_whatever_their_error() -> None:
    numbers = per_keypoint(_evidence([[10, 3, 0], [9999, 3, 0]], [[2, 2, 2], [0, 2, 2]]), SKELETON)
    assert numbers.error_px.tolist() == [10, 3, 0]


def test_comparison_puts_the_weakest_first_and_the_never_labelled_last() -> None:
    seen = [[2, 2, 0]]
    winner = per_keypoint(_evidence([[3, 10, np.nan]], seen), SKELETON)
    baseline = per_keypoint(_evidence([[3, 20, np.nan]], seen), SKELETON)
    table = comparison(winner, baseline)
    assert table["keypoint"].tolist() == ["left_ear", "nose", "right_ear"]
    assert table.loc[0, "error_px_gain"] == -10
    assert table.loc[0, "oks_gain"] == pytest.approx(np.exp(-0.5) - np.exp(-2))
    assert table.loc[1, "oks_gain"] == 0
    assert comparison(winner, None)["oks_gain"].isna().all()


def test_map_has_a_column_per_trial_in_order() -> None:
    seen = [[2, 2, 2]]
    worse = per_keypoint(_evidence([[20, 20, 20]], seen), SKELETON)
    better = per_keypoint(_evidence([[0, 0, 10]], seen), SKELETON)
    numbers = keypoint_map({7: better, 0: worse})
    assert numbers.trials == (7, 0)
    assert numbers.oks == pytest.approx(np.array([[1, np.exp(-2)], [1, np.exp(-2)], [np.exp(-0.5), np.exp(-2)]]))
    ax = Figure().subplots()
    draw_keypoint_map(numbers, ax, {0: "0 baseline"})
    assert [text.get_text() for text in ax.texts] == ["100", "14", "100", "14", "61", "14"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["7", "0 baseline"]


def test_a_keypoint_that_only_the_winner_lacks_was_not_learned() -> None:
    """PCK at 0.05 of the box: a keypoint that nobody finds is a hard one, and one found half as often is only worse."""
    numbers = {
        trial: PerKeypoint(("nose", "hip", "tail"), np.full(3, 10), np.ones(3), np.zeros(3), np.array(pck))
        for trial, pck in {7: [0.2, 0.3, 0.1], 0: [0.9, 0.7, 0.2], 3: [0.8, np.nan, 0.3]}.items()
    }
    assert unlearned(numbers, 7) == (Unlearned("nose", 0.2, 0, 0.9),)
    assert unlearned(numbers, 0) == ()
    assert unlearned(numbers, 3) == (), "never labelled is not unlearned"
