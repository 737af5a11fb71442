"""When a trial is stopped early, and when it goes on. Pure functions of the history: the same history gives the same
decision, always.

A history holds what every trial reported, `{trial number: {epoch: value}}`, higher is better (a metric to be minimised
is negated by the caller). Nothing else is remembered between two decisions, so a resumed sweep decides as if it had
never been interrupted.

`asha` and `hyperband` compare trials at rungs. There a trial goes on, waits, or is stopped for good: see `should_stop`,
and `Shown.promotable` for who of those that wait goes on. A sweep that has begun all its trials lets the best of those
that wait go on (`Shown.first_in_line`) until FINALISTS were trained to the end besides the baseline.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

Rows = Mapping[int, float]  # {epoch: value}
History = Mapping[int, Rows]
Place = tuple[int, int]  # (bracket, rung)

BASELINE = 0  # the number of the trial that is never stopped
FINALISTS = 4  # with the baseline five: as many as a rank correlation of a rung with the end needs to say anything


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
    finalists: int = FINALISTS

    def __post_init__(self) -> None:
        assert self.eta > 1, self.eta
        assert self.min_epochs > 0, self.min_epochs


@dataclass(frozen=True)
class Stop:
    """Why a trial does not go on, in words. One that is not stopped for good waits: it may go on later."""

    reason: str
    for_good: bool = True


class Shown(dict[int, Rows]):
    """A history that is kept up to date, and beside it what was shown at each rung and who waits there, so that a
    decision costs the same after 10,000 trials as after ten. As a mapping it is the plain history."""

    def __init__(self, rule: Early) -> None:
        super().__init__()
        self._rule = rule
        self._columns: dict[Place, _Column] = {}
        self._lines: dict[Place, list[tuple[float, int]]] = {}  # (-value, number) of those that wait, the best first
        self._waits: dict[int, Place] = {}
        self._looked_at: dict[Place, int] = {}  # how often what was shown there had changed when it was last looked at

    def put(self, number: int, rows: Rows) -> None:
        """All that a trial has reported so far."""
        self[number] = rows
        bracket = self.bracket_of(number)
        milestones = self._milestones(bracket)
        for rung in range(len(milestones)):
            self._columns.setdefault((bracket, rung), _Column()).put(number, value_at(rows, milestones, rung))

    def drop(self, number: int) -> None:
        """A trial that counts for nothing."""
        self.leave(number)
        self.pop(number, None)
        for column in self._columns.values():
            column.put(number, None)

    def wait(self, number: int) -> None:
        """A trial waits at the rung of its last report."""
        bracket = self.bracket_of(number)
        milestones = self._milestones(bracket)
        place = (bracket, _rung_of(max(self[number]), milestones))
        self.leave(number)
        self._waits[number] = place
        insort(self._lines.setdefault(place, []), self._entry(number, place))

    def leave(self, number: int) -> None:
        """A trial does not wait, or no longer."""
        place = self._waits.pop(number, None)
        if place is not None:
            line = self._lines[place]
            del line[bisect_left(line, self._entry(number, place))]

    @property
    def waiting(self) -> list[int]:
        """The numbers of the trials that wait."""
        return list(self._waits)

    def promotable(self) -> int | None:
        """Who goes on now: the best of those that wait at a rung, if it has come to belong to the best 1/eta of all
        that came this far. The highest rung comes first."""
        for place in self._places():
            number = self._lines[place][0][1]
            value = -self._lines[place][0][0]
            column = self._columns[place]
            if _ahead(*column.others(number), number, value) < math.floor(len(column) / self._rule.eta):
                return number
        return None

    def first_in_line(self) -> int | None:
        """The best of those that wait at the highest rung at which any wait."""
        return next((self._lines[place][0][1] for place in self._places()), None)

    def next_up(self, are_others_to_begin: bool, finalists: int) -> int | None:
        """Who of those that wait goes on now. `finalists` trials, the baseline apart, are at their end or under way."""
        number = self.promotable()
        if number is None and not are_others_to_begin and finalists < self._rule.finalists:
            return self.first_in_line()
        return number

    def left_behind(self, trials: int) -> list[int]:
        """Those that wait in vain since this was last asked: in a sweep of `trials` trials no more than those ahead of
        them will go on."""
        found = []
        for place in self._places():
            column = self._columns[place]
            if self._looked_at.get(place) == column.changes:
                continue
            self._looked_at[place] = column.changes
            numbers, values = column.others(BASELINE)
            room = _room(self._rule, place[1], trials, len(column))
            for minus_value, number in reversed(self._lines[place]):
                if _ahead(numbers, values, number, -minus_value) < room:
                    break
                found.append(number)
        return found

    def at(self, number: int, rung: int) -> tuple[np.ndarray, np.ndarray]:
        """(numbers, values): what the rivals of trial `number` showed at a rung of its bracket, in no order."""
        column = self._columns.get((self.bracket_of(number), rung))
        return (np.empty(0, int), np.empty(0)) if column is None else column.others(number)

    def rung_waited_at(self, number: int) -> int:
        """The rung at which a trial waits."""
        return self._waits[number][1]

    def bracket_of(self, number: int) -> int:
        """0 where there are no brackets."""
        return bracket_of(self._rule, number) if self._rule.type == "hyperband" else 0

    def _milestones(self, bracket: int) -> list[float]:
        return rungs(_in_bracket(self._rule, bracket))

    def _entry(self, number: int, place: Place) -> tuple[float, int]:
        value = value_at(self[number], self._milestones(place[0]), place[1])
        assert value is not None
        return -value, number

    def _places(self) -> Iterator[Place]:
        """Where any wait, the highest rung first."""
        held = [place for place, line in self._lines.items() if line]
        yield from sorted(held, key=lambda place: (-self._milestones(place[0])[place[1]], place))


class _Column:
    """A value for each of some trials, close together in memory."""

    def __init__(self) -> None:
        self._values = np.empty(64)
        self._numbers = np.empty(64, int)
        self._place: dict[int, int] = {}
        self.changes = 0

    def __len__(self) -> int:
        return len(self._place)

    def put(self, number: int, value: float | None) -> None:
        """Set, change or (None) remove the value of a trial."""
        place, last = self._place.get(number), len(self._place)
        if value is None:
            if place is not None:
                self.changes += 1
                self._values[place], self._numbers[place] = self._values[last - 1], self._numbers[last - 1]
                self._place[int(self._numbers[place])] = place
                del self._place[number]
            return
        if place is None:
            if last == len(self._values):
                self._values = np.concatenate([self._values, np.empty(last)])
                self._numbers = np.concatenate([self._numbers, np.empty(last, int)])
            self._place[number] = place = last
            self._numbers[place] = number
        elif self._values[place] == value:
            return
        self._values[place] = value
        self.changes += 1

    def others(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The (numbers, values) of all but one."""
        numbers, values = self._numbers[: len(self)], self._values[: len(self)]
        place = self._place.get(number)
        return (numbers, values) if place is None else (np.delete(numbers, place), np.delete(values, place))


def should_stop(
    rule: Early, history: History, number: int, epoch: int, value: float, trials: int | None = None
) -> Stop | None:
    """Why trial `number`, which reports `value` after `epoch` epochs, does not go on; None = it does.

    `history` is what was reported before; this very report, if it is in there, counts for nothing. `trials` is how many
    the sweep is to have, None where that is not known. The baseline, trial 0, is never stopped: the user is told the
    gain over it, and half a training is nothing to compare with. What it reports counts for the others all the same.
    """
    if number == BASELINE:
        return None
    if rule.type == "none" or epoch >= rule.max_epochs:
        return None
    if rule.type == "median":
        return _by_median(rule, history, number, epoch, value)
    if rule.type == "hyperband":
        bracket = bracket_of(rule, number)
        if not isinstance(history, Shown):
            history = {other: rows for other, rows in history.items() if bracket_of(rule, other) == bracket}
        rule = _in_bracket(rule, bracket)
    return _by_halving(rule, history, number, epoch, value, trials)


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


def _by_halving(
    rule: Early, history: History, number: int, epoch: int, value: float, trials: int | None
) -> Stop | None:
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934, algorithm 2): at a rung the best 1/eta of all
    that came this far go on, rounded down, the earlier of equals first; the others wait until they belong to the best.
    (Ray's AsyncHyperBandScheduler has nobody wait: it compares once, and of the first few trials of a sweep, and of a
    search that gets better and better, nearly all train to the end.)

    One that has too many ahead of it to go on in a sweep of so many trials is stopped for good.
    """
    milestones = rungs(rule)
    rung = _rung_of(epoch, milestones)
    if rung < 0 or any(milestones[rung] <= earlier < epoch for earlier in history.get(number, {})):
        return None  # there is nothing to compare, or it was compared at this rung before
    numbers, values = _shown_at(history, milestones, rung, number)
    ahead, came = _ahead(numbers, values, number, value), len(numbers) + 1
    if ahead < math.floor(came / rule.eta):
        return None
    in_vain = False
    if trials is not None:
        rivals = numbers != BASELINE
        in_vain = _ahead(numbers[rivals], values[rivals], number, value) >= _room(rule, rung, trials, came)
    return Stop(_not_among_the_best(rule, epoch, value, values, in_vain), in_vain)


def why_it_did_not_go_on(rule: Early, shown: Shown, number: int) -> str:
    """Of a trial that waits, in words, when it is stopped for good."""
    rule = _in_bracket(rule, shown.bracket_of(number))
    milestones, rung = rungs(rule), shown.rung_waited_at(number)
    value = value_at(shown[number], milestones, rung)
    assert value is not None
    _, values = shown.at(number, rung)
    return _not_among_the_best(rule, max(shown[number]), value, values, for_good=True)


def _rung_of(epoch: int, milestones: Sequence[float]) -> int:
    """The last rung that was reached; -1 before the first."""
    return sum(milestone <= epoch for milestone in milestones) - 1


def _ahead(numbers: np.ndarray, values: np.ndarray, number: int, value: float) -> int:
    """How many of others are before trial `number`: the better ones, and of equals the earlier."""
    return int(np.count_nonzero((values > value) | ((values == value) & (numbers < number))))


def _room(rule: Early, rung: int, trials: int, came: int) -> int:
    """For how many, the baseline apart, there will be room beyond a rung to which `came` have come: one in eta of those
    that will come, and twice the finalists, of whom some may fail. (Late in a search that gets worse, a few more may
    come to a higher rung than are reckoned with here.)"""
    to_come = max(trials / rule.eta**rung, came)
    return max(2 * rule.finalists, math.floor(to_come / rule.eta))


def most_waiting(rule: Early, trials: int) -> int:
    """How many trials may wait at once: at each rung those for whom there is room, less the one in eta of as many that
    has gone on by the time that they have come."""
    rooms = [_room(rule, rung, trials, 0) for rung in range(len(rungs(rule)))]
    return min(sum(room - math.floor(room / rule.eta) for room in rooms), max(trials - 1, 0))


def _shown_at(history: History, milestones: Sequence[float], rung: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, values) of the trials besides `number` at a rung."""
    if isinstance(history, Shown):
        return history.at(number, rung)
    at_rung = [(other, value_at(rows, milestones, rung)) for other, rows in history.items() if other != number]
    seen = [(other, value) for other, value in at_rung if value is not None]
    return np.array([other for other, _ in seen], int), np.array([value for _, value in seen], float)


def _not_among_the_best(rule: Early, epoch: int, value: float, others: np.ndarray, for_good: bool) -> str:
    """'stopped at epoch 10: val/AP 0.312 is below 0.418, the best third of the 9 trials that came this far'."""
    came = len(others) + 1
    going = math.floor(came / rule.eta)
    what = f"{'stopped' if for_good else 'waits'} at epoch {epoch}"
    best = float(np.sort(others)[-max(going, 1)]) if len(others) else -math.inf
    if going == 0 and (not for_good or best < value):
        return f"{what}: only {came} trial{'s' * (came > 1)} came this far, and one in {rule.eta:g} goes on"
    whose = f"the best {_share(rule.eta)}" if going > 1 else "the best"
    return f"{what}: {_compared(rule, value, best)}, {whose} of the {came} trials that came this far"


def _by_median(rule: Early, history: History, number: int, epoch: int, value: float) -> Stop | None:
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
    others = f"{len(means)} trials" if len(means) > 1 else "one trial"
    return Stop(f"stopped at epoch {epoch}: best {compared}, the median of the {others} that came this far")


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
    while value != limit and f"{value:.{digits}f}" == f"{limit:.{digits}f}" and digits < 12:
        digits += 1
    below, above = ("below", "above") if sign == 1 else ("above", "below")
    side = below if value < limit else f"not {above}"  # of equals, the earlier goes first
    return f"{rule.metric} {sign * value:.{digits}f} is {side} {sign * limit:.{digits}f}"


def _share(eta: float) -> str:
    """'third' for 3; in percent where there is no word."""
    words = {2.0: "half", 3.0: "third", 4.0: "quarter", 5.0: "fifth", 10.0: "tenth"}
    return words.get(eta, f"{100 / eta:.3g} %")
