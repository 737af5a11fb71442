"""One way in: formats are told apart, options that a format lacks are refused, links out of the folder are refused."""

import json
from pathlib import Path

import pytest

from posesweep.datasets.images import inside
from posesweep.datasets.read import Reading, detect, read_any
from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import ConfigError, DataError

TABLE = "image,category,nose_x,nose_y,tail_x,tail_y\na.png,cat,1,2,3,4\nb.png,dog,5,6,7,8\n"
SHAPES = [{"label": n, "points": [[i, i * i]], "shape_type": "point"} for i, n in enumerate(("nose", "tail"), 1)]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.json", '{"images": [], "annotations": []}', "coco"),
        ("a.json", '{"shapes": []}', "labelme"),
        ("a.json", '{"categories": [{"name": "shapes"}], "annotations": [{"shapes": "shapes"}]}', "coco"),
        ("a.csv", "scorer,Ann\n", "dlc"),
        ("a.csv", "\ufeffscorer,Ann\n", "dlc"),
        ("a.CSV", "image,x\n", "table"),
        ("a.tsv", "", "table"),
        ("a.parquet", "", "table"),
        ("data.yaml", "", "yolo"),
        ("a.h5", "", "dlc"),
        ("a.xml", "", "cvat"),
        ("a.slp", "", "sleap"),
    ],
)
def test_formats_are_told_apart(tmp_path, name, text, kind):
    assert detect(write(tmp_path, name, text)) == kind


def test_folders(folder):
    write(folder, "annotations.csv", TABLE)
    assert len(read_any(folder)) == 2
    (folder / "labelme").mkdir()
    write(folder / "labelme", "a.json", json.dumps({"imagePath": "../a.png", "shapes": SHAPES}))
    assert len(read_any(folder / "labelme", folder)) == 1
    write(folder, "data.yaml", "{}")
    with pytest.raises(DataError) as error:
        read_any(folder)
    assert (
        str(error.value) == f"{folder}: holds several annotation files (data.yaml, annotations.csv); name one of them"
    )


def test_categories_of_any_format(folder):
    data = read_any(write(folder, "a.csv", TABLE), reading=Reading(categories=["dog"]))
    assert data.category_names == {2: "dog"}
    assert data.keypoints.tolist() == [[[5, 6], [7, 8]]]
    assert data.notes[-1] == "a.csv: 1 annotations are of other categories; left out"
    with pytest.raises(DataError, match=r"a.csv: there is no category 'dogs'; did you mean 'dog'\?$"):
        read_any(folder / "a.csv", reading=Reading(categories=["dogs"]))


@pytest.mark.parametrize(
    ("reading", "sentence"),
    [
        (
            Reading(subset="val"),
            "subset: is an option of YOLO-pose (data.yaml), and this is a table of keypoints (.csv, .tsv or .parquet); "
            "leave it out",
        ),
        (
            Reading(parts=["face"]),
            "parts: is an option of COCO keypoints (.json), and this is a table of keypoints (.csv, .tsv or .parquet); "
            "leave it out",
        ),
    ],
)
def test_options_that_a_format_lacks(folder, reading, sentence):
    with pytest.raises(ConfigError) as error:
        read_any(write(folder, "a.csv", TABLE), reading=reading)
    assert str(error.value) == sentence


def test_parts_and_a_skeleton(tmp_path):
    reading = Reading(skeleton=load_skeleton("coco17"), parts=["face"])
    with pytest.raises(ConfigError, match=r"^parts: the skeleton chooses the keypoints already; give one of the two$"):
        read_any(write(tmp_path, "a.json", "{}"), reading=reading)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match=r"a.csv: no such file; data.train and data.val name the annotations$"):
        read_any(tmp_path / "a.csv")


# ---------------------------------------------------------------------------------------------- images in their folder


def test_links_within_the_folder_and_a_folder_that_is_a_link(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.png").touch()
    (real / "b.png").symlink_to(real / "a.png")
    (tmp_path / "images").symlink_to(real)
    assert inside(real, "b.png") == real / "b.png"
    assert inside(tmp_path / "images", "a.png") == tmp_path / "images" / "a.png"


def test_links_that_lead_out(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "secret")
    (tmp_path / "images" / "more").symlink_to(tmp_path / "secret")
    for name, end in (("a.png", "secret"), ("more/a.png", "secret")):
        with pytest.raises(DataError) as error:
            inside(tmp_path / "images", name)
        assert str(error.value) == (
            f"file name '{name}' is a link that leads out of the images folder {tmp_path}/images (to "
            f"{tmp_path}/{end}); "
            "copy the file there, or name a folder that holds both as data.images"
        )


@pytest.mark.parametrize("name", ["..", "../a.png", "/etc/passwd", "a/../../b.png", "..\\a.png"])
@pytest.mark.parametrize("folder", [Path(), Path("images"), Path("/data/images")])
def test_names_that_lead_out(name, folder):
    with pytest.raises(DataError, match=r"leads out of the images folder"):
        inside(folder, name)


@pytest.mark.parametrize("name", [None, "", " ", 7, "a\0.png"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(DataError, match=r"is not a file name; give each image one$"):
        inside(tmp_path, name)


def test_a_neighbour_whose_name_begins_alike(tmp_path):
    with pytest.raises(DataError, match=r"leads out"):
        inside(tmp_path / "images", "../images2/a.png")


def test_a_folder_without_annotations_is_said_to_be(folder):
    with pytest.raises(DataError) as error:
        read_any(folder)
    assert str(error.value).startswith(f"{folder}: holds no annotations that are read: COCO keypoints (.json); YOLO")


def test_the_only_annotation_file_of_a_folder_is_read(folder):
    write(folder, "mine.csv", TABLE)
    assert len(read_any(folder)) == 2
