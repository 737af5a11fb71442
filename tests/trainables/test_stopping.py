"""Decisions worked out by hand, and beside those of Ray's schedulers."""

import math
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from posesweep.trainables.stopping import (
    BASELINE,
    Early,
    History,
    Shown,
    Stop,
    bracket_of,
    most_waiting,
    rungs,
    should_stop,
    why_it_did_not_go_on,
)

ASHA = Early("asha", max_epochs=30, min_epochs=1, eta=3, finalists=2)
MEDIAN = Early("median", max_epochs=30, min_epochs=2, startup_trials=3)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Early("asha", 30, 1, 3), [1, 3, 9, 27]),
        (Early("asha", 27, 1, 3), [1, 3, 9]),  # the last epoch is the end, not a rung
        (Early("asha", 120, 10, 3), [10, 30, 90]),
        (Early("asha", 16, 2, 2), [2, 4, 8]),
        (Early("asha", 5, 5, 3), []),
        (Early("hyperband", 27, 1, 3), [1, 3, 9]),
        (Early("median", 27, 1, 3), []),
        (Early("none", 27, 1, 3), []),
    ],
)
def test_rungs(rule: Early, expected: list[float]) -> None:
    assert rungs(rule) == expected


def why(rule: Early, history: History, number: int, epoch: int, value: float, trials: int | None = None) -> str:
    """The reason, '' for a trial that goes on."""
    stop = should_stop(rule, history, number, epoch, value, trials)
    return stop.reason if stop is not None else ""


def test_asha_lets_the_best_third_go_on() -> None:
    history = {n: {1: v} for n, v in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])}
    # of eight two go on
    assert should_stop(ASHA, history, 7, 1, 0.65) is None
    assert should_stop(ASHA, history, 7, 1, 0.5) == Stop(
        "waits at epoch 1: val/AP 0.500 is below 0.600, the best third of the 8 trials that came this far",
        for_good=False,
    )
    assert why(ASHA, history, 7, 1, 0.6) == (
        "waits at epoch 1: val/AP 0.600 is not above 0.600, the best third of the 8 trials that came this far"
    ), "of equals the earlier goes first"


def test_asha_nobody_goes_on_before_a_third_is_one() -> None:
    """However good: of two trials a third is none, of three it is one, of six it is two."""
    assert why(ASHA, {0: {1: 0.5}}, 1, 1, 0.9) == (
        "waits at epoch 1: only 2 trials came this far, and one in 3 goes on"
    )
    assert why(ASHA, {}, 1, 1, 0.9) == "waits at epoch 1: only 1 trial came this far, and one in 3 goes on"
    few = {n: {1: v} for n, v in enumerate([0.1, 0.2])}
    assert should_stop(ASHA, few, 2, 1, 0.3) is None
    assert why(ASHA, few, 2, 1, 0.1) == (
        "waits at epoch 1: val/AP 0.100 is below 0.200, the best of the 3 trials that came this far"
    )


def test_asha_stops_for_good_who_can_never_go_on() -> None:
    """A sweep of 30 trials lets ten go on at the first rung, and three at the second, where there is room for four: two
    finalists, and two that may take their places."""

    def for_good(history: History, epoch: int, value: float, trials: int | None = 30) -> bool:
        stop = should_stop(ASHA, history, 20, epoch, value, trials)
        assert stop is not None
        return stop.for_good

    first = {n: {1: n / 100} for n in range(1, 16)}
    assert not for_good(first, 1, 0.065)
    assert should_stop(ASHA, first, 20, 1, 0.055, trials=30) == Stop(
        "stopped at epoch 1: val/AP 0.055 is below 0.110, the best third of the 16 trials that came this far"
    )
    assert not for_good(first, 1, 0.055, trials=None), "how many trials there will be is not known"
    second = {n: {1: 0.5, 3: n / 100} for n in range(1, 6)}
    assert not for_good(second, 3, 0.025)
    assert for_good(second, 3, 0.015)
    with_baseline = {BASELINE: {1: 0.5, 3: 0.5}, **{n: second[n] for n in (1, 3, 4, 5)}}
    assert not for_good(with_baseline, 3, 0.015), "the baseline takes nobody's place"


def test_asha_decides_at_rungs_only() -> None:
    history = {n: dict.fromkeys((1, 2, 3), 0.9) for n in (0, 2, 3)} | {1: {1: 0.95}}
    assert should_stop(ASHA, history, 1, 2, 0.0) is None
    assert why(ASHA, history, 1, 3, 0.0) == (
        "waits at epoch 3: val/AP 0.000 is below 0.900, the best of the 4 trials that came this far"
    )


def test_how_many_may_wait_at_once() -> None:
    """Rungs 1, 3 and 9 of 27 epochs: of 81 trials 27, 9 and 3 go on; there is always room for two times four."""
    rule = Early("asha", 27, 1, 3)
    assert most_waiting(rule, 81) == (27 - 9) + (9 - 3) + (8 - 2)
    assert most_waiting(rule, 9) == 8, "all but the baseline"
    assert most_waiting(rule, 1) == most_waiting(Early("median", 27), 81) == 0


class Line:
    """Trials that have shown something at rungs of ASHA, and wait there."""

    def __init__(self, rule: Early = ASHA, **rows: dict[int, float]) -> None:
        self.shown = Shown(rule)
        for name, row in rows.items():
            number = int(name[1:])
            self.shown.put(number, row)
            if number != BASELINE:
                self.shown.wait(number)


def test_who_waits_goes_on_when_it_belongs_to_the_best() -> None:
    shown = Line(t0={1: 0.1}, t1={1: 0.5}).shown
    assert shown.promotable() is None, "two have come: a third of them is none"
    shown.put(2, {1: 0.2})
    shown.wait(2)
    assert shown.promotable() == 1
    shown.leave(1)
    assert shown.promotable() is None, "the place is taken"
    for number in (3, 4, 5):
        shown.put(number, {1: 0.3})
        shown.wait(number)
    assert shown.promotable() == 3, "of six two go on; of equals the earlier"
    shown.leave(3)
    shown.put(1, {1: 0.5, 3: 0.6})
    shown.wait(1)
    for number in (6, 7):
        shown.put(number, {1: 0.0, 3: 0.7})  # two that have come further
    assert shown.promotable() is None
    assert shown.waiting == [2, 4, 5, 1]


def test_the_highest_rung_comes_first() -> None:
    rows = {1: {1: 0.9}, 2: {1: 0.4, 3: 0.5}, 3: {1: 0.1}, 4: {1: 0.3, 3: 0.4}, 5: {1: 0.3, 3: 0.4}}
    shown = Line(**{f"t{n}": row for n, row in rows.items()}).shown
    assert shown.promotable() == 2
    shown.leave(2)
    assert shown.promotable() == 1
    assert shown.first_in_line() == 4
    for number in (4, 5):
        shown.leave(number)
    assert shown.first_in_line() == 1
    assert Shown(ASHA).first_in_line() is None


def test_who_waits_in_vain_is_named_and_told_why() -> None:
    """A sweep of 15 lets five go on."""
    shown = Line(t0={1: 0.9}, **{f"t{n}": {1: n / 100} for n in range(1, 8)}).shown
    assert shown.left_behind(30) == []
    shown.put(0, {1: 0.95})
    assert shown.left_behind(15) == [1, 2], "the baseline takes nobody's place"
    assert shown.left_behind(15) == [], "told once"
    shown.put(8, {1: 0.5})
    assert shown.left_behind(15) == [1, 2, 3]
    assert why_it_did_not_go_on(ASHA, shown, 1) == (
        "stopped at epoch 1: val/AP 0.010 is below 0.070, the best third of the 9 trials that came this far"
    )
    alone = Line(t1={1: 0.5}).shown
    assert why_it_did_not_go_on(ASHA, alone, 1) == (
        "stopped at epoch 1: only 1 trial came this far, and one in 3 goes on"
    )


def test_last_epoch_is_never_a_stop() -> None:
    rule = Early("asha", max_epochs=9, min_epochs=1, eta=3)
    history = {0: {9: 0.9}}
    assert should_stop(rule, history, 1, 9, 0.0) is None


def test_baseline_is_never_stopped_and_still_counts() -> None:
    for rule in (ASHA, MEDIAN, Early("hyperband", 30)):
        crowd = {n: dict.fromkeys(range(1, 10), 0.9) for n in range(1, 20)}
        assert should_stop(rule, crowd, 0, 9, 0.0) is None
    assert should_stop(ASHA, {0: {1: 0.9}, 2: {1: 0.1}}, 1, 1, 0.8) is not None


def test_asha_where_not_every_epoch_is_validated() -> None:
    """Validated every second epoch: rung 3 is met at epoch 4, rung 9 at epoch 10."""
    history = {n: {2: 0.5, 4: 0.6, 10: 0.7} for n in (0, 2)}
    assert "at epoch 4" in why(ASHA, history, 1, 4, 0.55)
    assert should_stop(ASHA, history, 1, 10, 0.75) is None
    assert should_stop(ASHA, {**history, 1: {4: 0.65}}, 1, 6, 0.1) is None  # its comparison at rung 3 is behind it


def test_own_report_of_this_epoch_counts_for_nothing() -> None:
    history = {0: {3: 0.5}, 1: {1: 0.5, 3: 0.4}}
    assert should_stop(ASHA, history, 1, 3, 0.4) == should_stop(ASHA, {0: {3: 0.5}, 1: {1: 0.5}}, 1, 3, 0.4)


def test_words_keep_the_metrics_sign_and_tell_close_values_apart() -> None:
    rule = Early("asha", 30, metric="val/NME", goal="minimize")
    assert why(rule, {0: {1: -0.123441}, 2: {1: -0.3}}, 1, 1, -0.123449) == (
        "waits at epoch 1: val/NME 0.12345 is above 0.12344, the best of the 3 trials that came this far"
    )
    assert "val/NME 0.300 is not below 0.300, the best" in why(rule, {n: {1: -0.3} for n in (0, 2)}, 3, 1, -0.3)


def test_median_by_hand() -> None:
    history = {
        1: {1: 0.1, 2: 0.3},  # running mean up to epoch 2: 0.2
        2: {1: 0.3, 2: 0.5, 3: 0.9},  # 0.4; epoch 3 is not looked at
        3: {1: 0.5, 2: 0.7},  # 0.6
        4: {1: 0.9},  # did not come this far
        5: {1: 0.39},
    }
    assert should_stop(MEDIAN, history, 5, 2, 0.1) == Stop(
        "stopped at epoch 2: best val/AP 0.390 is below 0.400, the median of the 3 trials that came this far"
    )
    assert should_stop(MEDIAN, history, 5, 2, 0.4) is None
    assert should_stop(MEDIAN, history | {5: {1: 0.45}}, 5, 2, 0.1) is None  # its best so far is above
    assert should_stop(MEDIAN, history, 5, 1, 0.0) is None  # before min_epochs
    two = {n: history[n] for n in (1, 2)}
    assert should_stop(MEDIAN, two, 5, 2, 0.0) is None  # before startup_trials


def test_none_never_stops() -> None:
    assert should_stop(Early("none", 30), {0: {1: 1.0}}, 1, 1, 0.0) is None


def test_hyperband_brackets_have_the_published_shares() -> None:
    """R = 27, eta = 3: 27, 12, 6, 4 trials in the brackets that start at 1, 3, 9 and 27 epochs (Li et al., table 1)."""
    rule = Early("hyperband", 27, 1, 3)
    counts = Counter(bracket_of(rule, n) for n in range(49))
    assert counts == {0: 27, 1: 12, 2: 6, 3: 4}
    assert {bracket_of(rule, n) for n in range(8)} >= {0, 1, 2}, "mixed from the start"


def test_hyperband_compares_within_the_bracket() -> None:
    rule = Early("hyperband", 27, 1, 3)
    by_bracket = defaultdict(list)
    for n in range(1, 60):
        by_bracket[bracket_of(rule, n)].append(n)
    a, b, c, *_ = by_bracket[0]
    late, later, latest, *_ = by_bracket[1]
    free, freer, *_ = by_bracket[3]
    assert should_stop(rule, {a: {1: 0.9}, c: {1: 0.9}}, b, 1, 0.1) is not None
    assert should_stop(rule, {late: {1: 0.9}, later: {1: 0.9}, a: {1: 0.0}, c: {1: 0.0}}, b, 1, 0.1) is None
    assert should_stop(rule, {late: {1: 0.9}, latest: {1: 0.9}}, later, 1, 0.1) is None, "its first rung is epoch 3"
    assert should_stop(rule, {late: {3: 0.9}, latest: {3: 0.9}}, later, 3, 0.1) is not None
    assert all(should_stop(rule, {free: {e: 0.9}}, freer, e, 0.1) is None for e in range(1, 28))
    shown = Line(
        rule, **{f"t{n}": {1: 0.5} for n in (a, b, c)}, **{f"t{n}": {1: 0.9, 3: 0.9} for n in (late, later)}
    ).shown
    assert shown.promotable() == a, "of the three in its bracket"
    assert shown.first_in_line() == late


class RayAsha:
    """Ray's scheduler, driven with trials that never ran."""

    def __init__(self, rule: Early) -> None:
        self.scheduler = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric="value",
            mode="max",
            max_t=rule.max_epochs,
            grace_period=int(rule.min_epochs),
            reduction_factor=rule.eta,
        )
        self.trials: dict[int, SimpleNamespace] = {}

    def stops(self, number: int, epoch: int, value: float) -> bool:
        if number not in self.trials:
            self.trials[number] = SimpleNamespace(trial_id=str(number))
            self.scheduler.on_trial_add(None, self.trials[number])
        result = {"epoch": epoch, "value": value}
        return self.scheduler.on_trial_result(None, self.trials[number], result) == TrialScheduler.STOP


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    eta=st.sampled_from([2, 3, 4, 2.5]),
    others=st.integers(1, 200),
    levels=st.sampled_from([3, 1000]),
)
def test_asha_at_a_rung_is_the_paper_s_and_next_to_ray_s(seed: int, eta: float, others: int, levels: int) -> None:
    """The best floor(n / eta) of n, this trial among them; few levels make ties. Ray's quantile lets at most one more
    on, and none of those that we let on is stopped by it."""
    rule, rng = Early("asha", 30, 1, eta), np.random.default_rng(seed)
    shown = rng.integers(levels, size=others) / levels
    ray, history = RayAsha(rule), {n: {1: float(value)} for n, value in enumerate(shown, start=1)}
    for number, rows in history.items():
        ray.stops(number, 1, rows[1])
    value = float(rng.integers(levels)) / levels
    goes_on = should_stop(rule, history, others + 1, 1, value) is None
    ahead = int(np.sum(shown >= value))  # it is the latest of equals
    assert goes_on == (ahead < math.floor((others + 1) / eta))
    if goes_on:
        assert not ray.stops(others + 1, 1, value)
    elif np.sum(shown > value) > math.floor((others + 1) / eta) + 1:
        assert ray.stops(others + 1, 1, value)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    eta=st.sampled_from([2, 3, 4, 2.5]),
    trials=st.integers(1, 60),
    levels=st.sampled_from([3, 1000]),
)
def test_promotions_are_those_of_the_published_algorithm(seed: int, eta: float, trials: int, levels: int) -> None:
    """One worker: at each step ASHA's get_job, which sorts all that completed a rung, highest rung first, and takes the
    first of the top floor(n / eta) that was not promoted; else a new trial. Ours lets a trial that belongs to the best
    when it comes go on at once, which is what get_job would do next; who has no chance any more is left out."""
    rule, rng = Early("asha", 30, 1, eta, finalists=0), np.random.default_rng(seed)
    milestones = [math.ceil(m) for m in rungs(rule)]
    values = {n: {m: int(rng.integers(levels)) / levels for m in milestones} for n in range(1, trials + 1)}

    def published() -> list[tuple[int, int]]:
        """(trial, rung completed), in the order of the jobs."""
        jobs, promoted, begun = [], [set() for _ in milestones], 0
        while True:
            job = None
            for k in reversed(range(len(milestones) - 1)):
                done = [n for n, rung in jobs if rung == k]
                top = sorted(done, key=lambda n: (-values[n][milestones[k]], n))[: math.floor(len(done) / eta)]
                if candidates := [n for n in top if n not in promoted[k]]:
                    promoted[k].add(candidates[0])
                    job = (candidates[0], k + 1)
                    break
            if job is None and begun < trials:
                begun += 1
                job = (begun, 0)
            if job is None:
                return jobs
            jobs.append(job)

    shown, jobs, begun, running = Shown(rule), [], 0, None
    while True:
        if running is None:
            running = shown.promotable()
            if running is not None:
                shown.leave(running)
            elif begun < trials:
                begun = running = begun + 1
                shown.put(running, {})
            else:
                break
        rung = len(shown[running])
        jobs.append((running, rung))
        value = values[running][milestones[rung]]
        stop = should_stop(rule, shown, running, milestones[rung], value)
        shown.put(running, {**shown[running], milestones[rung]: value})
        if rung == len(milestones) - 1:
            running = None  # the last rung of this test is its end
        elif stop is not None:
            shown.wait(running)
            running = None
    assert jobs == published()


@settings(max_examples=50, deadline=None)
@given(eta=st.sampled_from([2, 3, 4, 2.5, 1.7]), min_epochs=st.integers(1, 10), max_epochs=st.integers(10, 300))
def test_rungs_are_those_of_ray(eta: float, min_epochs: int, max_epochs: int) -> None:
    rule = Early("asha", max_epochs, min_epochs, eta)
    scheduler = RayAsha(rule).scheduler
    of_ray = sorted(milestone for milestone, _ in scheduler._brackets[0]._rungs)
    assert rungs(rule) == pytest.approx([m for m in of_ray if m < max_epochs])
    assert all(math.isfinite(m) for m in rungs(rule))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["asha", "hyperband", "median", "none"]),
    eta=st.sampled_from([2, 3]),
    every=st.sampled_from([1, 2]),
)
def test_a_kept_history_decides_as_a_plain_one(seed: int, kind: str, eta: int, every: int) -> None:
    """Reports in any order and told again; trials that are dropped on the way; validated every epoch or every other."""
    rule = Early(kind, 20, 1, eta, startup_trials=2)
    rng, shown, plain = np.random.default_rng(seed), Shown(rule), {}
    for _ in range(100):
        number, epoch = int(rng.integers(12)), int(rng.integers(1, 20)) // every * every or every
        value = float(rng.integers(20)) / 20
        assert should_stop(rule, shown, number, epoch, value) == should_stop(rule, plain, number, epoch, value)
        if rng.random() < 0.1:
            plain.pop(number, None)
            shown.drop(number)
        else:
            plain[number] = {**plain.get(number, {}), epoch: value}
            shown.put(number, plain[number])
        assert shown == plain
