"""Splits: groups whole, the same every time, and every reason to refuse one."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.split import (
    check_apart,
    components,
    image_groups,
    in_share,
    split_groups,
    split_hash,
    split_record,
)
from posesweep.errors import ConfigError, DataError


def make(groups, image_ids=None, names=None, per_image=1):
    """Instances of mice, `per_image` on each image; groups, ids and names of the images as given."""
    m = len(groups)
    image_ids = np.arange(1, m + 1) if image_ids is None else np.array(image_ids)
    image_index = np.repeat(np.arange(m), per_image)
    ids = np.repeat(image_ids, per_image) * 100 + np.tile(np.arange(per_image), m)
    n = len(ids)
    return Instances(
        skeleton=load_skeleton("mouse4"),
        image_files=tuple(Path("images") / name for name in names or [f"{i}.png" for i in image_ids]),
        image_ids=image_ids,
        image_groups=tuple(groups),
        image_index=image_index,
        ids=ids,
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.tile([0.0, 0.0, 9.0, 9.0], (n, 1)),
        keypoints=np.repeat(ids.astype(float), 8).reshape(n, 4, 2),
        visibility=np.full((n, 4), 2, dtype=np.uint8),
        areas=np.full(n, 81.0),
        crowd=np.zeros(n, dtype=bool),
    )


def shuffled(instances, seed):
    """The same data as another file order would give it."""
    rng = np.random.default_rng(seed)
    images, rows = rng.permutation(len(instances.image_files)), rng.permutation(len(instances))
    place = np.argsort(images)
    moved = instances.take(rows)
    return Instances(
        **{
            **{name: getattr(moved, name) for name in moved.__dataclass_fields__},
            "image_files": tuple(moved.image_files[i] for i in images),
            "image_ids": moved.image_ids[images],
            "image_groups": tuple(moved.image_groups[i] for i in images),
            "image_index": place[moved.image_index],
        }
    )


def groups_of(side):
    return {side.image_groups[i] or str(side.image_files[i]) for i in side.image_index}


def sides(groups, fraction, seed=0, **options):
    return split_groups(make(groups, **options), fraction, seed)


data_sets = st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=2, max_size=40).filter(
    lambda groups: len(set(groups)) > 1 or (set(groups) == {""})
)
fractions = st.floats(0.05, 0.95)


@given(data_sets, fractions, st.integers(0, 100), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_groups_stay_whole_and_nothing_is_lost(groups, fraction, seed, per_image):
    whole = make(groups, per_image=per_image)
    train, val = split_groups(whole, fraction, seed)
    assert not groups_of(train) & groups_of(val)
    assert sorted([*train.ids.tolist(), *val.ids.tolist()]) == sorted(whole.ids.tolist())
    assert len(train)
    assert len(val)
    assert set(train.image_files) | set(val.image_files) == set(whole.image_files)
    for side in (train, val):  # what an image index points to is still the annotation's image
        assert (side.image_ids[side.image_index] == side.ids // 100).all()


@given(data_sets, fractions, st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_the_fraction_is_met_to_within_one_group(groups, fraction, seed):
    _, val = sides(groups, fraction, seed)
    largest = max(size for group, size in Counter(groups).items() if group) if any(groups) else 1
    assert abs(len(val.image_files) - fraction * len(groups)) <= largest


@given(data_sets, fractions, st.integers(0, 100), st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_file_order_means_nothing(groups, fraction, seed, order):
    whole = make(groups, per_image=2)
    straight = split_groups(whole, fraction, seed)
    turned = split_groups(shuffled(whole, order), fraction, seed)
    for one, other in zip(straight, turned, strict=True):
        assert sorted(one.ids.tolist()) == sorted(other.ids.tolist())
    assert split_hash(*straight) == split_hash(*turned)


def test_images_of_equal_weight_are_counted_exactly():
    train, val = sides([""] * 10, 0.2)
    assert (len(train), len(val)) == (8, 2)


def test_the_split_is_the_same_on_every_machine_and_day():
    _, val = sides([""] * 10, 0.3, seed=0)
    assert val.ids.tolist() == [200, 900, 1000]  # a change here would re-split every sweep there is


def test_seeds_split_differently():
    splits = {tuple(sides([""] * 20, 0.5, seed)[1].ids.tolist()) for seed in range(5)}
    assert len(splits) == 5


def test_more_data_later_moves_few_images():
    _, before = sides([""] * 100, 0.2)
    _, after = sides([""] * 110, 0.2)
    assert len(set(before.ids) & set(after.ids)) >= 18


def test_group_by_finds_groups_in_file_names():
    names = [f"horse{h}_{i}.png" for h in range(5) for i in range(4)]
    train, val = split_groups(make([""] * 20, names=names), 0.2, group_by=r"^(horse\d)")
    assert len(val) == 4
    horses = [{file.name[:6] for file in side.image_files} for side in (train, val)]
    assert not horses[0] & horses[1]


def test_group_by_sees_the_folders_that_differ():
    names = [f"day{d}/{i}.png" for d in range(4) for i in range(3)]
    train, val = split_groups(make([""] * 12, names=names), 0.25, group_by=r"(day\d)/")
    assert len({file.parent.name for file in val.image_files}) == 1
    assert len({file.parent.name for file in train.image_files}) == 3


def test_group_by_overrules_the_readers_groups():
    train, val = split_groups(make(["video"] * 10), 0.2, group_by="(.*)")
    assert (len(train), len(val)) == (8, 2)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"val_fraction": 0.0}, ConfigError, "data.val_fraction: 0.0 must lie between 0 and 1; try 0.2"),
        ({"val_fraction": 1.0}, ConfigError, "data.val_fraction: 1.0 must lie between 0 and 1; try 0.2"),
        (
            {"group_by": "("},
            ConfigError,
            "data.group_by: '(' is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        ({"group_by": "(a)(b)"}, ConfigError, "data.group_by: '(a)(b)' has 2 groups in brackets; it must have one"),
        (
            {"group_by": "video_id"},
            DataError,
            "data.group_by: no image has the key 'video_id'; they have no other keys "
            "(a pattern for file names has one group in brackets)",
        ),
        (
            {"group_by": r"(\d)\.jpg"},
            DataError,
            r"data.group_by: '(\d)\.jpg' finds no group in 3 of 3 image names (1.png, for example); "
            "it must fit them all",
        ),
        (
            {"group_by": r"(\.png)"},
            DataError,
            "all 3 images are of one group .png, which a split may not part: give data.val, or a data.group_by that "
            "finds several groups in the file names; group_by: '(.*)' lets every image stand alone, but the scores "
            "then look better than they are where images resemble each other, as frames of one video do",
        ),
    ],
)
def test_splits_that_are_refused(options, error, sentence):
    with pytest.raises(error) as raised:
        split_groups(make(["", "", ""]), **options)
    assert str(raised.value) == sentence


def with_videos(*videos):
    return replace(make([""] * len(videos)), image_fields={"video_id": videos, "site": ("x",) * len(videos)})


def test_group_by_takes_a_key_of_the_images():
    train, val = split_groups(with_videos(*[i // 4 for i in range(20)]), 0.2, group_by="video_id")
    videos = [{side.image_fields["video_id"][i] for i in side.image_index} for side in (train, val)]
    assert not videos[0] & videos[1]
    assert len(val) == 4


def test_a_misspelt_key_and_images_without_it():
    with pytest.raises(DataError) as error:
        split_groups(with_videos(1, 1, 2), group_by="video")
    assert str(error.value) == (
        "data.group_by: no image has the key 'video'; did you mean 'video_id'? "
        "(a pattern for file names has one group in brackets)"
    )
    with pytest.raises(DataError) as error:
        split_groups(with_videos(1, None, 2), group_by="video_id")
    assert str(error.value) == (
        "data.group_by: 1 of 3 images have no 'video_id' (images/2.png, for example); every image needs one"
    )


def test_individuals_join_the_images_they_are_on():
    herd = replace(make([""] * 4, per_image=2), identities=("ann", "bob", "bob", "eve", "joe", "joe", "kim", "kim"))
    assert image_groups(herd, "identity") == ["group ann", "group ann", "group joe", "group kim"]
    with pytest.raises(DataError, match=r"^data.group_by: annotation 100 has no identity; every annotation needs one$"):
        image_groups(replace(herd, identities=("", *herd.identities[1:])), "identity")


def test_individuals_on_both_sides_are_named():
    herd = replace(make([""] * 2), identities=("ann", "bob"))
    with pytest.raises(DataError, match=r"^data.group_by: group 'bob' is in both train and val, 1 groups are"):
        check_apart(herd, replace(make([""], names=["x.png"]), identities=("bob",)), "identity")


def test_components_are_named_after_their_least():
    pairs = np.array([[3, 4], [1, 3], [5, 5]])
    assert components(6, pairs).tolist() == [0, 1, 2, 1, 1, 5]
    assert components(2, np.zeros((0, 2), dtype=np.int64)).tolist() == [0, 1]


def test_one_image_cannot_be_split():
    with pytest.raises(DataError, match=r"^there is only one image, which cannot be split into train and val"):
        split_groups(make([""]))


# -------------------------------------------------------------------------------------------------- leaks, hash


def test_an_image_on_both_sides_is_named(tmp_path):
    (tmp_path / "x.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "x.png")
    train = make(["", ""], names=[tmp_path / "x.png", tmp_path / "y.png"])
    val = make([""], names=[tmp_path / "link.png"])
    with pytest.raises(DataError) as error:
        check_apart(train, val)
    assert str(error.value) == (
        f"1 images are in both train and val ({tmp_path}/link.png, for example); "
        "an image that was trained on says nothing as validation: take it out of one of them"
    )


def test_a_group_on_both_sides_is_named():
    train = make(["", ""], names=["h1_a.png", "h2_a.png"])
    val = make([""], names=["h2_b.png"])
    check_apart(train, val)
    with pytest.raises(DataError) as error:
        check_apart(train, val, r"^(h\d)")
    assert str(error.value) == (
        "data.group_by: group 'h2' is in both train and val, 1 groups are; "
        "keep each on one side, or leave out data.val and let PoseSweep split"
    )


def test_groups_in_folders_are_seen_where_a_side_has_one_folder_only():
    train = make(["", ""], names=["day1/a.png", "day2/a.png"])
    check_apart(train, make([""], names=["day3/a.png"]), r"(day\d)/")
    with pytest.raises(DataError, match=r"group 'day2' is in both train and val"):
        check_apart(train, make([""], names=["day2/b.png"]), r"(day\d)/")


def test_images_without_instances_do_not_leak():
    both = make(["", ""])
    check_apart(both.take(np.array([0])), both.take(np.array([1])))


def altered(side, name, value):
    column = getattr(side, name).copy()
    column[0] = value
    return Instances(**{**{key: getattr(side, key) for key in side.__dataclass_fields__}, name: column})


@pytest.mark.parametrize(
    ("name", "value"),
    [("ids", 999), ("keypoints", 0.5), ("visibility", 1), ("boxes", 5.0), ("areas", 5.0), ("crowd", True)],
)
def test_the_hash_changes_with_what_scores_depend_on(name, value):
    train, val = sides([""] * 6, 0.5)
    assert split_hash(train, val) == split_hash(train, val)
    assert split_hash(train, altered(val, name, value)) != split_hash(train, val)
    assert split_hash(altered(train, name, value), val) != split_hash(train, val)


def test_the_hash_does_not_change_when_data_move():
    here = sides([""] * 4, 0.5, names=["a/1.png", "a/2.png", "a/3.png", "a/4.png"])
    there = sides([""] * 4, 0.5, names=["b/1.png", "b/2.png", "b/3.png", "b/4.png"])
    assert split_hash(*here) == split_hash(*there)
    assert split_hash(*here) != split_hash(*here[::-1])


def test_the_record_is_json_with_images_by_id():
    train, val = sides(["", "", ""], 0.4)
    record = split_record(train, val)
    assert record["train"] == sorted(train.ids.tolist())
    assert record["val"] == val.ids.tolist()
    assert record["images"] == {"1": "images/1.png", "2": "images/2.png", "3": "images/3.png"}
    assert record["skeleton"]["flip_pairs"] == [["leftear", "rightear"]]
    assert record["skeleton"]["sigmas"] == [0.05] * 4
    assert record["hash"] == split_hash(train, val)


def test_validation_images_win_where_ids_collide():
    train, val = make([""], names=["train.png"]), make([""], names=["val.png"])
    assert split_record(train, val)["images"] == {"1": "images/val.png"}


def test_shares_are_nested_and_whole_groups():
    """Ten images of five videos of two frames each."""
    instances = make([f"v{i // 2}" for i in range(10)])
    parts = [in_share(instances, share) for share in (0.01, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert [int(part.sum()) for part in parts] == [2, 2, 4, 6, 8, 10]
    for smaller, larger in pairwise(parts):
        assert larger[smaller].all()
    for part in parts:
        assert (part[::2] == part[1::2]).all(), "a group was parted"


def test_a_share_does_not_follow_the_order_of_the_file():
    instances = make([""] * 12, per_image=2)
    other = shuffled(instances, 3)
    part, moved = in_share(instances, 0.25), in_share(other, 0.25)
    assert sorted(instances.ids[part].tolist()) == sorted(other.ids[moved].tolist())
    assert part.sum() == 6  # both objects of three images


def test_a_share_by_file_names_and_of_images_without_objects():
    names = [f"cow{i % 4}_{i}.png" for i in range(8)]
    instances = make([""] * 8, names=names)
    empty = instances.take(np.arange(4, 8))  # the first four images have no object left
    part = in_share(empty, 0.5, r"(cow\d)_")
    assert part.sum() == 2
