"""Which trials of earlier sweeps the sampler is shown, with which values, and what is said of the others."""

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from posesweep.errors import SweepError
from posesweep.files import to_json, trial_folder, write_json, write_text
from posesweep.search_spaces.space import Sweep, read_sweep, space_json
from posesweep.trainables.search import Search
from posesweep.trainables.warm_start import earlier_trials

OLD = """
name: old
data: {train: a.json}
fixed: {epochs: 4, batch: 8}
parameters:
  lr0: {min: 1.0e-5, max: 1.0e-1, log: true}
  codec: {values: [heatmap, simcc]}
  sigma: {min: 1.0, max: 4.0, when: {codec: heatmap}}
"""
NEW = """
name: new
data: {train: a.json}
fixed: {epochs: 4}
parameters:
  lr0: {min: 1.0e-4, max: 1.0e-2, log: true}
  batch: {values: [8, 16]}
  weight_decay: {min: 1.0e-3, max: 1.0e-1, log: true}
warm_start: old
search: {trials: 30, startup_trials: 3}
"""
TRIALS: list[tuple[str, dict[str, Any], list[float]]] = [
    ("finished", {"lr0": 1e-3, "codec": "heatmap", "sigma": 2.0}, [0.1, 0.2, 0.4, 0.3]),
    ("pruned", {"lr0": 2e-3, "codec": "simcc"}, [0.05]),
    ("finished", {"lr0": 5e-2, "codec": "simcc"}, [0.1, 0.2, 0.3, 0.35]),  # outside
    ("diverged", {"lr0": 9e-3, "codec": "simcc"}, [0.1]),
    ("failed", {"lr0": 3e-3, "codec": "simcc"}, []),
    ("running", {"lr0": 4e-3, "codec": "simcc"}, [0.2]),
    ("pruned", {"lr0": 6e-3, "codec": "simcc"}, []),  # no score is left of it
]


def sweep_of(tmp_path: Path, text: str = NEW) -> Sweep:
    (tmp_path / "s.yaml").write_text(text)
    return read_sweep(tmp_path / "s.yaml")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of an earlier sweep."""
    folder = tmp_path / "old"
    sweep = sweep_of(tmp_path, OLD)
    write_json(folder / "space.json", space_json(sweep))
    write_text(folder / "sweep.yaml", OLD)
    write_json(folder / "split.json", {"hash": "aaaa"})
    for number, (state, params, values) in enumerate(TRIALS):
        trial = trial_folder(folder, number)
        rows = [{"epoch": epoch, "val/AP": value} for epoch, value in enumerate(values, 1)]
        write_text(trial / "metrics.jsonl", "".join(to_json(row).replace("\n", "") + "\n" for row in rows))
        write_json(trial / "status.json", {"trial": number, "state": state, "role": "search", "params": params})
        write_text(trial / "config.yaml", yaml.safe_dump({"epochs": 4, "batch": 8, "weight_decay": 0.0, **params}))
    return folder


def test_trials_within_the_new_ranges_are_shown(tmp_path, old):
    trials, notes = earlier_trials(sweep_of(tmp_path), tmp_path / "runs", "aaaa")
    assert [(trial.state.name, trial.value, trial.params) for trial in trials] == [
        ("COMPLETE", 0.4, {"lr0": 1e-3, "batch": 8}),
        ("COMPLETE", pytest.approx(0.05 + 0.2), {"lr0": 2e-3, "batch": 8}),
        ("PRUNED", None, {"lr0": 9e-3, "batch": 8}),
    ], "the second was stopped at 0.05 after epoch 1; from there the first gained 0.2; the third diverged"
    assert notes == [
        f"warm_start: {old}: 3 trials shown to the sampler, with lr0",
        f"warm_start: {old}: codec, sigma not searched here, so not carried over",
        f"warm_start: {old}: left out 1 trial outside the ranges (lr0 of 1 trial)",
        f"warm_start: {old}: says nothing of weight_decay",
    ]


def test_once_begun_the_earlier_folder_is_not_needed(tmp_path, old):
    sweep = sweep_of(tmp_path)
    first, _ = earlier_trials(sweep, tmp_path / "runs", "aaaa")
    shutil.rmtree(old)
    again, notes = earlier_trials(sweep, tmp_path / "runs", "aaaa")
    assert [(t.params, t.value) for t in again] == [(t.params, t.value) for t in first]
    assert notes == [], "said once"


def test_the_sampler_begins_from_what_is_known(tmp_path, old):
    """With the past trials there are as many as startup_trials, so that the third is no longer random."""
    sweep = sweep_of(tmp_path)
    warm, cold = Search.open(sweep, tmp_path / "a"), Search.open(sweep, tmp_path / "b")
    warm.earlier, _ = earlier_trials(sweep, tmp_path / "a", "aaaa")
    for search in (warm, cold):
        search.next_trial()  # the baseline
    first = [warm.next_trial().params, cold.next_trial().params]
    assert first[0] != first[1]
    again = Search.open(sweep, tmp_path / "c")
    again.earlier = warm.earlier
    again.next_trial()
    assert again.next_trial().params == first[0], "a function of the folder"


def test_many_past_trials_with_fewer_parameters_can_be_sampled_from(tmp_path, old):
    sweep = sweep_of(tmp_path)
    trials, _ = earlier_trials(sweep, tmp_path / "runs", "aaaa")
    search = Search.open(sweep, tmp_path / "runs")
    search.earlier = trials * 8
    for _ in range(6):
        proposal = search.next_trial()
        assert set(proposal.params) == {"lr0", "batch", "weight_decay"}
        search.report(proposal.number, 4, 0.5)
        search.finish(proposal.number)


def test_past_trials_are_none_of_this_search(tmp_path, old):
    sweep = sweep_of(tmp_path)
    search = Search.open(sweep, tmp_path / "runs")
    search.earlier, _ = earlier_trials(sweep, tmp_path / "runs", "aaaa")
    search.next_trial()
    assert len(search.proposals()) == 1
    assert search.history() == {0: {}}
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "runs" / "journal.log"))
    )
    assert len(storage.get_all_trials(0)) == 1


def test_shorter_trainings_and_other_data_are_said(tmp_path, old):
    sweep = sweep_of(tmp_path, NEW.replace("epochs: 4", "epochs: 2"))
    trials, notes = earlier_trials(sweep, tmp_path / "runs", "bbbb")
    assert trials[0].value == 0.2, "what it had reached when a trial here ends"
    assert notes[-2:] == [
        f"warm_start: {old}: trained 4 epochs, here it is 2; its scores count as they were",
        f"warm_start: {old}: had other data or another split; its scores count as they were",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (NEW + "metric: {name: val/NME}\n", r"warm_start: .*old was ranked by val/AP, this sweep is by val/NME"),
        (NEW.replace("old\n", "nothing\n"), r"warm_start: .*nothing: there is no such folder"),
        (
            NEW.replace("lr0: {min: 1.0e-4, max: 1.0e-2, log: true}", "momentum: {min: 0.1, max: 0.9}"),
            r"warm_start: .*old searched lr0, codec, sigma, of which nothing is searched here \(momentum, batch",
        ),
        (
            NEW.replace("max: 1.0e-2, log", "max: 2.0e-4, log"),
            r"warm_start: .*old has no trial within the ranges of this sweep \(lr0 of 5 trials\); widen the ranges",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_refused(tmp_path, old, text, sentence):
    with pytest.raises(SweepError, match=sentence):
        earlier_trials(sweep_of(tmp_path, text), tmp_path / "runs", "aaaa")
    assert not (tmp_path / "runs" / "warm_start.json").exists()
