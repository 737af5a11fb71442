"""Which training a sweep hands over: the search's winner, the confirmed one, the one that was trained longer."""

import shutil
from pathlib import Path

import pytest
import yaml

from posesweep.analysis.chosen import chosen, unconfirmed
from posesweep.analysis.promoted import promotions
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.sections.course import winner_settings
from posesweep.analysis.story import Story
from posesweep.errors import SweepError
from posesweep.files import read_json, trial_folder, write_json
from tests.analysis.fake_sweep import write_fake_sweep

SEEDS = (101, 102)
# trial -> the fake trial whose predictions its two trainings have: 7 wins the search, 9 is better with other seeds
CONFIRMED = {7: (4, 4), 9: (7, 9), 0: (0, 0)}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_fake_sweep(tmp_path / "ponies")


def again(sweep: Path, what: str, trial: int, seed: int, like: int, state: str = "finished") -> dict:
    """A training of `trial` that came out as the sweep's trial `like` did."""
    folder = sweep / what / f"{trial:04d}-s{seed}"
    shutil.copytree(trial_folder(sweep, like), folder)
    status = read_json(folder / "status.json")
    results = read_sweep_folder(sweep)
    best = float(results.trials.set_index("trial")["value"][like])
    write_json(folder / "status.json", {**status, "trial": trial, "seed": seed, "state": state, "best": best})
    return {"trial": trial, "seed": seed, "folder": f"{what}/{trial:04d}-s{seed}"}


def record(sweep: Path, what: str, runs: list[dict], epochs: int) -> None:
    trials = list(dict.fromkeys(run["trial"] for run in runs))
    candidates = [{"trial": trial, "role": "search" if trial else "baseline"} for trial in trials]
    seeds = list(dict.fromkeys(run["seed"] for run in runs))
    content = {"candidates": candidates, "seeds": seeds, "epochs": epochs, "baseline": 0, "trials": 12, "runs": runs}
    write_json(sweep / f"{what}.json", content)


def confirm(sweep: Path, unfinished: int = 0) -> None:
    runs = []
    for trial, likes in CONFIRMED.items():
        for seed, like in zip(SEEDS, likes, strict=True):
            state = "running" if len(runs) >= 6 - unfinished else "finished"
            runs.append(again(sweep, "confirm", trial, seed, like, state))
    record(sweep, "confirm", runs, 18)


def pick(sweep: Path, number: int | None = None):
    results = read_sweep_folder(sweep)
    return chosen(results, ranked(results), number)


def test_the_winner_of_the_search(sweep):
    assert (pick(sweep).trial, pick(sweep).folder, pick(sweep).seed) == (7, trial_folder(sweep, 7), None)


def test_the_confirmed_winner_and_its_best_seed(sweep):
    confirm(sweep)
    picked = pick(sweep)
    assert (picked.trial, picked.seed) == (9, 101)
    assert picked.folder == sweep / "confirm" / "0009-s101"
    values = [read_json(sweep / "confirm" / f"0009-s{seed}" / "status.json")["best"] for seed in SEEDS]
    assert picked.value == pytest.approx(sum(values) / 2), "what it reached is that of all seeds"
    assert picked.value < values[0]


def test_a_trial_asked_for_by_number_is_that_of_the_search(sweep):
    confirm(sweep)
    assert pick(sweep, 7).folder == trial_folder(sweep, 7)
    with pytest.raises(SweepError, match="no trial 99"):
        pick(sweep, 99)


def test_half_a_confirmation_decides_nothing(sweep):
    confirm(sweep, unfinished=1)
    assert unconfirmed(read_sweep_folder(sweep)) == 1
    assert pick(sweep).folder == trial_folder(sweep, 7)


def test_a_promoted_trial_takes_over_where_it_became_better(sweep):
    runs = [again(sweep, "promote-60", 4, 101, 7), again(sweep, "promote-60", 0, 101, 4)]
    record(sweep, "promote-60", runs, 60)
    assert pick(sweep).folder == trial_folder(sweep, 7), "it only came as far"
    status = sweep / "promote-60" / "0004-s101" / "status.json"
    write_json(status, {**read_json(status), "best": 0.99})
    picked = pick(sweep)
    assert (picked.trial, picked.seed, picked.folder) == (4, 101, sweep / "promote-60" / "0004-s101")
    assert picked.promoted is not None
    assert picked.promoted.epochs == 60
    assert picked.promoted.gain is not None, "over the baseline that was trained as long"


def rewrite(training: Path, **settings: object) -> None:
    file = training / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **settings}))


def test_the_settings_that_are_told_are_those_of_the_training_that_is_handed_over(sweep):
    confirm(sweep)
    for trial in (9, 0):
        rewrite(sweep / "confirm" / f"{trial:04d}-s101", epochs=18, seed=101, lr0=trial + 1.0)
    told = {one.key: (one.winner, one.baseline) for one in winner_settings(Story.of(read_sweep_folder(sweep)))}
    assert told["epochs"] == (18, 18), "of the baseline, too, the training that was confirmed"
    assert told["seed"] == (101, 101)
    assert told["lr0"] == (10.0, 1.0)
    runs = [again(sweep, "promote-60", 4, 102, 7)]
    record(sweep, "promote-60", runs, 60)
    promoted = sweep / "promote-60" / "0004-s102"
    write_json(promoted / "status.json", {**read_json(promoted / "status.json"), "best": 0.99})
    rewrite(promoted, epochs=60)
    rewrite(trial_folder(sweep, 0), epochs=9)
    told = {one.key: (one.winner, one.baseline) for one in winner_settings(Story.of(read_sweep_folder(sweep)))}
    assert told["epochs"] == (60, 9), "the baseline was not promoted: that of the search"


def test_a_promotion_on_its_way_decides_nothing(sweep):
    runs = [again(sweep, "promote-60", 4, 101, 7), again(sweep, "promote-60", 0, 101, 4, "running")]
    record(sweep, "promote-60", runs, 60)
    status = sweep / "promote-60" / "0004-s101" / "status.json"
    write_json(status, {**read_json(status), "best": 0.99})
    (promotion,) = promotions(read_sweep_folder(sweep))
    assert (promotion.left, [row.trial for row in promotion.rows]) == (1, [4])
    assert pick(sweep).folder == trial_folder(sweep, 7)


def test_a_torn_evidence_file_of_a_promoted_trial_leaves_its_value(sweep):
    runs = [again(sweep, "promote-60", 4, 101, 7), again(sweep, "promote-60", 0, 101, 4)]
    record(sweep, "promote-60", runs, 60)
    (sweep / "promote-60" / "0004-s101" / "evidence.npz").write_bytes(b"PK torn")
    (promotion,) = promotions(read_sweep_folder(sweep))
    assert [(row.trial, row.ap is None) for row in promotion.rows] == [(4, True), (0, False)]
    assert promotion.notes == ("Without evidence.npz, so not in the intervals: trial 4.",)
