from dataclasses import replace
from pathlib import Path

import pandas as pd

from posesweep.analysis.chosen import Chosen
from posesweep.analysis.confirmed import Candidate, Confirmed
from posesweep.analysis.decision import decision, listed
from posesweep.analysis.promoted import Promoted
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
    assert gain == (
        "On these images the gain is beyond chance, but not confirmed with other seeds: "
        "+0.071 AP over the baseline (trial 0), 95 % interval +0.030 to +0.112."
    )
    assert sure == (
        "In 62 % of resampled validation sets, trial 7 is best of 2. "
        "The validation set holds 80 objects, so a difference below about 0.041 AP cannot be seen on it. "
        "Each config was trained once: the luck of the seed is not in these intervals, and the one picked had more "
        "of it than most; confirm takes it out."
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


def test_without_intervals_the_luck_of_the_seed_is_not_said_to_be_outside_of_them() -> None:
    plain = [replace(row, ap=None, gain=None, p_best=None, tied=False) for row in (WINNER, BASELINE)]
    assert _said(*plain, val=list(range(80)))[2] == (
        "The validation set holds 80 objects. Each config was trained once, so the one picked had more luck of the "
        "seed than most; confirm takes it out."
    )


def test_listed() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefg"), most=4) == "a, b, c and 4 more"


BEST = Candidate(
    trial=7,
    role="search",
    ap=Interval(0.601, 0.53, 0.67),
    gain=Interval(0.06, 0.02, 0.1),
    p_best=0.7,
    tied=True,
    seed_values={101: 0.6, 102: 0.602},
    sweep_value=0.612,
    parameters=28_500_000,
    train_s=100.0,
)
AGAIN = replace(BEST, trial=0, role="baseline", gain=Interval(0, 0, 0), tied=False, seed_values={101: 0.54, 102: 0.542})


def _confirmed(*rows: Candidate, seed_sd: float | None = 0.01) -> tuple[str, str, str]:
    confirmed = Confirmed(rows, 20, (101, 102), seed_sd, ())
    return decision(_results(val=list(range(80))), Standings((WINNER, BASELINE)), confirmed)


def test_a_confirmed_winner() -> None:
    smaller = replace(BEST, trial=3, parameters=1_400_000, p_best=0.3)
    winner, gain, sure = _confirmed(BEST, smaller, AGAIN)
    assert winner == (
        "Trial 7 is the best config: AP 0.601 (95 % interval 0.530 to 0.670), mean of 2 trainings; "
        "the sweep had 0.612. It cannot be told apart from trial 3; the cheapest is trial 3 (1.4 M parameters)."
    )
    assert gain == "The gain is confirmed: +0.060 AP over the baseline (trial 0), 95 % interval +0.020 to +0.100."
    assert sure == (
        "With other images and seeds, trial 7 would be best of these 3 in 70 % of cases. "
        "Another seed changes the AP of a config by about 0.010. The validation set holds 80 objects. "
        "The candidates were chosen on these images, so the AP itself is still a little flattered."
    )


def test_seeds_that_differ_no_more_than_the_images_explain() -> None:
    said = _confirmed(BEST, AGAIN, seed_sd=0.0)[2]
    assert "Trainings with other seeds differ by no more than the chance of the images explains." in said
    assert "0.000" not in said


def test_a_gain_that_is_not_confirmed() -> None:
    shaky = replace(BEST, gain=Interval(0.02, -0.01, 0.05))
    assert _confirmed(shaky, AGAIN)[1].startswith("The gain is not confirmed, it may be chance: +0.020 AP")
    assert "one seed does not confirm it" in _confirmed(BEST, AGAIN, seed_sd=None)[1]
    assert _confirmed(BEST)[1] == "The baseline was not trained again, so what the search gained is not confirmed."
    failed = replace(AGAIN, reason="diverged with seed 101, so it cannot be relied on")
    assert _confirmed(BEST, failed)[1] == (
        "What the search gained is not confirmed: the baseline (trial 0): diverged with seed 101, so it cannot be "
        "relied on."
    )
    assert _confirmed(replace(AGAIN, tied=True))[1].startswith("It is the baseline itself: trained again")


def test_one_that_became_better_when_trained_longer_is_said_to_be_handed_over() -> None:
    longer = Promoted(4, "search", 101, 60, Path("x"), 0.65, ap=Interval(0.65, 0.6, 0.7))
    picked = Chosen(4, Path("x"), 0.65, longer.ap, 101, promoted=longer)
    said = decision(_results(), Standings((WINNER, BASELINE)), picked=picked)[0]
    assert said.startswith("Trial 7 did best: AP 0.612")
    assert said.endswith(
        " Trained for 60 epochs, trial 4 became better: AP 0.650 (95 % interval 0.600 to 0.700); it is the one that "
        "is handed over."
    )
    alone = replace(picked, promoted=replace(longer, ap=None))
    assert "became better: AP 0.650; it is" in decision(_results(), Standings((WINNER,)), picked=alone)[0]


def test_a_confirmation_without_any_training_at_its_end_names_nobody() -> None:
    assert _confirmed(replace(BEST, reason="no run has been trained to its end yet"))[0].startswith("Trial 7 did best")
