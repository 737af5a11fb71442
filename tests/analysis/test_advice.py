"""What next: each piece of advice where it is due, with its words, and silence where it is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from posesweep.analysis.advice import Advice, advice, expected_of_more
from posesweep.analysis.confirmed import Candidate, Confirmed
from posesweep.analysis.importance import Effect, Importance
from posesweep.analysis.ranked import Standing, Standings
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import PARAMS, SweepResults
from posesweep.analysis.searched import Axis

NOTHING = Importance("val/AP", None, 0, (), None, "too few")
WINNER = Standing(3, "search", "finished", "", {"lr0": 0.05, "wd": 0.1}, 9, 0.6, rank=1, ap=Interval(0.6, 0.5, 0.7))
BASELINE = Standing(0, "baseline", "finished", "", {"lr0": 0.003, "wd": 0.01}, 9, 0.5, rank=2)


def results_of(values: list[float], lr0: list[float] | None = None, **space: Any) -> SweepResults:
    count = len(values)
    trials = pd.DataFrame({"trial": range(count), "state": "finished", "value": values})
    trials[PARAMS + "lr0"] = lr0 or list(np.geomspace(1e-4, 0.1, count))
    stated = {"lr0": {"kind": "float", "low": 1e-4, "high": 0.1, "log": True} | space}
    return SweepResults(Path("x"), trials, pd.DataFrame(), {"parameters": stated}, {}, {0: {"params": BASELINE.params}})


def said(results: SweepResults, *rows: Standing, importance: Importance = NOTHING) -> dict[str, Advice]:
    return {each.kind: each for each in advice(results, Standings(rows or (WINNER, BASELINE)), importance)}


def test_the_best_at_the_upper_end_of_a_log_range() -> None:
    lr0 = [1e-4, 1e-3, 0.09, 0.08, 0.01, 0.095]
    found = said(results_of([0.1, 0.2, 0.5, 0.55, 0.4, 0.6], lr0))["extend_range"]
    assert found.text == (
        "3 of the best 5 trials, the best one among them, have lr0 at the upper end of its range (0.1): what is better "
        "may lie beyond. Extend it to 3.2, if the setting allows that."
    )
    assert (found.parameter, found.change) == ("lr0", {"parameters.lr0.max": 3.2})


def test_the_lower_end_is_never_extended_below_nothing() -> None:
    at = [0.5, 0.02, 0.01, 0.9, 0.03, 0.7]
    low = said(results_of([0.1, 0.5, 0.6, 0.2, 0.55, 0.3], at, low=0.0, high=1.0, log=False))
    assert "extend_range" not in low
    higher = said(results_of([0.1, 0.5, 0.6, 0.2, 0.55, 0.3], [1 + x for x in at], low=1.0, high=2.0, log=False))
    assert higher["extend_range"].change == {"parameters.lr0.min": 0.5}


def test_the_best_in_the_middle_is_no_reason_to_extend() -> None:
    assert "extend_range" not in said(results_of([0.1, 0.5, 0.6, 0.2, 0.55, 0.3], [1e-4, 3e-3, 2e-3, 0.1, 4e-3, 0.09]))


def test_a_flat_parameter_is_fixed_at_the_baselines_value() -> None:
    lr0 = Effect(Axis("lr0"), 30, Interval(0.8, 0.6, 0.9), np.zeros(2), np.array([0.2, 0.6]))
    wd = Effect(Axis("wd"), 30, Interval(0.01, 0.0, 0.06), np.zeros(2), np.array([0.5, 0.5]))
    importance = Importance("val/AP", 3, 30, (lr0, wd), Interval(0.19, 0.1, 0.3))
    found = said(results_of([0.1] * 6), importance=importance)["fix_parameter"]
    assert found.text == (
        "wd explains at most 6 % of the differences between trials (95 % interval, 30 trials): fix it at 0.01, as the "
        "baseline has it, and search the others."
    )
    assert found.change == {"fixed.wd": 0.01}
    few = replace(importance, trials=20)
    assert "fix_parameter" not in said(results_of([0.1] * 6), importance=few)


def test_more_trials_help_while_records_fall() -> None:
    rising = said(results_of(list(np.linspace(0.1, 0.6, 20))))["more_trials"]
    assert rising.change["extend"] == 10
    assert rising.text.endswith("the best score was found by the 20th of 20 trials. Say --extend 10.")
    stuck = said(results_of([0.6, *np.linspace(0.1, 0.5, 39)]))["enough_trials"]
    assert "the best score was found by the 1st of 40 trials, 39 have not beaten it since" in stuck.text


def test_the_chance_of_more_trials() -> None:
    assert expected_of_more(results_of([0.5] * 9), 10) is None
    # 20 trials, none of the last ten a record: (0 + 1) / (1/11 + ... + 1/20 + 1) of 10 / 30
    expected = 1 + sum(1 / k for k in range(11, 21))
    assert expected_of_more(results_of([0.9, *[0.1] * 19]), 10) == pytest.approx(10 / 30 / expected)


def test_the_chance_is_that_of_random_search() -> None:
    rng = np.random.default_rng(0)
    guessed, happened = [], []
    for _ in range(150):
        values = rng.random(30)
        chance = expected_of_more(results_of(values[:20].tolist()), 10)
        assert chance is not None
        guessed.append(chance)
        happened.append(values[20:].max() > values[:20].max())
    assert np.mean(guessed) == pytest.approx(np.mean(happened), abs=0.1)


def test_unconfirmed_winners_are_to_be_confirmed() -> None:
    tied = replace(WINNER, tied=True, gain=Interval(0.1, 0.06, 0.14))
    rival = replace(tied, trial=5, rank=2)
    found = said(results_of([0.1] * 6), tied, rival, replace(BASELINE, rank=3))
    assert found["confirm"].text == (
        "Train the best 3 and the baseline again with 3 seeds: 2 trials are tied on these images, and each was trained "
        "once. Add confirm to the sweep file."
    )
    assert found["confirm"].change == {"confirm.top_k": 3, "confirm.seeds": 3}
    assert found["more_images"].text == (
        "Trial 5 cannot be told apart from the best. To see differences half as large (0.020 instead of 0.040 AP), "
        "validate on four times as many images; or take the cheapest of them."
    )


def test_what_is_confirmed_is_not_to_be_confirmed_again() -> None:
    value = Interval(0.6, 0.5, 0.7)
    done = Confirmed((Candidate(3, "search", value, value, 1.0, True),), 9, (1, 2), 0.01, ())
    tied = Standings(
        (replace(WINNER, tied=True, gain=value), replace(WINNER, trial=5, rank=2, tied=True), replace(BASELINE, rank=3))
    )
    assert {"confirm", "more_images"} <= {each.kind for each in advice(results_of([0.1] * 6), tied, NOTHING)}
    kinds = {each.kind for each in advice(results_of([0.1] * 6), tied, NOTHING, done)}
    assert not kinds & {"confirm", "more_images"}


def test_what_is_tied_after_a_confirmation_takes_images_and_seeds() -> None:
    value, wide = Interval(0.6, 0.5, 0.7), Interval(0.1, 0.06, 0.14)
    rows = (Candidate(3, "search", value, wide, 0.6, True), Candidate(5, "search", value, wide, 0.4, True))
    done = Confirmed(rows, 9, (1, 2), 0.01, ())
    standings = Standings((replace(WINNER, gain=Interval(0.1, -0.3, 0.5)), BASELINE))
    found = {each.kind: each.text for each in advice(results_of([0.1] * 6), standings, NOTHING, done)}
    assert found["more_images"] == (
        "Trial 5 cannot be told apart from the best. To see differences half as large (0.020 instead of 0.040 AP), it "
        "takes four times as many images and seeds; or take the cheapest of them."
    )
    half = advice(results_of([0.1] * 6), standings, NOTHING, replace(done, complete=False))
    assert not {each.kind for each in half} & {"confirm", "more_images"}


def test_a_sweep_that_is_going_to_confirm_is_not_told_to() -> None:
    results = results_of([0.1] * 6)
    asked = replace(results, sweep=results.sweep | {"confirm": {"top_k": 3, "seeds": 3}})
    assert "confirm" not in said(asked)
    assert "confirm" in said(replace(results, sweep=results.sweep | {"confirm": None}))


def test_while_the_search_goes_on_more_trials_are_no_question() -> None:
    results = results_of(list(np.linspace(0.1, 0.6, 20)))
    assert "more_trials" in said(replace(results, sweep=results.sweep | {"search": {"trials": 20}}))
    assert "more_trials" not in said(replace(results, sweep=results.sweep | {"search": {"trials": 60}}))
    going = replace(results, trials=results.trials.assign(state=["running", *["finished"] * 19]))
    assert "more_trials" not in said(going)
    assert "more_trials" not in said(replace(results, statuses=results.statuses | {3: {"state": "waiting"}}))


def test_no_winner_no_advice() -> None:
    assert advice(results_of([0.1] * 6), Standings((replace(WINNER, rank=None),)), NOTHING) == ()
