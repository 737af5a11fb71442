"""W&B and MLflow: what they are told, once, whatever happens to the sweep or to them."""

import json
import sqlite3
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from posesweep.errors import ConfigError
from posesweep.files import append_json_line, read_json, trial_folder
from posesweep.search_spaces.schema import Track
from posesweep.search_spaces.space import Sweep, read_sweep
from posesweep.trainables import trackers
from posesweep.trainables.status import write_status
from posesweep.trainables.trackers import Book, Follower, Telling, Training, check_trackers, mlflow_name, tracking

TEXT = "name: mice\ndata: {train: a.json}\nparameters: {lr0: {min: 1.0e-4, max: 1.0e-2, log: true}}\n"
CONFIG = "task: topdown\ndata: {train: a.json}\nmodel: tiny\nlr0: 0.5\nimgsz: [64, 64]\nfreeze: null\n"


class Told:
    """A tracker that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def begin(self, run: str, training: Training) -> str:
        self.calls.append(("begin", run, training.name, training.role, dict(training.settings)))
        return run or f"id-{len(self.calls)}"

    def log(self, run: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self.calls.append(("log", run, epoch, dict(metrics)))

    def end(self, run: str, state: str, reason: str) -> None:
        self.calls.append(("end", run, state, reason))

    def close(self) -> None:
        self.calls.append(("close",))


def sweep_of(folder: Path, track: str) -> Sweep:
    (folder / "s.yaml").write_text(TEXT + f"track: {track}\n")
    return read_sweep(folder / "s.yaml")


def epoch(folder: Path, number: int, at: int, ap: float) -> None:
    place = trial_folder(folder, number)
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.yaml").write_text(CONFIG)
    write_status(place, state="running", reason="", role="search", params={"lr0": 0.5})
    append_json_line(place / "metrics.jsonl", {"epoch": at, "step": 8 * at, "loss": 1 / at, "val/AP": ap, "attempt": 1})


def telling(folder: Path, told: Told) -> Telling:
    return Telling(told, Book(folder, "told"), "mice", folder)


@pytest.mark.parametrize(
    ("track", "names"),
    [
        ("wandb", ["wandb"]),
        ("[mlflow, wandb]", ["wandb", "mlflow"]),
        ("{wandb: {project: x}, mlflow: }", ["wandb", "mlflow"]),
        ("[{wandb: {project: x}}]", ["wandb"]),
        ("{wandb: true, mlflow: false}", ["wandb"]),
        ("null", []),
    ],
)
def test_ways_to_ask_for_a_tracker(tmp_path, track, names):
    assert sweep_of(tmp_path, track).track.names == names


def test_settings_of_a_tracker(tmp_path):
    track = sweep_of(tmp_path, "{wandb: {project: x, mode: offline}}").track
    assert track.wandb is not None
    assert (track.wandb.project, track.wandb.mode) == ("x", "offline")
    assert read_sweep(tmp_path / "s.yaml", ["track=mlflow"]).track.names == ["mlflow"]
    assert read_sweep(tmp_path / "s.yaml", ["track.wandb.project=y"]).track.wandb.project == "y"


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ("wandbb", "track.wandbb (line 4): unknown key; did you mean 'wandb'?"),
        ("{wandb: {projekt: x}}", "track.wandb.projekt (line 4): unknown key; did you mean 'project'?"),
        ("{wandb: {mode: of}}", "track.wandb.mode (line 4): 'of' must be 'online' or 'offline'"),
        ("[3]", "track (line 4): [3] must be names, such as [wandb, mlflow]"),
        ("3", "track (line 4): 3 must be a block of keys: wandb, mlflow"),
    ],
)
def test_mistakes_of_track(tmp_path, track, said):
    with pytest.raises(ConfigError) as refused:
        sweep_of(tmp_path, track)
    assert said in str(refused.value)


def test_a_missing_package_is_said_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused, tracking(sweep_of(tmp_path, "mlflow"), tmp_path):
        pass
    expected = "track: mlflow is not installed; pip install 'posesweep[mlflow]', or take track out"
    assert str(refused.value) == expected


def test_without_a_tracker_nothing_is_done(tmp_path):
    sweep = sweep_of(tmp_path, "null")
    before = threading.active_count()
    with tracking(sweep, tmp_path):
        assert threading.active_count() == before
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_trial_is_told_from_its_files(tmp_path):
    told = Told()
    epoch(tmp_path, 7, 1, 0.25)
    follow = telling(tmp_path, told)
    follow.tell("trials/0007")
    follow.tell("trials/0007")  # nothing new
    epoch(tmp_path, 7, 2, 0.5)
    write_status(trial_folder(tmp_path, 7), state="pruned", reason="stopped at epoch 2")
    follow.tell("trials/0007")
    settings = {"lr0": 0.5, "task": "topdown", "model": "tiny", "imgsz": [64, 64]}
    assert told.calls == [
        ("begin", "", "mice 0007", "search", settings),
        ("log", "id-1", 1, {"loss": 1.0, "val/AP": 0.25}),
        ("log", "id-1", 2, {"loss": 0.5, "val/AP": 0.5}),
        ("end", "id-1", "pruned", "stopped at epoch 2"),
    ]


def test_the_run_of_a_trial_that_waits_is_closed_and_taken_up_again_when_it_goes_on(tmp_path):
    """At its first rung a third of a long sweep may wait: so many runs are not held open."""
    told = Told()
    follow = telling(tmp_path, told)
    epoch(tmp_path, 7, 1, 0.25)
    write_status(trial_folder(tmp_path, 7), state="waiting", reason="waits at epoch 1")
    follow.tell("trials/0007")
    write_status(trial_folder(tmp_path, 7), state="running", reason="")
    follow.tell("trials/0007")
    epoch(tmp_path, 7, 2, 0.5)
    follow.tell("trials/0007")
    write_status(trial_folder(tmp_path, 7), state="finished")
    follow.tell("trials/0007")
    assert [call[:2] for call in told.calls] == [
        *[("begin", ""), ("log", "id-1"), ("end", "id-1")],
        *[("begin", "id-1"), ("log", "id-1"), ("end", "id-1")],
    ]


def test_a_resumed_sweep_goes_on_in_the_same_run_and_repeats_nothing(tmp_path):
    epoch(tmp_path, 0, 1, 0.25)
    telling(tmp_path, Told()).tell("trials/0000")
    epoch(tmp_path, 0, 2, 0.5)  # written while the driver was dead
    told = Told()
    follow = telling(tmp_path, told)
    follow.tell("trials/0000")
    assert [call[:3] for call in told.calls] == [("begin", "id-1", "mice 0000"), ("log", "id-1", 2)]
    write_status(trial_folder(tmp_path, 0), state="finished", reason="trained all 2 epochs")
    follow.tell("trials/0000")
    again = Told()
    telling(tmp_path, again).tell("trials/0000")
    assert again.calls == []
    assert read_json(tmp_path / "track.json") == {
        "told": {"trials/0000": {"run": "id-1", "epoch": 2, "state": "finished"}}
    }


def test_a_trial_that_is_trained_again_is_another_run(tmp_path):
    place = tmp_path / "confirm" / "0007-s101"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(CONFIG)
    write_status(place, state="failed", reason="out of memory", role="confirm", params={})
    told = Told()
    telling(tmp_path, told).tell("confirm/0007-s101")
    assert [call[:3] for call in told.calls] == [
        ("begin", "", "mice confirm 0007-s101"),
        ("end", "id-1", "failed"),
    ]
    assert trackers.trainings_in(tmp_path) == ["confirm/0007-s101"]


def test_a_folder_is_followed_while_the_sweep_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "EVERY_S", 0.01)
    told = Told()
    follower = Follower("told", lambda: told, "mice", tmp_path, print)
    for at in (1, 2):
        epoch(tmp_path, 0, at, 0.25 * at)
        for _ in range(500):
            if [call[2] for call in told.calls if call[0] == "log"] == list(range(1, at + 1)):
                break
            time.sleep(0.01)
    write_status(trial_folder(tmp_path, 0), state="finished", reason="")
    follower.close()
    assert [call[0] for call in told.calls] == ["begin", "log", "log", "end", "close"]


def test_a_tracker_that_fails_is_said_once_and_ends_nothing(tmp_path):
    class Broken(Told):
        def log(self, run, epoch, metrics):
            raise ConnectionError("no route to host\nand much more")

    said: list[str] = []
    for number in range(3):
        epoch(tmp_path, number, 1, 0.25)
    Follower("wandb", Broken, "mice", tmp_path, said.append).close()
    assert said == [
        "note: wandb is told nothing more, the sweep goes on: ConnectionError: no route to host; the same command "
        "tells it later what it missed"
    ]
    told = Told()
    Follower("wandb", lambda: told, "mice", tmp_path, said.append).close()
    assert [call[0] for call in told.calls] == ["begin", "log"] * 3 + ["close"]
    assert told.calls[0][1] == "id-1"  # the run that was begun


def test_a_tracker_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    release = threading.Event()

    class Hanging(Told):
        def begin(self, run, training):
            release.wait(20)
            return "x"

    monkeypatch.setattr(trackers, "PATIENCE_S", 0.05)
    said: list[str] = []
    epoch(tmp_path, 0, 1, 0.25)
    Follower("mlflow", Hanging, "mice", tmp_path, said.append).close()
    release.set()
    assert said[0].startswith("note: mlflow has not taken everything after 0 s; nothing is lost here")


def test_names_that_mlflow_takes():
    assert mlflow_name("val/PCK@0.05") == "val/PCK_at_0.05"
    assert mlflow_name("loss/mse") == "loss/mse"


def run_twice(tmp_path: Path, track: str) -> list[str]:
    """Two trials told of in two runs of the sweep, the second going on with both; what was said."""
    said: list[str] = []
    for run in (1, 2):
        with tracking(sweep_of(tmp_path, track), tmp_path, said.append):
            for number, state in enumerate(["finished", "diverged"]):
                epoch(tmp_path, number, run, 0.25 * run)
                if run == 2:
                    write_status(trial_folder(tmp_path, number), state=state, reason="a reason")
    return said


def test_mlflow_has_each_trial_once(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    assert run_twice(tmp_path, "mlflow") == []
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        runs = store.execute("select name, status from runs order by name").fetchall()
        metrics = store.execute(
            "select r.name, m.step, m.value from metrics m join runs r using (run_uuid) where key = 'val/AP' "
            "order by r.name, m.step"
        ).fetchall()
        tags = dict(store.execute("select key, value from tags join runs using (run_uuid) where name = 'mice 0001'"))
        params = dict(
            store.execute("select key, value from params join runs using (run_uuid) where name = 'mice 0001'")
        )
        experiments = {name for (name,) in store.execute("select name from experiments")}
    assert runs == [("mice 0000", "FINISHED"), ("mice 0001", "FAILED")]
    assert metrics == [(f"mice 000{n}", step, 0.25 * step) for n in (0, 1) for step in (1, 2)]
    assert (tags["posesweep.state"], tags["posesweep.reason"]) == ("diverged", "a reason")
    assert params == {"lr0": "0.5", "task": "topdown", "model": "tiny", "imgsz": "[64, 64]"}
    assert "mice" in experiments


def test_wandb_offline_has_each_trial_once(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    assert run_twice(tmp_path, "{wandb: {project: horses, mode: offline}}") == []
    found = [records_of(file) for file in sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))]
    by_run: dict[str, list[float]] = {}
    for run, aps in found:
        assert (run.project, run.run_group) == ("horses", "mice")
        by_run.setdefault(f"{run.run_id} {run.display_name}", []).extend(aps)
    assert sorted(name.partition(" ")[2] for name in by_run) == ["mice 0000", "mice 0001"]
    assert list(by_run.values()) == [[0.25, 0.5]] * 2


def records_of(file: Path):
    """(the run, its val/AP in order) of a .wandb file."""
    from wandb.proto import wandb_internal_pb2

    run, aps = None, []
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            run = record.run
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            aps += [json.loads(items["val/AP"])] if "val/AP" in items else []
    return run, aps


def leveldb_records(data: bytes) -> list[bytes]:
    """Of LevelDB's log format: after 7 bytes of W&B's, blocks of 32 KiB with pieces of a checksum (4 bytes), a length
    (2), a kind (1: whole, 2: first, 3: middle, 4: last) and so many bytes."""
    records, at, whole = [], 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            records.append(whole)
            whole = b""
    return records


def test_wandb_online_without_a_login_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    with pytest.raises(ConfigError, match="track: wandb has no login; run `wandb login` once, or write"):
        check_trackers(Track.model_validate("wandb"))
