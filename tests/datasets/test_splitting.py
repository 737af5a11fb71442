"""Stratified, folded and automatic splits: complete, disjoint, repeatable, and honest about look-alikes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.datasets.dlc import read_dlc
from posesweep.datasets.instances import Instances
from posesweep.datasets.load import DataRequest, load_data
from posesweep.datasets.near_duplicates import in_order, neighbours
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.split import image_groups, split_hash
from posesweep.datasets.splitting import METHODS, Resemblance, SplitPlan, resemblance, split_data
from posesweep.errors import ConfigError, DataError

OPENFIELD = Path(__file__).resolve().parents[2] / "../shared/data/openfield/labeled-data/m4s1/CollectedData_Pranav.csv"
NOTHING = Resemblance(np.zeros((0, 2), dtype=np.int64), [])


def frames(n, groups=None, seed=0):
    """One object on each of n numbered images."""
    rng = np.random.default_rng(seed)
    return Instances(
        skeleton=load_skeleton("mouse4"),
        image_files=tuple(Path("video") / f"img{i:04d}.png" for i in range(n)),
        image_ids=np.arange(1, n + 1),
        image_groups=tuple(groups or [""] * n),
        image_index=np.arange(n),
        ids=np.arange(1, n + 1),
        category_ids=rng.integers(1, 3, n),
        boxes=np.tile([0.0, 0.0, 9.0, 9.0], (n, 1)),
        keypoints=np.ones((n, 4, 2)),
        visibility=rng.integers(0, 3, (n, 4)).astype(np.uint8),
        areas=rng.uniform(10, 1000, n),
        crowd=np.zeros(n, dtype=bool),
    )


def one_video(n):
    files = frames(n).image_files
    return Resemblance(np.array([[0, 1], [5, 60]]), [in_order("video/img*", files, list(range(n)))])


def names(side):
    return [file.name for file in side.image_files]


@given(st.sampled_from(METHODS), st.integers(2, 5), st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_folds_are_disjoint_and_complete(method, folds, seed):
    whole = frames(40, [f"g{i % 11}" for i in range(40)])
    seen, validated = [], []
    for fold in range(folds):
        train, val = split_data(whole, SplitPlan(method, seed=seed, folds=folds, fold=fold), Path(), NOTHING)
        assert sorted(names(train) + names(val)) == names(whole)
        assert not {train.image_groups[i] for i in train.image_index} & {val.image_groups[i] for i in val.image_index}
        seen.append(len(val))
        validated += names(val)
    assert sorted(validated) == names(whole)
    assert max(seen) - min(seen) <= 8  # groups have 3 or 4 images


def test_random_is_the_split_it_has_always_been():
    train, val = split_data(frames(10), SplitPlan(val_fraction=0.3), Path())
    assert len(train) + len(val) == 10
    assert split_hash(train, val) == split_hash(*split_data(frames(10), SplitPlan(val_fraction=0.3), Path()))
    assert len(val) == 3


def test_stratified_sides_resemble_each_other():
    train, val = split_data(frames(400), SplitPlan("stratified", 0.25), Path())
    assert len(val) == pytest.approx(100, abs=3)
    for quantile in (0.25, 0.5, 0.75):
        assert np.quantile(val.areas, quantile) == pytest.approx(np.quantile(train.areas, quantile), rel=0.1)
    assert (val.visibility > 0).mean() == pytest.approx((train.visibility > 0).mean(), abs=0.02)
    assert (val.category_ids == 1).mean() == pytest.approx((train.category_ids == 1).mean(), abs=0.03)


def test_auto_keeps_near_duplicates_and_videos_together():
    whole = frames(60)
    videos = [in_order(f"v{i}", whole.image_files, list(range(10 * i, 10 * i + 10))) for i in range(3)]
    train, val = split_data(whole, SplitPlan("auto", 0.3), Path(), Resemblance(np.array([[30, 40], [40, 50]]), videos))
    side = dict.fromkeys(names(train), "train") | dict.fromkeys(names(val), "val")
    of = [side[name] for name in names(whole)]
    assert all(len(set(of[10 * i : 10 * i + 10])) == 1 for i in range(3))
    assert of[30] == of[40] == of[50]
    assert set(of) == {"train", "val"}
    assert train.notes[-1] == (
        "split: auto: near-duplicates (2 pairs) and frames of one video stay on one side; 60 images are 31 groups"
    )


@pytest.mark.parametrize("plan", [SplitPlan("auto"), *(SplitPlan("auto", folds=4, fold=i) for i in range(4))])
def test_auto_cuts_one_video_into_blocks_with_a_gap(plan):
    whole, seen = frames(100), one_video(100)
    train, val = split_data(whole, plan, Path(), seen)
    in_val = np.isin(whole.image_ids, val.image_ids)
    in_train = np.isin(whole.image_ids, train.image_ids)
    assert not (in_train & in_val).any()
    assert not len(neighbours(seen.videos[0], in_train, in_val, 2))
    assert not (in_train[5] and in_val[60])
    assert not (in_train[60] and in_val[5])
    assert 15 <= len(val) <= 30
    assert len(train) >= 55
    left_out = 100 - len(train) - len(val)
    assert f"{left_out} training images that adjoin or resemble a validation image are left out" in train.notes[-1]
    assert len({val.image_groups[i] for i in val.image_index}) >= 2  # ranking resamples blocks


def test_images_too_alike_to_be_parted():
    every = np.array([[i, j] for i in range(40) for j in range(i)])
    with pytest.raises(DataError, match=r"^split: auto: \d+ of \d+ training images are near-duplicates of validation"):
        split_data(frames(40), SplitPlan("auto"), Path(), Resemblance(every, []))


def test_near_duplicates_across_the_groups_of_a_user():
    whole = frames(40)
    chain = np.array([[i, i + 1] for i in range(39)])
    with pytest.raises(DataError, match=r"^split: auto: 40 of 40 images are of one group, because images of several"):
        split_data(whole, SplitPlan("auto", group_by=r"img(\d{3})"), Path(), Resemblance(chain, []))


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (SplitPlan("grouped"), "data.split: 'grouped' is not known; take random, stratified, auto"),
        (SplitPlan(val_fraction=1.0), "data.val_fraction: 1.0 must lie between 0 and 1; try 0.2"),
        (SplitPlan(folds=1), "data.folds: 1 must be 2 or more"),
        (SplitPlan(folds=3, fold=3), "data.fold: 3 must be one of 0 to 2, see data.folds"),
        (SplitPlan(fold=1), "data.fold: 1 must be one of 0 to 0, see data.folds"),
    ],
)
def test_plans_that_make_no_sense(plan, sentence):
    with pytest.raises(ConfigError) as error:
        split_data(frames(10), plan, Path())
    assert str(error.value) == sentence


def test_more_folds_than_groups():
    with pytest.raises(DataError) as error:
        split_data(frames(10, ["a", "b"] * 5), SplitPlan("stratified", folds=3), Path())
    assert str(error.value) == "2 groups of images cannot be spread over 3 sides; give more data"


def test_openfield_is_split_the_same_from_the_cache(tmp_path):
    if not OPENFIELD.is_file():
        pytest.skip("shared/data/openfield is not here")
    mice = read_dlc(OPENFIELD)
    first = split_data(mice, SplitPlan("auto"), tmp_path)
    assert len(list(tmp_path.glob("alike-*.json"))) == 1
    again = split_data(mice, SplitPlan("auto"), tmp_path)
    assert split_hash(*first) == split_hash(*again)
    train, val = first
    seen = resemblance(mice, tmp_path)
    position = {name: i for i, name in enumerate(names(mice))}
    in_train, in_val = (np.zeros(116, dtype=bool) for _ in range(2))
    in_train[[position[name] for name in names(train)]] = True
    in_val[[position[name] for name in names(val)]] = True
    across = (in_train[seen.pairs] & in_val[seen.pairs[:, ::-1]]).any()
    assert not across
    assert len(seen.pairs) > 50
    assert len(train) > 70
    assert len(val) > 15
    other = replace(mice, boxes=mice.boxes + 1.0)
    split_data(other, SplitPlan("auto"), tmp_path)
    assert len(list(tmp_path.glob("alike-*.json"))) == 2


def test_a_request_reaches_the_split(tmp_path):
    if not OPENFIELD.is_file():
        pytest.skip("shared/data/openfield is not here")
    data = load_data(DataRequest(train=OPENFIELD, split="auto", folds=4, fold=1), tmp_path)
    same = split_data(read_dlc(OPENFIELD), SplitPlan("auto", folds=4, fold=1), tmp_path)
    assert data.split_hash == split_hash(*same)
    assert any(note.startswith("split: auto: 116 of 116 images are of one video") for note in data.notes)
    assert len(set(image_groups(data.val))) >= 2
