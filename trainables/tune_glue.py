"""Ray Tune as the executor of a `Search`: it asks for trials and hands on what they report, and decides nothing.

A trial's config is {"number", "params", "role"}. After each epoch it reports {"epoch": int, "value": float | None,
"state": ...} and whatever else it likes; state is running, finished, or diverged or failed (these with "reason"), or
halted: nothing is wrong with the trial, but nothing can be saved, so the whole sweep stops for that reason.
A trial that Tune ends without a word of its own (time budget, Ctrl-C) stays running in the journal, and the next run of
the sweep takes it up again.

    TuneConfig(search_alg=Limited(searcher, room), scheduler=StudyScheduler(searcher), num_samples=-1,
               reuse_actors=True)

A trial that waits at a rung is over for Tune. When it goes on it is another of Tune's trials, which begins where its
checkpoint is, like one that was interrupted; the searcher says when there are no more.

`room()` must be what the cluster can run at once: a trial that is proposed and has to wait was proposed knowing less
than it could have.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from posesweep.trainables.housekeeping import Orders
from posesweep.trainables.search import Proposal, Search

Result = dict[str, Any]
PENDING = "PENDING"  # Tune's word for a trial whose process is being started
MANY = 10**6  # trials whose processes Tune starts at once, before `Limited` says how many there may be


class StudySearcher(Searcher):
    """Gives Tune the trials that were interrupted, then new ones."""

    def __init__(self, search: Search, orders: Orders | None = None) -> None:
        super().__init__()
        self.search = search
        self.orders = orders if orders is not None else Orders()
        self._numbers: dict[str, int] = {}  # of Tune's trials that are under way
        self._interrupted = search.unfinished()

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config; None where there may be one when others have come further; FINISHED where there are
        no more, all have failed so far, or the sweep is to stop."""
        if self.search.hopeless or self.orders.halt:
            return Searcher.FINISHED
        proposal = self._interrupted.pop(0) if self._interrupted else self.search.next_trial()
        if proposal is None:
            return None if self._numbers else Searcher.FINISHED
        self._numbers[trial_id] = proposal.number
        return config_of(proposal)

    def on_trial_complete(self, trial_id: str, result: Result | None = None, error: bool = False) -> None:
        """Record how the trial ended; one that waits or only stopped running is left as it is."""
        number = self._numbers.pop(trial_id)
        if error and number in self.orders.again:
            return  # it stays running: whoever called Tune calls it once more
        if error:
            self.search.fail(number, self.orders.errors.get(number, "it ended with an error"))
        elif result is not None:
            take_in(self.search, number, result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal is the state."""


class Limited(ConcurrencyLimiter):
    """Asks the searcher for a trial only while fewer than `room()` are under way."""

    def __init__(self, searcher: Searcher, room: Callable[[], int]) -> None:
        super().__init__(searcher, max_concurrent=MANY)
        self.room = room

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while there is no room, or FINISHED."""
        self.max_concurrent = self.room()
        return super().suggest(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal is the state."""


class StudyScheduler(FIFOScheduler):
    """Stops the trials that the search wants stopped."""

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first of those that wait, or None. Tune's own walks over all trials there ever were, at every event."""
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == PENDING]
        return min(waiting, key=lambda trial: trial.config["number"], default=None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Result) -> str:
        """Record the report; STOP when the search says so, or when the whole sweep is to stop."""
        reason = take_in(self._searcher.search, trial.config["number"], result)
        over = is_over(self._searcher.orders, result)
        return TrialScheduler.STOP if reason is not None or over else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep the reason; Tune may still try the trial again."""
        keep_reason(self._searcher.orders, trial)


def is_over(orders: Orders, result: Result) -> bool:
    """Whether the trial of this report is to stop because the whole sweep is."""
    if result.get("state") == "halted":
        orders.stop(result["reason"], is_fault=True)
    return bool(orders.halt)


def keep_reason(orders: Orders, trial: Any) -> None:
    """Note what a Tune trial failed of; Tune may still try it again, unless it had not begun."""
    number = trial.config["number"]
    orders.errors[number] = orders.ended.pop(number, "") or why(Path(trial.error_file))
    if trial.status == PENDING:
        orders.unstarted_again(number)


def config_of(proposal: Proposal) -> Result:
    """The config that a trial gets from Tune."""
    return {"number": proposal.number, "params": proposal.params, "role": proposal.role}


def take_in(search: Search, number: int, result: Result) -> str | None:
    """Record one report of a trial; why the trial stops here, or None. Told twice, it changes nothing."""
    if "state" not in result:
        return None  # Tune's own: a trial that has not reported yet
    epoch, value, state = result["epoch"], result.get("value"), result["state"]
    reason = search.report(number, epoch, value) if value is not None else None
    if state == "finished":
        search.finish(number)
    elif state == "failed":
        search.fail(number, result["reason"])
    elif state == "diverged":
        search.diverge(number, epoch, result["reason"])
    return reason


def why(error_file: Path) -> str:
    """What a trial last failed of, from Tune's error.txt, in one line: 'ValueError: ...', or that its process died."""
    last = error_file.read_text(encoding="utf-8").rpartition("Failure # ")[2]
    raised = [match.start() for match in re.finditer(r"^[\w.]+(Error|Exception): ", last, re.MULTILINE)]
    last = last[raised[-1] :] if raised else last  # without what it was raised from
    if "its node has died" in last:
        return f"its machine{_address(last)} was lost"
    if "actor died" in last.lower():
        return "its process died, killed or out of memory"
    if "The actor is temporarily unavailable" in last:  # what a driver hears before Ray has declared the node dead
        return "the connection to its process broke off: its machine was lost, or the process was killed"
    return [line for line in last.splitlines() if line.strip()][-1].strip()


def _address(text: str) -> str:
    found = re.search(r"\bip: (\S+)", text)
    return f" ({found[1]})" if found else ""
