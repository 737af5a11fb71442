"""Plain tables, long and wide, CSV and Parquet, and the sentence for every kind of bad one."""

import pandas as pd
import pytest

from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.table import read_table
from posesweep.errors import DataError

LONG = """image,instance,keypoint,x,y,visibility
a.png,1,nose,1,2,2
a.png,1,tail,11,2,1
a.png,2,nose,5,5.25,
a.png,2,tail,9,9,0
a.png,2,ear,7,8,2
b.png,1,nose,,,
b.png,1,tail,3,4,2
b.png,1,ear,6,8,2
"""
WIDE = """image,instance,nose_x,nose_y,nose_v,tail_x,tail_y,tail_v,ear_x,ear_y,ear_v
a.png,1,1,2,2,11,2,1,,,0
a.png,2,5,5.25,,9,9,0,7,8,2
b.png,1,,,,3,4,2,6,8,2
"""
POINTS = [[[1, 2], [11, 2], [0, 0]], [[5, 5.25], [0, 0], [7, 8]], [[0, 0], [3, 4], [6, 8]]]
VISIBILITY = [[2, 1, 0], [2, 0, 2], [0, 2, 2]]


def write(folder, text, name="labels.csv"):
    """The table with its (empty) images beside it."""
    for image in ("a.png", "b.png"):
        (folder / image).touch()
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [LONG, WIDE], ids=["long", "wide"])
def test_both_layouts(tmp_path, text):
    data = read_table(write(tmp_path, text))
    assert data.skeleton.keypoints == ("nose", "tail", "ear")
    assert data.keypoints.tolist() == POINTS
    assert data.visibility.tolist() == VISIBILITY
    assert data.image_index.tolist() == [0, 0, 1]
    # first object: 10 wide and flat, a quarter of 10 on every side
    assert data.boxes[0].tolist() == [-1.5, -0.5, 15, 5]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    assert read_table(write(tmp_path, WIDE.replace(",", separator))).keypoints.tolist() == POINTS


@pytest.mark.parametrize("text", [LONG, WIDE], ids=["long", "wide"])
def test_parquet(tmp_path, text):
    pytest.importorskip("pyarrow")
    csv = write(tmp_path, text)
    path = tmp_path / "labels.parquet"
    pd.read_csv(csv).to_parquet(path)
    data = read_table(path)
    assert data.keypoints.tolist() == POINTS
    assert data.visibility.tolist() == VISIBILITY


def test_boxes_categories_groups_and_identities(tmp_path):
    text = (
        "image,category,group,identity,box_x,box_y,box_width,box_height,area,crowd,nose_x,nose_y\n"
        "a.png,cat,yard,Tom,0,1,20,10,150,0,5,5\n"
        "b.png,dog,cage,,1,1,4,4,,1,2,2\n"
    )
    data = read_table(write(tmp_path, text))
    assert data.boxes.tolist() == [[0, 1, 20, 10], [1, 1, 4, 4]]
    assert data.areas.tolist() == [150, 0.53 * 16]
    assert data.crowd.tolist() == [False, True]
    assert data.image_groups == ("yard", "cage")
    assert data.identities == ("Tom", "")
    assert [data.category_names[i] for i in data.category_ids.tolist()] == ["cat", "dog"]


def test_names_in_any_order_find_the_shipped_skeleton(tmp_path):
    text = (
        "image,tailbase_x,tailbase_y,snout_x,snout_y,leftear_x,leftear_y,rightear_x,rightear_y\na.png,1,2,3,4,5,6,7,8\n"
    )
    data = read_table(write(tmp_path, text))
    assert data.skeleton.name == "mouse4"
    assert data.keypoints[0].tolist() == [[3, 4], [5, 6], [7, 8], [1, 2]]


def test_names_that_are_not_ascii(tmp_path):
    (tmp_path / "Füße").mkdir()
    (tmp_path / "Füße" / "колено 1.png").touch()
    data = read_table(write(tmp_path, "image,Knie_x,Knie_y,足_x,足_y\nFüße\\колено 1.png,1,2,3,4\n"))
    assert data.image_files[0] == tmp_path / "Füße" / "колено 1.png"
    assert data.skeleton.keypoints == ("Knie", "足")


BAD = {
    "no image column": (
        "frame,nose_x,nose_y\na.png,1,2\n",
        "has no column 'image' (columns: frame, nose_x, nose_y); a table of keypoints has image, keypoint, x, y, "
        "or image, nose_x, nose_y, ...",
    ),
    "no keypoints": (
        "image,width\na.png,5\n",
        "has neither the columns keypoint, x, y (a row a keypoint) nor columns like nose_x and nose_y (a row an "
        "object)",
    ),
    "half a keypoint": (
        "image,nose_x,nose_y,tail_x\na.png,1,2,3\n",
        "keypoint 'tail' has only one of the columns tail_x and tail_y; it needs both",
    ),
    "header only": ("image,nose_x,nose_y\n", "has a header and no rows; nothing to learn from"),
    "two columns of one name": (
        "image,nose_x,nose_y,nose_x\na.png,1,2,3\n",
        "has two columns 'nose_x'; every column needs its own name",
    ),
    "words": (
        "image,nose_x,nose_y,tail_x,tail_y\na.png,1,2,left,4\n",
        "row 2 (a.png): tail_x is 'left', which is no finite number",
    ),
    "infinity": (
        "image,nose_x,nose_y,tail_x,tail_y\na.png,1,2,inf,4\n",
        "row 2 (a.png): tail_x is 'inf', which is no finite number",
    ),
    "half a point": (
        "image,nose_x,nose_y,tail_x,tail_y,ear_x,ear_y\na.png,1,2,3,,4,5\n",
        "image a.png: keypoint 'tail' is at (3, nan); both coordinates must be finite numbers, or both blank where "
        "it is "
        "not labelled",
    ),
    "row twice": (
        "image,nose_x,nose_y,tail_x,tail_y\na.png,1,2,3,4\na.png,1,2,3,4\n",
        "row 3 (a.png): image is on an earlier row already; a column 'instance' tells several objects of one image "
        "apart",
    ),
    "instance twice": (
        WIDE + "b.png,1,1,1,2,1,1,2,1,1,2\n",
        "row 5 (b.png): instance is on an earlier row already; a column 'instance' tells several objects of one "
        "image apart",
    ),
    "keypoint twice": (
        LONG + "b.png,1,ear,6,8,2\n",
        "row 10 (b.png): keypoint 'ear' is on an earlier row already; a column 'instance' tells several objects of one "
        "image apart",
    ),
    "no keypoint named": (LONG + "b.png,1,,6,8,2\n", "row 10 (b.png): keypoint is blank; every row names one"),
    "visibility": (
        LONG.replace("11,2,1", "11,2,7"),
        "row 3 (a.png): visibility is 7, which must be 0 (not labelled), 1 (hidden) or 2",
    ),
    "file name outside": (
        "image,nose_x,nose_y,tail_x,tail_y\n../a.png,1,2,3,4\n",
        "image ../a.png: file name '../a.png' leads out of the images folder {folder}; images must lie below it",
    ),
    "box without area": (
        "image,box_x,box_y,box_width,box_height,nose_x,nose_y\na.png,1,2,-3,4,1,2\n",
        "image a.png: box [1.0, 2.0, -3.0, 4.0] has no area; width and height must be above 0",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_bad_tables(tmp_path, text, sentence):
    path = write(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert str(error.value) == f"{path}: {sentence.format(folder=tmp_path)}"


def test_rows_of_different_lengths(tmp_path):
    with pytest.raises(DataError, match=r"labels.csv: is not a table of rows of equal length \(Error tokenizing data"):
        read_table(write(tmp_path, "image,nose_x,nose_y\na.png,1,2\nb.png,1,2,3,4\n"))


def test_a_keypoint_that_the_skeleton_lacks(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("keypoints: [nose, tail, eye]\n")
    with pytest.raises(DataError) as error:
        read_table(write(tmp_path, LONG), skeleton=load_skeleton(own))
    assert str(error.value) == (f"{tmp_path}/labels.csv: keypoint 'ear' is not of skeleton own; known: eye, nose, tail")


def test_what_is_no_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = write(tmp_path, "image,x", "labels.parquet")
    with pytest.raises(DataError, match=r"labels.parquet: is not readable as a Parquet table; is it cut off\?"):
        read_table(path)
