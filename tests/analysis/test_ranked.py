import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from posesweep.analysis.ranked import groups_of, ranked
from posesweep.analysis.ranking import TrialEvidence, rank
from posesweep.analysis.results import read_sweep_folder
from posesweep.errors import SweepError
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import TRIALS, write_fake_sweep


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture
def sweep(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_finished_trials_are_ranked_and_the_others_follow_by_score(whole: Path) -> None:
    standings = ranked(read_sweep_folder(whole))
    placed = [row for row in standings.rows if row.rank is not None]
    assert [row.rank for row in placed] == [1, 2, 3, 4, 5, 6]
    assert {row.trial for row in placed} == {n for n, trial in enumerate(TRIALS) if trial.state == "finished"}
    for rows in (placed, standings.rows[len(placed) :]):
        values = [row.value for row in rows if row.value is not None]
        assert values == sorted(values, reverse=True)
    assert standings.ranked_count == 6
    assert standings.baseline is not None
    assert standings.baseline.trial == 0


def test_intervals_are_those_of_the_ranking(whole: Path) -> None:
    results = read_sweep_folder(whole)
    finished = [n for n, trial in enumerate(TRIALS) if trial.state == "finished"]
    expected = rank([TrialEvidence.read(n, trial_folder(whole, n) / "evidence.npz") for n in finished], baseline=0)
    standings = ranked(results)
    assert [row.trial for row in expected.rows] == [row.trial for row in standings.rows[:6]]
    for row, ours in zip(expected.rows, standings.rows, strict=False):
        assert (row.ap, row.p_best, row.tied, row.to_baseline) == (ours.ap, ours.p_best, ours.tied, ours.gain)
        assert row.ap is not None
        assert ours.value == pytest.approx(row.ap.value)  # the evidence is of the epoch that the table shows


def test_groups_in_the_split_widen_the_intervals(sweep: Path) -> None:
    alone = ranked(read_sweep_folder(sweep)).rows[0]
    split = json.loads((sweep / "split.json").read_text())
    groups = {image: f"video {int(image) // 5}" for image in split["images"]}
    (sweep / "split.json").write_text(json.dumps(split | {"groups": groups}))
    standings = ranked(read_sweep_folder(sweep))
    assert standings.rows[0].ap != alone.ap
    assert "groups of validation images" in standings.notes[0]


def test_validation_images_of_one_group_say_nothing_of_chance(sweep: Path) -> None:
    split = json.loads((sweep / "split.json").read_text())
    (sweep / "split.json").write_text(json.dumps(split | {"groups": dict.fromkeys(split["images"], "video 1")}))
    standings = ranked(read_sweep_folder(sweep))
    assert standings.notes == (
        "No intervals: all validation images are of one group, so nothing tells how far chance reaches; validate on "
        "two groups or more.",
    )
    assert all((row.ap, row.gain, row.p_best, row.tied) == (None, None, None, False) for row in standings.rows)
    assert standings.winner is not None
    assert standings.winner.trial == 7


def test_one_image_says_nothing_of_chance(sweep: Path) -> None:
    assert groups_of(read_sweep_folder(sweep), np.arange(2)) is None
    with pytest.raises(SweepError, match="there is only one image, so nothing tells how far chance reaches"):
        groups_of(read_sweep_folder(sweep), np.arange(1))


def test_while_none_has_finished_those_scored_so_far_are_ranked(tmp_path: Path) -> None:
    standings = ranked(read_sweep_folder(write_fake_sweep(tmp_path, [TRIALS[2], TRIALS[5], TRIALS[11]], objects=12)))
    assert [(row.trial, row.rank) for row in standings.rows] == [(1, 1), (0, 2), (2, None)]
    assert standings.rows[0].ap is not None
    assert standings.rows[2].ap is None  # diverged: no predictions


def test_another_metric_is_ranked_without_intervals_smallest_error_first(sweep: Path) -> None:
    space = json.loads((sweep / "space.json").read_text())
    (sweep / "space.json").write_text(json.dumps(space | {"metric": {"name": "val/RMSE_px", "goal": "minimize"}}))
    standings = ranked(read_sweep_folder(sweep))
    values = [row.value for row in standings.rows[:6] if row.value is not None]
    assert values == sorted(values)
    assert all(row.ap is None for row in standings.rows)
    assert standings.notes == ("Ranked by val/RMSE_px, as the sweep asks; intervals exist for val/AP only.",)


def test_trials_of_different_validation_sets_are_shown_without_intervals(sweep: Path) -> None:
    path = trial_folder(sweep, 7) / "evidence.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["match/images"] = arrays["match/images"] + 1000
    np.savez(path, **arrays)
    standings = ranked(read_sweep_folder(sweep))
    assert standings.winner is not None
    assert standings.winner.ap is None
    assert standings.notes[0].startswith("No intervals: trial")


def test_ties_are_not_told_when_a_contender_has_no_predictions(sweep: Path) -> None:
    (trial_folder(sweep, 7) / "evidence.npz").unlink()
    standings = ranked(read_sweep_folder(sweep))
    assert standings.winner is not None
    assert (standings.winner.trial, standings.winner.ap) == (7, None)
    assert all(row.p_best is None and not row.tied for row in standings.rows)
    assert standings.rows[1].ap is not None
    assert standings.notes == ("No ties and no P(best): not known for trial 7.",)


def test_a_trial_without_a_score_comes_last(sweep: Path) -> None:
    folder = trial_folder(sweep, 9)
    (folder / "metrics.jsonl").unlink()
    (folder / "status.json").write_text(json.dumps({"trial": 9, "state": "running"}))
    last = ranked(read_sweep_folder(sweep)).rows[-1]
    assert (last.trial, last.value, last.rank, last.in_words) == (9, None, None, "still running")


def test_no_trial_at_all(tmp_path: Path) -> None:
    standings = ranked(read_sweep_folder(write_fake_sweep(tmp_path, (), objects=2)))
    assert (standings.rows, standings.winner, standings.baseline) == ((), None, None)
