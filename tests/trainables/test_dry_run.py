"""`--dry-run`: what it finds out and says, and that it leaves nothing where the sweep will be."""

from dataclasses import replace
from pathlib import Path

import pytest

from posesweep.cli import main
from posesweep.errors import SweepError
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables import dry_run
from posesweep.trainables.cluster import Slots
from posesweep.trainables.dry_run import (
    Disk,
    disk_faults,
    disk_of,
    machine_lines,
    memory_faults,
    needed_gib,
    stall_faults,
    within,
)
from posesweep.trainables.forecast import Spread, TrialCost
from posesweep.trainables.tasks import make_config
from posesweep.trainables.timing import Costs, Kind, Measured, Timed, on_cpus

SWEEP = """
name: small
data: {synthetic: {train: 24, val: 8, seed: 1, width: 96, height: 80}}
fixed: {imgsz: [64, 64], epochs: 4, batch: 8, augment: none, flip_test: false}
parameters:
  model: {values: [tiny, small]}
  lr0: {min: 1.0e-4, max: 1.0e-2, log: true}
  keep_best: {min: 1, max: 2}
search: {trials: 6}
early_terminate: {type: asha, min_epochs: 1, eta: 3}
confirm: {top_k: 2, seeds: 2, epochs: 8}
"""


def test_a_dry_run_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SWEEP)
    assert main(["sweep", "s.yaml", "--dry-run", "budget.hours=1e-6"]) == 1
    said = capsys.readouterr().out
    assert not Path("runs").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.yaml"]
    for line in (
        "dry run of small: nothing is written into runs/small",
        "timed, the smallest: tiny, 64x64, batch 8:",
        "timed, the largest: small, 64x64, batch 8:",
        "trials: 6; 6 reach epoch 1, ",
        "confirm: 6 trainings of 8 epochs, about ",
        "lr0: 0.0001 -> 0.01 changes the learning rates, the training steps, the predictions",
        "ERROR keep_best: 1 -> 2 changes nothing",
        "ERROR budget: 1e-06 h, but the baseline alone needs ",
    ):
        assert line in said, line


def test_the_machines_are_asked_as_by_the_sweep(tmp_path, monkeypatch):
    """A share of a GPU that is yet to be measured is measured; a cluster's nodes are asked about a folder that is."""
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SWEEP + "resources: {trials_per_gpu: auto}\n")
    asked = []

    def checked(sweep, folder):
        asked.append((sweep.resources.trials_per_gpu, folder))
        raise SweepError("no GPU")

    monkeypatch.setattr(dry_run, "checked_slots", checked)
    assert main(["sweep", "s.yaml", "--dry-run"]) == 2
    assert asked == [("auto", tmp_path)]


def test_mistakes_are_said_as_by_the_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(
        SWEEP.replace("{synthetic: {train: 24, val: 8, seed: 1, width: 96, height: 80}}", "{train: a.json}")
    )
    assert main(["sweep", "s.yaml", "--dry-run"]) == 2
    assert "a.json" in capsys.readouterr().err
    assert not Path("runs").exists()


BASE = {"data": {"train": "a.json"}, "imgsz": (64, 64)}


def timed(batch: int, flops: float, step_s: float) -> Timed:
    return Timed(
        config=make_config({**BASE, "batch": batch}),
        kind=Kind(flops, 0.001),
        step_s=step_s,
        steps=3,
        predict_s=step_s / 4,
        score_s=0.5,
        save_s=0.25,
        start_s=2.0,
        val_load_s=0.001,
        memory_gib=1.5,
        last_bytes=300,
        best_bytes=100,
        evidence_bytes=10,
        train_samples=100,
        val_samples=20,
    )


SMALL, LARGE = timed(10, 1e9, 0.1), timed(10, 3e9, 0.2)


def test_between_two_configs_a_straight_line():
    costs = Costs(SMALL, LARGE, share=1, on_gpu=False)
    cost = costs.of(make_config({**BASE, "batch": 10, "epochs": 7, "val_every": 2}), Kind(2e9, 0.001))
    step, predict, load = 0.15, 0.0375, 0.01
    assert cost.epoch_s == pytest.approx(10 * (step + load) + (2 * (predict + load) + 0.5) / 2 + 0.25)
    assert (cost.epochs, cost.start_s) == (7, 2.0)


def test_a_gpu_computes_while_the_cpus_load():
    config, kind = make_config({**BASE, "batch": 10}), Kind(1e9, 0.1)  # a second to load a batch, with one thread
    one, four = (Costs(SMALL, LARGE, share=cpus, on_gpu=True) for cpus in (1, 4))
    assert one.of(config, kind).epoch_s - four.of(config.model_copy(update={"threads": 4}), kind).epoch_s > 7


def test_two_cpus_for_a_thread_do_both_at_once():
    config, kind = make_config({**BASE, "batch": 10}), Kind(1e9, 0.01)  # as long to load as to compute
    one, two = (Costs(SMALL, LARGE, share=cpus, on_gpu=False).of(config, kind).epoch_s for cpus in (1, 2))
    assert one - two == pytest.approx(10 * 0.1 + 2 * 0.01, rel=0.1)


def test_times_that_noise_turned_round_do_not_fall_with_the_work():
    costs = Costs(SMALL, replace(LARGE, step_s=0.09, predict_s=0.02), share=1, on_gpu=False)
    config = make_config({**BASE, "batch": 10})
    assert costs.of(config, Kind(1e9, 0)).epoch_s <= costs.of(config, Kind(3e9, 0)).epoch_s


def test_a_full_disk_and_too_little_memory_are_faults(tmp_path, monkeypatch):
    assert disk_faults(Disk(1, 2, 3, 4), tmp_path / "runs" / "s") == []
    (fault,) = disk_faults(Disk(10**18, 0, 0, 0), tmp_path / "runs" / "s")
    assert fault.startswith(f"disk: {tmp_path}/runs/s needs 1000000000.00 GB and ")
    monkeypatch.setattr(dry_run, "available_bytes", lambda: 5 * 2**30)
    measured = Measured(SMALL, LARGE, (), (TrialCost(1.0, 1),))
    assert needed_gib(1.5, Slots(1, 1, 0.0, 2)) == 4.0
    assert memory_faults(measured, Slots(1, 1, 0.0, 2)) == []
    assert memory_faults(measured, Slots(1, 1, 0.0, 3)) == [
        "memory: 5.5 GiB are needed and 5.0 GiB are free; lower resources.concurrent or batch"
    ]


def test_the_disk_at_its_fullest(tmp_path):
    """Of 6 trials 2 are kept, and of 6 trainings of confirm all, while the last of them run, 5 at a time."""
    (tmp_path / "s.yaml").write_text(SWEEP + "keep: {checkpoints_of_top: 2}\n")
    sweep, largest = (
        read_sweep(tmp_path / "s.yaml"),
        replace(LARGE, config=LARGE.config.model_copy(update={"keep_best": 3})),
    )
    measured = Measured(SMALL, largest, (), (TrialCost(1.0, 1),))
    assert (largest.last_bytes, largest.best_bytes, largest.evidence_bytes) == (300, 100, 10)
    found = disk_of(sweep, measured, Slots(1, 1, 0.0, 5), stores=7)
    waiting = 5 * (300 + 3 * 100)  # all but the baseline
    running = 5 * (3 * 300 + 4 * 100) + waiting
    assert found == Disk(kept=2 * (300 + 3 * 100) + 6 * 300, running=running, evidence=120, stores=7)
    assert disk_of(sweep, measured, Slots(1, 1, 0.0, 64), stores=7).running == 6 * (3 * 300 + 4 * 100) + waiting


def test_an_epoch_longer_than_a_trial_may_be_silent_is_a_fault(tmp_path):
    (tmp_path / "s.yaml").write_text(SWEEP)
    sweep = read_sweep(tmp_path / "s.yaml")
    fast, slow = (Measured(SMALL, LARGE, (TrialCost(60.0, 4),), (TrialCost(60.0 * m, 4),)) for m in (29, 35))
    assert stall_faults(sweep, fast) == []
    assert stall_faults(sweep, slow) == ["failure.stall_minutes: 30, but an epoch takes up to 35 min; raise it"]


def test_budgets_count_what_trials_hold():
    needs = {name: (Spread(3600.0, 3600.0, 3600.0),) * 2 for name in ("the baseline", "the search")}
    held = Slots(workers=2, cpus=1, gpus=0.5, concurrent=1)
    assert within(1.5, "GPU-h", needs, held, 9).works  # an hour of two halves of a GPU
    assert not within(0.9, "GPU-h", needs, held, 9).works
    (said,) = within(1.5, "GPU-h", needs, Slots(1, 1, 0.0, 1), 9).sentences
    assert said == "budget: 1.5 GPU-h are never used up, as trials hold no GPU here; give hours"


def test_who_trains_in_words(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert machine_lines(Slots(1, 1, 0.0, 2)) == ["machine: 2 trials at a time, each 1 worker with 1 CPU, no GPU"]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    (line,) = machine_lines(Slots(2, 4, 1.0, 1))
    assert line == "cluster at auto: 1 trial at a time, each 2 workers with 4 CPUs and 1 GPU"


def test_cpus_are_given_back():
    import os

    before = os.sched_getaffinity(0)
    with on_cpus(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
