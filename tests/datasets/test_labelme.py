"""LabelMe files: points, boxes and groups, and the sentence for every kind of bad one."""

import copy
import json

import pytest

from posesweep.datasets.labelme import read_labelme
from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import DataError


def point(label, x, y, group=None, **more):
    return {"label": label, "points": [[x, y]], "group_id": group, "shape_type": "point", "flags": {}} | more


def box(label, left, top, right, bottom, group=None):
    corners = [[right, bottom], [left, top]]  # drawn from any corner
    return {"label": label, "points": corners, "group_id": group, "shape_type": "rectangle"}


GOOD = {
    "version": "5.4.1",
    "imagePath": "a.png",
    "imageWidth": 100,
    "imageHeight": 50,
    "imageData": None,
    "shapes": [
        point("nose", 1, 2, 1),
        point("nose", 30, 20, 2),
        point("tail", 40.5, 20, 2, flags={"occluded": True}),
        box("cat", 0, 1, 10, 21, 1),
    ],
}


def write(folder, document=GOOD, name="a.json"):
    """The file with its (empty) images beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in ("a.png", "b.png"):
        (folder / image).touch()
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def changed(change):
    document = copy.deepcopy(GOOD)
    change(document)
    return document


def test_groups_are_objects(tmp_path):
    data = read_labelme(write(tmp_path))
    assert data.skeleton.keypoints == ("nose", "tail")
    assert data.keypoints.tolist() == [[[1, 2], [0, 0]], [[30, 20], [40.5, 20]]]
    assert data.visibility.tolist() == [[2, 0], [2, 1]]
    assert data.boxes[0].tolist() == [0, 1, 10, 20]
    assert data.boxes[1].tolist() == [30 - 2.625, 20 - 2.625, 15.75, 5.25]
    assert [data.category_names[i] for i in data.category_ids.tolist()] == ["cat", "animal"]


def test_a_folder_of_files(tmp_path):
    write(tmp_path)
    write(tmp_path, GOOD | {"imagePath": "b.png", "shapes": [point("nose", 5, 6), point("ear", 9, 9)]}, "b.json")
    data = read_labelme(tmp_path)
    assert [file.name for file in data.image_files] == ["a.png", "b.png"]
    assert data.skeleton.keypoints == ("ear", "nose", "tail")
    assert data.image_index.tolist() == [0, 0, 1]
    own = tmp_path / "own.yaml"
    own.write_text("keypoints: [tail, nose, ear, paw]\n")  # paw is never labelled, which is no mistake
    assert read_labelme(tmp_path, skeleton=load_skeleton(own)).visibility[2].tolist() == [0, 2, 2, 0]


def test_images_in_another_folder_than_the_files(tmp_path):
    write(tmp_path / "images").unlink()
    path = write(tmp_path / "labels", GOOD | {"imagePath": "..\\images\\a.png"})
    data = read_labelme(path, tmp_path / "images")
    assert data.image_files[0] == tmp_path / "images" / "a.png"
    with pytest.raises(DataError, match=r"file name '../images/a.png' leads out of the images folder"):
        read_labelme(path)


def test_other_shapes_are_counted(tmp_path):
    polygon = {"label": "cat", "points": [[0, 0], [1, 1], [1, 0]], "group_id": 1, "shape_type": "polygon"}
    data = read_labelme(write(tmp_path, changed(lambda d: d["shapes"].append(polygon))))
    assert data.notes[0] == "a.json: shapes that are neither points nor rectangles are left out: 1 polygon"


def shapes(*added):
    return lambda document: document["shapes"].extend(added)


BAD = {
    "no imagePath": (
        lambda d: d.pop("imagePath"),
        "imagePath is None; it must name the image, as seen from this file",
    ),
    "no shapes": (lambda d: d.pop("shapes"), "is not a LabelMe file, it has no list of shapes"),
    "no points": (
        lambda d: d.update(shapes=[box("cat", 0, 0, 5, 5)]),
        "no point in its 1 LabelMe files; keypoints are shapes of the type point",
    ),
    "keypoint twice": (
        shapes(point("nose", 5, 5, 1)),
        "shape 5: keypoint 'nose' is there twice; give the points of each object a group_id of their own",
    ),
    "two boxes": (
        shapes(box("cat", 1, 1, 2, 2, 1)),
        "shape 5: rectangle 'cat' is a second box; give the shapes of each object a group_id of their own",
    ),
    "words": (
        shapes(point("ear", "left", 5)),
        "shape 5: points of 'ear' must be pairs of finite numbers, not ['left', 5]",
    ),
    "nan": (
        shapes(point("ear", float("nan"), 5)),
        "shape 5: points of 'ear' must be pairs of finite numbers, not [nan, 5]",
    ),
    "true": (shapes(point("ear", True, 5)), "shape 5: points of 'ear' must be pairs of finite numbers, not [True, 5]"),
    "no label": (shapes(point(None, 1, 5)), "shape 5: label None must be a name"),
    "group that is a list": (
        shapes(point("ear", 1, 5, [1])),
        "shape 5: group_id [1] of 'ear' must be a number, or null",
    ),
    "a point of two": (
        shapes(point("ear", 1, 5) | {"points": [[1, 5], [2, 6]]}),
        "shape 5: 'ear' is a point with 2 places; a point has one",
    ),
    "shape that is none": (shapes("nose"), "shape 5: is not a JSON object"),
}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=BAD)
def test_bad_files(tmp_path, change, sentence):
    path = write(tmp_path, changed(change))
    with pytest.raises(DataError) as error:
        read_labelme(path)
    assert str(error.value) == f"{path}: {sentence}"


def test_mistakes_in_a_folder_name_their_file(tmp_path):
    write(tmp_path)
    write(tmp_path, GOOD, "b.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(DataError) as error:
        read_labelme(tmp_path)
    assert str(error.value).splitlines() == [
        f"{tmp_path}: 2 mistakes",
        "  b.json: imagePath 'a.png' is that of a.json already; every image has one file",
        "  c.json: is not whole JSON (line 1, column 2: Expecting property name enclosed in double quotes); "
        "was it cut off? write or copy it again",
    ]


def test_a_label_that_the_skeleton_lacks(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("keypoints: [noses, tail]\n")
    with pytest.raises(DataError) as error:
        read_labelme(write(tmp_path), skeleton=load_skeleton(own))
    assert str(error.value) == f"{tmp_path}/a.json: keypoint 'nose' is not of skeleton own; did you mean 'noses'?"


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r": there is no .json in this folder; LabelMe writes one for every image$"):
        read_labelme(tmp_path)
