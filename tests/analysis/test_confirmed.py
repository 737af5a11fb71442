"""The confirmed ranking: by hand, against Student, by simulation, and from a folder with all that goes wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.analysis.confirmed import Candidate, Confirmed, Run, Seeds, confirmed, pooled
from posesweep.analysis.decision import decision
from posesweep.analysis.keypoint_ap import Matches, keypoint_ap
from posesweep.analysis.ranked import Standings
from posesweep.analysis.ranking import Bootstrap, Interval
from posesweep.analysis.results import read_sweep_folder
from posesweep.errors import SweepError
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import FakeTrial, _draw_truth, write_fake_sweep, write_trial
from tests.analysis.test_ranking import sweep_of


def still(runs: int, resamples: int = 10) -> np.ndarray:
    """Images that make no difference."""
    return np.zeros((runs, resamples))


# ------------------------------------------------------------------------------------------------- by hand


def test_the_scatter_of_the_runs_is_half_a_candidates_own() -> None:
    ap = [np.array([0.5, 0.6, 0.7]), np.array([0.4, 0.4, 0.4])]  # variances 0.01 and 0, pooled 0.005
    seeds = Seeds.of(ap, [still(3), still(3)])
    assert seeds.scatter == pytest.approx([0.0075, 0.0025])
    # weights 0.75 and 0.25 of two variances with 2 degrees of freedom each: 1 / (0.75^2 / 2 + 0.25^2 / 2)
    assert seeds.freedom == pytest.approx([3.2, 3.2])
    assert seeds.between == pytest.approx(np.sqrt(0.005))
    assert seeds.luck(5, np.random.default_rng(0)).variance == pytest.approx([0.0025, 0.0025 / 3])


def test_a_candidate_with_one_run_takes_the_others_scatter() -> None:
    seeds = Seeds.of([np.array([0.5, 0.6]), np.array([0.4])], [still(2), still(1)])
    assert seeds.scatter == pytest.approx([0.005, 0.005])
    assert seeds.freedom == pytest.approx([1, 1])


def test_one_run_each_says_nothing_about_seeds() -> None:
    seeds = Seeds.of([np.array([0.5]), np.array([0.4])], [still(1), still(1)])
    assert seeds.scatter is None
    assert not seeds.luck(7, np.random.default_rng(0)).draws.any()


def test_without_images_the_luck_is_students() -> None:
    seeds = Seeds.of([np.array([0.5, 0.6, 0.7])], [still(3)])
    draws = seeds.luck(200_000, np.random.default_rng(0)).draws[0]
    assert np.quantile(draws, 0.975) == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=0.03)  # t of 2 degrees of freedom


def test_what_the_images_explain_is_not_counted_twice() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(0, 0.05, (3, 100_000))  # each run's own luck with the images: variance 0.0025
    common = rng.normal(0, 1, 100_000)  # what is hard for all runs is no part of their scatter
    seeds = Seeds.of([np.array([0.45, 0.5, 0.55])], [own + common])  # scatter 0.0025
    assert seeds.own_images == pytest.approx([0.0025], rel=0.02)
    assert seeds.between == pytest.approx(0, abs=0.01)


def test_the_cheapest_of_the_tied_has_fewest_parameters_then_the_shortest_training() -> None:
    value = Interval(0.6, 0.5, 0.7)

    def row(trial: int, parameters: int | None, train_s: float, tied: bool = True) -> Candidate:
        return Candidate(trial, "search", value, value, 0.3, tied, {}, 0.6, parameters, train_s)

    rows = (row(1, 10, 9.0), row(2, 5, 9.0), row(3, 5, 8.0), row(4, 1, 1.0, tied=False), row(5, None, 0.1))
    found = Confirmed(rows, 10, (1, 2), 0.01, ())
    assert found.cheapest_tied is rows[2]
    assert [each.trial for each in found.tied] == [2, 3, 5]
    assert Confirmed((), 10, (1, 2), None, ()).cheapest_tied is None


def test_shrinkage_is_what_confirming_took_away() -> None:
    row = Candidate(3, "search", seed_values={1: 0.5, 2: 0.6}, sweep_value=0.62)
    assert (row.value, row.shrinkage) == (pytest.approx(0.55), pytest.approx(-0.07))
    assert row.seed_sd == pytest.approx(0.1 / np.sqrt(2))
    assert Candidate(3, "search").shrinkage is None


# ------------------------------------------------------------------------------------------------- pooled


def matches_of(skills: list[float], images: int = 60, seed: int = 0) -> list[Matches]:
    return [each.matches for each in sweep_of(images, skills, seed) if each.matches is not None]


def runs_of(skills: list[list[float]], **how: Any) -> list[Run]:
    """A list of skills, one per seed, for each trial."""
    found = matches_of([skill for each in skills for skill in each], **how)
    names = [(trial, seed) for trial, each in enumerate(skills) for seed in range(len(each))]
    return [Run(trial, seed, "finished", matches=m) for (trial, seed), m in zip(names, found, strict=True)]


def test_ap_is_the_mean_over_seeds_and_the_baseline_gains_nothing() -> None:
    runs = runs_of([[1.0, 1.0], [1.6, 1.6]])
    found = pooled(runs, [], baseline=0).fields
    mean = np.mean([keypoint_ap(run.matches)["AP"] for run in runs if run.trial == 1 and run.matches])
    assert found[1]["ap"].value == pytest.approx(mean)
    assert found[0]["gain"] == Interval(0, 0, 0)
    assert found[1]["gain"].value == pytest.approx(found[1]["ap"].value - found[0]["ap"].value)
    assert found[0]["p_best"] + found[1]["p_best"] == pytest.approx(1)


def test_seeds_that_scatter_widen_every_interval() -> None:
    steady, shaky = ([[1.0, 1.0, 1.0], [s * 1.5 for s in skills]] for skills in ([1, 1, 1], [0.8, 1, 1.25]))
    narrow, wide = (pooled(runs_of(skills), [], baseline=0).fields[1] for skills in (steady, shaky))
    assert wide["gain"].high - wide["gain"].low > 1.5 * (narrow["gain"].high - narrow["gain"].low)
    assert wide["ap"].high - wide["ap"].low > narrow["ap"].high - narrow["ap"].low


def test_having_been_chosen_among_many_widens_the_gain_only() -> None:
    runs = runs_of([[1.0, 1.0, 1.0], [1.3, 1.3, 1.3]])
    alone = pooled(runs, [], baseline=0).fields[1]
    chosen = pooled(runs, matches_of([1.0] * 15), baseline=0).fields[1]
    assert chosen["gain"].low < alone["gain"].low < alone["gain"].value
    assert chosen["ap"] == alone["ap"]


def test_trials_of_other_images_are_no_contenders_and_no_candidates() -> None:
    runs = runs_of([[1.0, 1.0], [1.6, 1.6]])
    assert pooled(runs, matches_of([1.0], images=61), 0).fields == pooled(runs, [], 0).fields
    foreign = Run(2, 0, "finished", matches=matches_of([1.0], images=61)[0])
    with pytest.raises(SweepError, match="validated on other images"):
        pooled([*runs, foreign], [], 0)


def test_one_seed_each_is_said() -> None:
    found = pooled(runs_of([[1.0], [1.6]]), [], 0)
    assert found.seed_sd is None
    assert found.notes == (
        "One seed each: the luck of the seed is not in these intervals; confirm with two seeds or more.",
    )


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.floats(0.7, 2.0), min_size=1, max_size=3), min_size=1, max_size=4), st.integers(0, 9))
def test_every_interval_holds_its_own_estimate_and_the_best_is_tied(skills: list[list[float]], seed: int) -> None:
    found = pooled(runs_of(skills, images=25, seed=seed), [], 0, Bootstrap(resamples=100, seed=seed)).fields
    best = max(found, key=lambda trial: found[trial]["ap"].value)
    assert found[best]["tied"]
    assert sum(fields["p_best"] for fields in found.values()) == pytest.approx(1)
    for fields in found.values():
        assert 0 <= fields["ap"].low <= fields["ap"].value <= fields["ap"].high <= 1
        assert fields["gain"].low <= fields["gain"].value <= fields["gain"].high


@pytest.mark.parametrize(("candidates", "seeds", "ratio"), [(4, 2, 1.0), (4, 3, 0.3), (2, 3, 3.0)])
def test_intervals_of_a_mean_over_crossed_images_and_seeds_hold_the_truth(
    candidates: int, seeds: int, ratio: float
) -> None:
    """Runs made of a common image effect, own image effects and seed effects (`ratio` times as large), all normal."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(250):
        common, own = rng.normal(0, 0.02, (candidates, 1, 201)), rng.normal(0, 0.01, (candidates, seeds, 201))
        draws = common + own  # the bootstrap knows these variances; its first column is what happened
        runs = draws[..., 0] + rng.normal(0, 0.01 * ratio, (candidates, seeds))
        found = Seeds.of(list(runs), list(draws[..., 1:])).luck(200, rng)
        samples = draws[..., 1:].mean(axis=1) + found.draws
        low, high = np.quantile(samples - samples.mean(axis=1, keepdims=True), [0.025, 0.975], axis=1)
        held += ((runs.mean(axis=1) - high <= 0) & (runs.mean(axis=1) - low >= 0)).tolist()
    assert np.mean(held) > 0.94


# ------------------------------------------------------------------------------------------------- from the folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose trials 7 and 9 and whose baseline were trained again with two seeds."""
    folder = write_fake_sweep(tmp_path_factory.mktemp("runs") / "ponies")
    again = {7: 0.029, 9: 0.0295, 0: 0.042}
    for trial, noise in again.items():
        for seed in (101, 102):
            write_run(folder, trial, seed, FakeTrial(noise * (1.02 if seed == 101 else 1.0)))
    record = {"candidates": [{"trial": t, "role": "baseline" if t == 0 else "search"} for t in again]}
    record |= {"seeds": [101, 102], "epochs": 18, "baseline": 0}
    record["runs"] = [{"trial": t, "seed": s, "folder": f"confirm/{t:04d}-s{s}"} for t in again for s in (101, 102)]
    (folder / "confirm.json").write_text(json.dumps(record))
    return folder


def write_run(folder: Path, trial: int, seed: int, as_trial: FakeTrial) -> None:
    truth = _draw_truth(folder / "scratch" / f"{trial}-{seed}", 60)  # the same ponies each time
    number = 1000 * seed + trial
    write_trial(folder / "scratch", number, as_trial, truth)
    (folder / "confirm").mkdir(exist_ok=True)
    trial_folder(folder / "scratch", number).rename(folder / "confirm" / f"{trial:04d}-s{seed}")


@pytest.fixture
def copy(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "ponies", ignore=shutil.ignore_patterns("images", "scratch")))


def read(folder: Path) -> Confirmed:
    found = confirmed(read_sweep_folder(folder))
    assert found is not None
    return found


def change_status(folder: Path, run: str, **changes: Any) -> None:
    path = folder / "confirm" / run / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sweep_that_confirms_nothing(copy: Path) -> None:
    (copy / "confirm.json").unlink()
    assert confirmed(read_sweep_folder(copy)) is None


def test_a_whole_confirmation(sweep: Path) -> None:
    found = read(sweep)
    assert found.complete
    assert found.notes == ()
    assert {row.trial for row in found.rows[:2]} == {7, 9}
    assert found.rows[2].trial == 0
    winner = found.winner
    assert winner is not None
    assert winner.ap
    assert winner.gain
    assert winner.ap.value == pytest.approx(winner.value)
    assert list(winner.seed_values) == [101, 102]
    assert winner.gain.low <= winner.gain.value <= winner.gain.high
    assert (winner.parameters, winner.train_s) == (1_234_567, 4.0 * 18)
    assert winner.sweep_value is not None
    assert found.seed_sd is not None
    assert (found.epochs, found.seeds) == (18, (101, 102))
    assert [each.epoch for each in found.rungs] == [2, 6]


def test_a_run_that_failed_or_has_not_ended_is_left_out_and_said(copy: Path) -> None:
    change_status(copy, "0007-s101", state="failed", reason="out of memory on cuda:0")
    change_status(copy, "0009-s102", state="running", best=None)
    (copy / "confirm" / "0000-s101" / "status.json").write_text('{"state": "fin')
    found = read(copy)
    assert not found.complete
    assert all(row.trainings == 1 for row in found.rows)
    assert found.notes == (
        "Failed: trial 7 with seed 101 (out of memory on cuda:0).",
        "Not trained to the end yet: trial 9 with seed 102, trial 0 with seed 101; the confirmed figures may still "
        "change.",
        "One seed each: the luck of the seed is not in these intervals; confirm with two seeds or more.",
    )
    assert not found.gain_confirmed
    assert all(len(row.seed_values) == 1 for row in found.rows)


def test_trainings_that_failed_have_ended_too(copy: Path) -> None:
    change_status(copy, "0007-s101", state="failed", reason="out of memory on cuda:0")
    for seed in (101, 102):
        change_status(copy, f"0009-s{seed}", state="failed", reason="the disk is full")
    found = read(copy)
    assert found.complete
    assert not any("Not trained to the end" in note for note in found.notes)
    assert {row.trial: row.reason for row in found.rows if row.reason} == {9: "no run came to its end with a score"}


def test_a_training_that_finished_without_a_score_is_said(copy: Path) -> None:
    change_status(copy, "0009-s102", best=None)
    found = read(copy)
    assert found.complete
    assert found.notes[0] == "Finished without a score: trial 9 with seed 102; no validation object has a label."
    assert not any("Not trained to the end" in note for note in found.notes)


def test_a_training_without_evidence_is_not_counted_in_the_mean(copy: Path) -> None:
    (copy / "confirm" / "0007-s101" / "evidence.npz").unlink()
    (copy / "confirm" / "0009-s102" / "evidence.npz").write_bytes(b"PK torn")
    found = read(copy)
    assert found.notes[0] == (
        "Without evidence.npz, so not in the intervals: trial 7 with seed 101, trial 9 with seed 102."
    )
    assert [(row.trial, row.trainings, len(row.seed_values)) for row in found.rows if row.trial] == [
        (7, 1, 2),
        (9, 1, 2),
    ]
    assert "mean of 1 training;" in decision(read_sweep_folder(copy), Standings(()), found)[0]


def test_a_config_that_diverges_with_one_seed_has_no_place(copy: Path) -> None:
    change_status(copy, "0007-s101", state="diverged", best=None)
    found = read(copy)
    assert found.complete
    assert found.rows[-1].trial == 7
    assert found.rows[-1].reason == "diverged with seed 101, so it cannot be relied on"
    assert found.winner is not None
    assert found.winner.trial == 9


def test_nothing_has_ended_yet(copy: Path) -> None:
    shutil.rmtree(copy / "confirm")
    found = read(copy)
    assert (found.winner, found.cheapest_tied, found.complete) == (None, None, False)
    assert [row.reason for row in found.rows] == ["no run has been trained to its end yet"] * 3


def test_without_evidence_there_are_values_but_no_intervals(copy: Path) -> None:
    for seed in (101, 102):
        (copy / "confirm" / f"0009-s{seed}" / "evidence.npz").write_bytes(b"PK torn")
    found = read(copy)
    assert found.notes == ("No intervals: there is no evidence.npz of trial 9.",)
    assert found.winner is not None
    assert found.winner.ap is None
    assert found.winner.value is not None


def test_another_length_is_said(copy: Path) -> None:
    record = json.loads((copy / "confirm.json").read_text())
    (copy / "confirm.json").write_text(json.dumps(record | {"epochs": 40}))
    assert read(copy).notes[-1] == (
        "Confirmed with 40 epochs, the sweep had 18: its numbers beside these are of other trainings."
    )


@pytest.mark.parametrize(("text", "said"), [('{"cand', "only partly copied"), ('{"seeds": []}', "not what a sweep")])
def test_a_torn_record_is_said(copy: Path, text: str, said: str) -> None:
    (copy / "confirm.json").write_text(text)
    found = read(copy)
    assert said in found.notes[0]
    assert (found.rows, found.complete) == ((), False)


def test_another_metric_is_ranked_without_intervals(copy: Path) -> None:
    space = json.loads((copy / "space.json").read_text())
    (copy / "space.json").write_text(json.dumps(space | {"metric": {"name": "val/NME", "goal": "minimize"}}))
    for trial, best in ((7, 0.2), (9, 0.1), (0, 0.3)):
        for seed in (101, 102):
            change_status(copy, f"{trial:04d}-s{seed}", best=best)
    found = read(copy)
    assert [row.trial for row in found.rows] == [9, 7, 0]
    assert found.notes == ("Ranked by val/NME, as the sweep asks; intervals exist for val/AP only.",)
