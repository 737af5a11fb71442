import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from posesweep.analysis.results import PARAMS, moments, read_sweep_folder, write_results_csv, write_results_parquet
from posesweep.errors import SweepError
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import SKELETON, TRIALS, FakeTrial, write_fake_sweep


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_sweep(tmp_path_factory.mktemp("sweep"), objects=12)


@pytest.fixture
def sweep(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_one_row_per_trial_with_the_metrics_of_its_best_epoch(whole: Path) -> None:
    results = read_sweep_folder(whole)
    assert results.notes == ()
    assert list(results.trials["trial"]) == list(range(len(TRIALS)))
    assert list(results.trials["state"]) == [trial.state for trial in TRIALS]
    rows = [json.loads(line) for line in (trial_folder(whole, 5) / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["val/AP"])
    fifth = results.trials.loc[5]
    assert (fifth["AP"], fifth["value"], fifth["PCK"]) == (best["val/AP"], best["val/AP"], best["val/PCK"])
    assert (fifth["best_epoch"], fifth["epochs"], fifth["role"]) == (best["epoch"], 6, "search")
    assert (fifth["train_s"], fifth["val_s"], fifth["wall_s"]) == (24.0, 3.0, 6 * 5.1 + 2)


def test_parameters_stand_in_the_order_of_the_sweep_file_and_inactive_ones_are_missing(whole: Path) -> None:
    results = read_sweep_folder(whole)
    assert results.params == ("lr0", "codec", "sigma", "freeze", "aug_strength")
    assert np.isnan(results.trials.loc[3, PARAMS + "sigma"])  # simcc has no heatmap sigma
    assert "sigma" not in results.params_of(3)
    assert results.baseline == 0
    assert results.full_epochs == 18


def test_curves_have_a_row_for_every_epoch(whole: Path) -> None:
    curves = read_sweep_folder(whole).curves
    assert list(curves.columns) == ["trial", "epoch", "value", "loss", "lr"]
    assert curves.groupby("trial")["epoch"].max().to_dict() == {n: trial.epochs for n, trial in enumerate(TRIALS)}
    assert (curves.loc[curves["trial"] == 3, "lr"] == 2.1e-3).all()


def test_evidence_is_read_when_asked_for(whole: Path) -> None:
    results = read_sweep_folder(whole)
    evidence = results.evidence(7)
    assert evidence is not None
    assert evidence.keypoints.shape == (12, len(SKELETON.keypoints), 2)
    assert results.evidence(8) is None  # failed: nothing was saved
    assert results.skeleton is not None
    assert results.skeleton.edges == SKELETON.edges


def test_csv_reads_back(whole: Path, tmp_path: Path) -> None:
    results = read_sweep_folder(whole)
    write_results_csv(results, tmp_path / "results.csv")
    again = pd.read_csv(tmp_path / "results.csv")
    assert list(again.columns) == list(results.trials.columns)
    np.testing.assert_allclose(again["AP"], results.trials["AP"])


def test_a_torn_last_line_is_ignored(sweep: Path) -> None:
    before = read_sweep_folder(sweep)
    _append(trial_folder(sweep, 0) / "metrics.jsonl", '{"epoch": 19, "val/AP": 0.9')
    after = read_sweep_folder(sweep)
    pd.testing.assert_frame_equal(before.curves, after.curves)
    assert after.notes == ()


def test_a_repeated_epoch_counts_as_its_last_attempt_wrote_it(sweep: Path) -> None:
    path = trial_folder(sweep, 2) / "metrics.jsonl"
    _append(path, json.dumps({"epoch": 2, "val/AP": 0.5, "attempt": 2}) + "\n")
    _append(path, json.dumps({"epoch": 2, "val/AP": 0.1, "attempt": 1}) + "\n")  # an orphan, fenced off too late
    curves = read_sweep_folder(sweep).curves
    assert list(curves.loc[curves["trial"] == 2, "epoch"]) == [1, 2]
    assert curves.loc[(curves["trial"] == 2) & (curves["epoch"] == 2), "value"].item() == 0.5


def test_a_damaged_metrics_file_costs_its_curve_only(sweep: Path) -> None:
    path = trial_folder(sweep, 4) / "metrics.jsonl"
    path.write_text("what is this\n" + path.read_text())
    results = read_sweep_folder(sweep)
    assert 4 not in set(results.curves["trial"])
    assert results.trials.loc[4, "value"] > 0  # status.json knows the best value
    assert results.notes == ("trials/0004/metrics.jsonl is damaged; its learning curve is left out.",)


def test_a_running_sweep_says_so(sweep: Path) -> None:
    path = trial_folder(sweep, 9) / "status.json"
    status = json.loads(path.read_text()) | {"state": "running", "ended": None, "cost": {"train_s": 8.0, "val_s": 1.0}}
    path.write_text(json.dumps(status))
    results = read_sweep_folder(sweep)
    assert results.notes == ("1 trial had not ended when this was read; its figures may still change.",)
    assert results.trials.loc[9, "wall_s"] == status["held_s"], "so far"


def test_time_from_start_to_end_stands_in_for_a_missing_wall_time(sweep: Path) -> None:
    path = trial_folder(sweep, 3) / "status.json"
    status = json.loads(path.read_text()) | {"cost": {}}
    del status["held_s"]
    path.write_text(json.dumps(status))
    third = read_sweep_folder(sweep).trials.loc[3]
    assert third["wall_s"] == 130.0  # 10:03:00 to 10:05:10
    assert third["train_s"] == 72.0  # added up from metrics.jsonl


def test_a_trial_that_waits_at_a_rung_counts_as_stopped_there(sweep: Path) -> None:
    path = trial_folder(sweep, 6) / "status.json"
    reason = "waits at epoch 2: only 2 trials came this far, and one in 3 goes on"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "waiting", "reason": reason}))
    results = read_sweep_folder(sweep)
    row = results.trials.loc[6]
    assert (row["state"], row["reason"]) == ("pruned", reason)
    assert "1 trial waits at a rung and may yet go on: the search is not over, or its budget ended it." in results.notes


def test_half_a_copy_is_read_as_far_as_it_goes(sweep: Path) -> None:
    for name in ("split.json", "space.json", "sweep.yaml"):
        (sweep / name).unlink()
    (trial_folder(sweep, 6) / "status.json").write_text('{"trial": 6, "sta')
    evidence = trial_folder(sweep, 7) / "evidence.npz"
    evidence.write_bytes(evidence.read_bytes()[:-40])
    results = read_sweep_folder(sweep)
    assert results.trials.loc[6, "state"] == "unknown"
    assert not results.trials.loc[7, "has_evidence"]
    assert results.skeleton is None
    assert results.full_epochs == 18  # from a trial's config.yaml
    assert results.notes == (
        "sweep.yaml is missing.",
        "split.json is missing.",
        "trials/0006/status.json cannot be read; it may be only partly copied.",
        "trials/0007/evidence.npz is only partly there; its predictions are left out.",
        "Without evidence.npz, so without an interval: trial 7.",
    )


def test_sweep_yaml_stands_in_for_space_json(sweep: Path) -> None:
    (sweep / "space.json").unlink()
    results = read_sweep_folder(sweep)
    assert results.notes == ()
    assert results.name == "ponies"


@pytest.mark.parametrize(
    ("trials", "note"),
    [
        ((), "No trial has been started yet."),
        (TRIALS[:1], "Only one trial has finished: there is nothing to compare it with yet."),
        ((TRIALS[8], TRIALS[11]), "Every trial failed or diverged; what follows is only what was written on the way."),
        ((TRIALS[2],), "No trial has finished; what follows is only what was written on the way."),
    ],
)
def test_small_sweeps(tmp_path: Path, trials: tuple[FakeTrial, ...], note: str) -> None:
    results = read_sweep_folder(write_fake_sweep(tmp_path, trials, objects=4))
    assert len(results.trials) == len(trials)
    assert results.notes == (note,)


def test_a_trial_without_metrics_has_no_value(sweep: Path) -> None:
    folder = trial_folder(sweep, 1)
    (folder / "metrics.jsonl").unlink()
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"best": None, "best_epoch": 0, "epochs": 0}))
    results = read_sweep_folder(sweep)
    assert np.isnan(results.trials.loc[1, "value"])
    assert results.trials.loc[1, "epochs"] == 0


def test_a_metric_that_should_be_small(tmp_path: Path) -> None:
    write_fake_sweep(tmp_path, TRIALS[:2], objects=4)
    space = json.loads((tmp_path / "space.json").read_text())
    (tmp_path / "space.json").write_text(json.dumps(space | {"metric": {"name": "val/RMSE_px"}}))
    for number in range(2):
        path = trial_folder(tmp_path, number) / "status.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "best_epoch"}))
    results = read_sweep_folder(tmp_path)
    assert not results.maximize
    assert list(results.trials["value"]) == list(results.curves.groupby("trial")["value"].min())


def test_not_a_sweep_folder(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"nothing/here: there is no such folder; give the folder of a sweep"):
        read_sweep_folder(tmp_path / "nothing" / "here")
    with pytest.raises(SweepError, match=r"neither sweep.yaml nor trials/; give the folder of a sweep: runs/demo"):
        read_sweep_folder(tmp_path)
    (tmp_path / "ponies").mkdir()
    shutil.copy(whole / "sweep.yaml", tmp_path / "ponies")
    with pytest.raises(SweepError, match=r"give one of the sweeps in it: .*ponies"):
        read_sweep_folder(tmp_path)
    with pytest.raises(SweepError, match=r"there is no such folder; did you mean 'ponies'\?"):
        read_sweep_folder(tmp_path / "pony")


def test_evidence_that_cannot_be_read_is_named(sweep: Path) -> None:
    results = read_sweep_folder(sweep)
    np.savez(trial_folder(sweep, 7) / "evidence.npz", id=np.arange(3))  # replaced since
    with pytest.raises(SweepError, match=r"0007/evidence.npz: cannot be read"):
        results.evidence(7)


def test_evidence_of_another_version_or_with_a_flipped_byte_is_left_out_with_a_note(sweep: Path) -> None:
    np.savez(trial_folder(sweep, 7) / "evidence.npz", id=np.arange(3))
    path = trial_folder(sweep, 9) / "evidence.npz"
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 0xFF
    path.write_bytes(stored)
    results = read_sweep_folder(sweep)
    assert results.notes == (
        "trials/0007/evidence.npz is of another version of PoseSweep, without image_id, box, area, keypoints, "
        "true_keypoints, visibility, oks, error_px; its predictions are left out.",
        "trials/0009/evidence.npz is damaged; its predictions are left out.",
        "Without evidence.npz, so without an interval: trial 7, 9.",
    )
    assert results.evidence(7) is None


def test_an_ap_of_no_object_is_missing_not_minus_one(sweep: Path) -> None:
    folder = trial_folder(sweep, 3)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row | {"val/AP": -1}) + "\n" for row in rows))
    (folder / "status.json").write_text(json.dumps(json.loads((folder / "status.json").read_text()) | {"best": -1}))
    results = read_sweep_folder(sweep)
    assert np.isnan(results.trials.loc[3, "value"])
    assert results.notes == ("Trained to the end, but without a score: trial 3; no validation object has a label.",)


def test_parquet_reads_back_with_types(whole: Path, tmp_path: Path) -> None:
    results = read_sweep_folder(whole)
    write_results_parquet(results, tmp_path / "results.parquet")
    again = pd.read_parquet(tmp_path / "results.parquet")
    assert list(again.columns) == list(results.trials.columns)
    assert again["best_epoch"].tolist() == results.trials["best_epoch"].tolist()
    assert again.loc[3, PARAMS + "codec"] == "simcc"
    assert np.isnan(again.loc[3, PARAMS + "sigma"])


def test_parquet_of_values_of_several_kinds_holds_json(tmp_path: Path) -> None:
    values = [True, "auto", 3, [192, 256], None]
    trials = [FakeTrial(0.03, {"mixed": value, "sizes": [n, n]}, epochs=1) for n, value in enumerate(values)]
    results = read_sweep_folder(write_fake_sweep(tmp_path, trials, objects=4))
    write_results_parquet(results, tmp_path / "results.parquet")
    again = pd.read_parquet(tmp_path / "results.parquet")
    assert list(again[PARAMS + "mixed"])[:4] == ["true", '"auto"', "3", "[192, 256]"]
    assert again[PARAMS + "mixed"].isna()[4]
    assert again.loc[2, PARAMS + "sizes"] == "[2, 2]"


def test_times_that_cannot_be_read_are_not_known() -> None:
    assert moments({"started": "yesterday", "ended": None}) == []
    naive, aware = moments({"started": "2026-11-20T10:00:00", "ended": "2026-11-20T11:00:30+01:00"})
    assert (aware - naive).total_seconds() == 30
