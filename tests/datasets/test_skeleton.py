"""Skeletons: what is shipped, what is inferred, and the sentence for every mistake in a file."""

import numpy as np
import pytest
import yaml
from pycocotools.cocoeval import Params

from posesweep.datasets.skeleton import (
    DEFAULT_NOTE,
    infer_flip_pairs,
    load_skeleton,
    shipped,
    skeleton_from_coco_category,
    skeleton_from_names,
)
from posesweep.errors import DataError

COUNTS = {"coco17": 17, "ap10k17": 17, "animalpose20": 20, "horse22": 22, "horse26": 26, "mouse4": 4}
COUNTS |= {"coco_wholebody133": 133, "horse68": 68, "face68": 68, "hand21": 21, "h36m17": 17}


@pytest.mark.parametrize("name", COUNTS)
def test_shipped_skeletons_load_and_mirror_onto_themselves(name):
    skeleton = load_skeleton(name)
    assert skeleton.name == name
    assert len(skeleton.keypoints) == len(skeleton.sigmas) == COUNTS[name]
    twice = skeleton.flip_index[skeleton.flip_index]
    assert twice.tolist() == list(range(COUNTS[name]))


def test_every_file_in_the_folder_is_one_of_the_shipped():
    assert shipped() == sorted(COUNTS)


def test_coco17_has_the_sigmas_of_cocoeval():
    np.testing.assert_allclose(load_skeleton("coco17").sigmas, Params(iouType="keypoints").kpt_oks_sigmas, rtol=1e-15)


def test_coco17_flip_index():
    assert load_skeleton("coco17").flip_index.tolist() == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


# mmpose's ears of animalpose20 differ, see its comment; so do COCO-WholeBody's feet and face
@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"animalpose20", "coco_wholebody133", "face68"}))
def test_sigmas_are_the_same_on_both_sides(name):
    skeleton = load_skeleton(name)
    np.testing.assert_array_equal(skeleton.sigmas, skeleton.sigmas[skeleton.flip_index])


@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"coco17", "coco_wholebody133"}))
def test_sigmas_that_nobody_measured_say_so(name):
    assert load_skeleton(name).sigmas_note


# near and off are words of horse people; the points of a face have numbers
@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"horse22", "coco_wholebody133"}))
def test_inferred_pairs_of_shipped_names_are_the_written_ones(name):
    skeleton = load_skeleton(name)
    assert set(infer_flip_pairs(skeleton.keypoints)) == set(skeleton.flip_pairs)


def test_horse68_goes_on_where_horse26_ends():
    small, large = load_skeleton("horse26"), load_skeleton("horse68")
    assert large.keypoints[:26] == small.keypoints
    np.testing.assert_array_equal(large.sigmas[:26], small.sigmas)
    assert set(small.flip_pairs) < set(large.flip_pairs)
    assert set(small.upper_body) < set(large.upper_body)


def test_face68_mirrors_as_300w_does():
    index = load_skeleton("face68").flip_index
    # jaw, brows, bridge, nostrils, eyes, outer and inner lips; image left to image right, as iBUG counts
    assert index[:17].tolist() == list(range(16, -1, -1))
    assert index[17:27].tolist() == list(range(26, 16, -1))
    assert index[27:36].tolist() == [27, 28, 29, 30, 35, 34, 33, 32, 31]
    assert index[36:48].tolist() == [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    assert index[48:68].tolist() == [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]


def test_faces_and_hands_have_the_sigmas_of_the_whole_body():
    whole = load_skeleton("coco_wholebody133")
    at = dict(zip(whole.keypoints, whole.sigmas, strict=True))
    np.testing.assert_array_equal(load_skeleton("face68").sigmas, [at[f"face-{i}"] for i in range(68)])
    hand = load_skeleton("hand21")
    for side in ("left", "right"):
        names = [f"{side}_hand_root", *(f"{side}_{name}" for name in hand.keypoints[1:])]
        np.testing.assert_array_equal(hand.sigmas, [at[name] for name in names])
    assert hand.flip_pairs == ()


def test_h36m17_is_in_the_order_of_videopose3d():
    skeleton = load_skeleton("h36m17")
    left = [i for i, name in enumerate(skeleton.keypoints) if name.startswith("left_")]
    assert left == [4, 5, 6, 11, 12, 13]
    assert skeleton.flip_index.tolist() == [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_limbs_join_each_pair_of_keypoints_once(name):
    edges = [frozenset(edge) for edge in load_skeleton(name).edges]
    assert len(set(edges)) == len(edges)


def test_horse22_swaps_near_and_off():
    pairs = load_skeleton("horse22").flip_pairs
    assert len(pairs) == 6
    assert all(right == left.replace("Near", "Off") for left, right in pairs)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("leftear", "rightear"),
        ("LeftPaw", "RightPaw"),
        ("front_left_paw", "front_right_paw"),
        ("eye_left", "eye_right"),
        ("L_Eye", "R_Eye"),
        ("LEye", "REye"),
        ("PawL", "PawR"),
        ("paw_l", "paw_r"),
        ("l-hip", "r-hip"),
        ("L_F_Paw", "R_F_Paw"),
        ("Paw L2", "Paw R2"),
    ],
)
def test_left_and_right_names_pair(left, right):
    assert infer_flip_pairs([right, "nose", left]) == ((left, right),)


@pytest.mark.parametrize("names", [("lump", "rump"), ("ear", "eal"), ("left_eye", "nose"), ("Lip", "Rip")])
def test_other_names_do_not_pair(names):
    assert infer_flip_pairs(names) == ()


def test_unknown_name_gets_the_nearest():
    with pytest.raises(DataError) as error:
        load_skeleton("coco18")
    assert str(error.value) == (
        "skeleton 'coco18' is unknown; did you mean 'coco17'?; your own is the path of a .yaml file"
    )


def test_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(DataError, match=r"cow.yaml: no such skeleton file; the shipped ones are animalpose20, ap10k17"):
        load_skeleton(tmp_path / "cow.yaml")


def test_own_file_with_names_only(tmp_path):
    path = tmp_path / "fly.yaml"
    path.write_text("keypoints: [head, left_wing, right_wing]\n")
    skeleton = load_skeleton(path)
    assert (skeleton.name, skeleton.flip_pairs, skeleton.edges) == ("fly", (("left_wing", "right_wing"),), ())
    assert skeleton.sigmas.tolist() == [0.05, 0.05, 0.05]
    assert skeleton.sigmas_note == DEFAULT_NOTE


def test_own_file_may_say_that_nothing_is_swapped(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("keypoints: [left_end, right_end]\nflip_pairs: []\n")
    assert load_skeleton(path).flip_pairs == ()


def test_sigmas_by_name_and_as_a_list_are_the_same(tmp_path):
    by_name, listed = tmp_path / "a.yaml", tmp_path / "b.yaml"
    by_name.write_text("keypoints: [a, b]\nsigmas: {b: 0.2, a: 0.1}\n")
    listed.write_text("keypoints: [a, b]\nsigmas: [0.1, 0.2]\n")
    assert load_skeleton(by_name).sigmas.tolist() == load_skeleton(listed).sigmas.tolist() == [0.1, 0.2]
    assert load_skeleton(listed).sigmas_note == ""


GOOD = {"keypoints": ["nose", "left_eye", "right_eye"]}
BAD_FILES = {
    "pair of an unknown keypoint": (
        {"flip_pairs": [["left_eye", "right_eyes"]]},
        "flip_pairs: 'right_eyes' in ['left_eye', 'right_eyes'] is not a keypoint; did you mean 'right_eye'?",
    ),
    "edge of an unknown keypoint": (
        {"edges": [["nose", "tail"]]},
        "edges: 'tail' in ['nose', 'tail'] is not a keypoint; known: left_eye, nose, right_eye",
    ),
    "pair of one": (
        {"flip_pairs": [["left_eye"]]},
        "flip_pairs: ['left_eye'] is not a pair of two different keypoint names",
    ),
    "pair of a keypoint with itself": (
        {"flip_pairs": [["nose", "nose"]]},
        "flip_pairs: ['nose', 'nose'] is not a pair of two different keypoint names",
    ),
    "two mirror images": (
        {"flip_pairs": [["left_eye", "right_eye"], ["nose", "left_eye"]]},
        "flip_pairs: 'left_eye' is in two pairs; a keypoint has one mirror image",
    ),
    "pair across the names": (
        {"keypoints": ["left_eye", "right_eye", "nose"], "flip_pairs": [["nose", "left_eye"]]},
        "flip_pairs: 'left_eye' is paired with 'nose', but by their names 'right_eye' mirrors it",
    ),
    "pair of one side": (
        {
            "keypoints": ["left_eye", "right_eye", "left_ear", "right_ear"],
            "flip_pairs": [["left_eye", "left_ear"], ["right_eye", "right_ear"]],
        },
        "2 mistakes\n"
        "  flip_pairs: 'left_eye' is paired with 'left_ear', but by their names 'right_eye' mirrors it\n"
        "  flip_pairs: 'right_eye' is paired with 'right_ear', but by their names 'left_eye' mirrors it",
    ),
    "a side without its pair": (
        {"keypoints": ["a_l", "a_r", "left_eye", "right_eye"], "flip_pairs": [["a_l", "a_r"]]},
        "flip_pairs: 'left_eye' and 'right_eye' are in no pair, and their names differ in side only; "
        "add the pair, or leave flip_pairs out and all pairs are inferred",
    ),
    "no pairs": ({"flip_pairs": "left_eye"}, "flip_pairs must be a list of pairs of keypoint names"),
    "too few sigmas": (
        {"sigmas": [0.1, 0.1]},
        "sigmas: 2 values for 3 keypoints; give one each, in the same order",
    ),
    "a sigma for all": ({"sigmas": 0.1}, "sigmas: 0.1 for 3 keypoints; give one each, in the same order"),
    "sigma of zero": (
        {"sigmas": [0.1, 0, 0.1]},
        "sigmas: 0 of 'left_eye' must be a number above 0 (COCO's are 0.025 to 0.107)",
    ),
    "sigma of an unknown keypoint": (
        {"sigmas": {"nose": 0.1, "left_eye": 0.1, "right_eye": 0.1, "tail": 0.1}},
        "sigmas: 'tail' is not a keypoint; known: left_eye, nose, right_eye",
    ),
    "sigma left out": (
        {"sigmas": {"nose": 0.1, "left_eye": 0.1}},
        "sigmas: keypoint 'right_eye' has none; give every keypoint one, or leave sigmas out",
    ),
    "keypoint twice": ({"keypoints": ["a", "b", "a"]}, "keypoint 'a' is listed twice; every name must differ"),
    "keypoint that is no text": (
        {"keypoints": ["a", True]},
        "keypoints must be at least one name, each of them text (put quotes around numbers, yes and no)",
    ),
    "no keypoints": ({"keypoints": None}, "a skeleton file needs 'keypoints', a list of names"),
    "unknown key": ({"flip_pair": []}, "unknown key 'flip_pair'; did you mean 'flip_pairs'?"),
}


@pytest.mark.parametrize(("changes", "sentence"), BAD_FILES.values(), ids=BAD_FILES)
def test_mistakes_in_a_file(tmp_path, changes, sentence):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    with pytest.raises(DataError) as error:
        load_skeleton(path)
    assert str(error.value) == f"{path}: {sentence}"


def test_pairs_may_list_the_right_one_first(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("keypoints: [l_eye, r_eye, near1, off1]\nflip_pairs: [[r_eye, l_eye], [off1, near1]]\n")
    assert load_skeleton(path).flip_pairs == (("l_eye", "r_eye"), ("off1", "near1"))


def test_all_mistakes_of_a_file_at_once(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("keypoints: [a, b]\nsigmas: [-1, 0]\nedges: [[a, c]]\n")
    with pytest.raises(DataError) as error:
        load_skeleton(path)
    first, *others = str(error.value).splitlines()
    assert first == f"{path}: 3 mistakes"
    assert [line.split(":")[0].strip() for line in others] == ["edges", "sigmas", "sigmas"]


def test_a_file_that_is_not_yaml(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("keypoints: [a, b\n")
    with pytest.raises(DataError, match=r"own.yaml: not readable as YAML: while parsing a flow sequence"):
        load_skeleton(path)


# ------------------------------------------------------------------------------------------- from a COCO category


def test_category_with_limbs_counted_from_one():
    category = {"keypoints": ["nose", "L_Eye", "R_Eye"], "skeleton": [[1, 2], [1, 3]]}
    skeleton = skeleton_from_coco_category(category, "cat")
    assert skeleton.edges == (("nose", "L_Eye"), ("nose", "R_Eye"))
    assert skeleton.flip_pairs == (("L_Eye", "R_Eye"),)
    assert skeleton.sigmas_note == DEFAULT_NOTE


def test_names_of_a_shipped_skeleton_bring_its_sigmas():
    coco17 = load_skeleton("coco17")
    found = skeleton_from_coco_category({"keypoints": list(coco17.keypoints), "skeleton": []}, "person")
    assert found.name == "coco17"
    assert found.sigmas.tolist() == coco17.sigmas.tolist()
    assert skeleton_from_names("x", coco17.keypoints[::-1]).name == "x"  # another order is another skeleton


@pytest.mark.parametrize(
    ("category", "sentence"),
    [
        ({"name": "cat"}, "category 'cat' lists no keypoint names; give data.skeleton"),
        ({"keypoints": ["a", "a"]}, "category 'cat' lists keypoint 'a' twice; every name must differ"),
        (
            {"keypoints": ["a", "b"], "skeleton": [[0, 1]]},
            "category 'cat' has the limb [0, 1] in its skeleton; limbs are two numbers from 1 to 2, "
            "its number of keypoints",
        ),
    ],
)
def test_bad_categories(category, sentence):
    with pytest.raises(DataError) as error:
        skeleton_from_coco_category(category, "cat")
    assert str(error.value) == sentence
