"""Score against cost: the front by hand, times that are missing, the words."""

import json

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from posesweep.analysis.drawing import WINNER
from posesweep.analysis.pareto import draw_pareto, front, pareto
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import read_sweep_folder
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import TRIALS, FakeTrial, write_fake_sweep


def test_the_front_by_hand():
    cost = np.array([1.0, 2.0, 2.0, 3.0, 4.0, np.nan])
    score = np.array([0.5, 0.7, 0.6, 0.7, 0.9, 1.0])
    #                 cheapest, best at 2, beaten, as good as and dearer than the second, best, cost unknown
    assert front(cost, score).tolist() == [True, True, False, False, True, False]
    assert front(np.array([1.0, 1.0]), np.array([0.5, 0.5])).tolist() == [True, True]  # equals beat nobody
    assert front(np.zeros(0), np.zeros(0)).tolist() == []


@pytest.fixture
def folder(tmp_path):
    """Three trials; the better the larger and slower."""
    made = write_fake_sweep(tmp_path / "ponies", [FakeTrial(0.06), FakeTrial(0.03), FakeTrial(0.045)], objects=20)
    for trial, (size, ms) in enumerate([(1_000, 2.0), (4_000_000, 9.0), (2_000, 3.0)]):
        path = trial_folder(made, trial)
        status = json.loads((path / "status.json").read_text()) | {"parameters": size}
        (path / "status.json").write_text(json.dumps(status))
        times = {
            "ms": {"1": ms, "16": 10 * ms},
            "ms_flip_test": {"1": 2 * ms},
            "flip_test": trial == 1,
            "device": "cpu",
        }
        (path / "latency.json").write_text(json.dumps(times))
    return made


def test_each_trial_has_the_time_of_how_it_predicts(folder):
    results = read_sweep_folder(folder)
    numbers = pareto(results, ranked(results))
    assert numbers.table["trial"].tolist() == [1, 2, 0]
    assert numbers.table["ms_batch1"].tolist() == [18.0, 3.0, 2.0]  # trial 1 has the flip test
    assert np.isnan(numbers.table.loc[0, "ms_batch16"])
    assert numbers.table["ms_batch16"].tolist()[1:] == [30.0, 20.0]
    assert numbers.table["on_front_parameters"].all()
    assert numbers.drawable == ("parameters", "ms_batch1", "ms_batch16")
    assert numbers.notes == ("Times were measured on cpu; other machines differ.",)


def test_a_time_that_is_torn_is_not_known(folder):
    (trial_folder(folder, 0) / "latency.json").write_text('{"ms": {"1"')
    results = read_sweep_folder(folder)
    numbers = pareto(results, ranked(results))
    assert np.isnan(numbers.table.set_index("trial").loc[0, "ms_batch1"])
    assert not numbers.table.set_index("trial").loc[0, "on_front_ms_batch1"]
    assert "not measured for 1 of 3 ranked trials" in numbers.notes[0]


def test_equal_networks_have_no_front_to_draw(tmp_path):
    results = read_sweep_folder(write_fake_sweep(tmp_path / "ponies", TRIALS[:2], objects=10))
    numbers = pareto(results, ranked(results))
    assert numbers.drawable == ()
    assert numbers.notes == ("All ranked trials have the same network, so none is cheaper than another.",)


def test_a_sweep_without_a_rank(tmp_path):
    folder = write_fake_sweep(tmp_path / "ponies", [FakeTrial(0.1, state="failed", epochs=1)], objects=6)
    results = read_sweep_folder(folder)
    numbers = pareto(results, ranked(results))
    assert numbers.table.empty
    assert numbers.notes == ("No trial has a rank, so there is nothing to weigh against its cost.",)
    draw_pareto(numbers, Figure().subplots())


def test_the_smaller_the_better_turns_the_front(folder):
    space = json.loads((folder / "space.json").read_text())
    space["metric"] = {"name": "val/RMSE_px", "goal": "minimize"}
    (folder / "space.json").write_text(json.dumps(space))
    results = read_sweep_folder(folder)
    numbers = pareto(results, ranked(results))
    assert numbers.table["value"].is_monotonic_increasing
    assert numbers.table.set_index("trial")["on_front_parameters"].to_dict() == {1: True, 2: True, 0: True}


def test_dots_are_the_trials_and_the_front_is_named(folder):
    results = read_sweep_folder(folder)
    ax = Figure().subplots()
    draw_pareto(pareto(results, ranked(results)), ax, "parameters")
    assert ax.collections[0].get_offsets()[:, 0].tolist() == [4_000_000, 2_000, 1_000]
    assert sorted(text.get_text() for text in ax.texts) == ["trial 0", "trial 1", "trial 2"]
    assert ax.get_xscale() == "log"


def test_a_confirmed_winner_is_painted_as_such(folder):
    results = read_sweep_folder(folder)
    numbers = pareto(results, ranked(results))
    for winner, painted in ((None, 1), (2, 2)):
        ax = Figure().subplots()
        draw_pareto(numbers, ax, "parameters", winner=winner)
        colours = dict(zip(numbers.table["trial"], ax.collections[0].get_facecolors(), strict=True))
        assert [trial for trial, colour in colours.items() if same_color(colour, WINNER)] == [painted]
