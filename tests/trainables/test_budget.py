"""What a sweep took so far, read from its folder, and when that ends it."""

from dataclasses import replace
from pathlib import Path

import pytest

from posesweep.files import read_json, to_json, write_json, write_text
from posesweep.search_spaces.space import Sweep, read_sweep
from posesweep.trainables.budget import Budget, covered_s, epochs_on_record, notes_on_budget
from posesweep.trainables.cluster import Slots
from posesweep.trainables.folder import record_sweep, refuse_changes
from posesweep.trainables.search import Search
from posesweep.trainables.sweep import run_search

TEXT = """
name: s
data: {train: a.json}
fixed: {epochs: 2}
parameters: {lr0: {min: 1.0e-4, max: 1.0e-2, log: true}}
search: {trials: 5}
"""
CPU = Slots(1, 1, 0.0, 2)
GPU = Slots(2, 1, 0.5, 2)


def sweep_of(tmp_path: Path, more: str) -> Sweep:
    (tmp_path / "s.yaml").write_text(TEXT + more)
    return read_sweep(tmp_path / "s.yaml")


def trained(folder: Path, name: str, ends: list[float], seconds: float) -> None:
    """A training whose epochs ended at these hours and took so many seconds each."""
    rows = [{"epoch": i, "train_s": seconds - 1, "val_s": 1.0, "worked_until": 3600 * h} for i, h in enumerate(ends, 1)]
    write_text(folder / name / "metrics.jsonl", "".join(to_json(row).replace("\n", "") + "\n" for row in rows))
    write_json(folder / name / "status.json", {"epochs": len(ends), "state": "finished"})


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(0, 100), (50, 120)], 120),  # side by side
        ([(0, 100), (20, 30)], 100),  # one within the other
        ([(0, 100), (150, 200)], 200),  # a pause of 50 s
        ([(0, 100), (1000, 1100)], 200),  # the sweep was not running in between
        ([(1000, 1100), (0, 100)], 200),
    ],
)
def test_seconds_with_a_training_going_on(spans, seconds):
    assert covered_s(spans) == seconds


def test_hours_over_all_runs_and_gpu_hours_over_all_trainings(tmp_path):
    trained(tmp_path, "trials/0000", [1.0, 2.0], 3600)
    trained(tmp_path, "trials/0001", [1.5, 30.0], 3600)  # the sweep was stopped for a day
    trained(tmp_path, "confirm/0000-s101", [31.0], 3600)
    trained(tmp_path, "datacurve/0.5-s0", [50.0, 51.0], 3600)  # no part of the sweep
    epochs = epochs_on_record(tmp_path)
    assert epochs.hours == pytest.approx(2 + 2)  # 0 to 2 and 29 to 31
    assert epochs.training_hours == pytest.approx(5)
    assert epochs.hours_each == pytest.approx(1)


@pytest.mark.parametrize(
    ("budget", "slots", "reason"),
    [
        ("{hours: 2.5}", CPU, ""),
        ("{hours: 2}", CPU, "budget.hours: 2 is used up (2 trained)"),
        ("{gpu_hours: 2}", GPU, "budget.gpu_hours: 2 is used up (2 trained)"),
        ("{gpu_hours: 2}", CPU, ""),
        ("{hours: 9, gpu_hours: 1}", GPU, "budget.gpu_hours: 1 is used up (2 trained)"),
        # 2 trials x 2 seeds x 2 epochs of an hour, two at a time, or all
        ("{hours: 5}\nconfirm: {top_k: 1, seeds: 2}", replace(CPU, concurrent=64), ""),
        (
            "{hours: 4}\nconfirm: {top_k: 1, seeds: 2}",
            replace(CPU, concurrent=64),
            "budget.hours: 4 is used up (2 trained, 2 kept for confirm)",
        ),
        ("{hours: 7}\nconfirm: {top_k: 1, seeds: 2}", CPU, ""),
        (
            "{hours: 6}\nconfirm: {top_k: 1, seeds: 2}",
            CPU,
            "budget.hours: 6 is used up (2 trained, 4 kept for confirm)",
        ),
    ],
)
def test_when_no_new_trial_is_begun(tmp_path, budget, slots, reason):
    sweep, folder = sweep_of(tmp_path, f"budget: {budget}\n"), tmp_path / "runs"
    search = Search.open(sweep, folder)
    search.next_trial()
    trained(folder, "trials/0000", [1.0, 2.0], 3600)
    said = Budget(sweep, folder, slots).ended(search)
    assert said == (f"no new trial after 1 of 5: {reason}; a larger budget goes on" if reason else "")


def test_the_same_budget_stays_used_up_and_a_larger_one_goes_on(tmp_path):
    """Confirm may have taken less than was kept for it; the same command must not begin trials because of that."""
    folder = tmp_path / "runs"
    sweep = sweep_of(tmp_path, "budget: {hours: 6}\nconfirm: {top_k: 1, seeds: 2}\n")
    search = Search.open(sweep, folder)
    search.next_trial()
    trained(folder, "trials/0000", [1.0, 2.0], 3600)
    first = Budget(sweep, folder, CPU).ended(search)
    for seed in (101, 102):
        for trial in (0, 1):
            trained(folder, f"confirm/000{trial}-s{seed}", [3.0, 3.1], 60)
    assert Budget(sweep, folder, CPU).ended(search) == first
    larger = sweep_of(tmp_path, "budget: {hours: 7}\nconfirm: {top_k: 1, seeds: 2}\n")
    assert Budget(larger, folder, CPU).ended(search) == ""


def test_a_used_budget_proposes_nothing_and_says_so(tmp_path, capsys):
    sweep, folder = sweep_of(tmp_path, "budget: {hours: 2}\n"), tmp_path / "runs"
    search = Search.open(sweep, folder)
    search.budget_ended = Budget(sweep, folder, CPU).ended
    number = search.next_trial().number
    search.report(number, 2, 0.5)
    search.finish(number)
    trained(folder, "trials/0000", [1.0, 2.0], 3600)
    assert search.next_trial() is None
    run_search(sweep, search, folder, lambda job: None, CPU)  # without Ray: nothing is left to run
    assert capsys.readouterr().out == (
        "note: no new trial after 1 of 5: budget.hours: 2 is used up (2 trained); a larger budget goes on\n"
    )
    assert read_json(folder / "budget.json")["trials"] == 1


def test_the_budget_of_a_sweep_may_be_changed(tmp_path):
    record_sweep(sweep_of(tmp_path, "budget: {hours: 2}\n"), tmp_path / "runs")
    refuse_changes(sweep_of(tmp_path, "budget: {hours: 3}\n"), tmp_path / "runs")
    refuse_changes(sweep_of(tmp_path, ""), tmp_path / "runs")


def test_gpu_hours_without_a_gpu(tmp_path):
    sweep = sweep_of(tmp_path, "budget: {gpu_hours: 2}\n")
    assert notes_on_budget(sweep, CPU) == [
        "budget.gpu_hours: trials hold no GPU here, so it is never used up; give budget.hours"
    ]
    assert notes_on_budget(sweep, GPU) == []
