import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from posesweep.analysis.cost import cost, draw_cost
from posesweep.analysis.results import read_sweep_folder
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import TRIALS, FakeTrial, write_fake_sweep


def _status(folder: Path, trial: int, **fields: object) -> None:
    path = trial_folder(folder, trial) / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_stopping_saved_is_the_epochs_left_at_the_trials_own_pace(tmp_path: Path) -> None:
    numbers = cost(read_sweep_folder(write_fake_sweep(tmp_path, (TRIALS[0], TRIALS[2], TRIALS[11]), objects=4)))
    # whole: 18 epochs in 93.8 s; stopped: 2 of 18 in 12.2 s, so 16 x 6.1 s left; diverged: the search saved nothing
    assert numbers.total_s == pytest.approx(93.8 + 12.2 + 22.4)
    assert numbers.trials["saved_s"].tolist()[1] == pytest.approx(97.6)
    assert numbers.saved_s == pytest.approx(97.6)
    assert numbers.saved_share == pytest.approx(97.6 / (128.4 + 97.6))
    assert numbers.trials["share"].sum() == pytest.approx(1)


def test_why_each_trial_ended_is_said_in_words(tmp_path: Path) -> None:
    folder = write_fake_sweep(tmp_path, (TRIALS[0], TRIALS[5], TRIALS[8]), objects=4)
    _status(folder, 2, state="running", reason="")
    assert list(cost(read_sweep_folder(folder)).trials["why"]) == [
        "trained to the end",
        "stopped at epoch 6: val/AP 0.144 is below 0.310, the best third of the 4 trials that came this far",
        "still running",
    ]


def test_processors_are_counted_where_the_trial_says_how_many_it_had(tmp_path: Path) -> None:
    folder = write_fake_sweep(tmp_path, TRIALS[:1] * 4, objects=4)
    _status(folder, 0, device="NVIDIA H100", workers=2, threads=8)
    _status(folder, 1, device="cpu", workers=2, threads=3)
    _status(folder, 2, device=None)
    table = cost(read_sweep_folder(folder)).trials  # trial 3: on a CPU, threads not said
    np.testing.assert_allclose(table["gpu_s"], [2 * 93.8, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(table["cpu_s"], [np.nan, 6 * 93.8, np.nan, np.nan])


def test_without_times_nothing_is_made_up(tmp_path: Path) -> None:
    folder = write_fake_sweep(tmp_path, (FakeTrial(0.1, state="running", epochs=0),), objects=4)
    _status(folder, 0, cost={}, held_s=None, ended=None)
    numbers = cost(read_sweep_folder(folder))
    assert (numbers.total_s, numbers.saved_s, numbers.saved_share) == (0, 0, None)


def test_a_bar_for_each_trial_and_its_saving_on_top(tmp_path: Path) -> None:
    numbers = cost(read_sweep_folder(write_fake_sweep(tmp_path, (TRIALS[0], TRIALS[2]), objects=4)))
    ax = Figure().subplots()
    draw_cost(numbers, ax, winner=0)
    saved, spent = ax.containers
    assert [bar.get_height() for bar in spent] == pytest.approx([93.8, 12.2])
    assert [(bar.get_y(), bar.get_height()) for bar in saved][1] == pytest.approx((12.2, 97.6))
    assert ax.get_ylabel() == "seconds"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "the winner", "to the end", "stopped early", "saved by stopping",
    ]  # fmt: skip
