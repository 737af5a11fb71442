from pathlib import Path

import numpy as np
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from posesweep.analysis.drawing import BASELINE, GREY, WINNER
from posesweep.analysis.parallel import UNUSED, Axis, Parallel, draw_parallel, parallel, parallel_table
from posesweep.analysis.results import read_sweep_folder
from tests.analysis.fake_sweep import TRIALS, FakeTrial, write_fake_sweep


def _axes(numbers: Parallel | None) -> dict[str, Axis]:
    assert numbers is not None
    return {axis.name: axis for axis in numbers.axes}


def test_axes_span_what_was_searched_log_categorical_and_conditional(tmp_path: Path) -> None:
    numbers = parallel(read_sweep_folder(write_fake_sweep(tmp_path, TRIALS[:4], objects=4)))
    axes = _axes(numbers)
    assert numbers is not None
    assert list(axes) == ["lr0", "codec", "sigma", "freeze", "aug_strength", "AP"]
    row = {trial: i for i, trial in enumerate(numbers.trials.tolist())}
    # lr0 was searched from 1e-5 to 1e-2: 5e-4 lies log(50) / log(1000) up
    assert np.isclose(axes["lr0"].heights[row[0]], np.log(50) / np.log(1000))
    assert [text for _, text in axes["lr0"].ticks] == ["1e-05", "0.0001", "0.001", "0.01"]
    assert [axes["codec"].heights[row[trial]] for trial in (0, 2)] == [0.0, 1.0]
    assert axes["codec"].ticks == ((0.0, "heatmap"), (1.0, "simcc"))
    assert np.isclose(axes["sigma"].heights[row[0]], 1 / 3)  # 2.0 of 1 to 4
    assert np.isnan(axes["sigma"].heights[[row[2], row[3]]]).all()  # simcc has none
    assert [text for _, text in axes["freeze"].ticks] == ["0", "1", "2", "3", "4"]  # whole numbers only
    assert [axis.name for axis in axes.values() if axis.conditional] == ["sigma"]
    assert (axes["AP"].heights.min(), axes["AP"].heights.max()) == (0.0, 1.0)


def test_the_best_come_last_so_that_they_lie_on_top(tmp_path: Path) -> None:
    results = read_sweep_folder(write_fake_sweep(tmp_path, TRIALS[:4], objects=12))
    numbers = parallel(results)
    assert numbers is not None
    value = results.trials.set_index("trial")["value"]
    assert value[numbers.trials].is_monotonic_increasing
    assert numbers.merit.tolist() == sorted(numbers.merit)
    assert list(parallel_table(numbers, results)["trial"]) == numbers.trials.tolist()[::-1]


def test_where_small_is_good_the_smallest_is_the_best(tmp_path: Path) -> None:
    write_fake_sweep(tmp_path, TRIALS[:2], objects=12)
    space = (tmp_path / "space.json").read_text()
    (tmp_path / "space.json").write_text(space.replace('{"name": "val/AP", "goal": "maximize"}', '"val/RMSE_px"'))
    results = read_sweep_folder(tmp_path)
    numbers = parallel(results)
    assert numbers is not None
    assert numbers.trials[-1] == results.trials["value"].idxmin()
    assert numbers.merit[-1] == 1


def test_values_outside_the_range_widen_it_and_a_lonely_value_has_an_axis_all_the_same(tmp_path: Path) -> None:
    trials = [FakeTrial(0.03, {"lr0": lr0, "momentum": 0.9}) for lr0 in (1e-3, 1e-1)]
    trials.append(FakeTrial(0.04, {"lr0": 1e-3}))
    axes = _axes(parallel(read_sweep_folder(write_fake_sweep(tmp_path, trials, objects=4))))
    assert sorted(axes["lr0"].heights) == [0.5, 0.5, 1.0]  # 1e-5 to 1e-1, though 1e-2 was the end
    assert axes["momentum"].conditional  # one value, but not in all trials
    np.testing.assert_allclose(axes["momentum"].heights[~np.isnan(axes["momentum"].heights)], 0.5)


def test_there_must_be_something_to_see(tmp_path: Path) -> None:
    same = [FakeTrial(0.03 + n / 100, {"lr0": 1e-3}) for n in range(2)]
    assert parallel(read_sweep_folder(write_fake_sweep(tmp_path / "same", same, objects=4))) is None
    assert parallel(read_sweep_folder(write_fake_sweep(tmp_path / "one", TRIALS[:1], objects=4))) is None
    assert parallel(read_sweep_folder(write_fake_sweep(tmp_path / "none", (), objects=4))) is None


def test_a_sweep_file_alone_says_min_and_max(tmp_path: Path) -> None:
    write_fake_sweep(tmp_path, TRIALS[:4], objects=4)
    resolved = _axes(parallel(read_sweep_folder(tmp_path)))
    (tmp_path / "space.json").unlink()
    plain = _axes(parallel(read_sweep_folder(tmp_path)))
    assert [axis.ticks for axis in plain.values()] == [axis.ticks for axis in resolved.values()]


def test_where_every_trial_failed_there_is_no_figure_and_no_error(tmp_path: Path) -> None:
    failed = [FakeTrial(0.03, {"lr0": lr0}, "failed", 0, "out of memory") for lr0 in (1e-4, 1e-3)]
    assert parallel(read_sweep_folder(write_fake_sweep(tmp_path, failed, objects=4))) is None


def test_a_log_parameter_that_no_scored_trial_has_gets_no_axis(tmp_path: Path) -> None:
    trials = [FakeTrial(0.03 + n / 100, {"freeze": n}) for n in range(2)]
    trials.append(FakeTrial(0.03, {"freeze": 1, "lr0": 1e-3}, "failed", 0, "out of memory"))
    numbers = parallel(read_sweep_folder(write_fake_sweep(tmp_path, trials, objects=4)))
    assert list(_axes(numbers)) == ["freeze", "AP"]


def test_stopped_trials_are_pale_and_below_and_the_winner_above_all() -> None:
    heights = np.array([0.1, np.nan, 0.5, 0.9])
    axes = (Axis("sigma", heights, ((0.0, "1"), (1.0, "4"))), Axis("AP", np.array([0, 0.3, 0.6, 1]), ()))
    full = np.array([True, False, True, True])
    ax = Figure().subplots()
    draw_parallel(Parallel(np.array([5, 6, 0, 7]), axes, full, axes[1].heights), ax, winner=7, baseline=0)
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
    starts = [float(line.get_ydata()[0]) for line in lines]
    assert starts == [UNUSED, 0.1, 0.5, 0.9]  # stopped, other, baseline, winner
    assert same_color(lines[0].get_color(), GREY)
    assert lines[0].get_alpha() < 0.5 < lines[1].get_alpha()
    assert (lines[2].get_color(), lines[3].get_color()) == (BASELINE, WINNER)
    assert "not used" in [text.get_text() for text in ax.texts]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "trial 7, the winner", "trial 0, the baseline", "stopped early",
    ]  # fmt: skip
