"""posesweep predict: what it finds is what validation found, and nothing but the model is needed for it."""

import csv
import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from pycocotools.coco import COCO

from posesweep.cli import main
from posesweep.datasets.videos import Mp4, frames_of, read_clip
from posesweep.files import read_json
from posesweep.trainables import predict as module
from posesweep.trainables.predict import follow
from posesweep.trainables.predictions import Found
from posesweep.trainables.trained import Predictor


def predict(*arguments, expect: int = 0) -> None:
    assert main(["predict", *map(str, arguments)]) == expect


def results(out) -> list[dict]:
    return read_json(out / "predictions.json")


@pytest.fixture
def video(handed_over, tmp_path):
    """Seven frames: the validation images, one after the other."""
    clip = Mp4(tmp_path / "videos" / "horse.mp4", 5.0)
    for path in handed_over.images[:7]:
        clip.add(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
    clip.close()
    return tmp_path / "videos" / "horse.mp4"


def test_in_annotated_boxes_it_finds_what_validation_found(handed_over, tmp_path, capsys):
    predict(handed_over.sweep, *handed_over.images, "--boxes", handed_over.annotations, "--out", tmp_path, "--nms", "1")
    with np.load(handed_over.training / "evidence.npz") as evidence:
        truth = {
            tuple(np.round(box, 3)): (points, score)
            for box, points, score in zip(evidence["box"], evidence["keypoints"], evidence["score"], strict=True)
        }
    found = results(tmp_path)
    assert len(found) == len(truth)
    for entry in found:
        points, score = truth[tuple(entry["bbox"])]
        np.testing.assert_allclose(np.reshape(entry["keypoints"], (-1, 3))[:, :2], points, atol=2e-3)
        assert entry["score"] == pytest.approx(score, abs=1e-5)
    assert f"{len(found)} objects in 8 pictures by trial 0 of" in capsys.readouterr().out


def test_the_whole_picture_is_the_box_where_none_is_given_and_that_is_said_once(handed_over, tmp_path, capsys):
    predict(handed_over.sweep, handed_over.images[0].parent, "--out", tmp_path / "out")
    assert capsys.readouterr().out.count("whole picture is taken for the box") == 1
    assert [entry["bbox"] for entry in results(tmp_path / "out")] == [[0, 0, 160, 120]] * 8
    overlays = sorted((tmp_path / "out" / "overlays").iterdir())
    assert [path.name for path in overlays] == [f"{path.stem}.jpg" for path in handed_over.images]
    assert cv2.imread(str(overlays[0])).shape == (360, 480, 3)  # small pictures are enlarged


def test_pycocotools_reads_the_results(handed_over, tmp_path, capsys):
    predict(handed_over.training, *handed_over.images, "--out", tmp_path, "--no-overlays")
    dataset = COCO(str(tmp_path / "images.json"))
    assert len(dataset.loadRes(str(tmp_path / "predictions.json")).anns) == 8
    assert {image["file_name"] for image in dataset.imgs.values()} == {path.name for path in handed_over.images}
    assert not (tmp_path / "overlays").exists()


def test_the_table_is_read_as_deeplabcut_reads_it(handed_over, tmp_path):
    predict(handed_over.sweep, *handed_over.images, "--out", tmp_path, "--no-overlays")
    table = pd.read_csv(tmp_path / "tables" / "images.csv", header=[0, 1, 2], index_col=0)
    assert table.columns.names == ["scorer", "bodyparts", "coords"]
    first = results(tmp_path)[0]["keypoints"]
    assert table.loc[handed_over.images[0].name, ("posesweep", "left_nostril", "x")] == first[0]
    assert table.shape == (8, 26 * 3)


def test_a_video_gives_a_table_an_overlay_and_frames_with_their_time(handed_over, video, tmp_path):
    predict(handed_over.sweep, video.parent, "--out", tmp_path / "out", "--batch", "3")
    images = read_json(tmp_path / "out" / "images.json")["images"]
    assert [(image["file_name"], image["frame"]) for image in images] == [("horse.mp4", i) for i in range(7)]
    assert images[5]["time_s"] == 1.0
    table = pd.read_csv(tmp_path / "out" / "tables" / "horse.csv", header=[0, 1, 2], index_col=0)
    assert table.index.tolist() == list(range(7))
    drawn = list(frames_of(read_clip(tmp_path / "out" / "overlays" / "horse.mp4")))
    assert len(drawn) == 7
    assert drawn[0].shape == (360, 480, 3)


def test_boxes_of_frames_come_from_a_table(handed_over, video, tmp_path):
    (tmp_path / "boxes.csv").write_text(
        "file,x,y,w,h,frame\nhorse.mp4,10,10,80,80,0\nhorse.mp4,20,10,80,80,3\nhorse.mp4,90,20,60,90,3\n"
    )
    predict(handed_over.sweep, video, "--boxes", tmp_path / "boxes.csv", "--out", tmp_path / "out", "--nms", "1")
    assert [entry["image_id"] for entry in results(tmp_path / "out")] == [1, 4, 4]
    rows = list(csv.reader((tmp_path / "out" / "tables" / "horse.csv").open()))
    assert rows[1][:1] == ["individuals"]
    assert {*rows[1][1:]} == {"object1", "object2"}
    assert rows[5] == ["1", *[""] * (2 * 26 * 3)]


def test_a_box_follows_the_keypoints(handed_over, video, tmp_path, monkeypatch):
    """The network is replaced by one that always answers with the same two points in the picture."""

    def answer(self, inputs, to_image):
        rows = np.zeros((len(inputs), 26, 3))
        rows[:, :13, :2], rows[:, 13:, :2], rows[..., 2] = (40, 50), (80, 70), 0.9
        return rows

    monkeypatch.setattr(Predictor, "__call__", answer)
    predict(handed_over.sweep, video, "--track", "--out", tmp_path / "out", "--no-overlays")
    boxes = [entry["bbox"] for entry in results(tmp_path / "out")]
    assert boxes == [[0, 0, 160, 120]] + [[30, 40, 60, 40]] * 6  # a quarter of 40 pixels around them


def test_an_object_that_is_lost_is_looked_for_anew():
    rows = np.zeros((2, 10, 3))
    rows[0, :3] = [[10, 10, 0.9], [30, 20, 0.9], [20, 15, 0.9]]
    rows[1, :2] = [[10, 10, 0.9], [30, 20, 0.9]]  # two of ten
    found = Found(rows, np.ones(2), np.ones((2, 4)), np.array([1, 2]))
    followed = follow(found, 32, 24)
    assert followed.boxes.tolist() == [[5, 5, 27, 19]]  # cut at the frame
    assert followed.category_ids.tolist() == [1]
    assert follow(Found(rows[1:], np.ones(1), np.ones((1, 4)), np.ones(1, int)), 32, 24) is None


def test_what_cannot_be_read_is_named_and_the_rest_is_done(handed_over, tmp_path, capsys):
    (tmp_path / "in" / "empty").mkdir(parents=True)
    shutil.copy(handed_over.images[0], tmp_path / "in" / "good.jpg")
    (tmp_path / "in" / "torn.jpg").write_bytes(handed_over.images[1].read_bytes()[:900])
    (tmp_path / "in" / "text.png").write_text("no image")
    (tmp_path / "in" / "torn.mp4").write_bytes(b"no video")
    given = [tmp_path / "in", tmp_path / "in" / "empty", tmp_path / "in" / "none.jpg"]
    predict(handed_over.sweep, *given, "--out", tmp_path / "out", expect=1)
    said = capsys.readouterr()
    assert sorted(line.replace(f"{tmp_path}/in/", "") for line in said.err.splitlines()) == [
        "left out: empty: holds no image and no video",
        "left out: none.jpg: missing",
        "left out: text.png: not an image",
        "left out: torn.jpg: truncated",
        "left out: torn.mp4: not a video that can be read",
    ]
    assert "1 objects in 1 pictures" in said.out
    assert len(results(tmp_path / "out")) == 1


def test_where_nothing_can_be_read_nothing_is_written(handed_over, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    predict(handed_over.sweep, tmp_path / "empty", "--out", tmp_path / "out", expect=1)
    assert "nothing is written" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_an_interruption_leaves_nothing(handed_over, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.files, "write_jpeg", interrupted)
    predict(handed_over.sweep, *handed_over.images, "--out", tmp_path / "out", expect=130)
    assert "nothing half-written is left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_replaces_the_first_and_nothing_else(handed_over, tmp_path, capsys):
    predict(handed_over.sweep, *handed_over.images[:3], "--out", tmp_path / "out")
    predict(handed_over.sweep, *handed_over.images[3:5], "--out", tmp_path / "out")
    assert len(results(tmp_path / "out")) == len(list((tmp_path / "out" / "overlays").iterdir())) == 2
    (tmp_path / "out" / "mine.txt").touch()
    predict(handed_over.sweep, *handed_over.images, "--out", tmp_path / "out", expect=2)
    assert "holds other files (mine.txt); give a new folder" in capsys.readouterr().err


def test_the_export_predicts_on_a_machine_without_the_data(handed_over, tmp_path, capsys):
    assert main(["export", str(handed_over.sweep), str(tmp_path / "winner")]) == 0
    settings = tmp_path / "winner" / "best.yaml"
    config = yaml.safe_load(settings.read_text())
    config["data"] |= {
        "train": "/nowhere/a.json",
        "val": "/nowhere/b.json",
        "images": None,
        "skeleton": "/nowhere.yaml",
    }
    settings.write_text(yaml.safe_dump(config))
    shutil.move(tmp_path / "winner", tmp_path / "elsewhere")
    common = [*handed_over.images[:2], "--no-overlays"]
    predict(tmp_path / "elsewhere", *common, "--out", tmp_path / "a")
    predict(handed_over.sweep, *common, "--out", tmp_path / "b")
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_a_copied_sweep_predicts_reports_and_exports_without_its_data(handed_over, tmp_path, capsys):
    copied = handed_over.moved(tmp_path)
    split = read_json(copied.sweep / "split.json")
    gone = {i: f"/nowhere/{i}.jpg" for i in split["images"]}
    (copied.sweep / "split.json").write_text(json.dumps({**split, "images": gone}))
    (copied.training / "skeleton.yaml").unlink()  # as of versions that did not write it: split.json says
    predict(copied.sweep, handed_over.images[0], "--out", tmp_path / "out")
    assert main(["report", str(copied.sweep)]) == 0
    assert main(["export", str(copied.sweep), str(tmp_path / "winner")]) == 0


def test_boxes_of_other_pictures_are_told(handed_over, tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text("file,x,y,w,h\nother.jpg,1,1,20,20\n")
    arguments = [handed_over.images[0], "--boxes", tmp_path / "boxes.csv", "--out", tmp_path / "out"]
    predict(handed_over.sweep, *arguments, expect=2)
    said = capsys.readouterr().err
    assert "none of its 1 boxes is of a picture that is given (it names other.jpg, the first picture is 0" in said
    assert not (tmp_path / "out").exists()


def test_pictures_without_a_box_are_counted_and_low_scores_left_out(handed_over, tmp_path, capsys):
    name = handed_over.images[0].name
    (tmp_path / "b.csv").write_text(f"file,x,y,w,h,score\n{name},1,1,90,90,0.9\n{name},30,20,90,90,0.1\n")
    arguments = [*handed_over.images[:3], "--boxes", tmp_path / "b.csv", "--min-score", "0.5", "--no-overlays"]
    predict(handed_over.sweep, *arguments, "--out", tmp_path / "out")
    assert "2 pictures have no box: nothing is predicted in them" in capsys.readouterr().out
    (only,) = results(tmp_path / "out")
    assert only["bbox"] == [1, 1, 90, 90]
    assert only["score"] < 0.9  # the box's times the keypoints'


def test_wrong_places_are_told_in_a_sentence(handed_over, tmp_path, capsys):
    image, out = handed_over.images[0], ["--out", tmp_path / "out"]
    predict(tmp_path / "nothing", image, *out, expect=2)
    assert "there is no such folder" in capsys.readouterr().err
    predict(handed_over.sweep, image, "--trial", "7", *out, expect=2)
    assert "no trial 7; it has 1 trials" in capsys.readouterr().err
    predict(handed_over.training, image, "--trial", "7", *out, expect=2)
    assert "is the folder of one training; give a sweep folder, or leave --trial out" in capsys.readouterr().err
    copied = handed_over.moved(tmp_path)
    (copied.training / "best" / "weights.safetensors").unlink()
    predict(copied.sweep, image, *out, expect=2)
    assert "weights of trial 0 of" in (said := capsys.readouterr().err)
    assert "were not kept" in said
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "best.yaml").touch()
    predict(tmp_path / "half", image, *out, expect=2)
    assert "has best.yaml and no weights.safetensors; copy the whole folder" in capsys.readouterr().err
