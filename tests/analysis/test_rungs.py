from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from posesweep.analysis.results import SweepResults
from posesweep.analysis.rungs import rung_correlations, spearman, values_at


def results_of(curves: dict[int, dict[int, float]], finished: set[int], early: str = "asha") -> SweepResults:
    """A sweep of 9 epochs with rungs at 1 and 3."""
    trials = pd.DataFrame(
        {
            "trial": list(curves),
            "state": ["finished" if trial in finished else "pruned" for trial in curves],
            "value": [max(curve.values()) for curve in curves.values()],
        }
    )
    rows = [{"trial": t, "epoch": e, "value": v} for t, curve in curves.items() for e, v in curve.items()]
    sweep = {"fixed": {"epochs": 9}, "early_terminate": {"type": early, "min_epochs": 1, "eta": 3}}
    return SweepResults(Path("runs/x"), trials, pd.DataFrame(rows), sweep, {}, {})


def test_spearman_and_its_interval_by_hand() -> None:
    # ranks differ by 1, 1, 0, 0, 0: r = 1 - 6 * 2 / (5 * 24) = 0.9; z = artanh(0.9) -+ 1.96 sqrt((1 + 0.405) / 2)
    found = spearman(np.array([1.0, 2, 3, 4, 5]), np.array([20.0, 10, 30, 40, 90]))
    assert found is not None
    assert found.value == pytest.approx(0.9)
    half = 1.959964 * np.sqrt(1.405 / 2)
    assert (found.low, found.high) == pytest.approx((np.tanh(1.4722194 - half), np.tanh(1.4722194 + half)))


def test_spearman_where_it_is_not_defined() -> None:
    assert spearman(np.arange(4.0), np.arange(4.0)) is None
    assert spearman(np.ones(9), np.arange(9.0)) is None
    perfect = spearman(np.arange(9.0), -(np.arange(9.0) ** 3))
    assert perfect is not None
    assert (perfect.value, perfect.low, perfect.high) == (pytest.approx(-1), -1, -1)


def test_the_interval_holds_the_true_correlation() -> None:
    rng = np.random.default_rng(0)
    pearson = 0.6
    truth = 6 / np.pi * np.arcsin(pearson / 2)  # Spearman's of a normal pair (Pearson 1907)
    held = []
    for _ in range(400):
        x, noise = rng.normal(size=(2, 15))
        found = spearman(x, pearson * x + np.sqrt(1 - pearson**2) * noise)
        held.append(found is not None and found.low <= truth <= found.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_each_rung_against_the_end_over_the_finished() -> None:
    finals = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    curves = {t: {1: 0.01 * t, 3: 0.06 - 0.01 * t, 9: final} for t, final in enumerate(finals)}
    first, second = rung_correlations(results_of(curves | {9: {1: 0.9}}, finished=set(range(6))))
    assert (first.epoch, first.trials, second.epoch, second.trials) == (1, 6, 3, 6)
    assert first.spearman
    assert second.spearman
    assert (first.spearman.value, second.spearman.value) == (pytest.approx(1), pytest.approx(-1))


def test_too_few_finished_or_no_rungs() -> None:
    curves = {t: {1: 0.1 * t, 9: 0.2 * t} for t in range(3)}
    assert [each.spearman for each in rung_correlations(results_of(curves, {0, 1, 2}))] == [None, None]
    assert rung_correlations(results_of(curves, {0, 1, 2}, early="median")) == ()


def test_the_first_report_in_a_rung_counts() -> None:
    results = results_of({0: {2: 0.2, 3: 0.3, 4: 0.4}, 1: {1: 0.1}}, set())
    assert values_at(results, 2).to_dict() == {0: 0.2}
    assert values_at(results, 1, 2).to_dict() == {1: 0.1}
