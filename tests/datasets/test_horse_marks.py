"""The 42 further points of the horse: on its skin, where anatomy has them, in every pose, left on the left."""

from dataclasses import replace

import numpy as np
import pytest

from posesweep.datasets.horse_body import PART_ID, Build, horse_body, surface
from posesweep.datasets.horse_gait import MOODS, random_build, random_pose, standing
from posesweep.datasets.horse_marks import HORSE26, HORSE68, MARKS, SCHEMAS, marks
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.synthetic import HorseImage, render_horse

NAMES = load_skeleton("horse68").keypoints


def places(build: Build | None = None, pose=None) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, HORSE68.points(horse_body(build or Build(), pose or standing())), strict=True))


def test_the_schemas_name_what_the_skeleton_files_name():
    assert {count: schema.skeleton for count, schema in SCHEMAS.items()} == {26: "horse26", 68: "horse68"}
    for schema in (HORSE26, HORSE68):
        assert tuple(landmark.name for landmark in schema.landmarks) == load_skeleton(schema.skeleton).keypoints
    assert len(MARKS) == 42


def test_left_and_right_mirror_each_other_and_the_others_lie_in_the_middle():
    at = places()
    pairs = load_skeleton("horse68").flip_pairs
    for left, right in pairs:
        np.testing.assert_allclose(at[left], at[right] * [1, -1, 1], atol=1e-12, err_msg=left)
        assert at[left][1] > 0, left
    sided = {name for pair in pairs for name in pair}
    for name in set(NAMES) - sided:
        assert abs(at[name][1]) < 1e-12, name


def test_every_mark_lies_on_a_part_that_it_may_show_on():
    rng = np.random.default_rng(0)
    for mood in MOODS:
        body = horse_body(random_build(rng), replace(random_pose(rng, mood), bend=0.0))
        for mark, place in zip(MARKS, marks(body.vertices), strict=True):
            own = np.isin(surface().part, [PART_ID[part] for part in mark.landmark.parts])
            corners = body.vertices[np.unique(surface().faces[own])]
            assert np.linalg.norm(corners - place, axis=1).min() < 0.12, mark.landmark.name
            assert sum(mark.weights) == pytest.approx(1.0)
            assert min(mark.weights) >= 0


@pytest.mark.parametrize(
    ("axis", "names"),
    [  # from hind to fore, and from the ground up, on a standing horse
        (0, "tail_tip left_buttock croup loin left_ribs back withers crest_lower crest_upper left_jaw chin"),
        (0, "left_hind_heel left_hind_hoof left_hind_toe left_front_heel left_front_hoof left_front_toe"),
        (0, "left_ear_base left_eye_back_corner left_eye left_eye_front_corner nose_bridge muzzle_tip"),
        (2, "left_hind_toe left_hind_coronet left_hind_fetlock left_hock tail_tip belly left_ribs left_hip_bone croup"),
        (2, "left_front_toe left_front_coronet left_knee breast left_shoulder_point back withers throat left_ear_base"),
        (2, "chin left_mouth_corner nose_bridge left_eye_front_corner left_eye forehead left_ear_base left_ear_tip"),
    ],
)
def test_a_standing_horse_has_its_points_in_the_order_of_anatomy(axis, names):
    at = places()
    along = [at[name][axis] for name in names.split()]
    assert along == sorted(along), dict(zip(names.split(), along, strict=True))


def test_eye_corners_enclose_the_eye_and_the_hoof_its_points():
    at = places()
    for side in ("left", "right"):
        ends = np.stack([at[f"{side}_eye_{end}_corner"] for end in ("front", "back")])
        assert np.linalg.norm(ends.mean(axis=0) - at[f"{side}_eye"]) < 0.01
        assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(0.064, abs=0.01)
        for end in ("front", "hind"):
            hoof = np.mean([at[f"{side}_{end}_{part}"] for part in ("coronet", "toe", "heel")], axis=0)
            assert np.linalg.norm(hoof - at[f"{side}_{end}_hoof"]) < 0.06


def test_points_keep_their_place_on_the_head_whatever_the_pose():
    rng = np.random.default_rng(4)
    names = ("forehead", "nose_bridge", "muzzle_tip", "chin", "left_jaw", "left_eye_front_corner")
    lengths = []
    for mood in MOODS:
        at = places(pose=replace(random_pose(rng, mood), bend=0.0))
        lengths.append([np.linalg.norm(at["poll"] - at[name]) for name in names])
    np.testing.assert_allclose(lengths, np.tile(lengths[0], (len(MOODS), 1)), atol=1e-9)


# ------------------------------------------------------------------------------------------------------- in pictures


@pytest.fixture(scope="module")
def pictures() -> list[tuple[HorseImage, HorseImage]]:
    return [(render_horse(5, i), render_horse(5, i, schema=HORSE68)) for i in range(40)]


def test_the_first_26_points_and_the_picture_are_those_of_horse26(pictures):
    for small, large in pictures:
        np.testing.assert_array_equal(small.image, large.image)
        for name in ("keypoints", "visibility", "points_3d"):
            np.testing.assert_array_equal(getattr(large, name)[:, :26], getattr(small, name))
        np.testing.assert_array_equal(small.areas, large.areas)


def test_every_point_is_seen_in_some_pictures_and_hidden_in_others(pictures):
    flags = np.concatenate([large.visibility for _, large in pictures])
    seen, hidden = ((flags == value).mean(axis=0) for value in (2, 1))
    assert [name for name, share in zip(NAMES, seen, strict=True) if share < 0.3] == []
    assert (hidden > 0.02).all()


def test_a_point_on_the_far_side_is_hidden(pictures):
    """One of a pair of points on the flanks is seen, rarely both: the trunk is between them."""
    flags = np.concatenate([large.visibility for _, large in pictures])
    for name in ("ribs", "hip_bone", "jaw"):
        both = (flags[:, [NAMES.index(f"{side}_{name}") for side in ("left", "right")]] == 2).all(axis=1)
        assert both.mean() < 0.15, name


def test_a_seen_point_lies_on_its_parts(pictures):
    near = total = 0
    for _, large in pictures:
        for horse, (points, flags) in enumerate(zip(large.keypoints, large.visibility, strict=True), start=1):
            for landmark, point, flag in zip(HORSE68.landmarks, points, flags, strict=True):
                if flag == 2:
                    x, y = np.rint(point).astype(int)
                    around = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                    own = np.isin(large.part, [PART_ID[part] for part in landmark.parts]) & (large.owner == horse)
                    near, total = near + own[around].any(), total + 1
    assert total > 1500
    assert near / total > 0.998
