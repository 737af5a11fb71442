"""What a sweep will cost, foretold from measured times: simulated with its own stopping rule, many times over.

How good trials turn out is drawn; how long they take is measured. The rule itself (`stopping`) says which
of them are stopped, in the order in which they report, so what asynchronous halving lets through early is counted.
"""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posesweep.trainables.stopping import BASELINE, Early, Shown, rungs, should_stop

SIMULATIONS = 24
MOST_SIMULATED = 400  # trials; a longer sweep costs in proportion
MOST_BY_MEDIAN = 80  # which compares every trial with every other
LOOKS = 12  # of the median rule at a simulated trial, which in truth looks after every epoch
# By so many deviations between configs a search improves on its first proposals: what comes late is stopped less. Eight
# searches of an earlier demo spared 0.23 to 0.45 of their first 18 trials' epochs (0.35 on average), and these 0.27 to
# 0.54; of the demo as it is now 0.63 is foretold, and a search spared 0.69.
LEARNED = (1.0, 4.0)
EARLY_NOISE = 0.8  # how much an untrained network's score says less of its config than the final one, in the same unit
TIMING_NOISE = 0.15  # standard deviation of the logarithm of a sweep's pace about what was measured in a minute
WITHIN = (10.0, 90.0)  # the percentiles that are shown as a range


@dataclass(frozen=True)
class TrialCost:
    """One config: seconds of an epoch (validation and saving included) and of the start, and how long it trains."""

    epoch_s: float
    epochs: int
    start_s: float = 0.0

    @property
    def whole_s(self) -> float:
        """Seconds of a training that nothing stops."""
        return self.start_s + self.epochs * self.epoch_s


@dataclass(frozen=True)
class Spread:
    """What is expected, and the range in which four of five simulated sweeps lie."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of the outcomes of the simulations."""
        low, high = np.percentile(values, WITHIN)
        return cls(float(np.mean(values)), float(low), float(high))

    def times(self, factor: float) -> "Spread":
        """The same in another unit, or of several."""
        return Spread(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, seconds: float) -> "Spread":
        """Later by so much."""
        return Spread(self.value + seconds, self.low + seconds, self.high + seconds)


@dataclass(frozen=True)
class Simulated:
    """One sweep that might have been: seconds from first start to last end, seconds of trials, how many reached each
    mark, and the share of a sweep without stopping that it saved."""

    wall_s: float
    busy_s: float
    reached: tuple[int, ...]
    saved: float


@dataclass(frozen=True)
class Forecast:
    """`reaching` is (epoch, how many trials are expected to train that far), the last for whole trainings."""

    trials: int
    reaching: tuple[tuple[int, float], ...]
    wall_s: Spread
    busy_s: Spread  # of all slots together
    saved: float  # the share of the work that stopping early spares


@dataclass(frozen=True)
class Plan:
    """What is simulated: `first` are the costs of the trials whose settings are known, `others` those to draw from."""

    rule: Early
    trials: int
    concurrent: int
    first: tuple[TrialCost, ...]
    others: tuple[TrialCost, ...]
    val_every: int = 1
    learns: bool = True  # whether later proposals are better than the first ones


def forecast(plan: Plan, seed: int = 0) -> Forecast:
    """Mean and range over simulated sweeps, their pace as uncertain as a measurement of a minute."""
    rng = random.Random(seed)
    count = min(plan.trials, MOST_BY_MEDIAN if plan.rule.type == "median" else MOST_SIMULATED)
    scale = plan.trials / count
    sweeps, paces = [], []
    for _ in range(SIMULATIONS):
        sweeps.append(simulate(plan, count, rng))
        paces.append(scale * math.exp(rng.gauss(0.0, TIMING_NOISE)))
    marks = (*marks_of(plan.rule, plan.val_every), plan.rule.max_epochs)
    reached = np.mean([sweep.reached for sweep in sweeps], axis=0) * scale
    return Forecast(
        trials=plan.trials,
        reaching=tuple(zip(marks, reached.tolist(), strict=True)),
        wall_s=Spread.of([sweep.wall_s * pace for sweep, pace in zip(sweeps, paces, strict=True)]),
        busy_s=Spread.of([sweep.busy_s * pace for sweep, pace in zip(sweeps, paces, strict=True)]),
        saved=float(np.mean([sweep.saved for sweep in sweeps])),
    )


def marks_of(rule: Early, val_every: int = 1) -> tuple[int, ...]:
    """The validated epochs at which the rule looks at a trial (of the median rule: some of them), the end left out."""
    if rule.type == "median":
        wanted = np.linspace(rule.min_epochs, rule.max_epochs, LOOKS + 1).tolist()
    else:
        wanted = rungs(rule)
    validated = {math.ceil(epoch / val_every) * val_every for epoch in wanted}
    return tuple(sorted(epoch for epoch in validated if epoch < rule.max_epochs))


def simulate(plan: Plan, trials: int, rng: random.Random) -> Simulated:
    """One sweep of `trials` trials. The score of a config is normal, later proposals of a search that learns are
    better; what a trial shows early is its score with noise that goes as it trains."""
    costs = [*plan.first[:trials], *(rng.choice(plan.others) for _ in range(trials - len(plan.first)))]
    learned = rng.uniform(*LEARNED) if plan.learns else 0.0
    scores = [rng.gauss(learned * number / trials, 1.0) for number in range(trials)]
    marks = marks_of(plan.rule, plan.val_every)
    shown = Shown(plan.rule)
    for number in range(trials):
        shown.put(number, {})
    epochs, starts, at = [0] * trials, [0] * trials, [0] * trials  # at: which of its marks is next
    events: list[tuple[float, int]] = []  # when which trial reaches its next mark
    now, begun, ended = 0.0, 0, 0  # ended: besides the baseline, at the end of their trainings
    while True:
        while len(events) < plan.concurrent:
            going = shown.next_up(begun < trials, ended + sum(other != BASELINE for _, other in events))
            if going is None and begun < trials:
                going, begun = begun, begun + 1
            if going is None:
                break
            shown.leave(going)
            starts[going] += 1
            heapq.heappush(events, (now + costs[going].start_s + _until(costs[going], marks, at[going]), going))
        if not events:
            break
        now, number = heapq.heappop(events)
        own = _own_marks(costs[number], marks)
        epochs[number] = epoch = own[at[number]]
        share = epoch / costs[number].epochs
        value = scores[number] + 4 * (1 - math.exp(-4 * share)) + rng.gauss(0.0, EARLY_NOISE * (1 - share))
        stop = should_stop(plan.rule, shown, number, epoch, value, trials)
        shown.put(number, {**shown[number], epoch: value})
        at[number] += 1
        if at[number] == len(own):
            ended += number != BASELINE
        elif stop is None:
            heapq.heappush(events, (now + _until(costs[number], marks, at[number]), number))
        elif not stop.for_good:
            shown.wait(number)
        for vain in shown.left_behind(trials):
            shown.leave(vain)
    busy = sum(
        times * cost.start_s + done * cost.epoch_s for cost, done, times in zip(costs, epochs, starts, strict=True)
    )
    whole = [done >= cost.epochs for cost, done in zip(costs, epochs, strict=True)]
    reached = [sum(done >= mark for done in epochs) for mark in marks]
    return Simulated(now, busy, (*reached, sum(whole)), 1 - busy / sum(cost.whole_s for cost in costs))


def _own_marks(cost: TrialCost, marks: Sequence[int]) -> list[int]:
    return [*(mark for mark in marks if mark < cost.epochs), cost.epochs]


def _until(cost: TrialCost, marks: Sequence[int], mark: int) -> float:
    """Seconds of training from the mark before to a mark."""
    own = _own_marks(cost, marks)
    return cost.epoch_s * (own[mark] - (own[mark - 1] if mark else 0))


@dataclass(frozen=True)
class Confirming:
    """Retraining of the best: so many candidates and the baseline, each with so many seeds, at full length."""

    top_k: int
    seeds: int
    epochs: int

    @property
    def trainings(self) -> int:
        """The baseline's included; fewer when it is among the best."""
        return (self.top_k + 1) * self.seeds


def confirm_s(confirming: Confirming, costs: Sequence[TrialCost], concurrent: int) -> tuple[Spread, Spread]:
    """(wall, of all slots together) in seconds: for the mean config, and from the cheapest to the dearest."""
    each = [cost.start_s + confirming.epochs * cost.epoch_s for cost in costs]
    one = Spread(float(np.mean(each)), min(each), max(each))
    rounds = math.ceil(confirming.trainings / concurrent)
    return one.times(rounds), one.times(confirming.trainings)


@dataclass(frozen=True)
class Verdict:
    """What a budget will do to a sweep, in sentences; `works` is False when it cannot give an answer at all."""

    works: bool
    sentences: tuple[str, ...]


def judge_budget(limit: float, unit: str, needs: dict[str, Spread], trials: int) -> Verdict:
    """Whether `limit` hours (`unit`: "h" or "GPU-h") do for what `needs` hours: "the baseline", "the search" and, where
    there is one, "confirm"."""
    baseline, search = needs["the baseline"], needs["the search"]
    confirm = needs.get("confirm", Spread(0.0, 0.0, 0.0))
    asked = f"budget: {limit:g} {unit}"
    way_out = "raise it, or lower epochs, the network or imgsz"
    if baseline.value > limit:
        return Verdict(False, (f"{asked}, but the baseline alone needs {baseline.value:.2g} {unit}; {way_out}",))
    if confirm.value > limit:
        return Verdict(False, (f"{asked}, but confirm alone needs {confirm.value:.2g} {unit}; lower its seeds",))
    if baseline.value + confirm.value > limit:
        both = f"the baseline and confirm need {baseline.value + confirm.value:.2g} {unit}"
        return Verdict(False, (f"{asked}, but {both}, which leaves nothing for the search; {way_out}",))
    left = limit - confirm.value
    if search.value <= left:
        tight = search.high > left
        return Verdict(True, (f"{asked} will {'probably ' if tight else ''}do for all {trials} trials",))
    count = max(1, int(trials * left / search.value))
    return Verdict(True, (f"{asked} ends the search after about {count} of its {trials} trials",))
