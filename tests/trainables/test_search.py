"""The search without Ray: the same record gives the same proposals and decisions, whatever interrupts it."""

import json
import math
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from posesweep.errors import SweepError
from posesweep.search_spaces.schema import EarlyTerminate, Metric
from posesweep.search_spaces.schema import Search as SearchBlock
from posesweep.search_spaces.space import DataSpec, Parameter, Sweep
from posesweep.trainables import proposals
from posesweep.trainables import search as searching
from posesweep.trainables.proposals import as_sampled, at_their_end, in_sight
from posesweep.trainables.search import Proposal, Search, longest_training, rule_of, summary_of

SPACE = {
    "lr0": Parameter(kind="float", low=1e-5, high=1e-1, log=True),
    "codec": Parameter(kind="categorical", values=("heatmap", "simcc")),
    "sigma": Parameter(kind="float", low=1.0, high=4.0, step=0.1, when={"codec": ["heatmap"]}),
    "imgsz": Parameter(kind="categorical", values=([192, 256], [256, 256], None)),
    "freeze": Parameter(kind="int", low=0, high=4),
    "loss": Parameter(kind="constant", values=("mse",)),
}
BASELINE = {"lr0": 5e-4, "codec": "heatmap", "sigma": 2.0, "imgsz": [192, 256], "freeze": 0, "loss": "mse"}
SIMCC = {"lr0": 1e-3, "codec": "simcc", "imgsz": None, "freeze": 1, "loss": "mse"}


def sweep_of(**blocks: Any) -> Sweep:
    given = {
        "name": "toy",
        "data": DataSpec(train="train.json"),
        "fixed": {"epochs": 9},
        "parameters": SPACE,
        "baseline": BASELINE,
        "try_first": (SIMCC,),
        "search": SearchBlock(trials=20, startup_trials=5, seed=3),
        "early_terminate": EarlyTerminate(type="asha", min_epochs=1, eta=3),
    }
    return Sweep(**{**given, **blocks})


def score(params: dict[str, Any], epoch: int) -> float:
    """A learning curve: best near lr0 = 1e-3, and simcc; diverges far above."""
    if params["lr0"] > 3e-2 and epoch == 2:
        return math.nan
    top = (
        0.8 - 0.1 * abs(math.log10(params["lr0"]) + 3) - 0.05 * (params["codec"] == "heatmap") - 0.01 * params["freeze"]
    )
    return round(top * (1 - math.exp(-epoch / 4)), 6)


class KilledError(Exception):
    """The driver died here."""


class Driver:
    """What the sweep does with a search, one trial at a time; dies after `events` reports or proposals.

    `disk` is the trials' own metrics files; it outlives the driver, and is written before the search hears of an epoch.
    """

    def __init__(self, sweep: Sweep, folder: Path, disk: dict[int, list[tuple[int, float]]]) -> None:
        self.search = Search.open(sweep, folder)
        self.disk = disk
        self.epochs = longest_training(sweep)

    def run(self, events: int | None = None) -> None:
        self.left = math.inf if events is None else events
        todo = self.search.unfinished()
        while proposal := todo.pop(0) if todo else self.search.next_trial():
            self._event()
            self._train(proposal)
        self.search.conclude()

    def _train(self, trial: Proposal) -> None:
        rows = self.disk.setdefault(trial.number, [])
        reason = self.search.catch_up(trial.number, rows)
        for epoch in range(len(rows) + 1, self.epochs + 1):
            if reason:
                return
            value = score(trial.params, epoch)
            rows.append((epoch, value))
            self._event()
            reason = self.search.report(trial.number, epoch, value)
            self._event()
        if not reason:
            self.search.finish(trial.number, {"cost": 1.5})

    def _event(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KilledError


def record(folder: Path) -> list[Any]:
    """All that a journal says of the trials, without times."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    study = optuna.load_study(study_name="toy", storage=optuna.storages.JournalStorage(backend))
    return [
        (t.number, t.state.name, t.params, t.values, t.intermediate_values, t.user_attrs, str(t.distributions))
        for t in study.get_trials()
    ]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand writes are flushed here one by one; a test that dies does not lose power."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


AT_ONCE = EarlyTerminate(type="median", min_epochs=1, startup_trials=1)  # nobody waits
RULES = {
    "asha": EarlyTerminate(type="asha", min_epochs=1, eta=3),
    "hyperband": EarlyTerminate(type="hyperband", min_epochs=1, eta=2),
    "median": EarlyTerminate(type="median", min_epochs=2, startup_trials=3),
    "none": EarlyTerminate(type="none"),
}


@pytest.mark.parametrize("rule", RULES)
def test_killed_between_any_two_events_it_goes_on_the_same(tmp_path: Path, rule: str) -> None:
    """Killed every few events, ten times over, against a run in one piece."""
    sweep = sweep_of(early_terminate=RULES[rule])
    Driver(sweep, tmp_path / "whole", {}).run()
    rng = np.random.default_rng(len(rule))
    for attempt in range(2):
        folder, disk, kills = tmp_path / f"killed{attempt}", {}, 0
        while True:
            try:
                Driver(sweep, folder, disk).run(events=int(rng.integers(1, 25)))
                break
            except KilledError:
                kills += 1
        assert kills > 3
        assert record(folder) == record(tmp_path / "whole")


def test_killed_at_any_byte_of_the_journal_it_goes_on_the_same(tmp_path: Path) -> None:
    """The journal ends anywhere, mid-line too, with the lock still there: every write of the search is tried."""
    sweep = sweep_of(search=SearchBlock(trials=8, startup_trials=3, seed=1))
    driver = Driver(sweep, tmp_path / "whole", {})
    driver.run()
    whole, expected = (tmp_path / "whole" / "journal.log").read_bytes(), record(tmp_path / "whole")
    assert {row[1] for row in expected} == {"COMPLETE", "PRUNED"}
    ends = np.flatnonzero(np.frombuffer(whole, np.uint8) == ord("\n"))
    for n, cut in enumerate(ends[::6]):
        folder = tmp_path / f"cut{n}"
        folder.mkdir()
        (folder / "journal.log").write_bytes(whole[: cut + 1 + n % 5 * 9])
        (folder / "journal.log.lock").symlink_to(folder / "journal.log")
        # the trials' own files know at most one epoch more than the journal: here they know all of it, or nothing
        disk = {k: list(v) for k, v in driver.disk.items()} if n % 2 else {}
        Driver(sweep, folder, disk).run()
        assert record(folder) == expected, cut


def test_proposals_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Python's string hashes differ from process to process; sets of parameter names must not show in a proposal."""
    code = textwrap.dedent("""
        import importlib.util, json, sys, pathlib
        spec = importlib.util.spec_from_file_location("t", sys.argv[1])
        t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
        t.Driver(t.sweep_of(), pathlib.Path(sys.argv[2]), {}).run()
        print(json.dumps([row[2] for row in t.record(pathlib.Path(sys.argv[2]))]))
    """)
    root = Path(__file__).resolve().parents[2]
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, __file__, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            check=True,
            text=True,
        )
        for seed in ("1", "2")
    ]
    assert json.loads(runs[0].stdout.splitlines()[-1]) == json.loads(runs[1].stdout.splitlines()[-1])


def test_order_and_roles(tmp_path: Path) -> None:
    search = Search.open(sweep_of(search=SearchBlock(trials=4, startup_trials=2)), tmp_path)
    proposals = [search.next_trial() for _ in range(4)]
    assert [p and (p.number, p.role) for p in proposals] == [
        (0, "baseline"),
        (1, "try_first"),
        (2, "search"),
        (3, "search"),
    ]
    assert [p.params for p in proposals[:2] if p] == [BASELINE, SIMCC]
    assert search.next_trial() is None
    assert search.unfinished() == proposals, "as they were proposed: lists are lists, None is None"
    assert search.left == 4
    search.finish(0)
    assert search.left == 3
    search.extend(2)
    assert Search.open(sweep_of(search=SearchBlock(trials=4, startup_trials=2)), tmp_path).wanted == 6
    assert search.next_trial() is not None


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_only_active_parameters_are_proposed_and_lie_in_the_space(tmp_path: Path, method: str) -> None:
    sweep = sweep_of(search=SearchBlock(method=method, trials=40, startup_trials=5))
    driver = Driver(sweep, tmp_path, {})
    driver.run()
    trials = driver.search._trials()
    for trial in trials:
        params = trial.params
        assert ("sigma" in params) == (params["codec"] == "heatmap")
        assert set(SPACE) - {"sigma"} <= set(params)
        assert params["imgsz"] in ("[192, 256]", "[256, 256]", None)
        if "sigma" in params:
            assert SPACE["sigma"].settle(params["sigma"]) == params["sigma"], (
                "on its steps, without noise in the digits"
            )
    assert {t.params["codec"] for t in trials[2:]} == {"heatmap", "simcc"}


def test_no_proposal_twice_while_there_is_anything_new(tmp_path: Path) -> None:
    space = {"freeze": Parameter(kind="int", low=0, high=3), "udp": Parameter(kind="categorical", values=(True, False))}
    sweep = sweep_of(
        parameters=space,
        baseline={"freeze": 0, "udp": True},
        try_first=(),
        search=SearchBlock(trials=7, startup_trials=2),
    )
    search = Search.open(sweep, tmp_path)
    seen = []
    while proposal := search.next_trial():
        seen.append(tuple(proposal.params.values()))
        search.report(proposal.number, 9, 0.5)
        search.finish(proposal.number)
    assert len(set(seen)) == 7


def test_grid(tmp_path: Path) -> None:
    space = {
        "codec": SPACE["codec"],
        "sigma": Parameter(kind="float", low=1, high=2, step=0.5, when={"codec": ["heatmap"]}),
    }
    first = {"codec": "simcc"}
    sweep = sweep_of(parameters=space, baseline=first, try_first=(), search=SearchBlock(method="grid", trials=50))
    search = Search.open(sweep, tmp_path)
    proposals = []
    while proposal := search.next_trial():
        proposals.append(proposal.params)
    heatmaps = [{"codec": "heatmap", "sigma": sigma} for sigma in (1.0, 1.5, 2.0)]
    assert proposals == [first, *heatmaps, {"codec": "simcc"}]


def end_of(search: Search, number: int) -> tuple[str, dict[str, Any]]:
    trial = search._trials()[number]
    attrs = {name: value for name, value in trial.user_attrs.items() if name != "ending"}
    return trial.state.name, attrs


def test_each_ending_is_told_truthfully(tmp_path: Path) -> None:
    search = Search.open(sweep_of(early_terminate=AT_ONCE), tmp_path)
    for _ in range(6):
        search.next_trial()
    for epoch, value in [(1, 0.3), (2, 0.6), (3, 0.5)]:
        assert search.report(0, epoch, value) is None
    search.finish(0, {"cost": 1.5})
    assert end_of(search, 0) == (
        "COMPLETE",
        {"role": "baseline", "epochs": 3, "best": 0.6, "best_epoch": 2, "cost": 1.5},
    )
    assert search._trials()[0].value == 0.6

    reason = "stopped at epoch 1: best val/AP 0.200 is below 0.300, the median of the one trial that came this far"
    assert search.report(1, 1, 0.2) == reason
    pruned = {"role": "try_first", "epochs": 1, "best": 0.2, "best_epoch": 1, "stop_reason": reason}
    assert end_of(search, 1) == ("PRUNED", pruned)
    assert search.report(1, 1, 0.2) == reason, "told again"
    search.finish(1)
    search.fail(1, "late")
    assert end_of(search, 1) == ("PRUNED", pruned), "what has ended stays as it is"

    search.fail(2, "RuntimeError: out of memory")
    assert end_of(search, 2) == ("FAIL", {"role": "search", "epochs": 0, "stop_reason": "RuntimeError: out of memory"})

    search.report(3, 1, 0.9)
    search.diverge(3, 2, "the loss is nan in epoch 2")
    assert end_of(search, 3)[0] == "PRUNED"
    assert end_of(search, 3)[1]["diverged"] is True
    assert search._trials()[3].intermediate_values == {1: 0.9}, "nothing made up"

    assert search.report(4, 1, math.inf) == "diverged: val/AP is inf after epoch 1"
    search.finish(5)
    assert end_of(search, 5)[1]["stop_reason"] == "it ended without a value of val/AP"
    assert search.counts() == {"finished": 1, "pruned": 1, "diverged": 2, "failed": 2}
    assert search.unfinished() == []
    assert search.ended() == [0, 1, 2, 3, 4, 5]
    assert search.outcome(0) == ("finished", "")
    assert search.outcome(1) == ("pruned", reason)
    assert search.best(5) == [0, 3, 1], "the one that trained to the end, then the others by their best"
    assert [proposal.number for proposal in search.proposals()] == [0, 1, 2, 3, 4, 5]


def test_an_epoch_told_again_changes_and_decides_nothing(tmp_path: Path) -> None:
    search = Search.open(sweep_of(early_terminate=AT_ONCE), tmp_path)
    for _ in range(3):
        search.next_trial()
    assert search.report(1, 1, 0.2) is None, "the first at this rung"
    search.report(0, 1, 0.9)
    size = (tmp_path / "journal.log").stat().st_size
    assert search.report(1, 1, 0.2) is None
    assert search.report(1, 1, 0.1) is None
    assert (tmp_path / "journal.log").stat().st_size == size
    assert search.catch_up(2, [(2, 0.5), (1, 0.4), (3, None)]) is not None, "the rung it was not heard of yet"


def test_minimize(tmp_path: Path) -> None:
    sweep = sweep_of(metric=Metric(name="val/NME"))
    search = Search.open(sweep, tmp_path)
    for _ in range(3):
        search.next_trial()
    search.report(0, 1, 0.1)
    search.report(0, 2, 0.05)
    assert search.report(1, 1, 0.2) == "waits at epoch 1: only 2 trials came this far, and one in 3 goes on"
    assert search.report(2, 1, 0.09) is None, "the lowest of three"
    search.finish(0)
    assert end_of(search, 0)[1]["best"] == 0.05
    assert search.history() == {0: {1: -0.1, 2: -0.05}, 1: {1: -0.2}, 2: {1: -0.09}}


def test_searched_epochs(tmp_path: Path) -> None:
    """A trial whose own training is short ends at a rung by finishing, not by being stopped."""
    space = {"epochs": Parameter(kind="categorical", values=(3, 27)), "lr0": SPACE["lr0"]}
    short = {"epochs": 3, "lr0": 1e-3}
    rule = EarlyTerminate(type="asha", min_epochs=3, eta=3)
    sweep = sweep_of(
        parameters=space, fixed={}, baseline={"epochs": 27, "lr0": 1e-3}, try_first=(short,), early_terminate=rule
    )
    assert rule_of(sweep).max_epochs == 27
    search = Search.open(sweep, tmp_path)
    search.next_trial(), search.next_trial()
    for epoch in (1, 2, 3):
        search.report(0, epoch, 0.9)
        assert search.report(1, epoch, 0.1) is None
    assert len(search.unfinished()) == 2


def run_toy(sweep: Sweep, folder: Path, curve: Callable[[dict[str, Any], int], float]) -> list[dict[str, Any]]:
    search, proposed = Search.open(sweep, folder), []
    while proposal := search.next_trial():
        if proposal.number == len(proposed):  # no trial that goes on
            proposed.append(proposal.params)
        for epoch in range(1, 10):
            if search.report(proposal.number, epoch, curve(proposal.params, epoch)):
                break
        else:
            search.finish(proposal.number)
    return proposed


PLAIN = {
    "x": Parameter(kind="float", low=0.0, high=1.0),
    "y": Parameter(kind="float", low=0.0, high=1.0),
}


@pytest.mark.parametrize("rule", ["asha", "none"])
def test_tpe_finds_a_planted_optimum_that_random_does_not(tmp_path: Path, rule: str) -> None:
    def distance(params: dict[str, Any]) -> float:
        return math.hypot(params["x"] - 0.8, params["y"] - 0.3)

    def curve(params: dict[str, Any], epoch: int) -> float:
        return (1 - distance(params)) * (1 - 0.5**epoch)

    late: dict[str, list[float]] = {"tpe": [], "random": []}
    for method in late:
        for seed in range(2):
            sweep = sweep_of(
                parameters=PLAIN,
                baseline={"x": 0.1, "y": 0.9},
                try_first=(),
                search=SearchBlock(method=method, trials=40, startup_trials=10, seed=seed),
                early_terminate=RULES[rule],
            )
            proposed = run_toy(sweep, tmp_path / f"{method}{seed}", curve)
            late[method] += [distance(params) for params in proposed[25:]]
    assert np.median(late["tpe"]) < 0.5 * np.median(late["random"])


def test_tpe_keeps_away_from_what_diverged_however_far_it_came(tmp_path: Path) -> None:
    """Above x = 0.5 a trial looks better than any other until it diverges in epoch 8, past the rungs at 1 and 3."""

    def curve(params: dict[str, Any], epoch: int) -> float:
        if params["x"] > 0.5:
            return math.nan if epoch == 8 else 0.5 + 0.4 * params["x"]
        return 0.5 - abs(params["x"] - 0.25)

    late = []
    for seed in range(2):
        sweep = sweep_of(
            parameters=PLAIN,
            baseline={"x": 0.2, "y": 0.5},
            try_first=(),
            search=SearchBlock(trials=40, startup_trials=10, seed=seed),
        )
        late += [params["x"] > 0.5 for params in run_toy(sweep, tmp_path / str(seed), curve)[25:]]
    assert np.mean(late) < 0.2, "half of them, if nothing were learned"


def asha_of(trials: int, **blocks: Any) -> Sweep:
    """Rungs at 1 and 3 of 9 epochs, of which one in three goes on."""
    return sweep_of(search=SearchBlock(trials=trials, startup_trials=50, seed=3), **blocks)


def test_a_trial_that_waits_goes_on_once_it_belongs_to_the_best(tmp_path: Path) -> None:
    search = Search.open(asha_of(trials=9), tmp_path)
    first = [search.next_trial() for _ in range(2)]
    assert search.report(0, 1, 0.1) is None
    reason = "waits at epoch 1: only 2 trials came this far, and one in 3 goes on"
    assert search.report(1, 1, 0.5) == reason
    assert search.outcome(1) == ("waiting", reason)
    assert (search.waiting, search.ended(), search.counts()) == ([1], [], {"running": 1, "waiting": 1})
    assert search.unfinished() == first[:1], "it is not to be run again, yet"
    search.finish(1)
    search.fail(1, "its process was ended")
    assert search.report(1, 2, 0.7) == search.report(1, 3, 0.8) == reason
    assert search.outcome(1) == ("waiting", reason), "what its process still said when it was stopped is no news"
    assert search.history()[1] == {1: 0.5}

    third = search.next_trial()
    assert third is not None
    assert third.number == 2
    assert search.report(2, 1, 0.2) == (
        "waits at epoch 1: val/AP 0.200 is below 0.500, the best of the 3 trials that came this far"
    )
    assert search.next_trial() == first[1], "one of three goes on, from where it was"
    assert search.outcome(1) == ("running", "")
    again = Search.open(asha_of(trials=9), tmp_path)
    assert again.unfinished() == first
    assert again.waiting == [2]
    assert again.left == 2 + 6 + 1, "running, to be begun, and to be among the finalists"
    assert again.report(1, 1, 0.5) is None, "told again, it changes nothing"
    assert again.report(1, 3, 0.6) is not None
    assert again.report(0, 9, 0.3) is None


def test_who_waits_in_vain_is_stopped_for_good_as_soon_as_that_is_certain(tmp_path: Path) -> None:
    """Of twelve trials four go on at the first rung, but there is room for eight: four finalists, and four more."""
    search = Search.open(asha_of(trials=12), tmp_path)
    for number in range(10):
        search.next_trial()
        assert search.outcome(1 if number > 1 else 0)[0] == ("waiting" if number > 1 else "running")
        search.report(number, 1, number / 10)
    assert search.outcome(1)[0] == "pruned"
    assert search.outcome(1)[1] == (
        "stopped at epoch 1: val/AP 0.100 is below 0.700, the best third of the 10 trials that came this far"
    )
    assert search.counts() == {"running": 9, "pruned": 1}, "the others were the best when they came"
    assert search.given_up() == [1]
    assert search.given_up() == [], "once"


def test_a_short_sweep_trains_its_best_to_the_end_all_the_same(tmp_path: Path) -> None:
    """Three trials besides the baseline, of which none goes on by its rank while there are others to begin."""
    search = Search.open(asha_of(trials=4), tmp_path)
    ended = []
    while proposal := search.next_trial():
        for epoch in range(1, 10):
            if search.report(proposal.number, epoch, (4 - proposal.number) / 10 + epoch / 100):
                break
        else:
            search.finish(proposal.number)
            ended.append(proposal.number)
    assert sorted(ended) == [0, 1, 2, 3]
    assert search.is_over
    assert search.left == 0


def test_the_end_has_finalists_and_nobody_waits(tmp_path: Path) -> None:
    """Trials that get worse and worse: none after the first few goes on by its rank."""
    search, begun = Search.open(asha_of(trials=13), tmp_path), []
    while proposal := search.next_trial():
        begun.append(proposal.number)
        for epoch in range(1, 10):
            if search.report(proposal.number, epoch, (20 - proposal.number) / 100 + epoch / 1000):
                break
        else:
            search.finish(proposal.number)
        assert not search.is_over or len(search.best_finished()) == 5
    assert search.best_finished() == [0, 1, 2, 3, 4]
    assert 4 in begun[begun.index(12) :], "the last of them only when there was nothing more to begin"
    search.conclude()
    assert search.counts() == {"finished": 5, "pruned": 8}
    assert search.waiting == []
    assert all(search.outcome(n)[1].startswith("stopped at epoch") for n in range(5, 13))
    assert {t.state for t in search._trials()} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize("how", ["diverge", "fail"])
def test_finalists_that_do_not_come_to_their_end_are_replaced(tmp_path: Path, how: str) -> None:
    search = Search.open(asha_of(trials=13), tmp_path)
    while proposal := search.next_trial():
        for epoch in range(1, 10):
            if search.report(proposal.number, epoch, (20 - proposal.number) / 100 + epoch / 1000):
                break
            if proposal.number in (1, 2, 4) and epoch == 5:
                search.fail(proposal.number, "it broke") if how == "fail" else search.diverge(proposal.number, 5, "nan")
                break
        else:
            search.finish(proposal.number)
    assert search.best_finished() == [0, 3, 5, 6, 7]


def test_the_best_that_waits_goes_on_at_once_when_it_would_be_next(tmp_path: Path) -> None:
    """At the end of a search: to stop it and begin it again would cost a start."""
    search = Search.open(asha_of(trials=3), tmp_path)
    for number in range(3):
        search.next_trial()
        stopped = search.report(number, 1, 0.5 - number / 10)
        assert (stopped is None) == (number == 0), "after 1 there was one more to begin; 2 is behind 1, which waits"
    search.report(0, 3, 0.6)
    going = search.next_trial()
    assert going is not None
    assert going.number == 1
    assert search.report(1, 3, 0.55) is None, "of two that came this far none goes on by its rank"
    assert search.outcome(1) == ("running", "")
    assert Search.open(asha_of(trials=3), tmp_path).waiting == [2]
    again = search.next_trial()
    assert again is not None
    search.budget_ended = lambda search: "no new trial"
    assert search.report(2, 3, 0.54) is not None, (
        "1 is on its way to the end, which is enough for a budget that is used"
    )


def test_a_budget_that_the_last_epoch_used_up_leaves_nobody_waiting(tmp_path: Path) -> None:
    search = Search.open(asha_of(trials=13), tmp_path)
    while proposal := search.next_trial():
        for epoch in range(1, 10):
            if search.report(proposal.number, epoch, (20 - proposal.number) / 100 + epoch / 1000):
                break
        else:
            search.finish(proposal.number)
    assert len(search.waiting) > 0
    search.budget_ended = lambda search: "no new trial"
    assert search.is_over
    search.conclude()
    assert search.waiting == []


def test_the_budget_is_asked_only_where_there_is_something_to_begin(tmp_path: Path) -> None:
    """It reads the metrics of all trials, and Tune asks for a trial many times a second while a slot is free."""
    search, asked = Search.open(asha_of(trials=2, early_terminate=RULES["none"]), tmp_path), []
    search.budget_ended = lambda search: asked.append(1) or ""
    for _ in range(2):
        assert search.next_trial() is not None
    before = len(asked)
    assert search.next_trial() is None
    assert len(asked) == before


def test_once_the_budget_has_ended_only_a_winner_is_still_wanted(tmp_path: Path) -> None:
    search = Search.open(asha_of(trials=13), tmp_path)
    for number in range(4):
        search.next_trial()
        search.report(number, 1, 0.5 - number / 10)
    search.report(0, 9, 0.6)
    search.finish(0)
    assert search.waiting == [1, 2, 3]
    search.budget_ended = lambda search: "no new trial"
    assert not search.is_over, "only the baseline was trained to its end"
    going = search.next_trial()
    assert going is not None
    assert going.number == 1
    assert search.next_trial() is None
    search.report(1, 9, 0.7)
    search.finish(1)
    assert search.is_over
    assert search.next_trial() is None
    search.conclude()
    assert search.waiting == [2, 3], "a larger budget goes on with them"
    search.budget_ended = lambda search: ""
    assert not search.is_over
    new = search.next_trial()
    assert new is not None
    assert new.number == 4


def test_the_sampler_compares_trials_at_their_end(tmp_path: Path) -> None:
    """Who was stopped, or still runs, is taken to gain what those gained, in the median, that went on from there."""
    search = Search.open(sweep_of(early_terminate=EarlyTerminate(type="none")), tmp_path)
    for _ in range(8):
        search.next_trial()
    curves = {0: {1: 0.1, 3: 0.2, 9: 0.25}, 1: {1: 0.2, 3: 0.5, 9: 0.6}, 2: {1: 0.3, 3: 0.5}, 3: {1: 0.15}}
    for number, curve in curves.items():
        for epoch, value in curve.items():
            search.report(number, epoch, value)
    search.finish(0)
    search.finish(1)
    search.report(4, 1, 0.4)
    search.diverge(4, 2, "the loss is nan")
    search.report(5, 1, 0.9)
    search.fail(5, "its process died")
    search.report(6, 1, 0.35)
    search.report(6, 3, 0.3)

    # 1 to 3: gains of 0.1, 0.3, 0.2 and -0.05; 3 to 9: of 0.05 and 0.1
    reached = {0: 0.25, 1: 0.6, 2: 0.5 + 0.075, 3: 0.15 + 0.15 + 0.075, 6: 0.3 + 0.075}
    assert at_their_end(search._trials()) == pytest.approx(reached)
    seen = {trial.number: trial for trial in as_sampled(search.sweep, search._trials())}
    assert {number: trial.value for number, trial in seen.items() if trial.value is not None} == pytest.approx(reached)
    states = [seen[number].state for number in range(8)]
    done, pruned, failed, running = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
    assert states == [done, done, done, done, pruned, failed, done, running]
    assert seen[4].intermediate_values == {}, "behind all others"


def test_a_trial_that_is_shorter_by_its_own_setting_is_compared_at_its_own_end() -> None:
    def trial(number: int, epochs: int, rows: dict[int, float], **more: Any) -> optuna.trial.FrozenTrial:
        made = optuna.trial.create_trial(
            params={"epochs": epochs},
            distributions={"epochs": optuna.distributions.IntDistribution(1, 20)},
            intermediate_values=rows,
            **more,
        )
        made.number = number
        return made

    long = trial(0, 9, {1: 0.1, 3: 0.2, 9: 0.5}, value=0.5)
    short = trial(1, 3, {1: 0.2, 3: 0.4}, value=0.4)
    stopped = trial(2, 3, {1: 0.3}, state=TrialState.PRUNED, value=0.3)
    assert at_their_end([long, short, stopped]) == pytest.approx({0: 0.5, 1: 0.4, 2: 0.3 + 0.15})
    assert at_their_end([]) == {}


def test_values_that_an_edited_space_no_longer_holds_are_left_out(tmp_path: Path) -> None:
    search = Search.open(sweep_of(), tmp_path)
    for _ in range(8):
        search.next_trial()
    for number in range(8):
        search.report(number, 9, 0.5)
        search.finish(number)
    space = {**SPACE, "codec": Parameter(kind="categorical", values=("simcc", "regression"))}
    reopened = Search.open(sweep_of(parameters=space), tmp_path)
    proposal = reopened.next_trial()
    assert proposal is not None
    assert proposal.params["codec"] in ("simcc", "regression")


def test_a_journal_with_a_damaged_middle_is_refused(tmp_path: Path) -> None:
    search = Search.open(sweep_of(), tmp_path)
    search.next_trial()
    journal = tmp_path / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"\0\0\0\n", *lines[1:]]))
    with pytest.raises(SweepError, match=r"journal\.log, line 2: the record of the search is damaged here"):
        Search.open(sweep_of(), tmp_path)


def test_a_journal_of_another_sweep_or_goal_is_refused(tmp_path: Path) -> None:
    Search.open(sweep_of(), tmp_path)
    with pytest.raises(SweepError, match="is the record of sweep 'toy', not of 'other'"):
        Search.open(sweep_of(name="other"), tmp_path)
    with pytest.raises(SweepError, match="was made to maximize its metric, not to minimize it"):
        Search.open(sweep_of(metric=Metric(name="val/NME")), tmp_path)


def test_the_sampler_is_on_record_and_nothing_warns(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    search = Search.open(sweep_of(search=SearchBlock(trials=12, startup_trials=2, seed=3)), tmp_path)
    while proposal := search.next_trial():
        search.report(proposal.number, 9, 0.5)
        search.finish(proposal.number)
    attrs = search._study.user_attrs
    assert attrs["sampler"] == {
        "method": "tpe",
        "seed": 3,
        "n_startup_trials": 2,
        "n_ei_candidates": 24,
        "multivariate": True,
        "group": True,
        "constant_liar": True,
    }
    assert attrs["optuna"] == optuna.__version__
    assert [str(warning.message) for warning in recwarn] == []


def test_a_report_is_quick_in_a_long_search(tmp_path: Path) -> None:
    """200 trials; 1 to 4 ms each were measured at 1,000, and ten times that is allowed: other work runs beside it."""
    blocks = {
        "parameters": {"freeze": Parameter(kind="int", low=0, high=1000)},
        "baseline": {"freeze": 0},
        "try_first": (),
        "fixed": {"epochs": 30},
    }
    search = Search.open(
        sweep_of(**blocks, search=SearchBlock(method="grid", trials=200), early_terminate=RULES["none"]), tmp_path
    )
    while proposal := search.next_trial():
        for rung in (1, 3, 9, 27):
            search.report(proposal.number, rung, 0.5)
        search.finish(proposal.number)
    search = Search.open(sweep_of(**blocks, search=SearchBlock(trials=201)), tmp_path)
    search.next_trial()
    begin = time.process_time()
    for epoch in range(1, 31):
        assert search.report(200, epoch, 0.9) is None
    assert (time.process_time() - begin) / 30 < 0.03


def test_what_is_kept_at_hand_is_what_the_journal_says(tmp_path: Path) -> None:
    """Counts, order, history and failures of a running search against those of one that has just been opened."""
    sweep = sweep_of(metric=Metric(name="val/NME"))
    driver = Driver(sweep, tmp_path, {})
    driver.run()
    driver.search.extend(3)
    for reason in ("one reason", "another reason"):
        failing = driver.search.next_trial()
        assert failing is not None
        driver.search.fail(failing.number, reason)
    here, opened = driver.search, Search.open(sweep, tmp_path)
    for search in (here, opened):
        assert search.failures() == {20: "one reason", 21: "another reason"}
        assert search.left == 1
    assert here.history() == opened.history()
    assert here.counts() == opened.counts()
    assert here.ended() == opened.ended() == list(range(22))
    assert here.best(30) == opened.best(30)
    by_hand = sorted(
        (t for t in opened._trials() if "best" in t.user_attrs),
        key=lambda t: (t.state != TrialState.COMPLETE, t.user_attrs["best"], t.number),
    )
    assert here.best(30) == [t.number for t in by_hand]


def test_a_sweep_is_hopeless_when_its_trials_fail_alike_or_too_often(tmp_path: Path) -> None:
    def failing(folder: Path, reasons: list[str]) -> Search:
        search = Search.open(sweep_of(), folder)
        for reason in reasons:
            proposal = search.next_trial()
            assert proposal is not None
            search.fail(proposal.number, reason)
        return search

    alike = failing(tmp_path / "alike", [f"batch: {batch} does not fit" for batch in (64, 96, 128)])
    assert alike.hopeless
    assert summary_of(alike.failures()) == "  3 trials: batch: 64 does not fit"
    different = [f"batch: {n} does not fit" if n % 2 else "its process died" for n in range(10)]
    assert not failing(tmp_path / "few", different[:9]).hopeless
    many = failing(tmp_path / "many", different)
    assert many.hopeless
    assert summary_of(many.failures()) == "  5 trials: its process died\n  5 trials: batch: 1 does not fit"


def test_beyond_300_trials_the_sampler_sees_the_best_and_the_latest() -> None:
    rng = np.random.default_rng(0)
    values = rng.permutation(1000).tolist()

    def trial(number: int) -> optuna.trial.FrozenTrial:
        made = optuna.trial.create_trial(value=float(values[number]))
        made.number = number
        return made

    trials = [trial(number) for number in range(1000)]
    assert in_sight(sweep_of(), trials[:300]) == trials[:300]
    seen = [t.number for t in in_sight(sweep_of(), trials)]
    best = set(np.argsort(values)[-100:].tolist())
    assert len(seen) == 300
    assert seen == sorted(seen)
    assert best <= set(seen)
    assert set(seen) - best == set([n for n in range(1000) if n not in best][-200:])


def test_the_sampler_proposes_from_remembered_trials_as_from_a_study_that_optuna_filled(tmp_path: Path) -> None:
    """Running and pruned ones, two groups of parameters, with the constant liar."""
    space = sweep_of(search=SearchBlock(trials=60, startup_trials=5, seed=3), early_terminate=RULES["none"])
    search = Search.open(space, tmp_path)
    for number in range(40):
        proposal = search.next_trial()
        assert proposal is not None
        for epoch in range(1, 1 + (number * 7) % 9):
            search.report(number, epoch, score(proposal.params, epoch))
        if number % 13 == 5:
            search.diverge(number, 9, "the loss is nan")
        elif number % 3:
            search.finish(number)
    seen = as_sampled(search.sweep, search._trials())
    assert {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING} <= {trial.state for trial in seen}

    reference = optuna.create_study(direction="maximize", sampler=proposals._sampler(search.sweep, 40, 0))
    for trial in seen:  # those that run are shown at what they will have reached; Optuna wants to know when
        if trial.state == TrialState.COMPLETE:
            trial.datetime_complete = trial.datetime_complete or trial.datetime_start
    reference.add_trials(seen)
    ours = optuna.create_study(
        direction="maximize", sampler=proposals._sampler(search.sweep, 40, 0), storage=proposals.Remembered(seen)
    )
    assert proposals._suggested(search.sweep, ours.ask()) == proposals._suggested(search.sweep, reference.ask())
    assert len(ours.trials) == 41
    assert [trial.number for trial in ours.trials] == list(range(-40, 1))


def test_the_best_are_kept_at_hand_as_they_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends in whatever way, and after it was opened again; the proposals do not depend on it."""
    monkeypatch.setattr(proposals, "IN_SIGHT", 30)
    for module in (proposals, searching):
        monkeypatch.setattr(module, "BEST_IN_SIGHT", 10)
    sweep = sweep_of(search=SearchBlock(trials=80, startup_trials=5, seed=3))
    asked = []

    def looked_at(sweep: Sweep, trials: Any, best: Any = None, found: Any = in_sight) -> Any:
        asked.append(best is not None)
        seen = found(sweep, trials, best)
        assert [t.number for t in seen] == [t.number for t in found(sweep, trials)]
        return seen

    monkeypatch.setattr(proposals, "in_sight", looked_at)
    driver = Driver(sweep, tmp_path, {})
    with pytest.raises(KilledError):
        driver.run(200)
    for proposal in driver.search.unfinished():
        driver.search.fail(proposal.number, "it broke")
    driver.search.diverge(driver.search.next_trial().number, 1, "nan")
    Driver(sweep, tmp_path, driver.disk).run()
    assert asked.count(True) > 40


def test_setting_the_clock_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock jumps by days, back and forth, while a search runs and is opened again."""
    sweep = sweep_of()
    Driver(sweep, tmp_path / "whole", {}).run()
    from datetime import datetime, timedelta

    class Jumping(datetime):
        jumps = 0

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            cls.jumps += 1
            return datetime.fromtimestamp(0, tz) + timedelta(days=(cls.jumps * 7919) % 20000)

    monkeypatch.setattr("optuna.storages.journal._storage.datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: float(Jumping.now().toordinal()))
    disk: dict[int, list[tuple[int, float]]] = {}
    for events in (30, 40, None):
        try:
            Driver(sweep, tmp_path / "jumping", disk).run(events)
        except KilledError:
            continue
    assert Jumping.jumps > 20
    assert record(tmp_path / "jumping") == record(tmp_path / "whole")
