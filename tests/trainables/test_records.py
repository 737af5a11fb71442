"""The sweep folder beside a search whose trials wait at rungs, go on, and are stopped for good."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from posesweep.files import read_json, trial_folder, write_json
from posesweep.search_spaces.schema import EarlyTerminate, Keep
from posesweep.search_spaces.schema import Search as SearchBlock
from posesweep.search_spaces.space import DataSpec, Parameter, Sweep
from posesweep.trainables import search as searching
from posesweep.trainables.cluster import Slots
from posesweep.trainables.housekeeping import Orders
from posesweep.trainables.progress import Progress
from posesweep.trainables.records import Records
from posesweep.trainables.search import Search
from posesweep.trainables.sweep import board_of, catch_up, opening_line, settle


@pytest.fixture(autouse=True)
def _few_finalists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "FINALISTS", 2)


SWEEP = Sweep(
    name="toy",
    data=DataSpec(train="train.json"),
    fixed={"epochs": 9},
    parameters={"x": Parameter(kind="float", low=0.0, high=1.0)},
    baseline={"x": 0.5},
    search=SearchBlock(trials=9, startup_trials=9, seed=1),
    early_terminate=EarlyTerminate(type="asha", min_epochs=1, eta=3),
    keep=Keep(checkpoints_of_top=1),
)


class Told:
    """A search and the records of it, told what Tune would tell them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, io.StringIO()
        self.search = Search.open(SWEEP, folder)
        progress = Progress(board_of(self.search, folder, Slots(1, 1, 0.0, 1)), Console(file=self.out, width=200))
        self.records = Records(self.search, SWEEP, folder, progress, Orders())

    def train(self, *values: float) -> int:
        """The next trial up to where the search stops it; returns its number."""
        proposal = self.search.next_trial()
        assert proposal is not None
        trial = SimpleNamespace(config={"number": proposal.number, "params": proposal.params, "role": proposal.role})
        trial.run_metadata = SimpleNamespace(num_failures=0)
        self.records.on_trial_start(0, [], trial)
        for name in ("last", "last.old", "best"):
            write_json(trial_folder(self.folder, proposal.number) / name / "state.json", {})
        for epoch, value in zip((1, 3, 9), values, strict=False):
            stopped = self.search.report(proposal.number, epoch, value)
            row = {"epoch": epoch, "val/AP": value, "train_s": 1.0}
            self.records.on_trial_result(0, [], trial, {**row, "value": value, "state": "running"})
            if stopped:
                break
        else:
            self.search.finish(proposal.number)
        self.records.on_trial_complete(0, [], trial)
        return proposal.number

    def state(self, number: int) -> str:
        """What the trial's folder says of it."""
        return str(read_json(trial_folder(self.folder, number) / "status.json")["state"])

    def has(self, name: str) -> list[int]:
        """The trials that have such a checkpoint."""
        return sorted(int(path.parent.name) for path in self.folder.glob(f"trials/*/{name}") if path.is_dir())


def test_weights_stay_while_a_trial_waits_and_go_when_it_is_stopped_for_good(tmp_path: Path) -> None:
    told = Told(tmp_path)
    assert told.train(0.6, 0.6, 0.6) == 0
    for number in range(1, 5):
        assert told.train(0.5 - number / 100) == number
    assert [told.state(number) for number in range(5)] == ["finished", *["waiting"] * 4]
    assert told.has("last") == [0, 1, 2, 3, 4]
    assert opening_line(told.search, tmp_path) == "toy: 1 done, 4 waiting, 4 to start"

    assert told.has("last.old") == []

    assert told.train(0.475) == 5, "better than 3 and 4: there is room for two finalists and two more"
    assert told.state(4) == "pruned"
    assert read_json(trial_folder(tmp_path, 4) / "status.json")["reason"].startswith("stopped at epoch 1: val/AP 0.460")
    assert told.has("last") == [0, 1, 2, 3, 5]
    assert told.has("best") == [0, 1, 2, 3, 5]

    assert told.train(0.49, 0.5) == 1, "of six two go on: the baseline has, and now it has"
    assert told.state(1) == "waiting"
    lines = told.out.getvalue().splitlines()
    assert "trial 1: goes on after epoch 1" in "\n".join(lines)
    assert any(line.startswith("trial 1: waits at epoch 3: only 2 trials came this far") for line in lines)


def test_when_the_search_is_over_nobody_waits(tmp_path: Path) -> None:
    told = Told(tmp_path)
    while told.search.has_next:
        number = len(told.search.proposals())
        told.train(*(0.5 - number / 100 + rung for rung in (0.0, 0.1, 0.2)))
    finished = {number for number in range(9) if told.state(number) == "finished"}
    assert len(finished) == 3
    settle(SWEEP, told.search, tmp_path)
    assert {told.state(number) for number in set(range(9)) - finished} == {"pruned"}
    assert told.has("last") == told.has("best") == told.search.best(1)


def test_a_killed_driver_left_a_trial_that_waits_as_running(tmp_path: Path) -> None:
    """The journal had the decision, the folder had not."""
    told = Told(tmp_path)
    told.train(0.6, 0.6, 0.6), told.train(0.5)
    write_json(trial_folder(tmp_path, 1) / "status.json", {"state": "running", "params": {}})
    search = Search.open(SWEEP, tmp_path)
    catch_up(search, tmp_path, "val/AP")
    assert told.state(1) == "waiting"
    assert search.unfinished() == []
    assert told.has("last") == [0, 1]
