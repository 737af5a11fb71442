"""The DeepLabCut reader: small tables by hand, the openfield frames, and the sentence for every kind of bad table."""

import csv
from pathlib import Path

import numpy as np
import pytest

from posesweep.datasets.dlc import read_dlc
from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import DataError

OPENFIELD = Path(__file__).resolve().parents[2] / "../shared/data/openfield"
TABLE = "labeled-data/m4s1/CollectedData_Pranav.csv"

HEADER = ["scorer,Ann,Ann,Ann,Ann,Ann,Ann", "bodyparts,nose,nose,left,left,right,right", "coords,x,y,x,y,x,y"]
ROWS = ["labeled-data/cage/img2.png,10,20,30,20,,", "labeled-data/cage/img1.png,1,2,3,4,5,12"]


def write(project, rows=ROWS, header=HEADER, images=("img1.png", "img2.png")):
    """A DeepLabCut project of one video with empty frames; the path of its table."""
    folder = project / "labeled-data" / "cage"
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        (folder / image).touch()
    path = folder / "CollectedData_Ann.csv"
    path.write_text("\n".join([*header, *rows]) + "\n")
    return path


def test_columns_of_a_small_table(tmp_path):
    data = read_dlc(write(tmp_path), box_margin=0.5)
    assert [file.relative_to(tmp_path).as_posix() for file in data.image_files] == [
        "labeled-data/cage/img1.png",
        "labeled-data/cage/img2.png",
    ]
    assert data.keypoints.tolist() == [[[1, 2], [3, 4], [5, 12]], [[10, 20], [30, 20], [0, 0]]]
    assert data.visibility.tolist() == [[2, 2, 2], [2, 2, 0]]
    # keypoints 4 wide and 10 high, half of 10 on every side; 20 wide and flat, half of 20 on every side
    assert data.boxes.tolist() == [[-4, -3, 14, 20], [0, 10, 40, 20]]
    np.testing.assert_allclose(data.areas, [0.53 * 14 * 20, 0.53 * 40 * 20])
    assert data.image_groups == ("cage", "cage")
    assert data.skeleton.flip_pairs == (("left", "right"),)
    assert data.notes[0].startswith("CollectedData_Ann.csv: OKS sigmas were not given: 0.05 for every keypoint")
    assert data.notes[1] == (
        "CollectedData_Ann.csv: boxes are drawn around the keypoints, 0.5 of the longer side added on every side"
    )


def test_the_frame_in_three_columns_is_the_same_table(tmp_path):
    header = [line.replace(",", ",,,", 1) for line in HEADER]
    rows = [line.replace("/", ",") for line in ROWS]
    one, three = read_dlc(write(tmp_path / "one")), read_dlc(write(tmp_path / "three", rows, header))
    np.testing.assert_array_equal(one.keypoints, three.keypoints)
    assert [file.name for file in one.image_files] == [file.name for file in three.image_files]


def test_tables_from_windows(tmp_path):
    header = ["\ufeff" + HEADER[0], *HEADER[1:]]
    assert len(read_dlc(write(tmp_path, [row.replace("/", "\\") for row in ROWS], header))) == 2


@pytest.mark.parametrize("below", [".", "labeled-data", "labeled-data/cage"])
def test_frames_are_found_in_the_project_its_labels_or_its_video(tmp_path, below):
    table = write(tmp_path)
    elsewhere = tmp_path / "elsewhere.csv"
    table.rename(elsewhere)
    data = read_dlc(elsewhere, tmp_path / below)
    assert all(file.is_file() for file in data.image_files)


def test_body_parts_go_by_name(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("keypoints: [right, nose]\n")
    data = read_dlc(write(tmp_path, ROWS[1:]), skeleton=load_skeleton(own))
    assert data.keypoints.tolist() == [[[5, 12], [1, 2]]]
    assert "CollectedData_Ann.csv: keypoints that skeleton own does not have are left out: left" in data.notes


def test_frames_with_too_few_labels_are_left_out_and_counted(tmp_path):
    rows = [*ROWS, "labeled-data/cage/img3.png,,,,,,", "labeled-data/cage/img4.png,1,1,,,,"]
    data = read_dlc(write(tmp_path, rows))
    assert len(data) == 2
    left_out = "2 objects have no box and fewer than two labels, too few to draw one; left out"
    assert f"CollectedData_Ann.csv: {left_out}" in data.notes


SEVERAL = ["scorer,A,A,A,A,A,A,A,A,A,A", "individuals,m1,m1,m1,m1,m2,m2,m2,m2,single,single"]
SEVERAL += ["bodyparts,nose,nose,tail,tail,nose,nose,tail,tail,led,led", "coords,x,y,x,y,x,y,x,y,x,y"]


def test_several_animals_are_objects_of_one_frame(tmp_path):
    rows = ["labeled-data/cage/img1.png,1,2,3,4,10,20,30,40,7,7", "labeled-data/cage/img2.png,,,,,5,6,7,8,7,7"]
    data = read_dlc(write(tmp_path, rows, SEVERAL))
    assert data.skeleton.keypoints == ("nose", "tail")
    assert data.image_index.tolist() == [0, 0, 1]
    assert data.identities == ("m1", "m2", "m2")
    assert data.keypoints.tolist() == [[[1, 2], [3, 4]], [[10, 20], [30, 40]], [[5, 6], [7, 8]]]
    unique = "CollectedData_Ann.csv: unique body parts, which belong to no animal, are left out: led"
    assert data.notes[0] == unique
    assert not any("too few" in note for note in data.notes)  # m1 is not in the second frame: nothing is left out


BAD = {
    "no animal": (
        ["scorer,Ann,Ann", "individuals,single,single", "bodyparts,led,led", "coords,x,y"],
        ["labeled-data/cage/img1.png,1,2"],
        "has unique body parts only, of no animal; nothing to learn from",
    ),
    "predictions": (
        ["scorer,DLC,DLC,DLC", "bodyparts,nose,nose,nose", "coords,x,y,likelihood"],
        ["0,1,2,0.9"],
        "holds predictions (it has likelihood columns), not labels; give CollectedData_*.csv",
    ),
    "another table": (
        ["frame,x,y", "a.png,1,2", "b.png,1,2"],
        ["c.png,1,2"],
        "is not a DeepLabCut table of labels: rows scorer, bodyparts, coords, then frames",
    ),
    "no frames": (HEADER, [], "is not a DeepLabCut table of labels: rows scorer, bodyparts, coords, then frames"),
    "column missing": (
        ["scorer,Ann,Ann,Ann", "bodyparts,nose,nose,left", "coords,x,y,x"],
        ROWS,
        "every body part needs one column x and one column y, side by side",
    ),
    "row cut off": (
        HEADER,
        ["labeled-data/cage/img1.png,1,2,3", ROWS[0]],
        "frame labeled-data/cage/img1.png: has 3 coordinates, 3 body parts need 6",
    ),
    "not a number": (
        HEADER,
        ["labeled-data/cage/img1.png,1,2,3,4,5,six", ROWS[0]],
        "frame labeled-data/cage/img1.png: y of 'right' is 'six'; coordinates are numbers, or blank where not labelled",
    ),
    "infinite": (
        HEADER,
        ["labeled-data/cage/img1.png,1,2,3,4,5,inf", ROWS[0]],
        "frame labeled-data/cage/img1.png: y of 'right' is 'inf'; coordinates must be finite numbers",
    ),
    "half a point": (
        HEADER,
        ["labeled-data/cage/img1.png,1,2,3,4,5,", ROWS[0]],
        "frame labeled-data/cage/img1.png: only one of x and y of 'right' is given; fill in both or neither",
    ),
    "frame twice": (
        HEADER,
        [ROWS[0], ROWS[0]],
        "frame labeled-data/cage/img2.png: is listed twice; every frame has one row",
    ),
    "nothing labelled": (
        HEADER,
        ["labeled-data/cage/img1.png,,,,,,"],
        "none of its 1 objects has a labelled keypoint and a box, or two labels to draw one; nothing to learn from",
    ),
    "outside": (
        HEADER,
        [ROWS[1], "../../secret.png,1,2,3,4,5,12"],
        "image ../../secret.png: file name '../../secret.png' leads out of the images folder {folder}; "
        "images must lie below it",
    ),
    "missing frames": (
        HEADER,
        [ROWS[1], "labeled-data/cage/img3.png,1,2,3,4,5,12"],
        "1 of 2 images are not below the folder {folder} (looked for {folder}/labeled-data/cage/img3.png, "
        "for example); name the folder of the images as data.images",
    ),
}


@pytest.mark.parametrize(("header", "rows", "sentence"), BAD.values(), ids=BAD)
def test_bad_tables(tmp_path, header, rows, sentence):
    table = write(tmp_path, rows, header)
    with pytest.raises(DataError) as error:
        read_dlc(table)
    assert str(error.value) == f"{table}: {sentence.format(folder=tmp_path)}"


def test_keypoints_on_a_line_need_a_margin(tmp_path):
    table = write(tmp_path)
    with pytest.raises(DataError) as error:
        read_dlc(table, box_margin=0.0)
    assert str(error.value) == (
        f"{table}: image labeled-data/cage/img2.png: its keypoints lie on one line, so their box has no area; "
        "give it a box, or raise box_margin"
    )


def test_a_skeleton_with_other_names(tmp_path):
    table = write(tmp_path)
    own = tmp_path / "own.yaml"
    own.write_text("keypoints: [nose, lefty]\n")
    with pytest.raises(DataError) as error:
        read_dlc(table, skeleton=load_skeleton(own))
    assert str(error.value) == f"{table}: there is no keypoint 'lefty' of skeleton own; did you mean 'left'?"


def test_openfield_against_plain_counting():
    table = OPENFIELD / TABLE
    if not table.is_file():
        pytest.skip("shared/data/openfield is not here")
    rows = list(csv.reader(table.open(newline="")))[3:]
    data = read_dlc(table)
    assert len(data) == len(rows) == 116
    assert data.skeleton.name == "mouse4"
    assert (data.visibility > 0).sum() == sum(cell != "" for row in rows for cell in row[1:]) / 2
    for file, keypoints, box, row in zip(data.image_files, data.keypoints, data.boxes, rows, strict=True):
        assert file.resolve() == (OPENFIELD / row[0]).resolve()
        assert keypoints.ravel().tolist() == [float(cell) for cell in row[1:]]
        assert (box[:2] < keypoints.min(axis=0)).all()
        assert (box[:2] + box[2:] > keypoints.max(axis=0)).all()
