"""When a trial is stopped early. Pure functions of the history: the same history gives the same decision, always.

A history holds what every trial reported, `{trial number: {epoch: value}}`, higher is better (a metric to be minimised
is negated by the caller). Nothing else is remembered between two decisions, so a resumed sweep decides as if it had
never been interrupted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

Rows = Mapping[int, float]  # {epoch: value}
History = Mapping[int, Rows]

BASELINE = 0  # the number of the trial that is never stopped


@dataclass(frozen=True)
class Early:
    """The rule of `early_terminate`. `max_epochs` is the length of a full training; `startup_trials` (median only) is
    how many other trials must have come as far before one may be stopped. `metric` and `goal` are for the words."""

    type: Literal["none", "asha", "hyperband", "median"]
    max_epochs: int
    min_epochs: float = 1  # hyperband's later brackets may start between two epochs
    eta: float = 3
    startup_trials: int = 5
    metric: str = "val/AP"
    goal: Literal["maximize", "minimize"] = "maximize"

    def __post_init__(self) -> None:
        assert self.eta > 1, self.eta
        assert self.min_epochs > 0, self.min_epochs


class Shown(dict[int, Rows]):
    """A history that is kept up to date, and beside it what was shown at each rung, so that comparing a trial there
    costs the same after 10,000 trials as after ten. As a mapping it is the plain history."""

    def __init__(self, rule: Early) -> None:
        super().__init__()
        self._rule = rule
        self._columns: dict[tuple[int, int], _Column] = {}

    def put(self, number: int, rows: Rows) -> None:
        """All that a trial has reported so far."""
        self[number] = rows
        bracket = self.bracket_of(number)
        milestones = rungs(_in_bracket(self._rule, bracket))
        for rung in range(len(milestones)):
            self._columns.setdefault((bracket, rung), _Column()).put(number, value_at(rows, milestones, rung))

    def drop(self, number: int) -> None:
        """A trial that counts for nothing."""
        self.pop(number, None)
        for column in self._columns.values():
            column.put(number, None)

    def at(self, number: int, rung: int) -> np.ndarray:
        """What the rivals of trial `number` showed at a rung of its bracket, in no order."""
        column = self._columns.get((self.bracket_of(number), rung))
        return np.empty(0) if column is None else column.without(number)

    def bracket_of(self, number: int) -> int:
        """0 where there are no brackets."""
        return bracket_of(self._rule, number) if self._rule.type == "hyperband" else 0


class _Column:
    """A value for each of some trials, close together in memory."""

    def __init__(self) -> None:
        self._values = np.empty(64)
        self._numbers: list[int] = []
        self._place: dict[int, int] = {}

    def put(self, number: int, value: float | None) -> None:
        """Set, change or (None) remove the value of a trial."""
        place, last = self._place.get(number), len(self._numbers)
        if value is None:
            if place is not None:
                self._values[place], self._numbers[place] = self._values[last - 1], self._numbers[last - 1]
                self._place[self._numbers[place]] = place
                del self._place[number], self._numbers[last - 1]
            return
        if place is None:
            if last == len(self._values):
                self._values = np.concatenate([self._values, np.empty(last)])
            self._place[number] = place = last
            self._numbers.append(number)
        self._values[place] = value

    def without(self, number: int) -> np.ndarray:
        """The values of all others."""
        values = self._values[: len(self._numbers)]
        place = self._place.get(number)
        return values if place is None else np.delete(values, place)


def should_stop(rule: Early, history: History, number: int, epoch: int, value: float) -> str | None:
    """Why trial `number`, which reports `value` after `epoch` epochs, is stopped, in words; None = it goes on.

    `history` is what was reported before; this very report, if it is in there, counts for nothing. The baseline, trial
    0, is never stopped: the user is told the gain over it, and half a training is nothing to compare with. What it
    reports counts for the others all the same.
    """
    if number == BASELINE:
        return None
    if rule.type == "none" or epoch >= rule.max_epochs:
        return None
    if rule.type == "median":
        return _median_reason(rule, history, number, epoch, value)
    if rule.type == "hyperband":
        bracket = bracket_of(rule, number)
        if not isinstance(history, Shown):
            history = {other: rows for other, rows in history.items() if bracket_of(rule, other) == bracket}
        rule = _in_bracket(rule, bracket)
    return _halving_reason(rule, history, number, epoch, value)


def rungs(rule: Early) -> list[float]:
    """The epochs at which a trial is compared with the others (hyperband: those of its strictest bracket).

    Empty for `median`, which compares after every epoch, and for `none`.
    """
    if rule.type not in ("asha", "hyperband"):
        return []
    milestones = []
    milestone: float = rule.min_epochs
    while milestone < rule.max_epochs:
        milestones.append(milestone)
        milestone = rule.min_epochs * rule.eta ** len(milestones)
    return milestones


def value_at(rows: Mapping[int, float], milestones: Sequence[float], rung: int) -> float | None:
    """What a trial showed at a rung: its first report at or after the milestone and before the next one.

    Where every epoch is validated that is the milestone's own epoch.
    """
    end = milestones[rung + 1] if rung + 1 < len(milestones) else math.inf
    epochs = [epoch for epoch in rows if milestones[rung] <= epoch < end]
    return rows[min(epochs)] if epochs else None


def _halving_reason(rule: Early, history: History, number: int, epoch: int, value: float) -> str | None:
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934, algorithm 2): at a rung the best 1/eta of all
    that came this far go on, rounded down, but at least one. There, trials wait at a rung until they belong to the
    best; ours cannot wait, so the best so far goes on. (Ray's AsyncHyperBandScheduler compares with the (1 - 1/eta)
    quantile of the others: of the first few trials of a sweep nearly all train to the end.)"""
    milestones = rungs(rule)
    reached = [rung for rung, milestone in enumerate(milestones) if milestone <= epoch]
    if not reached:
        return None
    rung = reached[-1]
    if any(milestones[rung] <= earlier < epoch for earlier in history.get(number, {})):
        return None  # it was compared at this rung before
    shown = _shown_at(history, milestones, rung, number)
    if not len(shown):
        return None
    going = max(math.floor((len(shown) + 1) / rule.eta), 1)
    if int(np.count_nonzero(np.asarray(shown) > value)) < going:
        return None
    cutoff = float(np.sort(shown)[-going])
    best = f"the best {_share(rule.eta)}" if going > 1 else "the best"
    compared = _compared(rule, value, cutoff)
    return f"stopped at epoch {epoch}: {compared}, {best} of the {len(shown) + 1} trials that came this far"


def _shown_at(history: History, milestones: Sequence[float], rung: int, number: int) -> Sequence[float] | np.ndarray:
    """What the trials besides `number` showed at a rung."""
    if isinstance(history, Shown):
        return history.at(number, rung)
    at_rung = (value_at(rows, milestones, rung) for other, rows in history.items() if other != number)
    return [seen for seen in at_rung if seen is not None]


def _median_reason(rule: Early, history: History, number: int, epoch: int, value: float) -> str | None:
    """The median rule of Vizier (Golovin et al. 2017, section 3.2.2): a trial is stopped when its best value so far is
    below the median of the others' running means up to this epoch. Only trials that came at least as far count."""
    if epoch < rule.min_epochs:
        return None
    means = [
        float(np.mean([seen for at, seen in rows.items() if at <= epoch]))
        for other, rows in history.items()
        if other != number and rows and max(rows) >= epoch and min(rows) <= epoch
    ]
    if len(means) < max(rule.startup_trials, 1):
        return None
    best = max([value, *(seen for at, seen in history.get(number, {}).items() if at < epoch)])
    median = float(np.median(means))
    if best >= median:
        return None
    compared = _compared(rule, best, median)
    return f"stopped at epoch {epoch}: best {compared}, the median of the {len(means)} trials that came this far"


def bracket_of(rule: Early, number: int) -> int:
    """The hyperband bracket of a trial: in bracket b the first rung is `min_epochs * eta**b`.

    Brackets are dealt by trial number in the proportion hyperband gives them, so that each spends about the same number
    of epochs (Li et al. 2018, JMLR 18, algorithm 1: n = ceil((s_max + 1) / (s + 1) * eta**s) trials).
    """
    cycle = _bracket_cycle(rule.min_epochs, rule.eta, rule.max_epochs)
    return cycle[number % len(cycle)]


@lru_cache(maxsize=64)
def _bracket_cycle(min_epochs: float, eta: float, max_epochs: int) -> tuple[int, ...]:
    """The brackets of consecutive trials, evenly mixed: each goes to the bracket that is furthest behind its share."""
    steps = len(rungs(Early("asha", max_epochs, min_epochs, eta)))
    wanted = [math.ceil((steps + 1) / (steps - bracket + 1) * eta ** (steps - bracket)) for bracket in range(steps + 1)]
    total = sum(wanted)
    given = [0] * len(wanted)
    cycle = []
    for position in range(1, total + 1):
        behind = [share * position / total - done for share, done in zip(wanted, given, strict=True)]
        bracket = behind.index(max(behind))
        given[bracket] += 1
        cycle.append(bracket)
    return tuple(cycle)


@lru_cache(maxsize=64)
def _in_bracket(rule: Early, bracket: int) -> Early:
    """The rule with the first `bracket` rungs left out; the last bracket has none and trains to the end."""
    if rule.type != "hyperband":
        return rule
    milestones = rungs(rule)
    if bracket >= len(milestones):
        return replace(rule, type="none")
    return replace(rule, min_epochs=milestones[bracket])


def _compared(rule: Early, value: float, limit: float) -> str:
    """'val/AP 0.312 is below 0.418', in the metric's own sign, with as many digits as tell the two apart."""
    sign = 1 if rule.goal == "maximize" else -1
    digits = 3
    while f"{value:.{digits}f}" == f"{limit:.{digits}f}" and digits < 12:
        digits += 1
    side = "below" if sign == 1 else "above"
    return f"{rule.metric} {sign * value:.{digits}f} is {side} {sign * limit:.{digits}f}"


def _share(eta: float) -> str:
    """'third' for 3; in percent where there is no word."""
    words = {2.0: "half", 3.0: "third", 4.0: "quarter", 5.0: "fifth", 10.0: "tenth"}
    return words.get(eta, f"{100 / eta:.3g} %")
