"""Faults that really happen to small real sweeps, which go on: no saved epoch lost or trained twice, the same end.

The faults themselves are made by benchmarks/faults.py, which prints the table.
"""

import os
import time
from pathlib import Path

import pytest

from posesweep.benchmarks.faults import FAULTS, TWO_WORKERS, Bench, Row, happened, run_fault, undisturbed
from posesweep.files import read_json
from posesweep.verbs.running import run_stop

pytestmark = pytest.mark.slow

SURVIVED = [  # what leaves no trace in the record: it equals that of a sweep that nobody disturbed
    "driver, Ctrl-C",
    "driver, TERM",
    "driver, KILL",
    "actor killed",
    "raylet killed",
    "GCS killed",
    "disk full",
    "disk read-only",
    "checkpoint truncated",
    "journal torn",
    "machine lost",
    "hanging",
    "frozen",
    "node lost, one joined",
]
NEEDS_ROOT = ("disk full", "disk read-only")
LOST = {"checkpoint truncated": 1, "machine lost": 2}  # it falls back by one; what was not copied yet
WORDS = {
    "raylet killed": "Ray has lost every node",
    "actor killed": "its process died",
    "disk full": "runs/small/trials/0001 is full",
    "disk read-only": "is read-only",
    "checkpoint truncated": "last/ is damaged (",
    "machine lost": "is fetched from far/small",
    "hanging": "it hung: no epoch was reported for 1 minutes",
    "frozen": "it hung: no epoch was reported for 1 minutes",
    "not a number": "diverged: the loss was nan at step",
    "out of memory": "batch: 8 does not fit into the GPU's memory",
    "one trial always fails": "RuntimeError: the planned error",
    "every trial fails": "3 trials: RuntimeError: the planned error",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The record of a sweep that nobody disturbed."""
    return undisturbed(tmp_path_factory.mktemp("whole") / "bench")


def happen(name: str, folder: Path, whole: dict) -> Row:
    if name in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("mounting needs root")
    row = run_fault(name, Bench(folder / "bench", FAULTS[name].settings), whole)
    assert not os.path.ismount(folder / "bench" / "runs")
    assert WORDS.get(name, "") in row.said
    assert row.leaked == 0
    return row


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SURVIVED)
def test_the_sweep_ends_as_if_nothing_had_happened(name, whole, tmp_path):
    row = happen(name, tmp_path, whole)
    assert row.equal
    assert row.saved_epochs_lost <= LOST.get(name, 0)
    assert row.in_flight <= 1


@pytest.mark.timeout(1800)
def test_a_worker_of_two_is_killed(tmp_path):
    whole = undisturbed(tmp_path / "whole", TWO_WORKERS)
    row = happen("DDP worker killed", tmp_path, whole)
    assert row.equal
    assert row.saved_epochs_lost == 0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["not a number", "out of memory", "one trial always fails"])
def test_a_trial_that_cannot_be_trained_ends_in_words_and_the_sweep_goes_on(name, whole, tmp_path):
    row = happen(name, tmp_path, whole)
    ended = "1 diverged" if name == "not a number" else "1 failed"
    assert ended in row.after
    assert "running" not in row.after
    assert sum(int(part.split()[0]) for part in row.after.split(", ")) == 4


@pytest.mark.timeout(1800)
def test_a_sweep_whose_trials_all_fail_alike_is_given_up(whole, tmp_path):
    row = happen("every trial fails", tmp_path, whole)
    assert row.after == "3 failed"


@pytest.mark.timeout(1800)
def test_a_sweep_that_is_stopped_goes_on_later(whole, tmp_path):
    """`posesweep stop`: the epoch that runs ends, exit code 0, and the record of the whole in the end."""
    bench = Bench(tmp_path / "bench")
    bench.plan("slow")  # in the middle of an epoch there are 15 seconds to ask in
    bench.start()
    try:
        happened(bench)
        run_stop(_Asked(bench.sweep))
        asked_s, before = time.monotonic(), sum(len(rows) for rows in bench.all_rows().values())
        assert bench.end() == 0, bench.said()
        print("stopped after", time.monotonic() - asked_s)
        assert sum(len(rows) for rows in bench.all_rows().values()) == before + 1
        assert "as `posesweep stop` on" in bench.said()
        assert "the same command goes on" in bench.said()
        assert not (bench.sweep / "stop.json").exists()
        bench.start()
        assert bench.end() == 0, bench.said()
        assert bench.record() == whole
        log = (bench.sweep / "trials" / "0000" / "log.txt").read_text()
        assert "trial 0: lr0=0.001, process" in log
        assert "epoch 4: loss" in log
        assert read_json(bench.sweep / "driver.json")["doing"] == "small"
    finally:
        bench.clean()


class _Asked:
    """The arguments of `posesweep stop FOLDER`."""

    wait = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def test_every_fault_of_the_table_is_tested():
    tested = {
        *SURVIVED,
        "DDP worker killed",
        "not a number",
        "out of memory",
        "one trial always fails",
    }
    assert tested | {"every trial fails"} == set(FAULTS)
