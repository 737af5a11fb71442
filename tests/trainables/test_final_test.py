"""The test split: checked before anything is trained, scored once, and never again."""

import json
import shutil
from pathlib import Path

import pytest

from posesweep.analysis.tested import lines_of_test
from posesweep.datasets.holdout import read_test
from posesweep.datasets.load import Data, DataRequest, load_data
from posesweep.datasets.synthetic import write_synthetic
from posesweep.errors import DataError, SweepError
from posesweep.files import read_json, trial_folder, write_json
from posesweep.search_spaces.schema import DataSpec
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables.context import in_this_process
from posesweep.trainables.final_test import use_test_split
from posesweep.trainables.folder import record_sweep, refuse_changes
from posesweep.trainables.tasks import find_task, make_config
from posesweep.trainables.trial import run_trial

SIZE = (160, 120)
TINY = {"model": "tiny", "imgsz": [64, 64], "epochs": 1, "batch": 8, "threads": 1}


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of horses that nothing else in these tests has."""
    return write_synthetic(tmp_path_factory.mktemp("held") / "test", 22, 777, SIZE)


@pytest.fixture
def data(horses, cache) -> Data:
    values = make_config({"data": horses, **TINY}).data
    return load_data(find_request(values), cache)


def find_request(values: DataSpec) -> DataRequest:
    from posesweep.trainables.tasks.topdown import request_of

    return request_of(values)


def test_a_test_split_of_its_own_images_is_accepted(data, held_out):
    found = read_test(DataRequest(), held_out, None, data)
    assert len(found.image_files) == 22


def test_an_image_in_train_or_val_is_refused(data, tmp_path):
    seen = data.val.image_files[0].parents[1] / "annotations.json"
    with pytest.raises(DataError, match=r"data.test: \d+ images are in both val and test \(.*, for example\)"):
        read_test(DataRequest(), seen, None, data)


def test_another_skeleton_or_no_label_is_refused(data, held_out, tmp_path):
    content = json.loads(held_out.read_text())
    for one in content["annotations"]:
        one["keypoints"] = [0] * len(one["keypoints"])
    (tmp_path / "unlabelled.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="nothing to"):
        read_test(DataRequest(), tmp_path / "unlabelled.json", held_out.parent / "images", data)
    content["categories"][0]["keypoints"] = content["categories"][0]["keypoints"][:-1]
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"other\.json"):
        read_test(DataRequest(), tmp_path / "other.json", held_out.parent / "images", data)


def test_it_is_checked_when_a_sweep_is_prepared_and_no_trial_reads_it(horses, held_out, tmp_path):
    config = make_config({"data": {**horses, "test": str(held_out)}, **TINY})
    notes = find_task("topdown").prepare([config]).notes
    assert any(
        note.startswith("test: ") and "22 images, scored once, when the winner is known" in note for note in notes
    )
    missing = make_config({"data": {**horses, "test": str(tmp_path / "no.json")}, **TINY})
    with pytest.raises(DataError, match=r"no\.json"):
        find_task("topdown").prepare([missing])


@pytest.fixture(scope="module")
def folder(horses, tmp_path_factory) -> Path:
    """A sweep of a baseline and one trial, trained one epoch each."""
    folder = tmp_path_factory.mktemp("sweep") / "runs"
    write_json(folder / "space.json", {"name": "s", "metric": {"name": "val/NME", "goal": "minimize"}})
    (folder / "sweep.yaml").write_text("name: s\n")
    for number, role in enumerate(("baseline", "search")):
        config = make_config({"data": horses, **TINY, "lr0": 1e-3 * (number + 1), "metric": {"name": "val/NME"}})
        run_trial(config, in_this_process(trial_folder(folder, number), lambda row: None))
        status = trial_folder(folder, number) / "status.json"
        write_json(status, {**read_json(status), "trial": number, "role": role, "params": {"lr0": config.lr0}})
    return folder


def test_winner_and_baseline_are_scored_once(folder, held_out, horses):
    data = DataSpec(**horses, test=str(held_out))
    use_test_split(data, folder)
    record = read_json(folder / "test.json")
    tested = {one["trial"]: one for one in record["trials"]}
    assert set(tested) == {0, 1} or (record["trials"][0]["trial"] == 0 and len(tested) == 1)
    assert (record["images"], record["trials"][0]["folder"]) == (22, f"trials/{record['trials'][0]['trial']:04d}")
    assert all(one["metrics"]["NME"] > 0 and one["AP"]["low"] <= one["AP"]["value"] for one in tested.values())
    assert all((folder / "test" / f"{trial:04d}.npz").is_file() for trial in tested)
    before = (folder / "test.json").read_bytes()
    use_test_split(data.model_copy(update={"test": "/nowhere.json"}), folder)  # it is not even opened
    assert (folder / "test.json").read_bytes() == before


def test_a_test_split_of_one_image_is_scored_without_intervals(folder, held_out, horses, tmp_path):
    content = json.loads(held_out.read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == content["images"][0]["id"]]
    (tmp_path / "one.json").write_text(json.dumps(content))
    copy = Path(shutil.copytree(folder, tmp_path / "runs", ignore=shutil.ignore_patterns("test.json", "test")))
    use_test_split(
        DataSpec(**horses, test=str(tmp_path / "one.json"), test_images=str(held_out.parent / "images")), copy
    )
    record = read_json(copy / "test.json")
    assert record["notes"][0].startswith("No intervals: there is only one image")
    assert all((one["AP"], one["gain"]) == (None, None) for one in record["trials"])
    assert lines_of_test(copy, None)[0].endswith(f"AP {record['trials'][0]['metrics']['AP']:.3f}, without an interval")


RECORD = {
    "used": "2026-01-02T03:04:05+00:00",
    "notes": ["Only 12 validation images"],
    "trials": [
        {
            "trial": 7,
            "role": "search",
            "AP": {"value": 0.6123, "low": 0.58, "high": 0.641},
            "gain": {"value": 0.031, "low": -0.01, "high": 0.072},
        },
        {"trial": 0, "role": "baseline", "AP": {"value": 0.58, "low": 0.55, "high": 0.61}, "gain": None},
    ],
}


def test_the_outcome_in_words(tmp_path):
    assert lines_of_test(tmp_path, 7) == []
    write_json(tmp_path / "test.json", RECORD)
    told = [
        "test: trial 7 AP 0.612 [0.580, 0.641], +0.031 [-0.010, +0.072] over the baseline",
        "test: trial 0, the baseline, AP 0.580 [0.550, 0.610]",
        "note: test: Only 12 validation images",
    ]
    assert lines_of_test(tmp_path, 7) == told
    assert lines_of_test(tmp_path, 9) == [
        *told,
        "note: test: the test split was used already, on 2026-01-02 for trial 7; it is not read again, so trial 9, the "
        "winner now, has no score on it",
    ]


def test_the_test_split_may_be_added_and_not_changed_once_used(tmp_path):
    text = "name: s\ndata: {train: a.json}\nparameters: {lr0: {min: 1.0e-4, max: 1.0e-2}}\n"
    folder = tmp_path / "runs"

    def sweep_of(text: str):
        (tmp_path / "s.yaml").write_text(text)
        return read_sweep(tmp_path / "s.yaml")

    record_sweep(sweep_of(text), folder)
    tested = sweep_of(text.replace("a.json", "a.json, test: t.json, test_images: t"))
    refuse_changes(tested, folder)
    record_sweep(tested, folder)
    write_json(folder / "test.json", RECORD)
    refuse_changes(tested, folder)
    with pytest.raises(SweepError, match=r"the test split was used already .*\(data.test: 't.json' -> 'u.json'\)"):
        refuse_changes(sweep_of(text.replace("a.json", "a.json, test: u.json, test_images: t")), folder)
