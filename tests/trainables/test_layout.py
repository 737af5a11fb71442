"""best.yaml on another machine's layout."""

import shutil

import pytest
import yaml

from posesweep.cli import main
from posesweep.errors import ConfigError
from posesweep.files import read_json
from posesweep.trainables.layout import placed
from posesweep.trainables.tasks import make_config


def train(*arguments, expect: int = 0) -> None:
    assert main(["train", *map(str, arguments)]) == expect


@pytest.fixture
def elsewhere(handed_over, tmp_path, capsys):
    """The winner exported and the data moved, to places that its best.yaml does not know."""
    assert main(["export", str(handed_over.sweep), str(tmp_path / "winner")]) == 0
    shutil.copytree(handed_over.data, tmp_path / "new place" / "horses")
    settings = tmp_path / "winner" / "best.yaml"
    settings.write_text(settings.read_text().replace(str(handed_over.data), "/nowhere/data"))
    capsys.readouterr()
    return tmp_path


def test_every_path_that_is_gone_is_told_with_its_setting(elsewhere, capsys):
    train(elsewhere / "winner" / "best.yaml", "--out", elsewhere / "again", expect=2)
    assert capsys.readouterr().err == (
        "posesweep: data.train: /nowhere/data/train/annotations.json is not there; say where it lies on this machine: "
        "data.train=PATH\n"
        "data.val: /nowhere/data/val/annotations.json is not there; say where it lies on this machine: data.val=PATH\n"
    )
    assert not (elsewhere / "again").exists()


def test_it_trains_the_same_again_from_the_moved_data(handed_over, elsewhere):
    """The split's hash is of labels and file names: the folder may be any."""
    data = elsewhere / "new place" / "horses"
    paths = [f"data.train={data}/train/annotations.json", f"data.val={data}/val/annotations.json"]
    train(elsewhere / "winner" / "best.yaml", *paths, "--out", elsewhere / "again")
    scores = [read_json(folder / "status.json")["best"] for folder in (elsewhere / "again", handed_over.training)]
    assert scores[0] == scores[1]
    assert (elsewhere / "again" / "skeleton.yaml").is_file()


def test_other_data_in_their_place_are_refused(handed_over, elsewhere, capsys):
    data = elsewhere / "new place" / "horses"
    paths = [f"data.train={data}/train/annotations.json", f"data.val={data}/val/annotations.json"]
    file = data / "val" / "annotations.json"
    file.write_text(
        file.read_text().replace('"visibility"', '"visibility "').replace('"iscrowd": 0', '"iscrowd": 1', 1)
    )
    train(elsewhere / "winner" / "best.yaml", *paths, "--out", elsewhere / "again", expect=2)
    assert "the data changed since" in capsys.readouterr().err


def test_relative_paths_are_of_here_or_of_the_file(elsewhere, monkeypatch):
    data = elsewhere / "new place" / "horses"
    settings = elsewhere / "winner" / "best.yaml"
    config = yaml.safe_load(settings.read_text())
    config["data"] |= {"train": "train/annotations.json", "val": "val/annotations.json"}
    (data / "best.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(elsewhere)
    train(data / "best.yaml", "epochs=1", "--out", "again")
    monkeypatch.chdir(data)
    train("best.yaml", "epochs=1", "--out", elsewhere / "again too")


def test_skeleton_and_weights_have_ways_out_of_their_own(tmp_path):
    (tmp_path / "train.json").touch()
    (tmp_path / "skeleton.yaml").touch()
    data = {"train": str(tmp_path / "train.json"), "skeleton": "/nowhere/mine.yaml"}
    config = make_config({"data": data, "model": "tiny", "imgsz": 64, "weights": "/nowhere/w.pth"})
    with pytest.raises(ConfigError) as told:
        placed(config, tmp_path)
    assert told.value.mistakes == [
        "data.skeleton: /nowhere/mine.yaml is not there; say where it lies on this machine: data.skeleton=PATH, "
        f"such as {tmp_path / 'skeleton.yaml'}",
        "weights: /nowhere/w.pth is not there; say where it lies on this machine: weights=PATH, or weights=null to "
        "begin without it",
    ]
