"""`posesweep datacurve` on a tiny sweep: nested parts, equal steps, resumed, said."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from posesweep.cli import main
from posesweep.errors import SweepError
from posesweep.files import read_json, write_json, write_text
from posesweep.trainables import datacurve as module
from posesweep.trainables.context import in_this_process
from posesweep.trainables.datacurve import run_datacurve
from posesweep.trainables.tasks import build_task, find_task, make_config
from posesweep.trainables.trial import run_trial

SETTINGS = {"model": "tiny", "imgsz": [64, 64], "epochs": 1, "batch": 8, "lr0": 2e-3, "warmup": 0.5, "threads": 1}


@pytest.fixture(scope="module")
def trained(horses, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of one trial."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = make_config({"data": horses, **SETTINGS})
    run_trial(config, in_this_process(folder / "trials" / "0000", lambda row: None))
    status = read_json(folder / "trials" / "0000" / "status.json")
    write_json(folder / "trials" / "0000" / "status.json", status | {"trial": 0, "params": {}})
    write_json(folder / "split.json", find_task("topdown").prepare([config]).record)
    write_text(folder / "sweep.yaml", "name: tiny\n")
    return folder


@pytest.fixture(scope="module")
def curve(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep with its data curve."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    shutil.copytree(trained, folder)
    assert main(["datacurve", str(folder), "--shares", "1", "0.25", "0.5"]) == 0
    return folder


def test_each_part_is_trained_as_long_in_steps(curve):
    folder = curve
    record = read_json(folder / "datacurve" / "datacurve.json")
    assert record["trial"] == 0
    points = record["points"]
    assert [(point["share"], point["seed"]) for point in points] == [(0.25, 1), (0.5, 1), (1.0, 1)]
    assert [point["epochs"] for point in points] == [4, 2, 1]
    assert points[-1]["objects"] > points[1]["objects"] > points[0]["objects"] > 4
    assert all(point["state"] == "finished" and 0 <= point["value"] <= 1 for point in points)
    config = (folder / "datacurve" / "0.25-s1" / "config.yaml").read_text()
    assert "train_share: 0.25" in config
    assert "val_every: 4" in config
    assert "warmup: 2.0" in config
    assert not (folder / "datacurve" / "0.25-s1" / "last").exists()
    table = pd.read_csv(folder / "datacurve" / "datacurve.csv")
    assert table["objects"].tolist() == [point["objects"] for point in points]


def test_repeated_it_trains_nothing_and_says_what_is_known(curve, capsys, monkeypatch):
    folder = curve
    monkeypatch.setattr(module, "run_trial", lambda *_: pytest.fail("trained again"))
    before = read_json(folder / "datacurve" / "datacurve.json")
    run_datacurve(folder, (0.25, 0.5, 1.0))
    assert read_json(folder / "datacurve" / "datacurve.json") == before
    said = capsys.readouterr().out
    assert "datacurve: 3 trainings of trial 0's config, about" in said
    assert "the training data" in said.splitlines()[-1] or "twice the data" in said.splitlines()[-1]


def test_killed_in_between_it_goes_on(curve, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "tiny")

    def killed(config, context):
        def report(row):
            if row["epoch"] == 1:
                raise KeyboardInterrupt

        return run_trial(config, in_this_process(context.folder, report))

    monkeypatch.setattr(module, "run_trial", killed)
    assert main(["datacurve", str(tmp_path / "tiny"), "--shares", "0.5"]) == 130
    monkeypatch.setattr(module, "run_trial", run_trial)
    run_datacurve(tmp_path / "tiny", (0.5,))
    whole, again = (read_json(f / "datacurve" / "datacurve.json")["points"] for f in (curve, tmp_path / "tiny"))
    assert again == [point for point in whole if point["share"] == 0.5]


def test_more_seeds_are_added(curve, tmp_path):
    shutil.copytree(curve, tmp_path / "tiny")
    run_datacurve(tmp_path / "tiny", (1.0,), seeds=2)
    points = read_json(tmp_path / "tiny" / "datacurve" / "datacurve.json")["points"]
    assert [(point["share"], point["seed"]) for point in points] == [(0.25, 1), (0.5, 1), (1.0, 1), (1.0, 2)]


def test_other_settings_in_the_same_folder_are_refused(curve, tmp_path):
    shutil.copytree(curve, tmp_path / "tiny")
    file = tmp_path / "tiny" / "trials" / "0000" / "config.yaml"
    write_text(file, file.read_text().replace("lr0: 0.002", "lr0: 0.001"))
    with pytest.raises(
        SweepError, match=r"0.25-s1 was trained with other settings than this sweep's winner has; remove"
    ):
        run_datacurve(tmp_path / "tiny", (0.25,))


def test_what_cannot_be(trained, tmp_path, capsys):
    assert main(["datacurve", str(trained), "--shares", "0", "1"]) == 2
    assert "--shares: 0 is no share of the data; give numbers above 0 and up to 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["datacurve", str(trained), "--shares", "25"])
    assert "'25' must be a number from 0 to 1" in capsys.readouterr().err
    assert main(["datacurve", str(tmp_path / "nothing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    shutil.copytree(trained, tmp_path / "tiny")
    (tmp_path / "tiny" / "split.json").unlink()
    assert main(["datacurve", str(tmp_path / "tiny")]) == 2
    assert "split.json is missing or damaged" in capsys.readouterr().err


def test_a_share_lies_inside_every_larger_one_and_the_split_stays(horses):
    whole = {"data": horses, **SETTINGS}
    ids = [set(build_task(make_config({**whole, "train_share": s})).datasets()[0].ids.tolist()) for s in (0.25, 0.5, 1)]
    assert ids[0] < ids[1] < ids[2]
    val = [build_task(make_config({**whole, "train_share": s})).datasets()[1].ids for s in (0.25, 1)]
    assert np.array_equal(*val)
