"""Ray Tune runs what the search proposes and stops what it stops."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from posesweep.search_spaces.schema import EarlyTerminate
from posesweep.search_spaces.schema import Search as SearchBlock
from posesweep.search_spaces.space import DataSpec, Parameter, Sweep
from posesweep.trainables.housekeeping import Orders
from posesweep.trainables.search import Search
from posesweep.trainables.tune_glue import Limited, StudyScheduler, StudySearcher

SWEEP = Sweep(
    name="glue",
    data=DataSpec(train="train.json"),
    fixed={"epochs": 9},
    parameters={"x": Parameter(kind="float", low=0.0, high=1.0)},
    baseline={"x": 0.5},
    search=SearchBlock(trials=8, startup_trials=3, seed=1),
    early_terminate=EarlyTerminate(type="asha", min_epochs=1, eta=3),
)


class Controller:
    """What Tune's controller does with a searcher and a scheduler, for trials without processes."""

    def __init__(self, search: Search, orders: Orders | None = None) -> None:
        self.searcher = StudySearcher(search, orders)
        self.scheduler = StudyScheduler(self.searcher)
        self.trials: dict[str, SimpleNamespace] = {}

    def start(self, trial_id: str) -> dict | str:
        config = self.searcher.suggest(trial_id)
        self.trials[trial_id] = SimpleNamespace(trial_id=trial_id, config=config, status="RUNNING")
        return config

    def result(self, trial_id: str, **result: object) -> bool:
        decision = self.scheduler.on_trial_result(None, self.trials[trial_id], result)
        return decision == TrialScheduler.STOP


def test_trials_come_and_go(tmp_path: Path) -> None:
    search = Search.open(SWEEP, tmp_path)
    tune = Controller(search)
    assert tune.start("a") == {"number": 0, "params": {"x": 0.5}, "role": "baseline"}
    assert not tune.result("a", epoch=1, value=0.9, state="running")
    assert not tune.result("a", epoch=2, value=None, state="running")
    tune.searcher.on_trial_complete("a", {"epoch": 3, "value": 0.95, "state": "finished", "done": True})
    assert search.outcome(0) == ("finished", "")
    assert search._trials()[0].intermediate_values == {1: 0.9, 3: 0.95}

    tune.start("b")
    assert tune.result("b", epoch=1, value=0.1, state="running")
    tune.searcher.on_trial_complete("b", {"epoch": 1, "value": 0.1, "state": "running", "done": True})
    assert search.outcome(1)[0] == "waiting"

    tune.start("c")
    assert not tune.result("c", epoch=1, value=None, state="diverged", reason="the loss is nan in epoch 1")
    tune.searcher.on_trial_complete("c", {"epoch": 1, "state": "diverged", "reason": "the loss is nan in epoch 1"})
    assert search.outcome(2) == ("diverged", "the loss is nan in epoch 1")

    tune.start("d")
    tune.result("d", epoch=0, state="failed", reason="sigma must be above 0")
    assert search.outcome(3) == ("failed", "sigma must be above 0")


def test_a_trial_that_goes_on_is_another_of_tune_s(tmp_path: Path) -> None:
    search = Search.open(SWEEP, tmp_path)
    tune = Controller(search)
    tune.start("a"), tune.start("b")
    assert not tune.result("a", epoch=1, value=0.1, state="running")
    assert tune.result("b", epoch=1, value=0.9, state="running")
    config = tune.start("c")  # "b" has not ended for Tune, and already another of its trials is begun
    assert tune.result("c", epoch=1, value=0.5, state="running")
    again = tune.start("d")
    assert again == tune.trials["b"].config != config
    tune.searcher.on_trial_complete("b", {"epoch": 1, "value": 0.9, "state": "running", "done": True})
    assert search.outcome(1) == ("running", ""), "the end of the first of the two does not end it"
    assert not tune.result("d", epoch=1, value=0.9, state="running"), "what it tells again when it begins"
    tune.searcher.on_trial_complete("d", {"epoch": 9, "value": 0.95, "state": "finished", "done": True})
    assert search.outcome(1) == ("finished", "")


def test_tune_is_told_to_wait_while_others_may_yet_decide_who_goes_on(tmp_path: Path) -> None:
    """Told FINISHED, it would never ask again."""
    search = Search.open(SWEEP, tmp_path)
    tune, ids = Controller(search), "abcdefgh"
    assert all(isinstance(tune.start(trial_id), dict) for trial_id in ids)
    assert tune.start("i") is None
    for n, trial_id in enumerate(ids):
        tune.searcher.on_trial_complete(trial_id, {"epoch": 1, "value": 1 - n / 10, "state": "running", "done": True})
    assert [tune.start(trial_id)["number"] for trial_id in "jklm"] == [1, 2, 3, 4], "the finalists"
    assert tune.start("n") is None
    for trial_id in "jklm":
        tune.searcher.on_trial_complete(trial_id, {"epoch": 9, "value": 0.9, "state": "finished", "done": True})
    assert tune.start("o") == Searcher.FINISHED


def test_a_trial_is_proposed_only_when_there_is_room_for_it(tmp_path: Path) -> None:
    search, room = Search.open(SWEEP, tmp_path), [2]
    limited = Limited(StudySearcher(search), lambda: room[0])
    assert [isinstance(limited.suggest(trial_id), dict) for trial_id in "abc"] == [True, True, False]
    assert len(search.proposals()) == 2, "the third was not drawn yet: it will know how these two end"
    room[0] = 3  # a node has joined
    assert isinstance(limited.suggest("c"), dict)
    room[0] = 1  # two are lost
    limited.on_trial_complete("a", {"epoch": 9, "value": 0.5, "state": "finished"})
    assert limited.suggest("d") is None
    assert search.outcome(0)[0] == "finished"


def test_the_first_that_waits_is_run_next(tmp_path: Path) -> None:
    """Told from the trials under way: over all there ever were, each event of a long sweep would take longer."""
    tune = Controller(Search.open(SWEEP, tmp_path))
    for trial_id in "abcd":
        tune.start(trial_id)
    under_way = SimpleNamespace(get_live_trials=lambda: [tune.trials[trial_id] for trial_id in "dbca"])
    assert tune.scheduler.choose_trial_to_run(under_way) is None
    tune.trials["d"].status = tune.trials["c"].status = "PENDING"
    assert tune.scheduler.choose_trial_to_run(under_way) is tune.trials["c"]


def test_a_trial_whose_process_dies_before_it_begins_is_begun_again(tmp_path: Path) -> None:
    """Tune gives it up at once, whatever max_failures says: it tries again only what was running."""
    search = Search.open(SWEEP, tmp_path)
    (tmp_path / "error.txt").write_text("Failure # 1 (t)\nThe actor died unexpectedly before finishing this task.\n")
    orders = Orders(max_retries=2)
    for attempt in (1, 2, 3):
        orders.again.clear()
        tune = Controller(search, orders)
        assert tune.start("a")["number"] == 0
        tune.trials["a"].status, tune.trials["a"].error_file = "PENDING", str(tmp_path / "error.txt")
        tune.scheduler.on_trial_error(None, tune.trials["a"])
        tune.searcher.on_trial_complete("a", error=True)
        assert orders.again == ({0} if attempt < 3 else set())
        assert search.outcome(0)[0] == ("running" if attempt < 3 else "failed")
    assert search.outcome(0)[1] == "its process died, killed or out of memory"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Failure # 1 (occurred at now)\nTraceback ...\n  File x\nValueError: no\n", "ValueError: no"),
        ("Failure # 1 (t)\nKeyError: 'a'\nFailure # 2 (t)\nTraceback\nOSError: full\n\n", "OSError: full"),
        (
            "Failure # 1 (t)\nThe actor died unexpectedly before finishing this task.\n\tclass_name: X\n",
            "its process died",
        ),
        (
            "Failure # 1 (t)\nThe actor af8e is unavailable: The actor is temporarily unavailable: Socket closed.\n",
            "the connection to its process broke off: its machine was lost, or the process was killed",
        ),
        (
            "Failure # 1 (t)\nTraceback:\n  x\nray.exceptions.ActorDiedError: The actor died.\n\tpid: 7\n\n"
            "The above exception was the direct cause of the following exception:\n\nTraceback:\n  y\n"
            "TimeoutError: it hung: no worker reported\n",
            "TimeoutError: it hung: no worker reported",
        ),
        (
            "Failure # 1 (t)\nTraceback:\n  x\nray.exceptions.ActorDiedError: The actor died.\n\tpid: 7\n",
            "its process died",
        ),
        (
            "Failure # 1 (t)\nThe actor died.\n\tip: 10.0.0.2\nThe actor died because its node has died.\n",
            "its machine (10.0.0.2) was lost",
        ),
    ],
)
def test_errors_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    search = Search.open(SWEEP, tmp_path)
    tune = Controller(search)
    tune.start("a")
    (tmp_path / "error.txt").write_text(text)
    tune.trials["a"].error_file = str(tmp_path / "error.txt")
    tune.scheduler.on_trial_error(None, tune.trials["a"])
    assert search.outcome(0)[0] == "running", "Tune may try again"
    tune.searcher.on_trial_complete("a", error=True)
    state, reason = search.outcome(0)
    assert state == "failed"
    assert reason.startswith(words)


def test_what_was_cut_off_comes_first_next_time(tmp_path: Path) -> None:
    tune = Controller(Search.open(SWEEP, tmp_path))
    first = [tune.start(trial_id) for trial_id in "abc"]
    tune.result("a", epoch=1, value=0.5, state="running")
    tune.searcher.on_trial_complete("b")  # a pending trial, when the time is up
    tune.searcher.on_trial_complete("a", {"epoch": 1, "value": 0.5, "state": "running", "done": True})
    again = Controller(Search.open(SWEEP, tmp_path))
    assert [again.start(trial_id) for trial_id in "abc"] == first
    configs = [again.start(f"t{n}") for n in range(6)]
    assert [isinstance(config, dict) and config["number"] for config in configs[:5]] == [3, 4, 5, 6, 7]
    assert configs[5] is None, "there are no more to begin, but those under way may yet have to go on"


RUN = """
import json, os, sys, time
from pathlib import Path
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
root, folder, slow = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
sys.path.insert(0, root)
import importlib.util
spec = importlib.util.spec_from_file_location("glue", Path(root) / "tests/trainables/test_tune_glue.py")
glue = importlib.util.module_from_spec(spec); spec.loader.exec_module(glue)
import ray
from ray import tune
from posesweep.trainables.search import Search
from posesweep.trainables.tune_glue import StudyScheduler, StudySearcher

def train(config):
    if config["number"] == 5:
        raise ValueError("five is broken")
    rows = folder / f"{config['number']}.jsonl"
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    for epoch in range(len(done) + 1, 10):
        time.sleep(slow)
        value = (1 - abs(config["params"]["x"] - 0.3)) * (1 - 0.5**epoch)
        with rows.open("a") as file:
            file.write(json.dumps([epoch, value]) + "\\n")
        tune.report({"epoch": epoch, "value": value, "state": "running" if epoch < 9 else "finished"})

search = Search.open(glue.SWEEP, folder)
for proposal in search.unfinished():
    rows = folder / f"{proposal.number}.jsonl"
    if rows.exists():
        search.catch_up(proposal.number, [json.loads(line) for line in rows.read_text().splitlines()])
searcher = StudySearcher(search)
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
tune.Tuner(
    train,
    tune_config=tune.TuneConfig(
        search_alg=searcher, scheduler=StudyScheduler(searcher), num_samples=-1,
        max_concurrent_trials=1, reuse_actors=True,
    ),
    run_config=tune.RunConfig(name="tune", storage_path=str(folder / "ray"), verbose=0),
).fit()
search.conclude()
print("ended", dict(search.counts()))
"""


def run_on_ray(folder: Path, slow: float) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    root = str(Path(__file__).resolve().parents[2])
    arguments = [sys.executable, "-c", RUN, root, str(folder), str(slow)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root, start_new_session=True)


def record(folder: Path) -> list[tuple]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    study = optuna.load_study(study_name="glue", storage=optuna.storages.JournalStorage(backend))
    return [(t.number, t.state.name, t.params, t.intermediate_values, t.user_attrs) for t in study.get_trials()]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    whole = run_on_ray(tmp_path / "whole", 0.0)
    out, _ = whole.communicate(timeout=180)
    assert "ended" in out
    trials = record(tmp_path / "whole")
    assert {row[1] for row in trials} == {"COMPLETE", "PRUNED", "FAIL"}
    assert trials[5][4]["stop_reason"] == "ValueError: five is broken"

    folder = tmp_path / "killed"
    killed = run_on_ray(folder, 0.1)
    deadline = time.monotonic() + 120
    while not (folder / "3.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert len(record(folder)) < 8
    out, _ = run_on_ray(folder, 0.0).communicate(timeout=180)
    assert "ended" in out
    assert record(folder) == record(tmp_path / "whole")
