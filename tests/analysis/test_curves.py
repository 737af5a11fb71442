from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from posesweep.analysis.curves import Curve, LearningCurves, draw_curves, learning_curves, rung_epochs
from posesweep.analysis.results import read_sweep_folder
from tests.analysis.fake_sweep import TRIALS, write_fake_sweep


@pytest.mark.parametrize(
    ("stopping", "full", "rungs"),
    [
        ({"type": "asha", "min_epochs": 2, "eta": 3}, 18, (2, 6)),  # the next would be the end itself
        ({"type": "asha", "min_epochs": 2, "eta": 3}, 19, (2, 6, 18)),
        ({"type": "hyperband", "min_epochs": 10, "eta": 4}, 200, (10, 40, 160)),
        ({}, 10, (1, 3, 9)),  # the defaults
        ({"type": "median", "min_epochs": 2}, 18, ()),
        ({"type": "none"}, 18, ()),
        ({"min_epochs": 2}, None, ()),
        (None, 18, ()),
    ],
)
def test_rungs(stopping: dict | None, full: int | None, rungs: tuple[int, ...]) -> None:
    assert rung_epochs({"early_terminate": stopping}, full) == rungs


def test_epochs_without_validation_are_left_out(tmp_path: Path) -> None:
    write_fake_sweep(tmp_path, TRIALS[:3], objects=4)
    (tmp_path / "trials/0001/metrics.jsonl").write_text(
        '{"epoch": 1, "loss": 2}\n{"epoch": 2, "loss": 1, "val/AP": 0.25}\n{"epoch": 3, "loss": 1}\n'
    )
    (tmp_path / "trials/0002/metrics.jsonl").write_text('{"epoch": 1, "loss": 2}\n')
    numbers = learning_curves(read_sweep_folder(tmp_path))
    assert [(curve.trial, curve.state, len(curve.epochs)) for curve in numbers.curves] == [
        (0, "finished", 18),
        (1, "finished", 1),
    ]
    assert (numbers.curves[1].epochs[0], numbers.curves[1].values[0]) == (2, 0.25)
    assert numbers.rungs == (2, 6)


def test_a_stopped_trial_ends_in_a_cross_and_the_winner_lies_on_top() -> None:
    def curve(trial: int, state: str) -> Curve:
        return Curve(trial, state, np.array([1, 2]), np.array([0.1, 0.2 + trial / 10]))

    numbers = LearningCurves("val/AP", (curve(4, "finished"), curve(0, "finished"), curve(2, "pruned")), (2,))
    ax = Figure().subplots()
    draw_curves(numbers, ax, winner=4, baseline=0)
    crosses = [line for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(2, 0.4)]
    full = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != line.get_xdata()[1]]
    assert [line.get_label() for line in full][1:] == ["trial 0, the baseline", "trial 4, the winner"]
    assert ax.get_ylabel() == "AP"
