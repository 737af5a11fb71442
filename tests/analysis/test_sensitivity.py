"""The order of trials under other OKS sigmas: a case where the winner changes, the words, the picture."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from posesweep.analysis.drawing import WINNER
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import SweepResults, read_sweep_folder
from posesweep.analysis.sensitivity import ap_with, draw_sensitivity, sensitivity
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import SIGMAS, TRIALS, FakeTrial, write_fake_sweep


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    return read_sweep_folder(write_fake_sweep(tmp_path_factory.mktemp("fake") / "ponies"))


def move(folder: Path, trial: int, offsets_px: np.ndarray) -> None:
    """Put every prediction of a trial so many pixels beside the truth."""
    file = trial_folder(folder, trial) / "evidence.npz"
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["keypoints"] = arrays["true_keypoints"] + np.stack([offsets_px, np.zeros_like(offsets_px)], axis=-1)
    np.savez(file, **arrays)


def test_with_the_sigmas_as_they_are_it_is_the_ap_of_the_sweep(results):
    numbers = sensitivity(results, ranked(results))
    recorded = results.trials.set_index("trial")["AP"]
    again = numbers.table.set_index("trial")["AP x1"]
    assert len(again) == sum(trial.state == "finished" for trial in TRIALS)
    assert again.to_dict() == pytest.approx(recorded[again.index].to_dict(), abs=1e-12)
    assert (numbers.table["AP x0.5"] <= numbers.table["AP x1"]).all()
    assert (numbers.table["AP x1"] <= numbers.table["AP x2"]).all()
    assert numbers.correlation[1] == 1


def test_a_winner_that_hangs_on_the_sigmas_is_named(tmp_path):
    """Trial 0 is off by little everywhere; trial 1 is exact on half of the objects and far off on the other half. Wide
    sigmas forgive trial 0 everything, narrow ones nothing."""
    folder = write_fake_sweep(tmp_path / "ponies", [FakeTrial(0.03), FakeTrial(0.03)], objects=40)
    found = read_sweep_folder(folder).evidence(0)
    assert found is not None
    unit = np.sqrt(found.areas)[:, None] * 2 * SIGMAS  # k s: where a keypoint's similarity is exp(-1/2) = 0.61
    move(folder, 0, unit * 1.0)
    move(folder, 1, unit * np.where(np.arange(40) % 2 == 0, 0.0, 20.0)[:, None])
    results = read_sweep_folder(folder)
    numbers = sensitivity(results, ranked(results))
    # x2: similarity exp(-1/8) = 0.88, above 8 of 10 thresholds; x1: 0.61, above 3; x0.5: exp(-2) = 0.14, above none
    mine = numbers.table.set_index("trial").loc[0]
    assert [mine["AP x0.5"], mine["AP x1"], mine["AP x2"]] == pytest.approx([0, 0.3, 0.8])
    assert numbers.winners == (1, 1, 0)
    assert numbers.sentence == "The winner hangs on the OKS sigmas: trial 1 with those given, trial 0 with sigmas x 2."
    assert np.isnan(numbers.correlation[1])  # two trials have no rank correlation to speak of


def test_the_sentence_of_a_steady_winner(results):
    numbers = sensitivity(results, ranked(results))
    assert numbers.winners == (7, 7, 7)
    assert numbers.sentence.startswith("Trial 7 has the highest AP with the OKS sigmas halved and doubled, too; rank")
    assert "correlation of all 6 trials: " in numbers.sentence


def test_undefined_ap_is_nan(results):
    evidence = results.evidence(0)
    assert evidence is not None
    evidence.visibility[:] = 0
    assert np.isnan(ap_with(evidence, SIGMAS))


def test_one_trial_and_none(tmp_path):
    results = read_sweep_folder(write_fake_sweep(tmp_path / "one", TRIALS[:1], objects=6))
    numbers = sensitivity(results, ranked(results))
    assert numbers.sentence == "Only trial 0 has predictions, so there is no order that sigmas could change."
    (trial_folder(tmp_path / "one", 0) / "evidence.npz").unlink()
    results = read_sweep_folder(tmp_path / "one")
    numbers = sensitivity(results, ranked(results))
    assert numbers.table.empty
    assert numbers.sentence == "No trial has predictions: nothing can be said."


def test_drawn_places_are_those_of_the_table(results):
    numbers = sensitivity(results, ranked(results))
    ax = Figure().subplots()
    draw_sensitivity(numbers, ax)
    first = ax.lines[0]
    assert first.get_ydata().tolist() == numbers.table.loc[0, ["rank x0.5", "rank x1", "rank x2"]].tolist()
    assert [text.get_text() for text in ax.texts] == [" trial 7"]


def test_a_confirmed_winner_is_painted_as_such(results):
    numbers = sensitivity(results, ranked(results))
    for winner, painted in ((None, 7), (9, 9)):
        ax = Figure().subplots()
        draw_sensitivity(numbers, ax, winner=winner)
        colours = dict(zip(numbers.table["trial"], (line.get_color() for line in ax.lines), strict=True))
        assert [trial for trial, colour in colours.items() if colour == WINNER] == [painted]
