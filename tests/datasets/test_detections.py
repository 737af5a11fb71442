"""Boxes from detectors, annotations and tables, and whose they are."""

import json

import numpy as np
import pytest

from posesweep.datasets.detections import EVERY_FRAME, assign, read_boxes
from posesweep.errors import DataError

DETECTION = {"image_id": 785, "bbox": [1, 2, 30, 40], "score": 0.5, "category_id": 1}


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco_detections(tmp_path):
    boxes = read_boxes(written(tmp_path, "det.json", [DETECTION, {**DETECTION, "image_id": 9, "category_id": 3}]))
    np.testing.assert_array_equal(boxes.boxes, [[1, 2, 30, 40]] * 2)
    assert boxes.image_ids.tolist() == [785, 9]
    assert boxes.category_ids.tolist() == [1, 3]
    assert boxes.scores.tolist() == [0.5, 0.5]
    rows = assign(boxes, ["val/000000000785.jpg", "9.png", "other.jpg"])
    assert [row.tolist() for row in rows] == [[0], [1], []]
    assert [row.tolist() for row in assign(boxes, ["a.jpg", "b.jpg"], [9, 785])] == [[1], [0]]


def test_coco_annotations_name_their_images(tmp_path):
    document = {
        "images": [{"id": 5, "file_name": "sub/a.jpg"}],
        "annotations": [{"image_id": 5, "bbox": [0, 0, 4, 5], "category_id": 2}],
    }
    boxes = read_boxes(written(tmp_path, "ann.json", document))
    assert boxes.files == ("sub/a.jpg",)
    assert boxes.scores.tolist() == [1.0]
    assert [row.tolist() for row in assign(boxes, ["a.jpg", "5.jpg"])] == [[0], []]
    assert [row.tolist() for row in assign(boxes, ["x/a.jpg", "y/a.jpg"])] == [[], []]  # which of them, nobody knows


def test_our_own_predictions_are_boxes_of_the_images_beside_them(tmp_path):
    images = {"info": {"description": "by posesweep predict"}, "images": [{"id": 1, "file_name": "c.mp4", "frame": 7}]}
    written(tmp_path, "images.json", images)
    boxes = read_boxes(written(tmp_path, "predictions.json", [{**DETECTION, "image_id": 1}]))
    assert (boxes.files, boxes.frames.tolist()) == (("c.mp4",), [7])
    written(tmp_path, "images.json", {**images, "info": {}})  # somebody else's
    assert read_boxes(tmp_path / "predictions.json").files == ("",)


def test_a_table_with_frames(tmp_path):
    text = "File;x;y;width;height;frame;score\nclip.mp4;1;2;3;4;;\nclip.mp4;1;2;3;4;12;0.25\n"
    boxes = read_boxes(written(tmp_path, "b.csv", text))
    assert boxes.frames.tolist() == [EVERY_FRAME, 12]
    assert boxes.scores.tolist() == [1.0, 0.25]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "d.json",
            [{**DETECTION, "bbox": [0, 0, 0, 5]}],
            r"entry 1: box \[0, 0, 0, 5\] must have a width and a height",
        ),
        ("d.json", [{**DETECTION, "score": 3}], "score 3 must lie between 0 and 1"),
        ("d.json", [{**DETECTION, "bbox": [0, 0, None, 5]}], "bbox has None, which is no finite number"),
        (
            "d.json",
            [{"bbox": [0, 0, 1, 5]}, 3],
            "2 mistakes\n  entry 1: image_id None must be a whole number\n  entry 2",
        ),
        ("d.json", {"images": []}, "neither a list of detections nor a COCO file"),
        ("d.json", "[{", "is not whole JSON"),
        ("d.csv", "name,x\na,1\n", "has the columns name, x; a table of boxes has the columns file, x, y, w, h"),
        ("d.csv", "file,x,y,w,h\na.jpg,1,2,three,4\n", r"row 2 \(a.jpg\): w is 'three', which is no number"),
        ("d.txt", "1 2 3", "boxes are read from COCO detections"),
        ("d.json", "", "is empty"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, content, said):
    with pytest.raises(DataError, match=said):
        read_boxes(written(tmp_path, name, content))
