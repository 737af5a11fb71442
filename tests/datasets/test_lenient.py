"""Faulty COCO files are read without their faults, each of which is told."""

import json
from pathlib import Path

import pytest

from posesweep.datasets.lenient import read_despite
from posesweep.datasets.load import DataRequest
from posesweep.errors import DataError

KEYPOINTS = [2, 3, 2, 8, 9, 1, 5, 5, 2, 6, 6, 2]


def coco(folder, change=lambda document: None, count=4):
    for i in range(1, count + 1):
        (folder / f"{i}.png").touch()
    annotation = {"category_id": 1, "bbox": [1, 2, 20, 10], "area": 100}
    names = ["snout", "leftear", "rightear", "tailbase"]
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(1, count + 1)],
        "annotations": [
            {"id": i, "image_id": i, **annotation, "keypoints": list(KEYPOINTS)} for i in range(1, count + 1)
        ],
        "categories": [{"id": 1, "name": "mouse", "keypoints": names}],
    }
    change(document)
    path = folder / "train.json"
    path.write_text(json.dumps(document))
    return path


def read(path):
    instances, found = read_despite(path, DataRequest(train=path), None, "train")
    assert all(one.side == "train" for one in found)
    return instances, [(one.kind, one.severity, one.annotation, one.keypoint, one.text) for one in found]


def test_a_sound_file_is_read_as_ever(tmp_path):
    instances, found = read(coco(tmp_path))
    assert (len(instances), found) == (4, [])


def test_missing_images_go_with_their_annotations(tmp_path):
    path = coco(tmp_path, count=20)
    (tmp_path / "2.png").unlink()
    instances, found = read(path)
    assert instances.ids.tolist() == [1, *range(3, 21)]
    assert found == [("missing image", "error", None, "", "there is no such file")]


@pytest.mark.parametrize(
    ("place", "values", "found", "kept"),
    [
        (
            0,
            [2, 3, 7],
            ("visibility", "error", "visibility 7 of snout must be 0 (not labelled), 1 (hidden) or 2 (v"),
            2,
        ),
        (0, [2, 3, -1], ("visibility", "error", "visibility -1 of snout must be 0 (not labelled), 1 (hidden) or 2"), 0),
        (0, [2, 3, 0], ("visibility", "warning", "snout has visibility 0, not labelled, but is at (2, 3)"), 0),
        (0, [float("nan"), 3, 2], ("unusable label", "error", "snout is labelled at (nan, 3), no place"), 0),
    ],
)
def test_keypoints_are_mended(tmp_path, place, values, found, kept):
    def spoil(document):
        document["annotations"][1]["keypoints"][place : place + 3] = values

    instances, told = read(coco(tmp_path, spoil))
    ((kind, severity, annotation, keypoint, text),) = told
    assert (kind, severity, annotation, keypoint) == (*found[:2], 2, "snout")
    assert text.startswith(found[2])
    assert instances.visibility[1].tolist() == [kept, 1, 2, 2]


def test_a_box_without_area_is_drawn_anew(tmp_path):
    def spoil(document):
        document["annotations"][1]["bbox"] = [5, 5, 0, 9]

    instances, found = read(coco(tmp_path, spoil))
    text = "its box [5, 5, 0, 9] has no area; width and height must be above 0"
    assert found == [("unusable label", "error", 2, "", text)]
    assert len(instances) == 4
    assert instances.boxes[1, 2] > 0


def test_what_cannot_be_mended_is_refused_with_the_name_of_the_file(tmp_path):
    def spoil(document):
        document["annotations"][0]["keypoints"][2] = 9  # so that there is something to mend
        document["annotations"][1]["keypoints"] = [1, 2, 2]

    path = coco(tmp_path, spoil)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value) == (
        f"{path}: annotation 2: keypoints has 3 numbers, skeleton mouse4 needs 12 (x, y, visibility for 4 keypoints)"
    )


def test_a_wrong_folder_is_said_to_be(tmp_path):
    path = coco(tmp_path)
    (tmp_path / "else").mkdir()
    with pytest.raises(DataError) as error:
        read_despite(path, DataRequest(train=path, images=tmp_path / "else"), None)
    assert str(error.value).startswith(f"{path}: 4 of 4 images are not below the folder {tmp_path / 'else'} (looked")


HUGE = 10**400


@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("annotations", {"image_id": [1]}),
        ("annotations", {"category_id": {}}),
        ("annotations", {"category_id": [1]}),
        ("annotations", {"id": [1]}),
        ("annotations", {"keypoints": 5, "bbox": [0, 0, 0, 0]}),
        ("annotations", {"keypoints": ["a", 2, 2, *KEYPOINTS[3:]], "bbox": [0, 0, 0, 0]}),
        ("categories", {"id": [1]}),
        ("categories", {"keypoints": 5}),
        ("images", {"id": [1]}),
        ("images", {"file_name": "../../etc/passwd"}),
        ("images", {"file_name": None}),
    ],
)
def test_entries_of_another_shape_are_refused_with_a_sentence(tmp_path, place, values):
    def spoil(document):
        document["annotations"][1]["keypoints"][2] = 9  # so that there is something to mend
        document[place][0].update(values)

    path = coco(tmp_path, spoil)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("value", [None, 5, {}])
def test_no_list_of_categories_is_refused(tmp_path, value):
    path = coco(tmp_path, lambda document: document.update(categories=value))
    with pytest.raises(DataError, match="no list of categories"):
        read(path)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"bbox": [1e308] * 4}, "its box [1e+308, 1e+308, 1e+308, 1e+308] is no place in an image"),
        ({"bbox": [0, 0, HUGE, 5]}, f"its box [0, 0, {str(HUGE)[:20]}..., 5] is no place in an image"),
        ({"keypoints": [HUGE, 3, 2, *KEYPOINTS[3:]]}, f"snout is labelled at ({str(HUGE)[:20]}..., 3), no place"),
    ],
)
def test_numbers_beyond_every_image_are_told(tmp_path, values, text):
    instances, found = read(coco(tmp_path, lambda document: document["annotations"][0].update(values)))
    assert found == [("unusable label", "error", 1, "snout" if "snout" in text else "", text)]
    assert instances.boxes.max() < 100


def test_other_formats_are_read_strictly():
    table = Path(__file__).resolve().parents[2] / "../shared/data/openfield/labeled-data/m4s1/CollectedData_Pranav.csv"
    if not table.is_file():
        pytest.skip("shared/data/openfield is not here")
    instances, found = read(table)
    assert (len(instances), found) == (116, [])
