"""`posesweep synth`: the written folder is whole, reads back exactly, and never takes the place of anything else."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets import synthetic_set
from posesweep.datasets.coco import read_coco
from posesweep.datasets.read import read_any
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.synthetic import render_horse, write_synthetic
from posesweep.datasets.synthetic_set import SynthRequest, check_set, run, write_set
from posesweep.errors import DataError

SMALL = SynthRequest(n=12, keypoints=68, seed=3, size=(160, 120), workers=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "horses"
    write_set(out, SMALL)
    return out


def test_the_folder_holds_what_the_module_says(made):
    assert sorted(path.name for path in made.iterdir()) == [
        "annotations.json",
        "images",
        "keypoints.csv",
        "overlay.png",
    ]
    assert len(list((made / "images").iterdir())) == 12
    assert [path.name for path in made.parent.iterdir()] == ["horses"]  # nothing is left beside it
    assert cv2.imread(str(made / "overlay.png")).shape[1] == 1200


def test_coco_json_reads_back_as_the_horses_that_were_drawn(made):
    instances = read_coco(made / "annotations.json")
    assert instances.skeleton.name == "horse68"
    drawn = [render_horse(3, i, (160, 120)) for i in range(12)]
    visibility = np.concatenate([picture.visibility for picture in drawn])
    np.testing.assert_array_equal(instances.visibility[:, :26], visibility)
    points = np.concatenate([picture.keypoints for picture in drawn])
    np.testing.assert_allclose(instances.keypoints[:, :26][visibility > 0], points[visibility > 0], atol=6e-4)


def test_the_table_holds_the_same_points_and_the_3d_ones(made):
    document = json.loads((made / "annotations.json").read_text())
    rows = [line.split(",") for line in (made / "keypoints.csv").read_text().splitlines()]
    assert rows[0] == ["image", "instance", "keypoint", "x", "y", "visibility", "X", "Y", "Z"]
    assert len(rows) == 1 + 68 * len(document["annotations"])
    names = load_skeleton("horse68").keypoints
    for i, row in enumerate(rows[1:]):
        annotation, k = document["annotations"][i // 68], i % 68
        x, y, flag = annotation["keypoints"][3 * k : 3 * k + 3]
        assert row[0] == f"images/{annotation['image_id'] - 1:06d}.jpg"
        assert row[2] == names[k]
        assert row[3:5] == ([str(x), str(y)] if flag else ["", ""])
        assert [float(value) for value in row[5:]] == [flag, *annotation["points_3d"][k]]
    read = read_any(made / "keypoints.csv")
    np.testing.assert_array_equal(read.visibility, read_coco(made / "annotations.json").visibility)


def test_the_26_points_are_those_of_the_demo_s_files(tmp_path):
    demo = json.loads(write_synthetic(tmp_path / "demo", 4, seed=3, size=(160, 120)).read_text())
    write_set(tmp_path / "own", replace(SMALL, n=4, keypoints=26))
    own = json.loads((tmp_path / "own" / "annotations.json").read_text())
    for key in ("images", "annotations", "categories"):
        assert own[key] == demo[key]
    for image in (tmp_path / "demo" / "images").iterdir():
        assert (tmp_path / "own" / "images" / image.name).read_bytes() == image.read_bytes()


def test_the_sanity_check_projects_every_point_and_counts_them(made):
    sanity = check_set(made)
    document = json.loads((made / "annotations.json").read_text())
    assert sanity.instances == len(document["annotations"])
    assert 0 < sanity.reprojection_px < 0.01
    flags = np.array([annotation["keypoints"][2::3] for annotation in document["annotations"]])
    np.testing.assert_array_equal(sanity.visibility, np.stack([(flags == v).sum(axis=0) for v in (0, 1, 2)], axis=1))
    assert sanity.never_seen == [n for n, seen in zip(sanity.names, (flags == 2).any(axis=0), strict=True) if not seen]


@pytest.mark.parametrize("size", [(160, 120), (1600, 1200)])
def test_rounding_stays_below_a_hundredth_of_a_pixel(tmp_path, size):
    assert write_set(tmp_path / "out", replace(SMALL, n=2, size=size)).reprojection_px < 0.005


def copied(made: Path, to: Path, change) -> Path:
    document = json.loads((made / "annotations.json").read_text())
    change(document)
    (to / "images").mkdir(parents=True)
    for image in (made / "images").iterdir():
        (to / "images" / image.name).write_bytes(image.read_bytes())
    (to / "annotations.json").write_text(json.dumps(document))
    return to


def test_a_set_changed_by_hand_fails_its_check(made, tmp_path):
    def moved(document):
        k = next(k for k in range(68) if document["annotations"][1]["keypoints"][3 * k + 2])
        document["annotations"][1]["keypoints"][3 * k] += 0.5

    with pytest.raises(DataError, match=r"annotation 2 has a keypoint 0\.50\d px from the projection of its 3D point"):
        check_set(copied(made, tmp_path / "moved", moved))
    whole = copied(made, tmp_path / "less", lambda document: None)
    (whole / "images" / "000003.jpg").unlink()
    with pytest.raises(DataError, match=r"images/000003.jpg is missing; delete the folder and draw it again"):
        check_set(whole)


def test_the_same_set_is_left_alone_and_another_is_refused(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert write_set(made, replace(SMALL, workers=2)).instances == check_set(made).instances
    with pytest.raises(DataError, match=r"holds another data set \(seed 3 instead of 4, keypoints 68 instead of 26\)"):
        write_set(made, replace(SMALL, seed=4, keypoints=26))
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@pytest.mark.parametrize("name", ["thesis.tex", "annotations.json", "images"])
def test_a_folder_with_anything_else_is_never_touched(tmp_path, name):
    (tmp_path / name).write_text("years of work")
    with pytest.raises(DataError, match=r"holds (files that are not a set of synthetic horses|another data set)"):
        write_set(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert write_set(tmp_path / "out", replace(SMALL, n=1)).instances >= 1


def test_nothing_is_left_after_an_interrupt(tmp_path):
    def stop(done: int, n: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "out", SMALL, stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (replace(SMALL, keypoints=27), "synth: the horse has no 27 keypoints; take 26 or 68"),
        (replace(SMALL, n=0), "synth: 0 pictures cannot be drawn; take 1 or more"),
        (replace(SMALL, seed=-1), "synth: seed -1 must be 0 or more"),
        (replace(SMALL, size=(40, 240)), "synth: 40 x 240 pixels; both sides must be 64 to 4000"),
        (replace(SMALL, size=(5000, 240)), "synth: 5000 x 240 pixels; both sides must be 64 to 4000"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, request_, sentence):
    with pytest.raises(DataError) as error:
        write_set(tmp_path / "out", request_)
    assert str(error.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_the_files_do_not_depend_on_the_number_of_processes(made, tmp_path):
    write_set(tmp_path / "out", replace(SMALL, workers=2))
    for path in made.rglob("*.*"):
        assert (tmp_path / "out" / path.relative_to(made)).read_bytes() == path.read_bytes(), path.name


def test_workers_are_no_more_than_cpus_and_work(monkeypatch):
    monkeypatch.setattr(synthetic_set.os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    asked = [SynthRequest(n=n) for n in (1, 199, 200, 1000)]
    assert [synthetic_set._workers(request) for request in asked] == [0, 1, 2, 3]


def test_run_says_what_it_made(tmp_path, capsys):
    run(tmp_path / "out", replace(SMALL, n=2))
    said = capsys.readouterr().out
    assert "3D points through the camera give the 2D keypoints within 0.00" in said
    assert "left_front_coronet" in said
    assert f"data: {{train: {tmp_path / 'out' / 'annotations.json'}, skeleton: horse68}}" in said
