"""EXIF: a painted dot is found where `turn_points` says, whichever way the annotations counted."""

import json

import numpy as np
import pytest
from PIL import Image

from posesweep.datasets.coco import read_coco
from posesweep.datasets.decoding import read_image
from posesweep.datasets.headers import Header, may_be_turned, read_header, turn_boxes, turn_points
from posesweep.errors import DataError

WIDTH, HEIGHT = 64, 40  # as stored
DOT = np.array([12.0, 28.0])  # centre of a 9 x 9 square, as stored


def photograph(path, orientation, dot=DOT, size=(WIDTH, HEIGHT)):
    """An image with one white square, EXIF telling how it is to be turned."""
    x, y = dot.astype(int)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[y - 4 : y + 5, x - 4 : x + 5] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


def found_dot(path):
    rows, columns = np.nonzero(read_image(path)[:, :, 0] > 128)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_dot_is_where_the_turned_point_is(tmp_path, orientation, ending):
    path = photograph(tmp_path / f"a.{ending}", orientation)
    header = read_header(path)
    assert read_image(path).shape[:2] == (header.height, header.width)
    np.testing.assert_allclose(turn_points(DOT[None], header)[0], found_dot(path), atol=0.2)
    assert may_be_turned(path)


def test_boxes_turn_with_their_corners():
    # orientation 6: 64 x 40 stored, 40 x 64 shown; (x, y) -> (39 - y, x)
    box = turn_boxes(np.array([[8.0, 24.0, 9.0, 5.0]]), Header(40, 64, 6))
    assert box.tolist() == [[39 - 24 - 5, 8, 5, 9]]


def annotated(folder, size, point=DOT, image="a.jpg"):
    """A COCO file of one object whose first keypoint is at `point`, for an image that is said to be of `size`."""
    x, y = point.tolist()
    document = {
        "images": [{"id": 1, "file_name": image, "width": size[0], "height": size[1]}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x - 4, y - 4, 8, 8], "keypoints": [x, y, 2, 0, 0, 0]}
        ],
        "categories": [{"id": 1, "name": "dot", "keypoints": ["dot", "none"]}],
    }
    path = folder / "a.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_in_the_stored_pixels_are_turned_along(tmp_path, orientation):
    photograph(tmp_path / "a.jpg", orientation)
    data = read_coco(annotated(tmp_path, (WIDTH, HEIGHT)))
    dot = found_dot(tmp_path / "a.jpg")
    np.testing.assert_allclose(data.keypoints[0, 0], dot, atol=0.2)
    np.testing.assert_allclose(data.boxes[0], [*(dot - 4), 8, 8], atol=0.2)
    assert data.keypoints[0, 1].tolist() == [0, 0]  # not labelled: stays at nothing
    assert data.notes[-1] == (
        "1 images are turned by EXIF and their annotations were not (their sizes tell): "
        "keypoints and boxes were turned along, a.jpg for example"
    )


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_in_the_upright_image_stay(tmp_path, orientation):
    photograph(tmp_path / "a.jpg", orientation)
    dot = found_dot(tmp_path / "a.jpg")
    data = read_coco(annotated(tmp_path, (HEIGHT, WIDTH), dot))
    np.testing.assert_allclose(data.keypoints[0, 0], dot)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_orientations_that_keep_the_size_count_as_upright(tmp_path, orientation):
    photograph(tmp_path / "a.jpg", orientation)
    assert read_coco(annotated(tmp_path, (WIDTH, HEIGHT))).keypoints[0, 0].tolist() == DOT.tolist()


def test_a_square_counts_as_upright(tmp_path):
    photograph(tmp_path / "a.jpg", 6, size=(64, 64))
    assert read_coco(annotated(tmp_path, (64, 64))).keypoints[0, 0].tolist() == DOT.tolist()


def test_a_png_that_is_called_jpg(tmp_path):
    photograph(tmp_path / "a.png", 6).rename(tmp_path / "a.jpg")
    data = read_coco(annotated(tmp_path, (WIDTH, HEIGHT)))
    np.testing.assert_allclose(data.keypoints[0, 0], found_dot(tmp_path / "a.jpg"), atol=0.2)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "LA", "P"])
def test_grey_16_bit_and_alpha_images_have_sizes_and_pixels(tmp_path, mode):
    kinds = {"I;16": np.full((5, 7), 40_000, np.uint16)}
    plain = Image.new("RGB", (7, 5), (200, 200, 200))
    image = Image.fromarray(kinds[mode]) if mode in kinds else plain.convert(mode)
    image.save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png") == Header(7, 5)
    assert read_image(tmp_path / "a.png").shape == (5, 7, 3)


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_no_header(tmp_path, content):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    reason = "missing" if content is None else r"no readable image header \(UnidentifiedImageError\)"
    with pytest.raises(DataError, match=f"^{reason}$"):
        read_header(tmp_path / "a.jpg")
    assert not may_be_turned(tmp_path / "a.jpg")
