"""YOLO-pose sets: by hand, in the layouts people have, and the sentence for every kind of bad one."""

import numpy as np
import pytest
import yaml
from PIL import Image

from posesweep.datasets.load import DataRequest, load_data
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.yolo_pose import label_name, read_yolo, subsets_of
from posesweep.errors import DataError

YAML = {
    "path": "../datasets/fish",  # as ultralytics writes it: not below this folder
    "train": "images/train",
    "val": "images/val",
    "kpt_shape": [3, 3],
    "flip_idx": [0, 2, 1],
    "names": {0: "fish", 1: "shark"},
}
NAMES = {"kpt_names": {0: ["mouth", "left_fin", "right_fin"], 1: ["mouth", "left_fin", "right_fin"]}}
LINE = "1 0.5 0.5 0.4 0.2 0.25 0.5 2 0.5 0.75 1 0 0 0"  # of a 100 x 40 image


def write(folder, document=YAML, lines=(LINE,), subset="train", stem="a"):
    """A set of one 100 x 40 image with these lines; the path of its data.yaml."""
    place = folder / "images" / subset
    place.mkdir(parents=True, exist_ok=True)
    (folder / "images" / "val").mkdir(exist_ok=True)
    (folder / "images" / "train").mkdir(exist_ok=True)
    Image.new("RGB", (100, 40)).save(place / f"{stem}.jpg")
    labels = folder / "labels" / subset
    labels.mkdir(parents=True, exist_ok=True)
    (labels / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def test_columns_of_a_small_set(tmp_path):
    data = read_yolo(write(tmp_path, YAML | NAMES, [LINE, "0 0.1 0.5 0.2 1 0.1 0.1 2 0.1 0.9 2 0.2 0.5 2"]))
    assert [file.relative_to(tmp_path).as_posix() for file in data.image_files] == ["images/train/a.jpg"]
    assert data.skeleton.keypoints == ("mouth", "left_fin", "right_fin")
    assert data.keypoints[0].tolist() == [[25, 20], [50, 30], [0, 0]]
    assert data.visibility.tolist() == [[2, 1, 0], [2, 2, 2]]
    np.testing.assert_allclose(data.boxes, [[30, 16, 40, 8], [0, 0, 20, 40]], atol=1e-12)
    assert [data.category_names[i] for i in data.category_ids.tolist()] == ["shark", "fish"]
    assert data.image_fields == {"subset": ("train",)}


def test_two_values_a_keypoint(tmp_path):
    path = write(tmp_path, YAML | {"kpt_shape": [3, 2]}, ["0 0.5 0.5 0.4 0.2 0.25 0.5 0.5 0.75 0 0"])
    assert read_yolo(path).visibility.tolist() == [[2, 2, 0]]


def test_names_from_flip_idx_from_a_skeleton_or_from_the_file(tmp_path):
    data = read_yolo(write(tmp_path))
    assert data.skeleton.keypoints == ("keypoint_1", "keypoint_2", "keypoint_3")
    assert data.skeleton.flip_pairs == (("keypoint_2", "keypoint_3"),)
    assert data.notes[0].startswith("data.yaml: keypoints have no names (kpt_names); they are numbered")
    own = tmp_path / "own.yaml"
    own.write_text("{keypoints: [a, b, c], flip_pairs: [[b, c]]}\n")
    assert read_yolo(tmp_path / "data.yaml", skeleton=load_skeleton(own)).skeleton.keypoints == ("a", "b", "c")


@pytest.mark.parametrize(("flips", "pairs"), [([2, 1, 0], (("near", "off"),)), ([0, 1, 2], ()), (None, ())])
def test_flip_idx_holds_for_named_keypoints_too(tmp_path, flips, pairs):
    named = {"kpt_names": {0: ["near", "mouth", "off"]}, "flip_idx": flips}
    assert read_yolo(write(tmp_path, YAML | named)).skeleton.flip_pairs == pairs


def test_pairs_of_flip_idx_are_left_first(tmp_path):
    named = {"kpt_names": ["mouth", "right_fin", "left_fin"]}
    assert read_yolo(write(tmp_path, YAML | named)).skeleton.flip_pairs == (("left_fin", "right_fin"),)


def test_a_flip_idx_that_is_contradicted(tmp_path):
    path = write(tmp_path, YAML | NAMES | {"flip_idx": [1, 0, 2]})
    with pytest.raises(DataError) as error:
        read_yolo(path)
    assert str(error.value) == (
        f"{path}: flip_idx mirrors 'mouth' to 'left_fin', and their names to 'mouth'; correct flip_idx, or leave it out"
    )
    own = tmp_path / "own.yaml"
    own.write_text("{keypoints: [a, b, c], flip_pairs: []}\n")
    with pytest.raises(DataError, match=r"flip_idx mirrors 'a' to 'b', and skeleton own to 'a'; correct flip_idx, or"):
        read_yolo(path, skeleton=load_skeleton(own))
    mouse = list(load_skeleton("mouse4").keypoints)
    line = "0 0.5 0.5 0.4 0.2" + " 0.5 0.5 2" * 4
    path = write(tmp_path, YAML | {"kpt_shape": [4, 3], "kpt_names": mouse, "flip_idx": [0, 1, 2, 3]}, [line])
    with pytest.raises(DataError, match=r"'leftear' to 'leftear', and skeleton mouse4, whose names these are, to"):
        read_yolo(path)


def test_subsets(tmp_path):
    write(tmp_path)
    path = write(tmp_path, subset="val", stem="b")
    assert subsets_of(path) == ["train", "val"]
    assert [file.name for file in read_yolo(path, subset="val").image_files] == ["b.jpg"]
    assert read_yolo(path).image_fields == {"subset": ("train", "val")}


def test_a_sweep_trains_on_train_and_validates_on_val(tmp_path):
    write(tmp_path)
    path = write(tmp_path, subset="val", stem="b")
    data = load_data(DataRequest(train=path), tmp_path / "cache")
    assert [file.name for file in data.train.image_files] == ["a.jpg"]
    assert [file.name for file in data.val.image_files] == ["b.jpg"]


def test_one_folder_for_train_and_val_is_one_subset(tmp_path):
    path = write(tmp_path, YAML | {"val": "images/train"})
    assert subsets_of(path) == ["train"]


def test_roboflow_writes_its_folders_one_up(tmp_path):
    path = write(tmp_path, YAML | {"train": "../images/train", "val": "../images/val"})
    assert len(read_yolo(path)) == 1


def test_lists_of_images(tmp_path):
    path = write(tmp_path, YAML | {"train": "train.txt"})
    (tmp_path / "train.txt").write_text("./images/train/a.jpg\n\n")
    assert [file.name for file in read_yolo(path, subset="train").image_files] == ["a.jpg"]


def test_images_without_labels_hold_nothing_and_empty_label_files_too(tmp_path):
    path = write(tmp_path)
    Image.new("RGB", (5, 5)).save(tmp_path / "images/train/background.jpg")
    (tmp_path / "labels/train/none.txt").touch()
    Image.new("RGB", (5, 5)).save(tmp_path / "images/train/none.jpg")
    assert len(read_yolo(path).image_files) == 1


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("images/2024/images/a.b.png", "images/2024/labels/a.b.txt"),
        ("train/a.jpg", "train/a.txt"),
    ],
)
def test_label_files(image, label):
    assert label_name(image) == label


def test_shares_are_of_the_upright_image(tmp_path):
    path = write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 100)).save(tmp_path / "images/train/a.jpg", exif=exif)
    assert read_yolo(path).keypoints[0, :2].tolist() == [[25, 20], [50, 30]]


BAD_YAML = {
    "no kpt_shape": (
        {"kpt_shape": None},
        "kpt_shape: None must be [number of keypoints, 2 or 3]; a data.yaml without it is of boxes, not of keypoints",
    ),
    "kpt_shape of four": (
        {"kpt_shape": [3, 4]},
        "kpt_shape: [3, 4] must be [number of keypoints, 2 or 3]; a data.yaml without it is of boxes, not of keypoints",
    ),
    "no names": (
        {"names": None},
        "names: None must be a list of names of classes, or a mapping from 0, 1, ... to them",
    ),
    "flip_idx": (
        {"flip_idx": [0, 1]},
        "flip_idx: must list each of 0 to 2 once: the keypoint that each becomes in a mirror",
    ),
    "flip_idx in a circle": (
        {"flip_idx": [1, 2, 0]},
        "flip_idx: sends 0 to 1 but 1 to 2; a mirror swaps pairs",
    ),
    "kpt_names": ({"kpt_names": ["a", "b"]}, "kpt_names: must be 3 different names, as many as kpt_shape says"),
    "folder outside": (
        {"train": "../../etc"},
        "train: file name '../../etc' leads out of the images folder {folder}; images must lie below it",
    ),
    "no such folder": (
        {"train": "images/trian"},
        "train: there is no images/trian below {folder}; name the folder in which it lies as data.images",
    ),
    "no subsets": (
        {"train": None, "val": None},
        "names no images: give train, val or test, a folder of images each",
    ),
    "no labels": (
        {"train": "images/val", "val": None},
        "no image of train has a label file (looked in {folder} for labels/ beside images/)",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), BAD_YAML.values(), ids=BAD_YAML)
def test_bad_data_yaml(tmp_path, change, sentence):
    path = write(tmp_path, YAML | change)
    with pytest.raises(DataError) as error:
        read_yolo(path)
    assert str(error.value) == f"{path}: {sentence.format(folder=tmp_path)}"


SHARES = "is not between 0 and 1; YOLO's coordinates are shares of the image's width and height"
BAD_LINES = {
    "too short": ("0 0.5 0.5 1 1 0.5 0.5 2", "has 8 numbers, kpt_shape [3, 3] needs 14: class, box and 3 x 3"),
    "words": (LINE.replace("0.25", "left"), "has something that is not a number; a line is class, box, keypoints"),
    "nan": (LINE.replace("0.25", "nan"), "has a number that is not finite"),
    "pixels": (LINE.replace("0.25", "25"), f"x of 'keypoint_1', 25, {SHARES}"),
    "negative": (LINE.replace("0.75", "-0.75"), f"y of 'keypoint_2', -0.75, {SHARES}"),
    "box in pixels": (LINE.replace("0.4 0.2", "40 0.2"), f"the box's 40 {SHARES}"),
    "flat box": (LINE.replace("0.4 0.2", "0.4 0"), "the box has no area; width and height must be above 0"),
    "class": ("2" + LINE[1:], "class 2 is not among the 2 names of data.yaml"),
    "half a class": ("0.5" + LINE[1:], "class 0.5 is not among the 2 names of data.yaml"),
    "visibility": (LINE.replace("0.75 1", "0.75 3"), "visibility 3 of 'keypoint_2' must be 0, 1 or 2"),
}


@pytest.mark.parametrize(("line", "sentence"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_lines(tmp_path, line, sentence):
    path = write(tmp_path, lines=[LINE, line])
    with pytest.raises(DataError) as error:
        read_yolo(path)
    assert str(error.value) == f"{path}: labels/train/a.txt line 2: {sentence}"


def test_the_same_line_twice(tmp_path):
    with pytest.raises(DataError, match=r"labels/train/a.txt line 2: is the same as an earlier line; every object has"):
        read_yolo(write(tmp_path, lines=[LINE, LINE]))


def test_unknown_subset(tmp_path):
    with pytest.raises(DataError, match=r"data.yaml: there is no subset 'vall'; did you mean 'val'\?$"):
        read_yolo(write(tmp_path), subset="vall")


def test_a_skeleton_that_does_not_fit(tmp_path):
    with pytest.raises(
        DataError, match=r"kpt_shape has 3 keypoints, skeleton mouse4 has 4; give the skeleton that fits$"
    ):
        read_yolo(write(tmp_path), skeleton=load_skeleton("mouse4"))


def test_unreadable_images_are_left_out_up_to_a_share(tmp_path):
    for number in range(40):
        path = write(tmp_path, stem=f"{number:02}")
    (tmp_path / "images/train/07.jpg").write_bytes(b"broken")
    data = read_yolo(path)
    assert len(data) == 39
    assert data.notes[1] == (
        "data.yaml: 1 of 40 images cannot be read, left out with their annotations: "
        "07.jpg (no readable image header (UnidentifiedImageError))"
    )
    for number in range(5):
        (tmp_path / f"images/train/{number:02}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"data.yaml: 6 of 40 images cannot be read: 00.jpg \("):
        read_yolo(path)
