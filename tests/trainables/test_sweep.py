"""What a sweep decides before Ray starts: how trials share the machine, who owns the folder, what may have changed."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from posesweep.errors import SweepError
from posesweep.files import append_json_line, read_json, trial_folder, write_json
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables import sweep as sweeping
from posesweep.trainables.cluster import Node, Slots, plan_slots
from posesweep.trainables.folder import lease, record_split, record_sweep, refuse_changes, thin_checkpoints
from posesweep.trainables.progress import Board, Progress
from posesweep.trainables.search import Search
from posesweep.trainables.sweep import catch_up, extend_by
from posesweep.trainables.worker import with_whole_paths

ROOT = Path(__file__).resolve().parents[2]
TEXT = "name: s\ndata: {train: a.json}\nparameters: {lr0: {min: 1.0e-4, max: 1.0e-2, log: true}}\n"


def sweep_of(tmp_path: Path, more: str = "", name: str = "s.yaml"):
    (tmp_path / name).write_text(TEXT + more)
    return read_sweep(tmp_path / name)


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "expected"),
    [
        ("{}", 2, 0, Slots(1, 1, 0.0, 2)),  # one-thread trials on a CPU
        ("{}", 16, 1, Slots(1, 4, 1.0, 1)),  # a GPU's batches are made by several threads
        ("{}", 8, 4, Slots(1, 2, 1.0, 4)),
        ("{gpus_per_worker: 0.5}", 16, 1, Slots(1, 4, 0.5, 2)),
        ("{workers_per_trial: 2, cpus_per_worker: 1}", 5, 0, Slots(2, 1, 0.0, 2)),
        ("{cpus_per_worker: 2, concurrent: 1}", 8, 0, Slots(1, 2, 0.0, 1)),
    ],
)
def test_slots(tmp_path, resources, cpus, gpus, expected):
    assert plan_slots(sweep_of(tmp_path, f"resources: {resources}\n"), [Node(cpus, gpus)]) == expected


def test_a_short_search_does_not_narrow_what_comes_after_it(tmp_path):
    """Confirm, and --extend, train more than the search has trials."""
    slots = plan_slots(sweep_of(tmp_path, "search: {trials: 2}\n"), [Node(8)])
    assert (slots.concurrent, slots.at_most(2).concurrent, slots.at_most(9).concurrent) == (8, 2, 8)


def test_a_trial_that_does_not_fit_is_refused_with_the_arithmetic(tmp_path):
    sweep = sweep_of(tmp_path, "resources: {workers_per_trial: 4, gpus_per_worker: 1}\n")
    with pytest.raises(SweepError, match=r"a trial of 4 workers .* needs 16 CPUs and 4 GPUs, but there are 64 CPUs"):
        plan_slots(sweep, [Node(64, 2)])
    with pytest.raises(SweepError, match=r"resources.concurrent: 3 trials of 1 CPUs .* at most 2, or leave it auto"):
        plan_slots(sweep_of(tmp_path, "resources: {concurrent: 3}\n"), [Node(2)])


def test_an_interrupted_extension_only_goes_on(tmp_path):
    sweep = sweep_of(tmp_path, "search: {trials: 2}\n")
    search = Search.open(sweep, tmp_path / "runs")
    with pytest.raises(SweepError, match="was never started, so there is nothing to extend"):
        extend_by(search, 3)
    for _ in range(2):
        search.fail(search.next_trial().number, "a reason")
    extend_by(search, 3)
    assert (search.wanted, search.left) == (5, 3)
    extend_by(search, 3)  # the same command again, after Ctrl-C
    assert search.wanted == 5


def test_a_grid_cannot_be_extended(tmp_path):
    text = TEXT.replace("lr0: {min: 1.0e-4, max: 1.0e-2, log: true}", "lr0: {values: [1.0e-3, 1.0e-2]}")
    (tmp_path / "grid.yaml").write_text(text + "search: {method: grid}\n")
    search = Search.open(read_sweep(tmp_path / "grid.yaml"), tmp_path / "runs")
    while (proposal := search.next_trial()) is not None:
        search.fail(proposal.number, "a reason")
    with pytest.raises(SweepError, match="a grid is complete and cannot be extended"):
        extend_by(search, 3)


def test_a_sweep_whose_trials_all_fail_is_hopeless(tmp_path):
    search = Search.open(sweep_of(tmp_path, "search: {trials: 9}\n"), tmp_path / "runs")
    for expected in (False, False, True):
        search.fail(search.next_trial().number, "a reason")
        assert search.hopeless == expected
    number = search.next_trial().number
    search.report(number, 1, 0.5)
    search.finish(number)
    assert not search.hopeless


def test_a_folder_hears_of_an_ending_that_only_the_journal_knows(tmp_path):
    search = Search.open(sweep_of(tmp_path, "search: {trials: 2}\n"), tmp_path / "runs")
    number = search.next_trial().number
    write_json(trial_folder(tmp_path / "runs", number) / "status.json", {"state": "running"})
    search.fail(number, "its process died")
    catch_up(search, tmp_path / "runs", "val/AP")
    status = read_json(trial_folder(tmp_path / "runs", number) / "status.json")
    assert (status["state"], status["reason"]) == ("failed", "its process died")


def test_a_trial_that_ended_unheard_is_finished_without_being_run_again(tmp_path):
    """Its weights may be gone: it was the copy's status that was newer than its journal."""
    search = Search.open(sweep_of(tmp_path, "search: {trials: 2}\n"), tmp_path / "runs")
    number = search.next_trial().number
    trial = trial_folder(tmp_path / "runs", number)
    write_json(trial / "status.json", {"state": "finished"})
    append_json_line(trial / "metrics.jsonl", {"epoch": 1, "val/AP": 0.5})
    catch_up(search, tmp_path / "runs", "val/AP")
    assert search.outcome(number)[0] == "finished"
    assert search.unfinished() == []


@pytest.mark.parametrize(("interrupted", "calls"), [(False, 2), (True, 1)])
def test_tune_is_called_again_for_what_did_not_begin_but_not_after_ctrl_c(interrupted, calls, tmp_path, monkeypatch):
    sweep = sweep_of(tmp_path, "search: {trials: 2}\n")
    search, called = Search.open(sweep, tmp_path / "runs"), []

    def fit(*args, orders, **run):
        """Once, the process of trial 0 dies before it begins; Ctrl-C leaves trial 1 as it is."""
        called.append(len(search.proposals()))
        while search.next_trial() is not None:
            pass
        if len(called) == 1:
            orders.unstarted_again(0)
        for proposal in search.unfinished():
            if proposal.number not in orders.again and not (interrupted and proposal.number == 1):
                search.report(proposal.number, search.rule.max_epochs, 0.5)
                search.finish(proposal.number)

    monkeypatch.setattr(sweeping, "fit", fit)
    ends = pytest.raises(KeyboardInterrupt) if interrupted else nullcontext()
    with Progress(Board("s", 2, 1, search.rule)) as progress, ends:
        sweeping.run_on_tune(sweep, search, tmp_path / "runs", lambda job: None, Slots(1, 1, 0.0, 1), progress)
    assert len(called) == calls


def test_the_lease_is_given_back_by_the_death_of_its_holder(tmp_path):
    code = (
        "import time; from pathlib import Path; from posesweep.trainables.folder import lease\n"
        f"with lease(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SweepError, match=f"is in use by process {holder.pid}"), lease(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with lease(tmp_path):
        assert read_json(tmp_path / "lease.json")["pid"] != holder.pid


def test_a_changed_sweep_is_refused_with_every_difference(tmp_path):
    record_sweep(sweep_of(tmp_path), tmp_path / "runs")
    refuse_changes(sweep_of(tmp_path, "# a comment changes nothing\n"), tmp_path / "runs")
    with pytest.raises(SweepError) as refused:
        refuse_changes(sweep_of(tmp_path, "fixed: {epochs: 7}\nsearch: {trials: 9}\n"), tmp_path / "runs")
    assert "fixed.epochs" in str(refused.value)
    assert "search.trials" in str(refused.value)
    assert "--extend N" in str(refused.value)


def test_changed_data_are_refused(tmp_path):
    record_split(tmp_path, {"hash": "aaaa", "val": [1]})
    record_split(tmp_path, {"hash": "aaaa", "val": [1]})
    with pytest.raises(SweepError, match=r"the data changed since .* \(split aaaa, now bbbb\)"):
        record_split(tmp_path, {"hash": "bbbb", "val": [2]})
    assert read_json(tmp_path / "split.json")["hash"] == "aaaa"


def test_only_weights_of_trials_that_are_not_kept_go(tmp_path):
    for number in range(3):
        for name in ("last", "best"):
            write_json(trial_folder(tmp_path, number) / name / "state.json", {})
        write_json(trial_folder(tmp_path, number) / "status.json", {})
    thin_checkpoints(tmp_path, ended=[0, 1], keep=[1])
    left = {f"{path.parent.parent.name}/{path.parent.name}" for path in tmp_path.rglob("state.json")}
    assert left == {"0001/last", "0001/best", "0002/last", "0002/best"}
    assert all((trial_folder(tmp_path, number) / "status.json").is_file() for number in range(3))


def test_files_that_settings_name_are_absolute_in_a_trial(tmp_path):
    given = {"weights": "a.pth", "weights_skeleton": "own.yaml", "lr0": 0.1}
    assert with_whole_paths(given, tmp_path) == {
        "weights": str(tmp_path / "a.pth"),
        "weights_skeleton": str(tmp_path / "own.yaml"),
        "lr0": 0.1,
    }
    untouched = {"weights": "/a/b.pth", "weights_skeleton": "coco17"}
    assert with_whole_paths(untouched, tmp_path) == untouched
