"""The search of one sweep: what was proposed, reported and decided, kept in an Optuna journal.

`runs/<name>/journal.log` is the record and the only state. What is proposed and which trial is stopped are pure
functions of (seed, journal), so resuming is opening the journal again, and a search that was killed at any moment goes
on exactly as it would have (with several trials at a time: as far as they report in the same order). One process at a
time may write: the caller holds the sweep's lease. Optuna's dashboard and importance can read along.

How a trial stands, as Optuna knows it and as it is shown to the sampler (`proposals.as_sampled`):

  finished   COMPLETE, its best value
  waiting    RUNNING still, with `waits`: at a rung, until it goes on or is pruned
  pruned     PRUNED, the value of its last report; `stop_reason`
  diverged   PRUNED, `diverged: true`, with what it reported before; no value is made up for the record (NaN cannot be
             told to Optuna), the sampler is shown a trial worse than all others
  failed     FAIL, `stop_reason`; the sampler learns nothing from it
"""

import json
import math
import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from posesweep.errors import SweepError
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.proposals import (
    BEST_IN_SIGHT,
    UNRANKED,
    Point,
    decoded,
    encoded,
    is_waiting,
    merit,
    point,
    propose,
    sampler_arguments,
)
from posesweep.trainables.stopping import BASELINE, FINALISTS, Early, History, Shown, should_stop, why_it_did_not_go_on

optuna.logging.set_verbosity(optuna.logging.WARNING)  # one line per proposal and per result otherwise

# This many failed trials and no other that ended: there is no sense in going on. Fewer will do when all failed alike.
HOPELESS, HOPELESS_ALIKE = 10, 3

State = Literal["running", "waiting", "finished", "pruned", "diverged", "failed"]


@dataclass(frozen=True)
class Proposal:
    """One trial to run: `params` are the values of its active parameters, `role` is baseline, try_first or search."""

    number: int
    params: dict[str, Any]
    role: str


class Search:
    """The search of one sweep. Values are in the metric's own sign; epochs are finished epochs, from 1."""

    def __init__(self, sweep: Sweep, study: optuna.Study, storage: optuna.storages.JournalStorage) -> None:
        self.sweep = sweep
        self.earlier: Sequence[FrozenTrial] = ()  # trials of other sweeps, as the sampler is shown them
        self.budget_ended: Callable[[Search], str] = lambda search: ""  # why no new trial is begun, in words
        self._study = study
        self._storage = storage
        self._sign = 1.0 if sweep.metric.goal == "maximize" else -1.0
        self.rule = rule_of(sweep)
        # What the journal holds, kept at hand: only this process writes it, so that each write changes one trial here.
        self._cached: list[FrozenTrial] = []
        self._shown = Shown(self.rule)
        self._counts: Counter[State] = Counter()
        self._ended: list[int] = []
        self._ranked: list[tuple[bool, float, int]] = []
        self._tried: set[Point] = set()
        self._by_merit: list[tuple[tuple[float, ...], int]] = []  # the ended and the waiting ones, the best first
        self._merits: dict[int, tuple[float, ...]] = {}
        self._given_up: list[int] = []
        for trial in storage.get_all_trials(study._study_id, deepcopy=False):
            self._take(trial)

    @classmethod
    def open(cls, sweep: Sweep, folder: Path) -> "Search":
        """Create or continue the search of `sweep` in its folder `runs/<name>`.

        Raises SweepError for a journal that is damaged or belongs to another sweep or goal.
        """
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / "journal.log"
        repair(journal)
        # A lock file made with O_EXCL needs no symbolic links, which some shared disks lack.
        backend = JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
        storage = optuna.storages.JournalStorage(backend)
        search = cls(sweep, _study(sweep, storage, journal), storage)
        search._carry_out_endings()
        return search

    @property
    def wanted(self) -> int:
        """How many trials there are to be: those of the sweep file and those it was extended by."""
        return self.sweep.search.trials + int(self._study.user_attrs.get("extended_by", 0))

    @property
    def left(self) -> int:
        """How many trials are still to be run: those that run, those that were not proposed yet, and of those that wait
        the ones that will be among the finalists."""
        to_start = max(self.wanted - len(self._cached), 0)
        going_on = min(self._finalists_wanted(), self._counts["waiting"])
        return self._counts["running"] + to_start + max(going_on, self._shown.promotable() is not None)

    @property
    def has_next(self) -> bool:
        """Whether there is a trial to begin or to go on with, besides those that run."""
        return self.left > self._counts["running"] and (not self.budget_ended(self) or self._needs_a_winner())

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing is to be run."""
        return not self._counts["running"] and not self.has_next

    @property
    def hopeless(self) -> bool:
        """Whether several trials have ended and every one of them failed, in the same way or too often: so will the
        others."""
        if self._counts["failed"] < max(HOPELESS_ALIKE, len(self._ended) + self._counts["waiting"]):
            return False
        failures = self.failures()
        enough = HOPELESS_ALIKE if len({_alike(reason) for reason in failures.values()}) == 1 else HOPELESS
        return len(failures) >= enough

    def failures(self) -> dict[int, str]:
        """Why each failed trial failed."""
        return {number: self.outcome(number)[1] for number in self.ended() if self.outcome(number)[0] == "failed"}

    def extend(self, trials: int) -> None:
        """Ask for `trials` more, on record."""
        self._study.set_user_attr("extended_by", self.wanted - self.sweep.search.trials + trials)

    def next_trial(self) -> Proposal | None:
        """Who is to be trained next, on record as running: one that waits at a rung and may go on, from where it is, or
        a new one. None when there is nobody, or not before others have come further.

        Once the budget has ended nobody is, but for the best that waits where no trial of the search would be trained
        to its end at all.
        """
        if self.left <= self._counts["running"]:
            return None  # without asking the budget, which reads the record of every trial
        is_spent = bool(self.budget_ended(self))
        number = self._next_up(is_spent)
        if number is not None:
            return self._go_on(number)
        return None if is_spent else self._new_trial()

    def _next_up(self, is_spent: bool) -> int | None:
        """Who of those that wait goes on now."""
        if is_spent:
            return self._shown.first_in_line() if self._needs_a_winner() else None
        return self._shown.next_up(len(self._cached) < self.wanted, self._finalists())

    def _go_on(self, number: int) -> Proposal:
        """A trial waits no longer."""
        self._storage.set_trial_user_attr(self._trial(number)._trial_id, "waits", None)
        self._retake(number)
        return self._proposal(self._trial(number))

    def _new_trial(self) -> Proposal | None:
        """Propose one more; None when there are as many as wanted, or a grid has no more."""
        trials = self._trials()
        if len(trials) >= self.wanted:
            return None
        best = [number for _, number in self._by_merit[:BEST_IN_SIGHT]]
        at_hand = best if len(best) == BEST_IN_SIGHT else None
        proposed = propose(self.sweep, trials, self.earlier, at_hand, self._tried)
        if proposed is None:
            return None
        role, values = proposed
        params, distributions = encoded(self.sweep, values)
        attrs = {"role": role}
        running = create_trial(state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attrs)
        self._study.add_trial(running)  # one line of the journal: the whole proposal or none of it
        number = len(trials)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        self._take(self._storage.get_trial(trial_id))
        return Proposal(number, values, role)

    def _finalists_wanted(self) -> int:
        """How many more trials, the baseline apart, must come to their end; those that run may be some."""
        return max(self.rule.finalists - self._finalists(), 0)

    def _finalists(self) -> int:
        baseline = state_of(self._cached[BASELINE]) if self._cached else None
        return self._counts["finished"] + self._counts["running"] - (baseline in ("finished", "running"))

    def _needs_a_winner(self) -> bool:
        """Whether no trial but the baseline was trained to its end, or is on the way, while some wait."""
        return self._finalists() == 0 and self._counts["waiting"] > 0

    @property
    def waiting(self) -> list[int]:
        """The numbers of the trials that wait at a rung."""
        return self._shown.waiting

    def given_up(self) -> list[int]:
        """The trials that waited and have been stopped for good since this was last asked."""
        numbers, self._given_up = self._given_up, []
        return numbers

    def conclude(self) -> None:
        """Stop for good who still waits, when nothing is left. A search that only its budget ended may yet go on."""
        if not self.left:
            self._give_up(self._shown.waiting)

    def proposals(self) -> list[Proposal]:
        """Every trial there is, in order."""
        return [self._proposal(trial) for trial in self._trials()]

    def unfinished(self) -> list[Proposal]:
        """The trials that were begun and have neither ended nor wait, in order: to be run again, from their
        checkpoints."""
        return [self._proposal(trial) for trial in self._trials() if state_of(trial) == "running"]

    def report(self, number: int, epoch: int, value: float) -> str | None:
        """Record what trial `number` reached after `epoch` epochs; return why it stops or waits here, or None.

        The decision is in the journal before this returns. An epoch's first report stands: told again (a resumed trial
        repeats an epoch), it changes and decides nothing. A value that is not a number ends the trial as diverged.
        """
        trial = self._trial(number)
        if trial.state.is_finished() or is_waiting(trial):
            return self.outcome(number)[1] or None
        if epoch in trial.intermediate_values:
            return None
        if not math.isfinite(value):
            reason = f"diverged: {self.rule.metric} is {value} after epoch {epoch}"
            self.diverge(number, epoch, reason)
            return reason
        is_last = epoch >= self._epochs_of(trial)
        seen = self._sign * value
        stop = None if is_last else should_stop(self.rule, self.history(), number, epoch, seen, self.wanted)
        if stop is not None and stop.for_good:
            self._end(trial, TrialState.PRUNED, {"stop_reason": stop.reason}, last={epoch: value})
        else:
            if stop is not None:  # first: a search killed between the two must know of the decision
                waits = {"epoch": epoch, "value": value, "reason": stop.reason}
                self._storage.set_trial_user_attr(trial._trial_id, "waits", waits)
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            self._retake(number)
        self._give_up(self._shown.left_behind(self.wanted))
        if is_waiting(self._trial(number)) and self._next_up(bool(self.budget_ended(self))) == number:
            self._go_on(number)  # rather than be stopped and begun again
            return None
        return stop.reason if stop is not None else None

    def catch_up(self, number: int, rows: Iterable[tuple[int, float | None]]) -> str | None:
        """Report the (epoch, value) of a trial's own metrics file that the journal missed; why it stops, or None.

        For a resumed trial: it wrote an epoch to its file, and the driver was killed before it heard of it.
        """
        for epoch, value in sorted(rows, key=lambda row: row[0]):
            reason = self.report(number, epoch, value) if value is not None else None
            if reason is not None:
                return reason
        return None

    def finish(self, number: int, attrs: Mapping[str, Any] | None = None) -> None:
        """Trial `number` trained to its end; its value is its best report. `attrs` are recorded with it.

        Without any report it counts as failed. Nothing happens to a trial that has ended.
        """
        trial = self._trial(number)
        if not trial.intermediate_values:
            self.fail(number, f"it ended without a value of {self.rule.metric}")
            return
        self._end(trial, TrialState.COMPLETE, dict(attrs or {}))

    def fail(self, number: int, reason: str) -> None:
        """Trial `number` broke, for `reason`; the sampler learns nothing from it."""
        self._end(self._trial(number), TrialState.FAIL, {"stop_reason": reason})

    def diverge(self, number: int, epoch: int, reason: str) -> None:
        """The loss of trial `number` stopped being a number in epoch `epoch`; the sampler will keep away from it."""
        attrs = {"diverged": True, "diverged_at": epoch, "stop_reason": reason}
        self._end(self._trial(number), TrialState.PRUNED, attrs)

    def history(self) -> History:
        """What every trial reported, `{number: {epoch: value}}`, higher is better.

        Without those that diverged: what they showed before is no measure for trials that can be trained.
        """
        return self._shown

    def counts(self) -> Counter[State]:
        """How many trials are in which state."""
        return +self._counts

    def outcome(self, number: int) -> tuple[State, str]:
        """How a trial stands, and in words why it ended early or waits; '' where it does not."""
        trial = self._trial(number)
        waits = trial.user_attrs.get("waits") or {}
        return state_of(trial), trial.user_attrs.get("stop_reason", waits.get("reason", ""))

    def ended(self) -> list[int]:
        """The numbers of the trials that have ended, in order."""
        return list(self._ended)

    def best(self, count: int) -> list[int]:
        """The numbers of the `count` best ended trials, best first; those that trained to the end before all others."""
        return [number for _, _, number in self._ranked[:count]]

    def best_finished(self) -> list[int]:
        """The numbers of the trials that trained to the end, best first."""
        done = [t for t in self._trials() if t.state == TrialState.COMPLETE]
        return [t.number for t in sorted(done, key=lambda t: (-self._sign * t.user_attrs["best"], t.number))]

    def _give_up(self, numbers: Iterable[int]) -> None:
        """Stop for good trials that wait."""
        for number in numbers:
            reason = why_it_did_not_go_on(self.rule, self._shown, number)
            self._put_ending(self._trial(number), TrialState.PRUNED, {"stop_reason": reason})
            self._given_up.append(number)

    def _end(
        self, trial: FrozenTrial, state: TrialState, attrs: dict[str, Any], last: Mapping[int, float] | None = None
    ) -> None:
        """End a trial after the reports it has and `last`; one that has ended, or waits, stays as it is: what its
        process still said when it was stopped is no news."""
        if not trial.state.is_finished() and not is_waiting(trial):
            self._put_ending(trial, state, attrs, last)

    def _put_ending(
        self, trial: FrozenTrial, state: TrialState, attrs: dict[str, Any], last: Mapping[int, float] | None = None
    ) -> None:
        """The whole ending goes to the journal first, in one line. Were a last value written first, a search killed in
        between could not tell a trial that may go on from one that was never judged."""
        reports = {**trial.intermediate_values, **(last or {})}
        ending = {"state": state.name, "reports": list((last or {}).items()), "attrs": self._summary(reports) | attrs}
        self._storage.set_trial_user_attr(trial._trial_id, "ending", ending)
        self._carry_out(self._storage.get_trial(trial._trial_id))

    def _carry_out(self, trial: FrozenTrial) -> None:
        """Do what the trial's `ending` says; doing a part of it again changes nothing."""
        ending = trial.user_attrs["ending"]
        for epoch, value in ending["reports"]:
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        for name, attr in ending["attrs"].items():
            self._storage.set_trial_user_attr(trial._trial_id, name, attr)
        state = TrialState[ending["state"]]
        value = ending["attrs"]["best"] if state == TrialState.COMPLETE else None
        self._study.tell(trial.number, value, state=state)
        self._take(self._storage.get_trial(trial._trial_id))

    def _carry_out_endings(self) -> None:
        """Do what was decided and on record when the search was killed, and decide what it was about to."""
        for trial in self._trials():
            if "ending" in trial.user_attrs and not trial.state.is_finished():
                self._carry_out(trial)
            elif (waits := trial.user_attrs.get("waits")) and waits["epoch"] not in trial.intermediate_values:
                self._storage.set_trial_intermediate_value(trial._trial_id, waits["epoch"], waits["value"])
                self._retake(trial.number)
        self._give_up(self._shown.left_behind(self.wanted))

    def _summary(self, reports: Mapping[int, float]) -> dict[str, Any]:
        """The attributes every ended trial has: how far it came, and its best report, the earliest of equals."""
        if not reports:
            return {"epochs": 0}
        best_epoch, best = max(sorted(reports.items()), key=lambda report: self._sign * report[1])
        return {"epochs": max(reports), "best": best, "best_epoch": best_epoch}

    def _proposal(self, trial: FrozenTrial) -> Proposal:
        return Proposal(trial.number, decoded(self.sweep, trial), trial.user_attrs["role"])

    def _epochs_of(self, trial: FrozenTrial) -> int:
        """The length of this trial's own training."""
        return int(trial.params.get("epochs", self.rule.max_epochs))

    def _trials(self) -> Sequence[FrozenTrial]:
        return self._cached

    def _retake(self, number: int) -> None:
        """Take a trial as the journal has it now."""
        self._take(self._storage.get_trial(self._trial(number)._trial_id))

    def _take(self, trial: FrozenTrial) -> None:
        """Bring what is at hand up to date with one trial of the journal."""
        number = trial.number
        if number == len(self._cached):
            self._cached.append(trial)
            self._tried.add(point(trial.params))
        else:
            self._counts[state_of(self._cached[number])] -= 1
            self._cached[number] = trial
        self._counts[state_of(trial)] += 1
        if trial.user_attrs.get("diverged"):
            self._shown.drop(number)
        else:
            rows = trial.intermediate_values
            self._shown.leave(number)
            self._shown.put(number, rows if self._sign > 0 else {epoch: -v for epoch, v in rows.items()})
            if is_waiting(trial) and trial.user_attrs["waits"]["epoch"] in rows:
                self._shown.wait(number)
        if number in self._merits:
            del self._by_merit[bisect_left(self._by_merit, (self._merits.pop(number), number))]
        if (rank := merit(self.sweep, trial)) != UNRANKED:
            self._merits[number] = rank
            insort(self._by_merit, (rank, number))
        if trial.state.is_finished():
            insort(self._ended, number)
            if "best" in trial.user_attrs:
                is_cut_short = trial.state != TrialState.COMPLETE
                insort(self._ranked, (is_cut_short, -self._sign * trial.user_attrs["best"], number))

    def _trial(self, number: int) -> FrozenTrial:
        return self._trials()[number]


def _alike(reason: str) -> str:
    """A reason without its numbers: 'batch 64 does not fit' and 'batch 96 does not fit' are one cause."""
    return re.sub(r"\d[\d.,e+-]*", "#", reason)


def summary_of(failures: Mapping[int, str]) -> str:
    """'3 trials: batch: 64 does not fit', a line for each cause, the most common first, in its first trial's words."""
    causes: dict[str, list[str]] = {}
    for reason in failures.values():
        causes.setdefault(_alike(reason), []).append(reason)
    ordered = sorted(causes.values(), key=len, reverse=True)
    return "\n".join(f"  {len(reasons)} trial{'s' * (len(reasons) > 1)}: {reasons[0]}" for reasons in ordered)


def state_of(trial: FrozenTrial) -> State:
    """The state in the words of status.json."""
    if trial.user_attrs.get("diverged") and trial.state == TrialState.PRUNED:
        return "diverged"
    if is_waiting(trial):
        return "waiting"
    names: dict[TrialState, State] = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return names.get(trial.state, "running")


def rule_of(sweep: Sweep) -> Early:
    """The stopping rule of a sweep; where `epochs` is searched, a full training is the longest there may be."""
    early = sweep.early_terminate
    return Early(
        type=early.type,
        max_epochs=longest_training(sweep),
        min_epochs=early.min_epochs,
        eta=early.eta,
        startup_trials=early.startup_trials,
        metric=sweep.metric.name,
        goal=sweep.metric.goal,
        finalists=max(FINALISTS, sweep.confirm.top_k if sweep.confirm is not None else 0),
    )


def longest_training(sweep: Sweep) -> int:
    """The most epochs a trial of this sweep trains."""
    if "epochs" in sweep.parameters:
        parameter = sweep.parameters["epochs"]
        return int(parameter.bounds[1] if parameter.kind in ("int", "float") else max(parameter.values))
    return int(sweep.fixed.get("epochs", TrialConfig.model_fields["epochs"].default))


def repair(journal: Path) -> None:
    """Take away what a killed driver may leave: a lock that nobody holds and a last line that was not finished.

    Raises SweepError when another line is damaged: then the record is not what was written.
    """
    for left in journal.parent.glob(f"{journal.name}.lock*"):
        left.unlink()
    if not journal.is_file():
        return
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = [_is_record(line) for line in lines]
    if not all(whole[:-1]):
        raise SweepError(
            f"{journal}, line {whole.index(False) + 1}: the record of the search is damaged here; "
            "put back a copy of the file, or start again under another name"
        )
    if lines and not whole[-1]:
        with journal.open("rb+") as file:
            file.truncate(sum(len(line) for line in lines[:-1]))


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:  # not JSON, or not UTF-8
        return False


def _study(sweep: Sweep, storage: optuna.storages.JournalStorage, journal: Path) -> optuna.Study:
    """The study of `sweep` in the journal, created where it is missing."""
    names = [study.study_name for study in storage.get_all_studies()]
    if names and sweep.name not in names:
        raise SweepError(f"{journal} is the record of sweep '{names[0]}', not of '{sweep.name}'; choose another folder")
    goal = sweep.metric.goal
    study = optuna.create_study(study_name=sweep.name, storage=storage, direction=goal, load_if_exists=True)
    if study.direction.name.lower() != goal:
        raise SweepError(
            f"{journal} was made to {study.direction.name.lower()} its metric, not to {goal} it; "
            "undo the change of metric.goal, or start under another name"
        )
    attrs = {"metric": sweep.metric.name, "sampler": sampler_arguments(sweep), "optuna": optuna.__version__}
    for name, value in attrs.items():
        if study.user_attrs.get(name) != value:
            study.set_user_attr(name, value)
    return study
