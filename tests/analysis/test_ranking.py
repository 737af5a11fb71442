"""The ranking: by hand where it can be, by simulation where it promises frequencies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import posesweep.analysis.ranking as ranking
from posesweep.analysis.keypoint_ap import Detections, Matches, Truth, bootstrap_ap, keypoint_ap, match
from posesweep.analysis.ranking import Bootstrap, Interval, TrialEvidence, matches_at, rank
from posesweep.errors import SweepError

KEYPOINTS = 9
SIGMAS = np.full(KEYPOINTS, 0.08)


def truth_of(images: int) -> Truth:
    """One object of 100 x 100 pixels per image."""
    return Truth(
        image_ids=np.arange(images),
        category_ids=np.zeros(images, int),
        keypoints=np.zeros((images, KEYPOINTS, 2)),
        visibility=np.full((images, KEYPOINTS), 2, np.uint8),
        areas=np.full(images, 100.0**2),
        boxes=np.tile([0.0, 0.0, 100.0, 100.0], (images, 1)),
        crowd=np.zeros(images, bool),
        ids=np.arange(images),
    )


def trial_of(truth: Truth, rng: np.random.Generator, difficulty: np.ndarray, skill: float = 1.0) -> Matches:
    """A model whose error is the image's difficulty times its own luck; it is surer of what it does well."""
    images = len(difficulty)
    error = difficulty * rng.lognormal(0, 0.35, images) / skill
    points = rng.normal(0, 1, (images, KEYPOINTS, 2)) * error[:, None, None]
    scores = -error * rng.lognormal(0, 0.5, images)
    return match(truth, Detections(truth.image_ids, truth.category_ids, points, scores), SIGMAS)


def sweep_of(images: int, skills: list[float], seed: int) -> list[TrialEvidence]:
    """Trials on the same images, hard images hard for all."""
    rng = np.random.default_rng(seed)
    truth, difficulty = truth_of(images), rng.lognormal(2.2, 0.5, images)
    return [TrialEvidence(i, trial_of(truth, rng, difficulty, skill)) for i, skill in enumerate(skills)]


def matches_of(trial: TrialEvidence) -> Matches:
    assert trial.matches is not None
    return trial.matches


def ap_of(trial: TrialEvidence) -> float:
    return keypoint_ap(matches_of(trial))["AP"]


# ------------------------------------------------------------------------------------------------- by hand


def test_weights_take_each_resample_as_many_images_as_there_are() -> None:
    weights = Bootstrap(resamples=500, seed=3).weights(40)
    assert weights.shape == (500, 40)
    assert (weights.sum(axis=1) == 40).all()
    assert weights.var(axis=0).mean() == pytest.approx(39 / 40, rel=0.1)  # multinomial
    assert np.array_equal(weights, Bootstrap(resamples=500, seed=3).weights(40))


def test_groups_are_taken_whole() -> None:
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    weights = Bootstrap(groups, resamples=200).weights(6)
    for name in "abc":
        of_group = weights[:, groups == name]
        assert (of_group == of_group[:, :1]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_groups_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(SweepError, match="groups: 2 for 3 validated images"):
        Bootstrap(np.array([1, 2])).weights(3)


def test_share_best_splits_ties() -> None:
    samples = np.array([[0.5, 0.5, 0.9], [0.5, 0.7, 0.1], [0.1, 0.2, 0.3]])
    assert ranking.share_best(samples) == pytest.approx([1.5 / 3, 1.5 / 3, 0])


def test_critical_value_of_two_trials_is_the_quantile_of_their_difference() -> None:
    difference = np.random.default_rng(0).normal(0.1, 0.02, 4000)
    samples = np.stack([0.5 + difference, np.full(4000, 0.5)])
    intervals, tied = ranking.against_best(np.array([0.6, 0.5]), samples, ranking.Luck.none(samples))
    half = 1.96 * 0.02
    assert (intervals[1].low, intervals[1].high) == pytest.approx((-0.1 - half, -0.1 + half), abs=0.002)
    assert tied.tolist() == [True, False]


def test_few_images_widen_the_samples() -> None:
    samples = np.random.default_rng(0).normal(0.5, 0.02, (2, 400))
    wider = Bootstrap().widened(samples, images=5)
    # 4 degrees of freedom: sqrt(5 / 4), and (1.96^2 + 1) / 16 more for Student's quantile
    assert wider.std(axis=1) / samples.std(axis=1) == pytest.approx(np.sqrt(5 / 4) * (1 + 4.8415 / 16), rel=1e-4)
    assert wider.mean(axis=1) == pytest.approx(samples.mean(axis=1))
    grouped = Bootstrap(np.arange(60) % 5).widened(samples, images=60)
    assert np.array_equal(grouped, wider)


def test_the_interval_of_an_ap_is_made_on_the_log_odds() -> None:
    samples = np.random.default_rng(0).normal(0.8, 0.05, (1, 20_000))
    (found,) = ranking.of_each(np.array([0.8]), samples, ranking.Luck.none(samples))
    half = 1.96 * 0.05 / (0.8 * 0.2)
    expected = 1 / (1 + np.exp(-(np.log(4) + half * np.array([-1, 1]))))
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.002)
    assert found.value - found.low > found.high - found.value


def test_an_ap_without_spread_is_its_own_interval() -> None:
    samples = np.array([[0.0] * 9, [1.0] * 9, [0.4] * 9])
    found = ranking.of_each(np.array([0.0, 1.0, 0.4]), samples, ranking.Luck.none(samples))
    assert found == [Interval(0, 0, 0), Interval(1, 1, 1), Interval(0.4, 0.4, 0.4)]


def test_intervals_of_many_hold_for_all_at_once() -> None:
    samples = np.random.default_rng(0).normal(0.5, 0.02, (40, 1000))
    wide = ranking.of_each(np.full(40, 0.5), samples, ranking.Luck.none(samples))[0]
    narrow = ranking.of_each(np.full(1, 0.5), samples[:1], ranking.Luck.none(samples[:1]))[0]
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(3.2 / 1.96, rel=0.08)


def test_order_point_values_and_baseline() -> None:
    trials = sweep_of(60, [1.0, 2.5, 1.6], seed=0)
    result = rank(trials, baseline=0)
    assert [row.trial for row in result.rows] == [1, 2, 0]
    for row in result.rows:
        assert row.ap
        assert row.to_best
        assert row.ap.value == ap_of(trials[row.trial])
        assert row.ap.low <= row.ap.value <= row.ap.high
        assert (row.to_best.low <= 0 <= row.to_best.high) == row.tied
    assert result.best
    assert result.best.to_baseline
    assert result.best.to_baseline.value == pytest.approx(ap_of(trials[1]) - ap_of(trials[0]))
    assert result.best.to_baseline.low > 0
    assert result.rows[2].to_baseline == Interval(0, 0, 0)
    assert sum(row.p_best for row in result.rows) == pytest.approx(1)
    assert (result.images, result.groups, result.notes) == (60, 60, ())


def test_the_same_seed_gives_the_same_ranking() -> None:
    trials = sweep_of(30, [1.0, 1.1], seed=0)
    assert rank(trials) == rank(trials)
    assert rank(trials) != rank(trials, bootstrap=Bootstrap(seed=1))


def test_a_trial_and_its_copy_are_tied_and_share_the_first_place() -> None:
    (trial,) = sweep_of(30, [1.0], seed=0)
    result = rank([trial, TrialEvidence(7, trial.matches)])
    assert result.tied == (0, 7)
    assert [row.p_best for row in result.rows] == [0.5, 0.5]
    assert result.rows[1].to_best == Interval(0, 0, 0)


def test_always_right_beats_always_wrong_although_nothing_varies() -> None:
    truth, rng = truth_of(30), np.random.default_rng(0)
    right = trial_of(truth, rng, np.full(30, 1e-9))
    wrong = trial_of(truth, rng, np.full(30, 1e9))
    assert rank([TrialEvidence(0, wrong), TrialEvidence(1, right)]).tied == (1,)


def test_trials_without_ap_come_last_with_the_reason(tmp_path: Path) -> None:
    good = sweep_of(30, [1.0], seed=0)[0]
    no_ids = np.zeros(0, int)
    nothing = match(truth_of(0), Detections(no_ids, no_ids, np.zeros((0, KEYPOINTS, 2)), np.zeros(0)), SIGMAS)
    trials = [
        TrialEvidence.read(5, tmp_path / "evidence.npz"),
        TrialEvidence(4, nothing),
        TrialEvidence(9, good.matches),
    ]
    rows = rank(trials).rows
    assert [row.trial for row in rows] == [9, 4, 5]
    assert "AP is not defined" in rows[1].reason
    assert rows[2].reason == "no evidence: it ended before its first validation"
    assert rank(trials[:2]).best is None


def test_evidence_comes_back_from_its_file(tmp_path: Path) -> None:
    (trial,) = sweep_of(30, [1.0], seed=0)
    saved: dict[str, Any] = {ranking.MATCH_PREFIX + name: value for name, value in matches_of(trial).arrays().items()}
    np.savez_compressed(tmp_path / "evidence.npz", **saved, oks=np.zeros(3))
    back = TrialEvidence.read(0, tmp_path / "evidence.npz")
    assert rank([back]) == rank([trial])


def test_trials_of_another_split_are_refused() -> None:
    trials = [sweep_of(30, [1.0], seed=0)[0], TrialEvidence(1, sweep_of(31, [1.0], seed=0)[0].matches)]
    with pytest.raises(SweepError, match=r"trial . was validated on other images than trial"):
        rank(trials)


def test_trials_with_other_annotations_are_refused() -> None:
    truth = truth_of(30)
    fewer = truth.take(np.arange(29))
    trials = [
        trial_of(truth, np.random.default_rng(0), np.ones(30)),
        trial_of(fewer, np.random.default_rng(0), np.ones(29)),
    ]
    trials[1] = Matches(**vars(trials[1]) | {"images": trials[0].images})
    with pytest.raises(SweepError, match="other annotations"):
        rank([TrialEvidence(i, each) for i, each in enumerate(trials)])


def test_few_images_are_said() -> None:
    assert "Only 5 validation images" in rank(sweep_of(5, [1.0, 1.2], seed=0)).notes[0]
    result = rank(sweep_of(40, [1.0, 1.2], seed=0), bootstrap=Bootstrap(np.arange(40) // 8))
    assert (result.groups, result.notes[0][:37]) == (5, "Only 5 groups of validation images: b")


def test_table_has_a_row_per_trial() -> None:
    table = rank([*sweep_of(30, [1.0, 1.5], seed=0), TrialEvidence(2, None, "failed")]).table()
    assert table["trial"].tolist() == [1, 0, 2]
    assert table["AP"].isna().tolist() == [False, False, True]
    assert {"AP_low", "to_best_high", "p_best", "tied", "to_baseline", "reason"} <= set(table.columns)


# ------------------------------------------------------------------------------------------- by simulation


def shares_tied(sweeps: int, skills: list[float], images: int, resamples: int) -> np.ndarray:
    """The share of trials reported as tied with the best, per simulated sweep."""
    results = [rank(sweep_of(images, skills, seed), bootstrap=Bootstrap(resamples=resamples)) for seed in range(sweeps)]
    return np.array([len(result.tied) / len(skills) for result in results])


def test_equal_configs_are_tied() -> None:
    tied = shares_tied(sweeps=12, skills=[1.0] * 12, images=60, resamples=200)
    assert tied.mean() >= 0.95


@pytest.mark.slow
def test_fifty_equal_configs_are_tied_in_most_sweeps() -> None:
    tied = shares_tied(sweeps=30, skills=[1.0] * 50, images=80, resamples=300)
    assert tied.mean() >= 0.98
    assert (tied == 1).mean() >= 0.85  # 95 % in the long run; 30 sweeps are not long


@pytest.mark.slow
def test_the_truly_best_is_among_the_tied() -> None:
    skills = [1.0] * 5 + [1.15] * 4 + [1.25]
    results = [rank(sweep_of(80, skills, seed), bootstrap=Bootstrap(resamples=500)) for seed in range(60)]
    assert np.mean([9 in result.tied for result in results]) >= 0.92
    assert np.mean([len(result.tied) for result in results]) < 8  # and the set says something


@pytest.mark.slow
def test_intervals_of_ap_and_of_differences_hold_the_true_value() -> None:
    skills = [1.0, 1.2]
    many = [ap_of(each) for each in sweep_of(40_000, skills, seed=10**6)]
    covered = []
    for seed in range(100):
        better, baseline = sorted(rank(sweep_of(100, skills, seed), baseline=0).rows, key=lambda row: -row.trial)
        truths = ((better.ap, many[1]), (baseline.ap, many[0]), (better.to_baseline, many[1] - many[0]))
        covered.append([interval.low <= value <= interval.high for interval, value in truths if interval])
    assert np.mean(covered, axis=0).min() >= 0.88


def test_the_bootstrap_spread_is_that_of_new_samples() -> None:
    sampled = [ap_of(sweep_of(100, [1.0], seed)[0]) for seed in range(150)]
    spreads = [
        bootstrap_ap(matches_of(sweep_of(100, [1.0], seed)[0]), Bootstrap(resamples=200).weights(100)).std()
        for seed in range(10)
    ]
    assert np.mean(spreads) == pytest.approx(np.std(sampled), rel=0.2)


def test_matches_of_a_file_that_is_torn_or_has_none(tmp_path):
    file = tmp_path / "evidence.npz"
    assert matches_at(file) is None
    np.savez(file, **{f"match/{name}": array for name, array in sweep_of(20, [1.0], 0)[0].matches.arrays().items()})
    whole = file.read_bytes()
    assert matches_at(file) is not None
    for torn in (b"", b"PK torn", whole[: len(whole) // 2], whole[:200] + bytes(400) + whole[600:]):
        file.write_bytes(torn)
        assert matches_at(file) is None
    np.savez(file, other=np.zeros(3))
    assert matches_at(file) is None
