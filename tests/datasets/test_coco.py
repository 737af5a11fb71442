"""The COCO reader against plain counting on real files, and the sentence for every kind of bad data set."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest

from posesweep.datasets.coco import read_coco
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.wholebody import PARTS, skeleton_of_parts
from posesweep.errors import DataError

FORMATS = Path(__file__).resolve().parents[2] / "../shared/data/formats"

GOOD = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 64, "height": 48},
        {"id": 2, "file_name": "b.png", "width": 64, "height": 48},
    ],
    "annotations": [
        {
            "id": 11,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 2, 20, 10],
            "area": 100,
            "iscrowd": 0,
            "keypoints": [2, 3, 2, 8, 9, 1, 0, 0, 0],
        },
        {
            "id": 12,
            "image_id": 2,
            "category_id": 1,
            "bbox": [0, 0, 30, 40],
            "area": 900,
            "keypoints": [1, 1, 2, 2, 2, 2, 3, 3, 2],
        },
    ],
    "categories": [{"id": 1, "name": "fish", "keypoints": ["mouth", "left_fin", "right_fin"], "skeleton": [[1, 2]]}],
}


def write(folder, document, name="train.json", images=("a.png", "b.png")):
    """The document as a file with its (empty) images beside it."""
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    for image in images:
        (folder / image).touch()
    return path


def changed(change):
    document = copy.deepcopy(GOOD)
    change(document)
    return document


def read(folder, document=GOOD, **options):
    return read_coco(write(folder, document), folder, **options)


# ------------------------------------------------------------------------------------------------------ good data


def test_columns_of_a_small_file(tmp_path):
    data = read(tmp_path)
    assert data.ids.tolist() == [11, 12]
    assert data.image_ids.tolist() == [1, 2]
    assert [file.name for file in data.image_files] == ["a.png", "b.png"]
    assert data.image_index.tolist() == [0, 1]
    assert data.boxes.tolist() == [[1, 2, 20, 10], [0, 0, 30, 40]]
    assert data.areas.tolist() == [100, 900]
    assert data.keypoints[0].tolist() == [[2, 3], [8, 9], [0, 0]]
    assert data.visibility.tolist() == [[2, 1, 0], [2, 2, 2]]
    assert data.crowd.tolist() == [False, False]
    assert data.category_names == {1: "fish"}
    assert data.skeleton.flip_pairs == (("left_fin", "right_fin"),)
    assert data.skeleton.edges == (("mouth", "left_fin"),)
    assert len(data.notes) == 1
    assert data.notes[0].startswith(
        "train.json: skeleton taken from category 'fish', flip pairs inferred from its names: left_fin/right_fin; "
    )


def test_the_order_within_the_file_means_nothing(tmp_path):
    def turn(document):
        document["images"].reverse()
        document["annotations"].reverse()

    (tmp_path / "turned").mkdir()
    data, turned = read(tmp_path), read(tmp_path / "turned", changed(turn))
    assert data.ids.tolist() == turned.ids.tolist()
    assert data.image_ids.tolist() == turned.image_ids.tolist()
    np.testing.assert_array_equal(data.keypoints, turned.keypoints)


def test_several_objects_on_one_image_and_an_image_without_any(tmp_path):
    def both_on_b(document):
        document["annotations"][0]["image_id"] = 2

    data = read(tmp_path, changed(both_on_b))
    assert data.image_ids.tolist() == [2]  # a.png holds nothing
    assert data.image_index.tolist() == [0, 0]


@pytest.mark.parametrize("area", [None, 0, 0.0])
def test_missing_area_is_derived_and_said_once(tmp_path, area):
    data = read(tmp_path, changed(lambda d: [a.update(area=area) for a in d["annotations"]]))
    np.testing.assert_allclose(data.areas, [0.53 * 20 * 10, 0.53 * 30 * 40])
    assert [note for note in data.notes if "area" in note] == [
        "train.json: 2 annotations have no area; 0.53 x width x height of the box stands for it, as in CrowdPose"
    ]


def test_missing_box_is_drawn_around_the_labelled_keypoints(tmp_path):
    data = read(tmp_path, changed(lambda d: d["annotations"][0].pop("bbox")))
    # (2, 3) and (8, 9): 6 wide, 6 high, and a quarter of 6 on every side
    assert data.boxes[0].tolist() == [0.5, 1.5, 9.0, 9.0]
    assert any("1 annotations have no box; it was drawn" in note for note in data.notes)


def test_annotations_without_a_labelled_keypoint_stay_and_are_counted(tmp_path):
    def unlabel(document):
        document["annotations"][0]["keypoints"] = [5, 5, 0] * 3
        document["annotations"].append(document["annotations"][0] | {"id": 13, "keypoints": []})

    data = read(tmp_path, changed(unlabel))
    assert data.labelled.tolist() == [False, True, False]
    assert not data.keypoints[[0, 2]].any()  # coordinates of unlabelled points mean nothing
    assert "train.json: 2 annotations have no labelled keypoint: never trained on, ignored by AP" in data.notes


def test_unlabelled_objects_with_an_empty_box_are_left_out(tmp_path):
    def empty(document):
        document["annotations"].append(document["annotations"][0] | {"id": 13, "keypoints": [], "bbox": [3, 3, 0, 5]})

    data = read(tmp_path, changed(empty))
    assert data.ids.tolist() == [11, 12]
    assert "train.json: 1 annotations have no box and nothing to train on; left out" in data.notes


def test_crowds_and_run_length_masks(tmp_path):
    def crowd(document):
        rle = {"counts": [0, 5, 3], "size": [48, 64]}
        document["annotations"].append(
            document["annotations"][0] | {"id": 13, "iscrowd": 1, "keypoints": [0] * 9, "segmentation": rle}
        )

    data = read(tmp_path, changed(crowd))
    assert data.crowd.tolist() == [False, False, True]


def add_bird(document):
    document["categories"].append({"id": 7, "name": "bird", "keypoints": ["beak"]})
    document["annotations"].append({"id": 13, "image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 5]})


def test_choosing_categories_by_name(tmp_path):
    data = read(tmp_path, changed(add_bird), categories=["fish"])
    assert data.ids.tolist() == [11, 12]
    assert data.category_names == {1: "fish"}
    assert "train.json: 1 annotations are of other categories; left out" in data.notes


def test_categories_without_keypoints_are_left_out(tmp_path):
    document = changed(add_bird)
    del document["categories"][1]["keypoints"]
    assert read(tmp_path, document).ids.tolist() == [11, 12]


def test_categories_of_one_skeleton_are_read_together(tmp_path):
    def second(document):
        document["categories"].append(document["categories"][0] | {"id": 7, "name": "shark"})
        document["annotations"][1]["category_id"] = 7

    data = read(tmp_path, changed(second))
    assert data.category_ids.tolist() == [1, 7]
    assert data.category_names == {1: "fish", 7: "shark"}


def test_names_unlike_the_skeletons_are_noted(tmp_path):
    own = tmp_path / "koi.yaml"
    own.write_text("keypoints: [snout, left_fin, right_fin]\n")
    data = read(tmp_path, skeleton=load_skeleton(own))
    assert data.skeleton.name == "koi"
    assert data.notes == (
        "train.json: its keypoint names are not those of skeleton koi ('mouth' for 'snout'); they go by their order",
    )


def test_a_few_missing_images_are_left_out_and_named(tmp_path):
    document = copy.deepcopy(GOOD)
    for i in range(3, 43):
        document["images"].append({"id": i, "file_name": f"{i}.png"})
        document["annotations"].append(document["annotations"][0] | {"id": 100 + i, "image_id": i})
        (tmp_path / f"{i}.png").touch()
    (tmp_path / "7.png").unlink()
    data = read(tmp_path, document)
    assert len(data) == len(data.image_files) == 41
    assert 107 not in data.ids
    assert data.image_ids[data.image_index].tolist() == [1, 2, *(i - 100 for i in data.ids[2:].tolist())]
    assert data.notes[-1] == "train.json: 1 of 42 images are missing, left out with their 1 annotations: 7.png"


@pytest.mark.parametrize("name", ["a.png", "images/a.png"])
def test_images_beside_the_file_or_in_the_folder_images(tmp_path, name):
    (tmp_path / "images").mkdir()
    path = write(tmp_path, changed(lambda d: [d["images"][0].update(file_name=name), drop_last(d)]), images=())
    (tmp_path / "images" / "a.png").touch()
    assert [str(file) for file in read_coco(path).image_files] == [f"{tmp_path}/images/a.png"]


def drop_last(document):
    document["annotations"].pop()


def test_windows_paths_are_read(tmp_path):
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "a.png").touch()
    data = read(tmp_path, changed(lambda d: d["images"][0].update(file_name="video\\a.png")))
    assert data.image_files[0] == tmp_path / "video" / "a.png"


def test_an_unlabelled_point_may_be_anywhere(tmp_path):
    data = read(tmp_path, changed(first(keypoints=[2, 3, 2, 8, 9, 1, math.nan, None, 0])))
    assert data.keypoints[0].tolist() == [[2, 3], [8, 9], [0, 0]]


def test_what_else_the_file_says_is_kept(tmp_path):
    def say_more(document):
        document["images"][0].update(background=5, group="cage", license=1, tags=["a"])
        document["images"][1].update(background=None, group="yard")
        document["categories"][0]["supercategory"] = "Pisces"
        document["annotations"][1]["identity"] = "Wanda"

    data = read(tmp_path, changed(say_more))
    assert data.image_fields == {"background": (5, None)}
    assert data.image_groups == ("cage", "yard")
    assert data.supercategories == {1: "Pisces"}
    assert data.identities == ("", "Wanda")
    assert data.take(np.array([1])).identities == ("Wanda",)


def whole_body(**changes):
    """An annotation as COCO-WholeBody has it: x of keypoint k is k, y is 1000 + k, all visible, but for `changes`."""
    first_of, entry = 0, {}
    for key, _, count in PARTS.values():
        points = [[k, 1000 + k, 2] for k in range(first_of, first_of + count)]
        entry |= {key: [value for point in points for value in point]}
        first_of += count
    return entry | {v: True for _, v, _ in PARTS.values() if v} | changes


def whole_body_file(folder, **changes):
    def fill(document):
        document["annotations"] = [{**document["annotations"][0], **whole_body(**changes)}]
        document["categories"][0].update(keypoints=list(load_skeleton("coco17").keypoints), skeleton=[])

    return write(folder, changed(fill))


def test_the_skeleton_chooses_the_parts_of_a_whole_body(tmp_path):
    path = whole_body_file(tmp_path)
    body = read_coco(path, tmp_path)
    assert body.skeleton.name == "coco17"
    assert "train.json: holds feet, faces and hands too; data.skeleton: coco_wholebody133 reads all" in body.notes[0]
    whole = read_coco(path, tmp_path, load_skeleton("coco_wholebody133"))
    assert whole.keypoints[0].tolist() == [[k, 1000 + k] for k in range(133)]
    hands = read_coco(path, tmp_path, skeleton_of_parts(["righthand", "foot"]))
    assert hands.keypoints[0, :, 0].tolist() == [*range(17, 23), *range(112, 133)]
    assert hands.skeleton.keypoints[-1] == "right_pinky_finger4"
    own = tmp_path / "own.yaml"
    own.write_text("keypoints: [face-30, left_heel]\n")
    assert read_coco(path, tmp_path, load_skeleton(own)).keypoints[0].tolist() == [[53, 1053], [19, 1019]]


def test_parts_that_are_not_valid_are_not_labelled_and_likelihoods_are_hidden(tmp_path):
    hand = [0.5, 1, 0.07] + [3, 4, 1] * 20
    path = whole_body_file(tmp_path, face_valid=False, lefthand_kpts=hand)
    data = read_coco(path, tmp_path, load_skeleton("coco_wholebody133"))
    assert not data.visibility[0, 23:91].any()
    assert data.visibility[0, 91:93].tolist() == [1, 1]
    assert data.keypoints[0, 91].tolist() == [0.5, 1]


def test_a_whole_body_in_one_list(tmp_path):
    flat = [value for k in range(133) for value in (k, 1, 2)]
    path = whole_body_file(tmp_path, keypoints=flat)
    assert read_coco(path, tmp_path).keypoints[0, :, 0].tolist() == list(range(133))
    assert read_coco(path, tmp_path, load_skeleton("coco17")).keypoints[0, :, 0].tolist() == list(range(17))


def test_parts_of_the_wrong_length(tmp_path):
    path = whole_body_file(tmp_path, foot_kpts=[1, 2, 2])
    with pytest.raises(DataError) as error:
        read_coco(path, tmp_path, load_skeleton("coco_wholebody133"))
    assert str(error.value) == (
        f"{path}: annotation 11: foot_kpts has 3 numbers, COCO-WholeBody has 18 there (x, y, visibility each)"
    )


def test_unknown_parts():
    with pytest.raises(DataError) as error:
        skeleton_of_parts(["bodies"])
    assert str(error.value) == "there is no part 'bodies' of the whole body; did you mean 'body'?"


# ------------------------------------------------------------------------------------------------------- bad data


def test_a_group_or_an_identity_may_be_zero(tmp_path):
    def number(document):
        document["images"][0]["group"] = 0
        document["annotations"][1]["identity"] = 0

    data = read(tmp_path, changed(number))
    assert data.image_groups == ("0", "")
    assert data.identities == ("", "0")
    assert data.image_fields == {}


def test_images_without_an_annotation_are_counted(tmp_path):
    data = read(tmp_path, changed(lambda d: d["images"].append({"id": 3, "file_name": "c.png"})))
    assert data.notes[-1] == "train.json: 1 images hold no annotation; left out"


def first(**changes):
    return lambda document: document["annotations"][0].update(changes)


def drop(key):
    return lambda document: document.pop(key)


BAD = {
    "group of two": (
        lambda d: d["images"][0].update(group=[1, 2]),
        "image entry 1: group [1, 2] is neither text nor a number; give its name, or leave it out",
    ),
    "identity yes": (
        first(identity=True),
        "annotation 11: identity True is neither text nor a number; give its name, or leave it out",
    ),
    "keypoint count": (
        first(keypoints=[2, 3, 2, 8, 9, 1]),
        "annotation 11: keypoints has 6 numbers, skeleton fish needs 9 (x, y, visibility for 3 keypoints)",
    ),
    "a number too many": (
        first(keypoints=[2, 3, 2, 8, 9, 1, 0, 0, 0, 7]),
        "annotation 11: keypoints has 10 numbers, skeleton fish needs 9 (x, y, visibility for 3 keypoints)",
    ),
    "nested keypoints": (
        first(keypoints=[[2, 3, 2], [8, 9, 1], [0, 0, 0]]),
        "annotation 11: keypoints must be a flat list of numbers",
    ),
    "keypoints that are words": (
        first(keypoints=["here", 3, 2, 8, 9, 1, 0, 0, 0]),
        "annotation 11: keypoints must be a flat list of numbers, without quotes around them (found 'here')",
    ),
    "category that is not declared": (
        first(category_id=9),
        "annotation 11: category_id 9 is not among the file's categories",
    ),
    "box of zero size": (
        first(bbox=[1, 2, 0, 10]),
        "annotation 11: bbox [1, 2, 0, 10] has no area; width and height must be above 0",
    ),
    "negative box": (
        first(bbox=[1, 2, 20, -1]),
        "annotation 11: bbox [1, 2, 20, -1] has no area; width and height must be above 0",
    ),
    "box of three": (
        first(bbox=[1, 2, 20]),
        "annotation 11: bbox [1, 2, 20] must be four finite numbers: x, y, width, height",
    ),
    "box with nan": (
        first(bbox=[1, math.nan, 20, 10]),
        "annotation 11: bbox [1, nan, 20, 10] must be four finite numbers: x, y, width, height",
    ),
    "no box, one keypoint": (
        first(bbox=None, keypoints=[2, 3, 2, 0, 0, 0, 0, 0, 0]),
        "annotation 11: a box cannot be drawn around 1 labelled keypoint(s); give it a box",
    ),
    "negative area": (first(area=-3), "annotation 11: area -3 must be a number of square pixels, 0 or more"),
    "duplicate annotation id": (
        lambda d: d["annotations"][1].update(id=11),
        "annotation entry 2: id 11 is used twice; every entry needs its own",
    ),
    "duplicate image id": (
        lambda d: d["images"].append({"id": 2, "file_name": "c.png"}),
        "image entry 3: id 2 is used twice; every entry needs its own",
    ),
    "file listed twice": (
        lambda d: d["images"].append({"id": 3, "file_name": "a.png"}),
        "image entry 3: a.png is image 1 already; every file has one entry",
    ),
    "image that is not declared": (first(image_id=5), "annotation 11: image_id 5 is not among the file's images"),
    "ids as text": (
        lambda d: d["annotations"][0].update(id="11"),
        "annotation entry 1: id '11' is not a whole number; ids are whole numbers, without quotes",
    ),
    "image id as text": (
        first(image_id="1"),
        "annotation 11: image_id '1' is not a whole number; ids are whole numbers, without quotes",
    ),
    "no id": (
        lambda d: d["annotations"][0].pop("id"),
        "annotation entry 1: id None is not a whole number; ids are whole numbers, without quotes",
    ),
    "nothing labelled": (
        lambda d: [a.update(keypoints=[0] * 9) for a in d["annotations"]],
        "none of the 2 annotations has a labelled keypoint; nothing to learn from",
    ),
    "no annotations": (
        lambda d: d["annotations"].clear(),
        "none of the 0 annotations has a labelled keypoint; nothing to learn from",
    ),
    "nan": (
        first(keypoints=[2, math.nan, 2, 8, 9, 1, 0, 0, 0]),
        "annotation 11: keypoint 'mouth' is at (2, nan); coordinates must be finite numbers",
    ),
    "infinity": (
        first(keypoints=[2, 3, 2, math.inf, 9, 1, 0, 0, 0]),
        "annotation 11: keypoint 'left_fin' is at (inf, 9); coordinates must be finite numbers",
    ),
    "visibility 3": (
        first(keypoints=[2, 3, 3, 8, 9, 1, 0, 0, 0]),
        "annotation 11: visibility 3 of keypoint 'mouth' must be 0 (not labelled), 1 (hidden) or 2 (visible)",
    ),
    "visibility as a likelihood": (
        first(keypoints=[2, 3, 0.98, 8, 9, 1, 0, 0, 0]),
        "annotation 11: visibility 0.98 of keypoint 'mouth' must be 0 (not labelled), 1 (hidden) or 2 (visible)",
    ),
    "iscrowd": (first(iscrowd="no"), "annotation 11: iscrowd 'no' must be 0 or 1"),
    "no annotations key": (drop("annotations"), "is not a COCO keypoint file, it has no list of annotations"),
    "other keys": (
        lambda d: [d.pop("images"), d.pop("categories")],
        "is not a COCO keypoint file, it has no list of images and no list of categories",
    ),
    "file name outside": (
        lambda d: d["images"][0].update(file_name="../a.png"),
        "image entry 1: file name '../a.png' leads out of the images folder {folder}; images must lie below it",
    ),
    "absolute file name": (
        lambda d: d["images"][0].update(file_name="/etc/passwd"),
        "image entry 1: file name '/etc/passwd' leads out of the images folder {folder}; images must lie below it",
    ),
    "no file name": (
        lambda d: d["images"][0].pop("file_name"),
        "image entry 1: file name None is not a file name; give each image one",
    ),
    "missing images": (
        lambda d: d["images"][0].update(file_name="c.png"),
        "1 of 2 images are not below the folder {folder} (looked for {folder}/c.png, for example); "
        "name the folder of the images as data.images",
    ),
    "category without names": (
        lambda d: d["categories"][0].pop("keypoints"),
        "its categories list no keypoint names; give data.skeleton",
    ),
    "categories of different bodies": (
        add_bird,
        "category 'bird': has 1 keypoints, skeleton fish has 3; give the skeleton that fits, "
        "or choose with data.categories",
    ),
    "limb out of range": (
        lambda d: d["categories"][0].update(skeleton=[[1, 4]]),
        "category 'fish' has the limb [1, 4] in its skeleton; limbs are two numbers from 1 to 3, "
        "its number of keypoints",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=BAD)
def test_bad_data_sets(tmp_path, change, sentence):
    with pytest.raises(DataError) as error:
        read(tmp_path, changed(change))
    assert str(error.value) == f"{tmp_path}/train.json: {sentence.format(folder=tmp_path)}"


def test_unknown_category_gets_the_nearest(tmp_path):
    with pytest.raises(DataError) as error:
        read(tmp_path, categories=["fisch"])
    assert str(error.value) == f"{tmp_path}/train.json: there is no category 'fisch'; did you mean 'fish'?"


def test_skeleton_in_another_order(tmp_path):
    own = tmp_path / "koi.yaml"
    own.write_text("keypoints: [mouth, right_fin, left_fin]\n")
    with pytest.raises(DataError) as error:
        read(tmp_path, skeleton=load_skeleton(own))
    assert str(error.value) == (
        f"{tmp_path}/train.json: category 'fish': lists the keypoints of skeleton koi in another order "
        "(first 'left_fin' where the skeleton has 'right_fin'); give a skeleton in the file's order"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty (0 bytes); write or copy it again"),
        ("nothing", "is not whole JSON (line 1, column 1: Expecting value); was it cut off? write or copy it again"),
        (
            json.dumps(GOOD)[:70],
            "is not whole JSON (line 1, column 71: Expecting ',' delimiter); was it cut off? write or copy it again",
        ),
        (
            "[]",
            "is not a COCO keypoint file, it has no list of images and no list of annotations "
            "and no list of categories",
        ),
    ],
)
def test_files_that_are_not_coco(tmp_path, text, sentence):
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    assert str(error.value) == f"{tmp_path}/train.json: {sentence}"


def test_a_picture_instead_of_a_file(tmp_path):
    path = tmp_path / "train.json"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(DataError, match=r"train.json: is not text, so not JSON"):
        read_coco(path, tmp_path)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match=r"train.json: no such file; data.train and data.val name the annotations"):
        read_coco(tmp_path / "train.json", tmp_path)


def test_many_mistakes_are_told_at_once_ten_of_them(tmp_path):
    def spoil(document):
        for i in range(12):
            document["annotations"].append(document["annotations"][0] | {"id": 20 + i, "bbox": [0, 0, 0, 0]})

    with pytest.raises(DataError) as error:
        read(tmp_path, changed(spoil))
    head, *lines = str(error.value).splitlines()
    assert head == f"{tmp_path}/train.json: 12 mistakes, the first 10"
    assert len(lines) == 10
    assert lines[0] == "  annotation 20: bbox [0, 0, 0, 0] has no area; width and height must be above 0"


# ------------------------------------------------------------------------------------------------------ real data


def test_coco_wholebody_against_plain_counting():
    path = FORMATS / "coco/test_coco_wholebody.json"
    if not path.is_file():
        pytest.skip("shared/data/formats/coco is not here")
    raw = json.loads(path.read_text())["annotations"]
    data = read_coco(path, path.parent, load_skeleton("coco_wholebody133"))
    labelled = sum(v > 0 for a in raw for key, valid, _ in PARTS.values() if a.get(valid, True) for v in a[key][2::3])
    assert int((data.visibility > 0).sum()) == labelled
    flat = read_coco(FORMATS / "coco/test_keypoint_partition_metric.json", path.parent)
    assert flat.skeleton.name == "coco_wholebody133"
    np.testing.assert_allclose(flat.keypoints, data.keypoints, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "skeleton"),
    [
        ("coco/test_coco.json", "coco17"),
        ("ap10k/test_ap10k.json", "ap10k17"),
        ("animalpose/test_animalpose.json", "animalpose20"),
        ("horse10/test_horse10.json", "horse22"),
    ],
)
def test_published_files_against_plain_counting(name, skeleton):
    path = FORMATS / name
    if not path.is_file():
        pytest.skip(f"shared/data/formats/{name} is not here")
    raw = json.loads(path.read_text())
    by_id = {a["id"]: a for a in raw["annotations"]}
    data = read_coco(path, path.parent)
    assert data.skeleton.name == skeleton
    assert set(data.ids.tolist()) == set(by_id)
    assert len(data.image_files) == len({a["image_id"] for a in by_id.values()})
    labelled = sum(v > 0 for a in by_id.values() for v in a["keypoints"][2::3])
    assert int((data.visibility > 0).sum()) == labelled
    assert data.crowd.sum() == sum(a["iscrowd"] for a in by_id.values())
    for row, annotation_id in enumerate(data.ids.tolist()):
        raw_annotation = by_id[annotation_id]
        assert data.boxes[row].tolist() == raw_annotation["bbox"]
        assert data.areas[row] == raw_annotation["area"]
        assert data.visibility[row].astype(bool).sum() == raw_annotation["num_keypoints"]
        image = next(i for i in raw["images"] if i["id"] == raw_annotation["image_id"])
        assert data.image_files[data.image_index[row]] == path.parent / image["file_name"]
