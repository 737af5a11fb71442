"""posesweep export: a folder that is all it takes, its card, and model.onnx run by numpy, OpenCV and onnxruntime."""

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml

from posesweep.analysis.promoted import Promoted
from posesweep.analysis.ranking import Interval
from posesweep.cli import main
from posesweep.datasets.skeleton import load_skeleton
from posesweep.files import read_json, write_json
from posesweep.trainables import run_onnx
from posesweep.trainables.model_card import how_sure_when_promoted


def export(*arguments, expect: int = 0) -> None:
    assert main(["export", *map(str, arguments)]) == expect


def test_the_folder_of_a_sweeps_winner(handed_over, tmp_path, capsys):
    out = tmp_path / "winner"
    export(handed_over.sweep, out)
    assert {file.name for file in out.iterdir()} == {"best.yaml", "skeleton.yaml", "weights.safetensors", "README.md"}
    assert "trial 0 of" in capsys.readouterr().out
    skeleton = load_skeleton(out / "skeleton.yaml")
    assert skeleton.keypoints == load_skeleton("horse26").keypoints
    assert skeleton.upper_body == load_skeleton("horse26").upper_body
    best = (handed_over.training / "best" / "weights.safetensors").read_bytes()
    assert (out / "weights.safetensors").read_bytes() == best


def test_the_card_says_what_one_must_know(handed_over, tmp_path):
    export(handed_over.sweep, tmp_path / "winner")
    card = (tmp_path / "winner" / "README.md").read_text()
    split = read_json(handed_over.sweep / "split.json")
    assert card.startswith("# horses: 26 keypoints of horse26\n")
    assert f"hash of the split (labels and file names): `{split['hash']}`" in card
    assert f"{len(split['train'])} training and {len(split['val'])} validation objects" in card
    assert "**AP 0." in card
    assert "95 % interval" in card
    assert "| left_nostril |" in card
    assert f"AP rests on {len(split['val'])} objects: few" in card
    assert "it was chosen among 1 trials by the same validation images" in card
    assert "boxes were the annotated ones" in card
    assert "objects/s in validation, with flip test, on cpu" in card
    assert "lr0 0.003" in card
    assert "torch 2." in card
    assert "posesweep predict FOLDER" in card


def test_the_card_has_the_score_on_the_test_split(handed_over, tmp_path):
    copied = handed_over.moved(tmp_path)
    one = {"trial": 0, "role": "baseline", "AP": {"value": 0.5, "low": 0.4, "high": 0.6}, "gain": None}
    write_json(copied.sweep / "test.json", {"used": "2026-11-28", "trials": [one], "notes": []})
    export(copied.sweep, tmp_path / "winner")
    card = (tmp_path / "winner" / "README.md").read_text()
    assert "- test: trial 0, the baseline, AP 0.500 [0.400, 0.600]" in card


def test_the_card_of_a_promoted_winner_speaks_of_those_trained_as_long(handed_over, tmp_path):
    """The search's gain, ties and score on the test split are of another, shorter training."""
    copied = handed_over.moved(tmp_path)
    again = copied.sweep / "promote-9" / "0000-s101"
    shutil.copytree(copied.sweep / "trials" / "0000", again)
    write_json(again / "status.json", {**read_json(again / "status.json"), "best": 0.99, "state": "finished"})
    run = {"trial": 0, "seed": 101, "folder": "promote-9/0000-s101"}
    candidates = [{"trial": 0, "role": "baseline"}]
    record = {"candidates": candidates, "seeds": [101], "epochs": 9, "baseline": 0, "trials": 1, "runs": [run]}
    write_json(copied.sweep / "promote-9.json", record)
    one = {"trial": 0, "role": "baseline", "AP": {"value": 0.5, "low": 0.4, "high": 0.6}, "gain": None}
    tested = {"used": "2026-11-28", "trials": [{**one, "folder": "trials/0000"}], "notes": []}
    write_json(copied.sweep / "test.json", tested)
    export(copied.sweep, tmp_path / "winner")
    card = (tmp_path / "winner" / "README.md").read_text()
    assert ", promoted to 9 epochs (seed 101)\n" in card
    assert "that score is of the weights in trials/0000; these were trained anew and have none" in card


def test_gain_and_ties_of_a_promoted_trial(tmp_path):
    gain = Interval(0.02, 0.01, 0.03)
    rows = [
        Promoted(n, role, 101, 60, tmp_path, 0.9, tied=n != 7, gain=gain)
        for n, role in ((4, "search"), (5, "search"), (7, "baseline"))
    ]
    assert how_sure_when_promoted(rows[0], rows) == (
        ", promoted to 60 epochs (seed 101); gain over the baseline trained as long +0.020 [+0.010, +0.030]; tied with "
        "1 other trial trained as long, which this validation set cannot tell apart"
    )


def test_a_training_and_an_export_can_be_exported(handed_over, tmp_path):
    export(handed_over.training, tmp_path / "first")
    export(tmp_path / "first", tmp_path / "second", "--onnx")
    first = (tmp_path / "first" / "README.md").read_text()
    second = (tmp_path / "second" / "README.md").read_text()
    assert second.startswith(first)
    assert "## model.onnx" in second
    export(tmp_path / "second", tmp_path / "third")
    assert (tmp_path / "third" / "README.md").read_text() == first
    settings = [yaml.safe_load((tmp_path / name / "best.yaml").read_text()) for name in ("first", "third")]
    assert settings[0] == settings[1]


def test_an_earlier_export_is_replaced_whole(handed_over, tmp_path):
    export(handed_over.sweep, tmp_path / "winner")
    (tmp_path / "winner" / "model.onnx").touch()
    (tmp_path / "winner" / "notes.txt").touch()
    export(handed_over.sweep, tmp_path / "winner")
    assert (tmp_path / "winner" / "notes.txt").exists()
    assert not (tmp_path / "winner" / "model.onnx").exists(), "it would be of other weights"


def test_nothing_is_left_of_an_export_that_fails(handed_over, tmp_path, monkeypatch, capsys):
    from posesweep.trainables import export as module

    def fails(*_):
        raise OSError(28, "No space left on device", "model.onnx")

    monkeypatch.setattr(module, "write_onnx", fails)
    export(handed_over.sweep, tmp_path / "winner", "--onnx", expect=2)
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_places_that_would_be_spoiled_are_refused(handed_over, tmp_path, capsys):
    export(handed_over.sweep, handed_over.sweep, expect=2)
    assert "is the folder of a sweep or a training; give a new folder" in capsys.readouterr().err
    export(handed_over.sweep, tmp_path / "winner")
    export(tmp_path / "winner", tmp_path / "winner", expect=2)
    assert "is where the winner comes from" in capsys.readouterr().err
    (tmp_path / "file").touch()
    export(handed_over.sweep, tmp_path / "file", expect=2)
    assert "is a file; give a folder" in capsys.readouterr().err
    export(handed_over.sweep, tmp_path / "other", "--decode", expect=2)
    assert "--decode: is for model.onnx; give --onnx, too" in capsys.readouterr().err


def test_onnx_is_held_against_torch_on_validation_objects(handed_over, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    export(handed_over.sweep, tmp_path / "winner", "--onnx")
    said = capsys.readouterr().out
    assert "over 4 validation objects" in said
    assert float(said.split("difference to torch ")[1].split()[0]) <= 1e-4
    assert said.split("difference to torch ")[1].split()[0] in (tmp_path / "winner" / "README.md").read_text()


@pytest.mark.parametrize(
    "form", [["--decode"], pytest.param(["--decode", "--normalised"], marks=pytest.mark.slow)], ids=" ".join
)
def test_the_script_beside_it_finds_what_predict_finds(handed_over, tmp_path, form):
    """In a process that cannot import PoseSweep or torch."""
    pytest.importorskip("onnxruntime")
    export(handed_over.sweep, tmp_path / "winner", "--onnx", *form)
    image, box = handed_over.images[0], [20, 10, 90, 80]
    (tmp_path / "box.csv").write_text(f"file,x,y,w,h\n{image.name},{','.join(map(str, box))}\n")
    options = ["--boxes", str(tmp_path / "box.csv"), "--no-flip-test", "--no-overlays", "--out", str(tmp_path / "out")]
    assert main(["predict", str(tmp_path / "winner"), str(image), *options]) == 0
    (expected,) = read_json(tmp_path / "out" / "predictions.json")
    guard = "import sys, runpy; sys.modules.update(torch=None, posesweep=None); sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", guard + "runpy.run_path(sys.argv[0], run_name='__main__')", "run_onnx.py"]
    command += ["model.onnx", str(image), *map(str, box), "--draw", "found.png"]
    done = subprocess.run(command, cwd=tmp_path / "winner", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = np.array([[float(word) for word in line.split()[1:]] for line in done.stdout.splitlines()])
    np.testing.assert_allclose(rows, np.reshape(expected["keypoints"], (-1, 3)), atol=0.02)
    assert cv2.imread(str(tmp_path / "winner" / "found.png")).shape == (120, 160, 3)


@pytest.mark.slow
def test_the_script_without_decoding_is_within_a_cell(handed_over, tmp_path):
    pytest.importorskip("onnxruntime")
    export(handed_over.sweep, tmp_path / "coarse", "--onnx")
    export(handed_over.sweep, tmp_path / "fine", "--onnx", "--decode")
    image = cv2.cvtColor(cv2.imread(str(handed_over.images[0])), cv2.COLOR_BGR2RGB)
    found = [
        run_onnx.predict(*run_onnx.load(str(tmp_path / name / "model.onnx")), image, [20.0, 10.0, 90.0, 80.0])
        for name in ("coarse", "fine")
    ]
    assert np.abs(found[0][:, :2] - found[1][:, :2]).max() <= 0.26 * 4 * 90 * 1.25 / 63
    np.testing.assert_allclose(found[0][:, 2], found[1][:, 2], atol=1e-4)
