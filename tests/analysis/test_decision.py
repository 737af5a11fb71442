from dataclasses import replace
from pathlib import Path

import pandas as pd

from posesweep.analysis.decision import decision, listed
from posesweep.analysis.ranked import Standing, Standings
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import SweepResults

WINNER = Standing(
    trial=7,
    role="search",
    state="finished",
    reason="",
    params={},
    epochs=20,
    value=0.612,
    rank=1,
    ap=Interval(0.612, 0.55, 0.67),
    p_best=0.62,
    tied=True,
    gain=Interval(0.071, 0.03, 0.112),
)
BASELINE = replace(
    WINNER,
    trial=0,
    role="baseline",
    rank=2,
    value=0.541,
    ap=Interval(0.541, 0.5, 0.6),
    p_best=0.0,
    tied=False,
    gain=None,
)


def _results(**split: object) -> SweepResults:
    trials = pd.DataFrame({"trial": [0, 7], "role": ["baseline", "search"]})
    return SweepResults(Path("runs/x"), trials, pd.DataFrame(), {}, split, {})


def _said(*rows: Standing, **split: object) -> tuple[str, str, str]:
    return decision(_results(**split), Standings(rows))


def test_a_clear_winner() -> None:
    winner, gain, sure = _said(WINNER, BASELINE, val=list(range(80)))
    assert winner == (
        "Trial 7 did best: AP 0.612 (95 % interval 0.550 to 0.670). "
        "No other trial comes close enough to be called a tie."
    )
    assert gain == "The gain is real: +0.071 AP over the baseline (trial 0), 95 % interval +0.030 to +0.112."
    assert sure == (
        "In 62 % of resampled validation sets, trial 7 is best of 2. "
        "The validation set holds 80 objects, so a difference below about 0.041 AP cannot be seen on it. "
        "Its AP is a little flattered by being the one picked, and each config was trained once: "
        "the luck of the seed is not in these intervals."
    )


def test_ties_are_named() -> None:
    others = [replace(WINNER, trial=n, rank=n) for n in (2, 3)]
    assert _said(WINNER, *others)[0].endswith(
        "It cannot be told apart from trials 2 and 3: on these data they are tied."
    )


def test_a_gain_whose_interval_includes_zero_is_not_called_real() -> None:
    shaky = replace(WINNER, gain=Interval(0.02, -0.01, 0.05))
    assert _said(shaky, BASELINE)[1].startswith("The gain may be chance: +0.020 AP over the baseline (trial 0)")


def test_the_baseline_can_win() -> None:
    assert _said(replace(BASELINE, rank=1))[1].startswith(
        "It is the baseline itself: the search has found nothing better"
    )


def test_a_baseline_that_is_missing_failed_or_without_interval() -> None:
    assert _said(WINNER)[1] == "No baseline was trained, so what the search gained is not known."
    failed = replace(BASELINE, rank=None, state="failed")
    assert _said(WINNER, failed)[1] == "What the search gained is not known: the baseline (trial 0) failed."
    assert _said(replace(WINNER, gain=None), BASELINE)[1] == (
        "0.612 against 0.541 of the baseline (trial 0); without an interval it may be chance."
    )


def test_one_trial_is_not_compared() -> None:
    winner, _, sure = _said(WINNER)
    assert winner.endswith("It is the only trial in the ranking.")
    assert sure == "The size of the validation set is not known, so neither is how sure this is."


def test_sigmas_that_nobody_measured_are_mentioned() -> None:
    note = "OKS sigmas were not given: 0.05 for every keypoint"
    assert _said(WINNER, notes=["3 boxes were empty.", note])[2].endswith(f"{note}.")
    assert _said(WINNER, skeleton={"sigmas_note": "a guess"})[2].endswith("A guess.")


def test_nothing_scored() -> None:
    assert _said(replace(BASELINE, rank=None))[0] == "No trial has come far enough to be ranked, so there is no winner."


def test_a_sweep_on_its_way_has_a_leader_not_a_winner() -> None:
    assert _said(replace(WINNER, state="running"), BASELINE)[0].startswith("So far trial 7 leads: AP 0.612")


def test_no_word_on_ties_when_they_are_not_known() -> None:
    assert _said(replace(WINNER, p_best=None, tied=False), BASELINE)[0].endswith("(95 % interval 0.550 to 0.670).")


def test_listed() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefg"), most=4) == "a, b, c and 4 more"
