"""CVAT for images: skeletons, single points and boxes, and the sentence for every kind of bad file."""

import pytest

from posesweep.datasets.cvat import read_cvat
from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import DataError

META = """<meta><task><labels>
  <label><name>mouse</name><type>skeleton</type></label>
  <label><name>nose</name><type>points</type><parent>mouse</parent></label>
  <label><name>tail</name><type>points</type><parent>mouse</parent></label>
</labels></task></meta>"""
SKELETON = """<skeleton label="mouse" source="manual" z_order="0">
  <points label="tail" outside="0" occluded="1" points="30.50,20.00"/>
  <points label="nose" outside="0" occluded="0" points="10.00,20.00"/>
</skeleton>
<skeleton label="mouse" group_id="3"><points label="nose" outside="0" occluded="0" points="5,6"/>
  <points label="tail" outside="1" occluded="0" points="7,8"/></skeleton>
<box label="mouse" xtl="1" ytl="2" xbr="11" ybr="22" group_id="3"/>"""


def write(folder, shapes=SKELETON, meta=META, text=None):
    """A CVAT file of one image with these shapes, the image beside it."""
    (folder / "a.png").touch()
    path = folder / "annotations.xml"
    image = f'<image id="0" name="a.png" width="100" height="50">{shapes}</image>'
    path.write_text(text or f'<?xml version="1.0"?>\n<annotations><version>1.1</version>{meta}{image}</annotations>')
    return path


def test_skeletons(tmp_path):
    data = read_cvat(write(tmp_path))
    assert data.skeleton.keypoints == ("nose", "tail")
    assert data.keypoints.tolist() == [[[10, 20], [30.5, 20]], [[5, 6], [0, 0]]]
    assert data.visibility.tolist() == [[2, 1], [2, 0]]
    assert data.boxes[1].tolist() == [1, 2, 10, 20]
    assert data.category_names == {1: "mouse"}


def test_single_points_are_one_object_and_those_of_a_group_another(tmp_path):
    shapes = """<points label="nose" occluded="0" points="1,2"/><points label="tail" occluded="1" points="11,2"/>
    <points label="nose" points="5,5" group_id="1"/><points label="tail" points="9,5" group_id="1"/>"""
    data = read_cvat(write(tmp_path, shapes, ""))
    assert data.keypoints.tolist() == [[[1, 2], [11, 2]], [[5, 5], [9, 5]]]
    assert data.visibility.tolist() == [[2, 1], [2, 2]]


def test_points_drawn_as_one_follow_the_skeleton(tmp_path):
    shapes = '<points label="mouse" points="1,2;3,4;5,6;7,8"/>'
    data = read_cvat(write(tmp_path, shapes, ""), skeleton=load_skeleton("mouse4"))
    assert data.keypoints[0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


BOX = '<box label="mouse" xtl="1" ytl="2" xbr="41" ybr="32"/>'
LONE = "<skeleton" + SKELETON.split("<skeleton")[1]
HIDDEN = '<skeleton label="mouse" group_id="4"><points label="nose" outside="1" points="7,8"/></skeleton>'


def test_a_lone_box_is_that_of_the_lone_object(tmp_path):
    data = read_cvat(write(tmp_path, LONE + BOX))
    assert data.boxes.tolist() == [[1, 2, 40, 30]]
    assert not any("boxes" in note for note in data.notes)


def test_objects_with_only_a_box_stay(tmp_path):
    grouped = BOX.replace("/>", ' group_id="4"/>')
    data = read_cvat(write(tmp_path, LONE + HIDDEN + grouped + grouped.replace('"4"', '"5"')))
    assert data.visibility.tolist() == [[2, 1], [0, 0], [0, 0]]
    assert data.boxes[1:].tolist() == [[1, 2, 40, 30]] * 2
    image = f'</image><image name="b.png" width="9" height="9">{BOX}'
    (tmp_path / "b.png").touch()
    assert read_cvat(write(tmp_path, LONE + image)).visibility.tolist() == [[2, 1], [0, 0]]


def test_boxes_that_may_be_of_several_objects_are_counted(tmp_path):
    data = read_cvat(write(tmp_path, LONE + BOX + BOX + HIDDEN + BOX.replace("/>", ' group_id="4"/>') * 2))
    assert len(data) == 2
    assert data.notes[0] == (
        "annotations.xml: 3 boxes are left out, nothing says whose they are; in CVAT, group each with its points"
    )


def test_images_in_the_folder_images(tmp_path):
    path = write(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "images" / "a.png")
    assert read_cvat(path).image_files[0] == tmp_path / "images" / "a.png"


BAD = {
    "keypoint twice": (
        SKELETON.replace('label="tail" outside="0"', 'label="nose" outside="0"'),
        "image a.png: keypoint 'nose' is there twice; group the points of each object, or use a skeleton",
    ),
    "words": (
        SKELETON.replace("5,6", "five"),
        "image a.png: points of 'nose' are 'five'; they must be x,y;x,y;... finite numbers",
    ),
    "nan": (
        SKELETON.replace("5,6", "nan,6"),
        "image a.png: points of 'nose' are 'nan,6'; they must be x,y;x,y;... finite numbers",
    ),
    "unknown point": (
        SKELETON.replace("nose", "nase"),
        "point 'nase' is not of the file's skeleton; did you mean 'nose'?",
    ),
    "box": (
        SKELETON.replace('xbr="11"', 'xbr="wide"'),
        "image a.png: xbr of a box is 'wide'; it must be a finite number",
    ),
    "flat box": (
        SKELETON.replace('xbr="11"', 'xbr="1"'),
        "image a.png: box [1.0, 2.0, 0.0, 20.0] has no area; width and height must be above 0",
    ),
    "places": (
        '<points label="mouse" points="1,2;3,4;5,6"/>',
        "image a.png: points 'mouse' has 3 places and the skeleton 2 keypoints; name the skeleton whose order they "
        "follow "
        "as data.skeleton",
    ),
    "image twice": (
        '</image><image name="a.png" width="1" height="1">',
        "image a.png: is there twice; every image has one entry",
    ),
    "no width": ('</image><image name="b.png">', "image b.png: width is ''; it must be a whole number of pixels"),
}


@pytest.mark.parametrize(("shapes", "sentence"), BAD.values(), ids=BAD)
def test_bad_files(tmp_path, shapes, sentence):
    path = write(tmp_path, shapes)
    with pytest.raises(DataError) as error:
        read_cvat(path)
    assert str(error.value) == f"{path}: {sentence}"


def test_nothing_in_it(tmp_path):
    with pytest.raises(DataError, match=r"annotations.xml: holds no skeleton and no points; nothing to learn from$"):
        read_cvat(write(tmp_path, "", ""))


def test_video(tmp_path):
    path = write(tmp_path, text="<annotations><track id='0' label='mouse'/></annotations>")
    with pytest.raises(
        DataError, match=r"is CVAT for video \(it has tracks\); export the task as 'CVAT for images 1.1'$"
    ):
        read_cvat(path)


def test_another_xml(tmp_path):
    with pytest.raises(DataError, match=r"is not a CVAT file: its root is <annotation>, not <annotations>$"):
        read_cvat(write(tmp_path, text="<annotation/>"))
