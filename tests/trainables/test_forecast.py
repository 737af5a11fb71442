"""What a sweep will cost, foretold: counts by hand where chance plays no part, the rule's own shares where it does."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.trainables.forecast import (
    Confirming,
    Plan,
    Spread,
    TrialCost,
    confirm_s,
    forecast,
    judge_budget,
    marks_of,
    simulate,
)
from posesweep.trainables.stopping import Early

COST = TrialCost(epoch_s=2.0, epochs=9, start_s=1.0)
ALL_RUN = Early("none", 9)
ASHA = Early("asha", 9, min_epochs=1, eta=3)


def plan(rule=ALL_RUN, trials=4, concurrent=2, first=(COST,), others=(COST,), **more) -> Plan:
    return Plan(rule, trials, concurrent, first, others, **more)


def test_without_stopping_the_wall_is_arithmetic():
    found = simulate(plan(trials=5), 5, random.Random(0))
    assert found.wall_s == 3 * 19  # two at a time: three rounds of 1 + 9 x 2 seconds
    assert found.busy_s == 5 * 19
    assert found.reached == (5,)
    assert found.saved == 0


def test_the_last_trial_runs_alone():
    long, short = TrialCost(1.0, 10), TrialCost(1.0, 2)
    rule = Early("none", 10)
    found = simulate(plan(rule, 3, 2, first=(short, short, long)), 3, random.Random(0))
    assert (found.wall_s, found.busy_s) == (12.0, 14.0)


def test_marks_are_epochs_with_a_validation():
    assert marks_of(ASHA) == (1, 3)
    assert marks_of(Early("asha", 20, min_epochs=4, eta=3), val_every=5) == (5, 15)
    assert marks_of(ALL_RUN) == ()
    assert marks_of(Early("median", 60, min_epochs=5))[0] == 5


def test_asha_lets_about_a_third_through_each_rung():
    found = forecast(plan(ASHA, trials=80, concurrent=1, learns=False))
    (_, begun), (_, third), (_, whole) = found.reaching
    assert begun == 80
    assert 0.28 * 80 < third < 0.4 * 80  # rounded down, but asynchronous: early trials have nobody above them
    assert third / 3 < whole < third / 2 + 5
    assert 0.5 < found.saved < 0.8


def test_a_short_sweep_trains_its_finalists_to_the_end():
    """Of nine trials one would come past both rungs by its rank; the baseline and four others do."""
    for seed in range(5):
        assert simulate(plan(ASHA, trials=9, concurrent=3), 9, random.Random(seed)).reached[-1] >= 5
    assert simulate(plan(ASHA, trials=3, concurrent=3), 3, random.Random(0)).reached == (3, 3, 3)


def test_a_search_that_learns_stops_less():
    shares = [forecast(plan(ASHA, trials=40, learns=learns)).reaching[1][1] for learns in (False, True)]
    assert shares[0] < shares[1]


def test_the_baseline_is_never_stopped():
    rule = Early("asha", 9, min_epochs=1, eta=9)
    dear, cheap = TrialCost(100.0, 9), TrialCost(1.0, 9)
    found = simulate(plan(rule, 60, 1, first=(dear,), others=(cheap,)), 60, random.Random(1))
    assert found.busy_s >= dear.whole_s + 59


@pytest.mark.parametrize("rule", ["median", "hyperband"])
def test_the_other_rules_stop_trials_too(rule):
    found = forecast(plan(Early(rule, 27, min_epochs=1, eta=3), trials=40, first=(TrialCost(1.0, 27),)))
    assert 0 < found.saved < 0.9
    assert found.reaching[0][1] > found.reaching[-1][1] > 0


def test_long_sweeps_cost_in_proportion():
    short, long = forecast(plan(trials=400)), forecast(plan(trials=4000))
    assert long.busy_s.value == pytest.approx(10 * short.busy_s.value)
    assert long.reaching == ((9, 4000.0),)


def test_a_forecast_is_a_range_about_the_mean():
    found = forecast(plan(ASHA, trials=30))
    assert found.wall_s.low < found.wall_s.value < found.wall_s.high
    assert found == forecast(plan(ASHA, trials=30))  # the same question, the same answer


@settings(deadline=None, max_examples=30)
@given(
    trials=st.integers(1, 30),
    concurrent=st.integers(1, 5),
    kind=st.sampled_from(["none", "asha", "hyperband", "median"]),
    epochs=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_no_slot_is_used_twice_and_no_trial_runs_longer_than_its_own(trials, concurrent, kind, epochs, seed):
    costs = tuple(TrialCost(1.0 + i, e) for i, e in enumerate(epochs))
    found = simulate(plan(Early(kind, max(epochs)), trials, concurrent, costs, costs), trials, random.Random(seed))
    assert found.busy_s <= concurrent * found.wall_s + 1e-9
    assert found.wall_s <= found.busy_s + 1e-9
    assert -1e-9 <= found.saved < 1
    assert list(found.reached[:-1]) == sorted(found.reached[:-1], reverse=True)


def test_confirm_by_hand():
    asked = Confirming(top_k=3, seeds=2, epochs=20)
    assert asked.trainings == 8
    wall, busy = confirm_s(asked, [TrialCost(1.0, 9), TrialCost(3.0, 9, start_s=2.0)], concurrent=3)
    assert (wall.value, wall.low, wall.high) == (3 * 41, 3 * 20, 3 * 62)  # three rounds of the mean, least and most
    assert (busy.low, busy.high) == (8 * 20, 8 * 62)


def spread(value: float) -> Spread:
    return Spread(value, 0.8 * value, 1.2 * value)


@pytest.mark.parametrize(
    ("limit", "needs", "works", "said"),
    [
        (2, (3.1, 9, 0), False, "budget: 2 h, but the baseline alone needs 3.1 h; raise it, or lower epochs"),
        (2, (1, 9, 5), False, "budget: 2 h, but confirm alone needs 5 h; lower its seeds"),
        (2, (1, 9, 1.5), False, "budget: 2 h, but the baseline and confirm need 2.5 h, which leaves nothing for the"),
        (5, (1, 16, 1), True, "budget: 5 h ends the search after about 15 of its 60 trials"),
        (9, (1, 8, 0), True, "budget: 9 h will probably do for all 60 trials"),
        (20, (1, 8, 2), True, "budget: 20 h will do for all 60 trials"),
    ],
)
def test_what_a_budget_does(limit, needs, works, said):
    named = dict(zip(("the baseline", "the search", "confirm"), map(spread, needs), strict=True))
    verdict = judge_budget(limit, "h", named, 60)
    assert verdict.works == works
    assert verdict.sentences[0].startswith(said)
