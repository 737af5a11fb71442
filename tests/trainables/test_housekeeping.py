"""The disk, the dead's leftovers, requests to stop, logs: without Ray."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from posesweep.cli import main
from posesweep.errors import StorageError, SweepError
from posesweep.files import append_json_line, read_json, trial_folder, write_json
from posesweep.search_spaces.space import read_sweep, space_json
from posesweep.trainables import folder as folders
from posesweep.trainables import watch
from posesweep.trainables.checkpoint import Checkpoint, LoopState, load_checkpoint, save_checkpoint
from posesweep.trainables.folder import lease, refuse_changes
from posesweep.trainables.housekeeping import (
    Orders,
    StopAskedError,
    below_floor,
    heard,
    is_driven,
    logged_to,
    storage_error,
    sweep_up,
    write_driver,
)
from posesweep.trainables.overview import overview, overview_text
from posesweep.trainables.progress import Board
from posesweep.trainables.search import rule_of
from posesweep.trainables.status import write_status
from posesweep.trainables.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
TEXT = """
name: mice
data: {synthetic: {train: 4, val: 4, width: 64, height: 64}}
metric: {name: val/NME}
fixed: {epochs: 4}
parameters: {lr0: {min: 1.0e-4, max: 1.0e-2, log: true}}
search: {trials: 6}
"""


def sweep_of(folder: Path, more: str = ""):
    (folder / "mice.yaml").write_text(TEXT + more)
    return read_sweep(folder / "mice.yaml")


def checkpoint(epoch: int, size: int = 1000) -> Checkpoint:
    return Checkpoint(LoopState(epoch=epoch), {"w": torch.full((size,), float(epoch))}, None, {"optimizer": {}})


# --- the disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False).returncode
    if mounted != 0:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("size", [500_000, 100_000])  # the second: weights fit, and what follows them does not
def test_a_disk_that_fills_up_while_saving_leaves_the_checkpoint_before(small_disk, size):
    last = small_disk / "last"
    save_checkpoint(last, checkpoint(1))
    (small_disk / "ballast").write_bytes(bytes(3 * 2**20 - size * 4 - 50_000) if size == 100_000 else b"")
    big = Checkpoint(LoopState(epoch=2), {"w": torch.zeros(size)}, None, {"optimizer": torch.zeros(900_000)})
    with pytest.raises(StorageError, match=r"the disk of .*disk is full \(0\.\d\d GB free\), so nothing could"):
        save_checkpoint(last, big)
    assert [path.name for path in small_disk.iterdir() if path.name != "ballast"] == ["last"]
    assert load_checkpoint(last).loop.epoch == 1
    (small_disk / "ballast").unlink()
    save_checkpoint(last, checkpoint(2))  # room was made
    assert load_checkpoint(last).loop.epoch == 2


def test_a_read_only_disk_is_told_from_our_own_mistakes(tmp_path):
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))
    assert "is read-only, so nothing could be saved" in str(storage_error(tmp_path, read_only))
    hidden = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "is full" in str(storage_error(tmp_path, hidden))
    assert storage_error(tmp_path, ValueError("our own mistake")) is None
    assert storage_error(tmp_path / "not" / "there" / "yet", KeyError("a")) is None
    assert list(tmp_path.iterdir()) == []


def test_below_the_floor_of_the_disk(tmp_path):
    assert below_floor(tmp_path, 0) == ""
    said = below_floor(tmp_path, 10**9)
    assert "less than keep.disk_floor_gb (1e+09), although what was not needed has been removed" in said


def test_what_the_dead_left_is_swept_up_and_nothing_else(tmp_path):
    trial = trial_folder(tmp_path, 3)
    dead = ["ray/x", ".results.csv.1.tmp", "trials/0003/.status.json.77.tmp", "trials/0003/last.new/weights"]
    dead += ["trials/0003/best/.evidence.npz.5.tmp", "trials/0003/top/0002.new/weights", "confirm/0003-s101/best.old/a"]
    kept = ["journal.log", "trials/0003/last/state.json", "trials/0003/last.old/state.json", "trials/0003/log.txt"]
    kept.append(f"trials/0003/.status.json.{os.getpid()}.tmp")  # our own, being written
    for name in dead + kept:
        write_json(tmp_path / name, {})
    sweep_up(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
    assert not (trial / "last.new").exists()


# --- status and stop


@pytest.fixture
def sweep(tmp_path):
    """The folder of a sweep: trial 0 has finished, trial 1 has two epochs of four."""
    folder = tmp_path / "runs" / "mice"
    write_json(folder / "space.json", space_json(sweep_of(tmp_path)))
    first, second = (trial_folder(folder, number) for number in (0, 1))
    cost = {"train_s": 100.0, "val_s": 20.0}
    ended = {"state": "finished", "reason": "", "params": {"lr0": 0.001}, "epochs": 4, "best": 0.2, "cost": cost}
    write_json(first / "status.json", ended)
    retried = {"retry": 1, "last_failure": "its process died"}
    running = {"state": "running", "reason": "", "params": {"lr0": 0.01}, **retried}
    write_json(second / "status.json", running)
    for epoch, value in ((1, 0.5), (2, 0.4)):
        append_json_line(second / "metrics.jsonl", {"epoch": epoch, "val/NME": value, "train_s": 25, "val_s": 5})
    return folder


def test_status_of_a_sweep_at_work(sweep):
    with lease(sweep):
        write_driver(sweep, doing="mice", wanted=8, concurrent=1, stopping="")
        seen = overview(sweep)
        lines = overview_text(seen).splitlines()
    assert lines[0] == (
        "mice: 1 of 8 done (1 finished), 1 running, best val/NME 0.200 (trial 0: lr0=0.001), trained 3 min, ETA 7 min"
    )
    assert lines[1].startswith(f"at work on mice: process {os.getpid()} on ")
    assert lines[2].startswith("  trial 1: epoch 2/4, val/NME 0.400 (best 0.400), last epoch ")
    assert lines[2].endswith(" s ago; retry 1: its process died")
    assert seen.trained_s == 180


def test_status_of_a_sweep_that_was_killed(sweep):
    write_driver(sweep, doing="mice", wanted=8, concurrent=1, stopping="")
    lines = overview_text(overview(sweep)).splitlines()
    assert "1 of 8 done (1 finished), 1 interrupted" in lines[0]
    assert "ETA" not in lines[0]
    assert lines[1] == "nobody is at work; the command that started the sweep goes on with it"


def test_status_of_a_sweep_that_another_version_wrote(sweep, capsys):
    recorded = read_json(sweep / "space.json")
    write_json(sweep / "space.json", {**recorded, "keep": {**recorded["keep"], "for_ever": True}, "moon": "full"})
    assert main(["status", str(sweep)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "space.json was written by another version of PoseSweep (keep.for_ever, moon is not as" in said


def test_status_of_a_sweep_that_was_partly_copied(sweep, capsys):
    (sweep / "space.json").write_text('{"name": "mi')
    assert main(["status", str(sweep)]) == 2
    assert "space.json is no JSON: it was only partly copied" in " ".join(capsys.readouterr().err.split())


THROUGH = "nobody is at work: the sweep is through{}; see {}/report.html"
GOES_ON = "nobody is at work: {}; the command that started the sweep goes on with it"


def after_the_search(sweep: Path, tmp_path: Path, more: str) -> str:
    """What is said of a sweep folder with both trials ended, with `more` in its file."""
    write_json(sweep / "space.json", space_json(sweep_of(tmp_path, more)))
    status = read_json(trial_folder(sweep, 0) / "status.json")
    write_json(trial_folder(sweep, 1) / "status.json", status)
    return overview_text(overview(sweep)).splitlines()[1]


def test_status_after_the_search_before_its_best_are_trained_again(sweep, tmp_path):
    more = "confirm: {top_k: 1, seeds: 1}"
    write_driver(sweep, doing="mice", wanted=2)
    assert after_the_search(sweep, tmp_path, "") == THROUGH.format("", sweep)
    assert after_the_search(sweep, tmp_path, more) == GOES_ON.format("confirm has not begun")
    runs = [{"trial": trial, "seed": 101, "folder": f"confirm/000{trial}-s101"} for trial in (1, 0)]
    write_json(sweep / "confirm.json", {"runs": runs})
    write_json(sweep / runs[0]["folder"] / "status.json", {"state": "diverged"})
    left = "1 of 2 trainings of confirm are left"
    assert after_the_search(sweep, tmp_path, more) == GOES_ON.format(left)
    write_json(sweep / "promote-30.json", {"runs": [{**runs[0], "folder": "promote-30/0001-s101"}]})
    left += ", 1 of 1 trainings of promote-30 are left"
    assert after_the_search(sweep, tmp_path, more) == GOES_ON.format(left)
    for folder in (runs[1]["folder"], "promote-30/0001-s101"):
        write_json(sweep / folder / "status.json", {"state": "finished"})
    assert after_the_search(sweep, tmp_path, more) == THROUGH.format("", sweep)


def test_status_of_a_search_of_which_trials_still_wait(sweep, tmp_path):
    write_driver(sweep, doing="mice", wanted=2)
    assert after_the_search(sweep, tmp_path, "") == THROUGH.format("", sweep)
    write_status(trial_folder(sweep, 1), state="waiting", reason="waits at epoch 1: only 2 trials came this far")
    lines = overview_text(overview(sweep)).splitlines()
    assert lines[0].startswith("mice: 1 of 2 done (1 finished), 1 waiting, best")
    assert lines[1] == "nobody is at work; the command that started the sweep goes on with it"


def test_status_of_a_search_that_the_budget_ended(sweep, tmp_path):
    reason = "no new trial after 2 of 8: budget.hours: 1 is used up (1 trained); a larger budget goes on"
    write_json(sweep / "budget.json", {"budget": {"hours": 1.0, "gpu_hours": None}, "reason": reason, "trials": 2})
    assert after_the_search(sweep, tmp_path, "budget: {hours: 1}") == THROUGH.format(f" ({reason})", sweep)
    said = after_the_search(sweep, tmp_path, "budget: {hours: 2}")
    assert said == "nobody is at work; the command that started the sweep goes on with it"


def test_status_of_what_is_no_sweep(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert "it has no space.json; give the folder of a sweep that has begun" in capsys.readouterr().err


def test_a_stop_is_asked_of_a_driver_and_of_nobody_else(sweep, capsys):
    assert main(["stop", str(sweep)]) == 2
    assert "no process is at work on" in capsys.readouterr().err
    assert not (sweep / "stop.json").exists()
    with lease(sweep):
        assert main(["stop", str(sweep)]) == 0
        said = capsys.readouterr().out
        assert f"process {os.getpid()} on " in said
        assert "is asked to stop after the running epochs" in said
        assert "a stop is asked for" in overview_text(overview(sweep))
    assert not (sweep / "stop.json").exists(), "the next run of the sweep must not stop at once"


def test_reading_the_status_does_not_take_the_lease(sweep):
    with lease(sweep):
        for _ in range(3):
            assert is_driven(sweep)
        with pytest.raises(SweepError, match="is in use by process"), lease(sweep):
            pass
    assert not is_driven(sweep)


def test_blocks_that_change_no_result_may_change(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "sweep.yaml").write_text(TEXT)
    refuse_changes(sweep_of(tmp_path, "failure: {stall_minutes: 90}\nkeep: {disk_floor_gb: 0.5}\n"), folder)
    with pytest.raises(SweepError, match="early_terminate"):
        refuse_changes(sweep_of(tmp_path, "early_terminate: {type: none}\n"), folder)


# --- the lease on a disk without locks


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    monkeypatch.setattr(folders, "BEAT_S", 0.1)


def test_without_locks_a_living_owner_is_seen_by_its_beat(no_locks, tmp_path):
    with lease(tmp_path), pytest.raises(SweepError, match="is in use by process"), lease(tmp_path):
        pass
    with lease(tmp_path):  # it was given back
        pass


def test_without_locks_a_dead_owner_is_succeeded(no_locks, tmp_path):
    write_json(tmp_path / "lease.json", {"pid": 1, "host": "elsewhere", "since": "long ago", "beat": 7})
    with lease(tmp_path):
        assert read_json(tmp_path / "lease.json")["pid"] == os.getpid()


def test_without_locks_status_and_stop_go_by_the_beat(no_locks, sweep, capsys):
    write_json(sweep / "lease.json", {"pid": 1, "host": "elsewhere", "since": "long ago", "beat": 7})
    assert not is_driven(sweep), "it died"
    assert main(["stop", str(sweep)]) == 2
    with lease(sweep):
        assert main(["status", str(sweep)]) == 0
        assert main(["stop", str(sweep)]) == 0
    assert f"process {os.getpid()} on " in capsys.readouterr().out
    assert not is_driven(sweep)


def test_a_stop_is_proposed_where_somebody_hears_it(tmp_path):
    """The lease of a data curve is like a sweep's, and nothing there looks for a request to stop."""
    said = []
    for folder in (tmp_path / "mice", tmp_path / "mice" / "datacurve"):
        with lease(folder):
            if folder.name == "mice":
                write_driver(folder, doing="mice")
            with pytest.raises(SweepError) as refused, lease(folder):
                pass
        said.append(str(refused.value).partition("wait ")[2])
    assert said == [
        f"until it ends, or `posesweep stop {tmp_path / 'mice'}`, then repeat the command",
        "until it ends, then repeat the command",
    ]


# --- logs


def test_a_log_holds_all_that_a_trial_prints_and_its_error(tmp_path, capfd):
    log = tmp_path / "trials" / "0001" / "log.txt"

    def train():
        print("printed")
        os.write(2, b"from compiled code\n")
        raise ValueError("what went wrong")

    with pytest.raises(ValueError), logged_to(log, "trial 1: lr0=0.001"):
        train()
    with logged_to(log, "trial 1 again"):
        print("second attempt")
    print("afterwards")
    text = log.read_text()
    assert "trial 1: lr0=0.001, process" in text.splitlines()[0]
    assert text.index("printed") < text.index("from compiled code") < text.index("ValueError: what went wrong")
    assert text.index("this attempt ends") < text.index("second attempt")
    assert "afterwards" not in text
    assert "afterwards" in capfd.readouterr().out


def test_a_log_says_where_a_trial_hangs(tmp_path):
    with logged_to(tmp_path / "log.txt", "hangs", stall_s=0.2):
        for _ in range(4):  # signs of life
            time.sleep(0.1)
            heard(0.2)
        assert "Timeout" not in (tmp_path / "log.txt").read_text()
        where_it_hangs(0.5)
    text = (tmp_path / "log.txt").read_text()
    assert "Timeout" in text
    assert "where_it_hangs" in text


def where_it_hangs(seconds: float) -> None:
    time.sleep(seconds)


# --- what the driver looks after


class Clock:
    """The monotonic clock, in the test's hand."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)


@pytest.fixture
def one_node(monkeypatch):
    """Ray's nodes, as the driver is told."""
    nodes = [{"Alive": True}]
    monkeypatch.setattr(watch.ray, "nodes", lambda: nodes)
    return nodes


def watch_of(folder: Path, orders: Orders, more: str = "", make_room=lambda: None) -> Watch:
    sweep = sweep_of(folder, more)
    return Watch(sweep, folder / "runs", Board("mice", 6, 2, rule_of(sweep)), orders, make_room)


def trial_of(number: int) -> SimpleNamespace:
    state = SimpleNamespace(ray_actor=f"actor {number}")
    return SimpleNamespace(trial_id=f"id{number}", config={"number": number}, temporary_state=state)


def test_a_silent_trial_is_ended_by_the_monotonic_clock_only(tmp_path, monkeypatch, one_node):
    clock, killed, orders = Clock(monkeypatch), [], Orders()
    monkeypatch.setattr(watch.ray, "kill", killed.append)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # somebody sets the machine's clock
    looks = watch_of(tmp_path, orders, "failure: {stall_minutes: 1}\nkeep: {disk_floor_gb: 0}\n")
    trials = [trial_of(0), trial_of(1)]
    for trial in trials:
        looks.on_trial_start(0, trials, trial)
    clock.now += 40
    looks.on_trial_result(0, trials, trials[0], {"epoch": 1})
    looks.on_step_begin(0, trials)
    assert killed == []
    clock.now += 30
    looks.on_step_begin(0, trials)
    assert killed == ["actor 1"]
    assert orders.ended == {
        1: "it hung: no epoch was reported for 1 minutes (failure.stall_minutes); "
        "the end of its log.txt shows where it was"
    }
    clock.now += 2
    looks.on_step_begin(0, trials)
    assert killed == ["actor 1"], "once"


def test_a_full_disk_is_thinned_first_and_then_stops_the_sweep(tmp_path, monkeypatch):
    Clock(monkeypatch)
    free, orders = [1.0], Orders()
    monkeypatch.setattr("posesweep.trainables.housekeeping._free_gb", lambda folder: free[0])
    looks = watch_of(tmp_path, orders, make_room=lambda: free.__setitem__(0, free[0] + 2.0))
    looks.on_trial_result(0, [], trial_of(0), {})
    assert (free, orders.halt) == ([3.0], ""), "thinning was enough"
    free[0] = -1.5
    looks.on_trial_result(0, [], trial_of(0), {})
    assert orders.is_fault
    with pytest.raises(SweepError, match=r"mice stopped: only 0.50 GB are free .* or lower keep.disk_floor_gb"):
        orders.carry_out("mice")


def test_a_cluster_without_nodes_is_not_waited_for(tmp_path, monkeypatch, one_node):
    clock = Clock(monkeypatch)
    looks = watch_of(tmp_path, Orders(), "keep: {disk_floor_gb: 0}\n")
    looks.on_step_begin(0, [])
    clock.now += 20
    one_node[0]["Alive"] = False
    with pytest.raises(SweepError, match=r"Ray has lost every node, .* repeat the command"):
        looks.on_step_begin(0, [])


def test_a_request_to_stop_reaches_the_orders(tmp_path, monkeypatch, one_node):
    Clock(monkeypatch)
    orders = Orders()
    looks = watch_of(tmp_path, orders, "keep: {disk_floor_gb: 0}\n")
    looks.on_step_begin(0, [])
    assert orders.halt == ""
    write_json(tmp_path / "runs" / "stop.json", {"asked": "12:00", "host": "laptop", "pid": 1})
    looks.on_step_begin(0, [])
    assert orders.halt == "", "it has looked within this second"
    looks._looked_s -= 1
    looks.on_step_begin(0, [])
    with pytest.raises(StopAskedError, match="stopped as `posesweep stop` on laptop asked at 12:00"):
        orders.carry_out("mice")
    assert read_json(tmp_path / "runs" / "driver.json")["stopping"]


def test_watching_a_status_ends_with_the_driver(sweep, capsys):
    held, let_go = threading.Event(), threading.Event()

    def drive():
        with lease(sweep):
            held.set()
            let_go.wait(20)

    thread = threading.Thread(target=drive)
    thread.start()
    held.wait(20)
    threading.Timer(0.5, let_go.set).start()
    assert main(["status", str(sweep), "--watch"]) == 0
    thread.join()
    assert "1 interrupted" in capsys.readouterr().out


def test_status_imports_neither_torch_nor_ray():
    code = "import sys, posesweep.trainables.overview; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
