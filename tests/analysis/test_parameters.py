import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from posesweep.analysis.parameters import Slice, draw_slice, slices
from posesweep.analysis.results import read_sweep_folder
from tests.analysis.fake_sweep import TRIALS, FakeTrial, write_fake_sweep


def _by_name(folder: Path) -> dict[str, Slice]:
    return {one.name: one for one in slices(read_sweep_folder(folder))}


def test_one_slice_per_parameter_that_varied(tmp_path: Path) -> None:
    found = _by_name(write_fake_sweep(tmp_path, objects=4))
    assert list(found) == ["lr0", "codec", "sigma", "freeze", "aug_strength"]
    assert found["lr0"].log
    assert not found["aug_strength"].log
    assert found["lr0"].places[0] == 5e-4
    assert found["codec"].categories == ("heatmap", "simcc")
    assert found["codec"].places.tolist()[:4] == [0, 0, 1, 1]
    assert found["sigma"].trials.tolist() == [0, 1, 4, 6, 9, 10]  # where the codec is heatmap
    assert found["lr0"].full.tolist() == [trial.state == "finished" for trial in TRIALS]


def test_a_parameter_with_one_value_has_no_slice(tmp_path: Path) -> None:
    trials = [FakeTrial(0.03, {"lr0": 1e-3, "freeze": n, "flag": n == 0}) for n in range(2)]
    found = _by_name(write_fake_sweep(tmp_path, trials, objects=4))
    assert list(found) == ["freeze", "flag"]
    assert found["flag"].categories == ("False", "True")


def test_whole_numbers_among_choices_are_one_category_each(tmp_path: Path) -> None:
    """A column with gaps holds 32.0 where the sweep file says 32."""
    trials = [FakeTrial(0.03, {"batch": 32}), FakeTrial(0.04, {"batch": 64}), FakeTrial(0.05, {"codec": "simcc"})]
    write_fake_sweep(tmp_path, trials, objects=4)
    space = json.loads((tmp_path / "space.json").read_text())
    space["parameters"]["batch"] = {"kind": "categorical", "values": [32, 64], "when": {"codec": ["heatmap"]}}
    (tmp_path / "space.json").write_text(json.dumps(space))
    found = _by_name(tmp_path)["batch"]
    assert found.categories == ("32", "64")
    assert found.places.tolist() == [0, 1]


def test_trials_of_one_category_do_not_hide_each_other() -> None:
    numbers = Slice("codec", False, ("a", "b"), np.array([1, 2]), np.zeros(2), np.array([0.5, 0.5]), np.ones(2, bool))
    ax = Figure().subplots()
    draw_slice(numbers, ax, winner=2)
    places = ax.collections[1].get_offsets()[:, 0]
    assert abs(places[0] - places[1]) > 0.02
    assert np.abs(places).max() < 0.2
    assert ax.collections[3].get_offsets()[0].tolist() == [places[1], 0.5]  # the winner's dot lies on its trial
