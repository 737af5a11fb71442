"""Augmentation: presets and their strength, own ranges, draws that depend on nothing but the sample."""

from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posesweep.datasets.augment import (
    MOST_HOLES,
    PRESETS,
    PROBABILITIES,
    RANGES,
    Augmentation,
    Draws,
    chances,
    preset,
    widest,
)
from posesweep.errors import ConfigError

NOTHING = Augmentation()


def draws_of(augmentation: Augmentation, n: int = 4000) -> Draws:
    return Draws.of(augmentation, chances(n, seed=0, epoch=0))


@pytest.mark.parametrize("name", PRESETS)
def test_strength_zero_is_nothing_and_one_half_is_the_preset(name: str) -> None:
    assert preset(name, 0.0) == NOTHING
    assert preset(name, 0.5) == PRESETS[name]
    assert preset("none", 1.0) == NOTHING


def test_strength_one_is_twice_the_preset() -> None:
    twice = preset("medium", 1.0)
    assert (twice.rotation_deg, twice.rotate, twice.shift, twice.flip) == (80, 1.0, 0.32, 0.5)
    assert (twice.scale_min, twice.scale_max) == pytest.approx((0.49, 1.69))
    assert preset("medium", 0.25).flip == 0.25
    assert preset("aggressive", 1.0).rotation_deg == 160


@given(st.sampled_from(list(PRESETS)), st.floats(0, 1), st.floats(0, 1))
def test_more_strength_is_never_less_of_anything(name: str, one: float, other: float) -> None:
    weak, strong = asdict(preset(name, min(one, other))), asdict(preset(name, max(one, other)))
    assert weak.pop("scale_min") >= strong.pop("scale_min") > 0.2
    assert all(weak[key] <= strong[key] + 1e-12 for key in weak)
    assert all(strong[key] <= 1 for key in PROBABILITIES)
    assert strong["contrast"] < 1
    assert strong["rotation_deg"] <= 180


def test_presets_grow_from_light_to_aggressive() -> None:
    assert widest([PRESETS["light"], PRESETS["medium"], PRESETS["aggressive"]]) == PRESETS["aggressive"]


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="augment: 'medum' is not a preset; did you mean 'medium'"):
        preset("medum")
    with pytest.raises(ConfigError, match=r"aug_strength: 1\.5 must be from 0 .* try 0.5"):
        preset("medium", 1.5)
    with pytest.raises(ConfigError, match="aug_rotation: there is no such range; did you mean 'rotation_deg'"):
        preset("medium", 0.5, {"rotation": 30})
    with pytest.raises(
        ConfigError, match=r"aug_scale_max: 0.5 must not be below aug_scale_min, which is 0.7; give both"
    ):
        preset("medium", 0.5, {"scale_max": 0.5})
    with pytest.raises(
        ConfigError, match=r"aug_scale_min: 1.4 must not be above aug_scale_max, which is 1.3; give both"
    ):
        preset("medium", 0.5, {"scale_min": 1.4})


def test_widest_covers_each_and_nothing_covers_none() -> None:
    turning, zooming = Augmentation(rotate=1, rotation_deg=30), Augmentation(scale_min=0.5, scale_max=1.1)
    both = widest([turning, zooming])
    assert (both.rotate, both.rotation_deg, both.scale_min, both.scale_max) == (1, 30, 0.5, 1.1)
    assert widest([]) == NOTHING


def test_a_samples_numbers_depend_on_seed_epoch_and_position_only() -> None:
    few, many = chances(5, 3, 7), chances(500, 3, 7)
    np.testing.assert_array_equal(few, many[:5])
    for other in (chances(5, 4, 7), chances(5, 3, 8)):
        assert not np.isin(other, few).any()


def test_draws_stay_in_range_reach_the_ends_and_hit_as_often_as_said() -> None:
    a = PRESETS["aggressive"]
    d = draws_of(a, 20000)
    angle = np.rad2deg(np.abs(d.angle_rad))
    assert 0.99 * a.rotation_deg < angle.max() <= a.rotation_deg
    assert 0.5 <= d.scale.min() < 0.505
    assert 1.495 < d.scale.max() <= 1.5
    assert 0.99 * a.shift < np.abs(d.shift).max() <= a.shift
    assert set(np.unique(d.motion_px).tolist()) == {0, 3, 5, 7, 9}
    assert np.exp(-a.gamma_log) <= d.gamma.min()
    for rectangles in (d.hole, d.holes, d.patch):
        assert rectangles.min() >= 0
        assert rectangles.max() <= 1
    assert 0.99 * a.perspective_share < np.abs(d.corners).max() <= a.perspective_share
    assert 0.99 * a.elastic_share < d.elastic_share.max() <= a.elastic_share
    assert 0.99 * a.clahe_clip < d.clahe_clip.max() - 1 <= a.clahe_clip
    assert 0.99 * a.iso_intensity < d.iso_intensity.max() <= a.iso_intensity
    assert d.jpeg_quality.max() == 100
    assert d.jpeg_quality[d.jpeg_quality > 0].min() == 100 - a.jpeg_loss
    assert d.upper.mean() == pytest.approx(0.5, abs=0.015)
    hits = {
        "flip": d.flip,
        "rotate": angle > 0,
        "move": d.shift.any(axis=1),
        "colour": d.recolour,
        "gamma": d.gamma != 1,
        "blur": d.blur_px > 0,
        "motion": d.motion_px > 0,
        "noise": d.noise_std > 0,
        "dropout": d.hole[:, 2] > d.hole[:, 0],
        "half_body": d.half_body,
        "perspective": d.corners.any(axis=(1, 2)),
        "elastic": d.elastic_share > 0,
        "clahe": d.clahe_clip > 0,
        "iso": d.iso_intensity > 0,
        "jpeg": d.jpeg_quality > 0,
        "coarse": d.holes[:, 0, 2] > 0,
        "occlusion": d.patch[:, 2] > 0,
    }
    assert set(hits) == set(PROBABILITIES)
    for name, hit in hits.items():
        assert hit.mean() == pytest.approx(getattr(a, name), abs=0.015), name
    table = np.stack([hit.astype(float) for hit in hits.values()])
    assert np.abs(np.corrcoef(table) - np.eye(len(table))).max() < 0.04  # none comes along with another


def test_coarse_dropout_draws_from_one_hole_to_the_most() -> None:
    d = draws_of(Augmentation(coarse=1.0, coarse_holes=4.4, coarse_share=0.1))
    counts = (d.holes[:, :, 2] > d.holes[:, :, 0]).sum(axis=1)
    assert np.bincount(counts, minlength=6)[1:].tolist() == pytest.approx([1000, 1000, 1000, 1000, 0], abs=100)
    sides = (d.holes[:, 0, 2:] - d.holes[:, 0, :2]).ravel()
    assert 0.05 <= sides.min() < sides.max() <= 0.1
    most = draws_of(Augmentation(coarse=1.0, coarse_holes=100, coarse_share=0.1)).holes[:, :, 2] > 0
    assert most.sum(axis=1).max() == MOST_HOLES


def test_what_was_drawn_before_there_were_later_columns_is_drawn_still() -> None:
    """A trial of an earlier version goes on with the same rotations and colours."""
    np.testing.assert_array_equal(
        chances(3, 5, 2)[:, :30], np.random.default_rng([5, 1, 2]).random((3, 30), dtype=np.float32)
    )


def test_own_ranges_are_used_as_they_are_at_any_strength() -> None:
    for strength in (0.0, 0.5, 1.0):
        own = preset("medium", strength, {"rotation_deg": 12.0, "scale_min": 0.9})
        assert (own.rotation_deg, own.scale_min) == (12, 0.9)
        assert own.shift == preset("medium", strength).shift


def test_own_ranges_that_would_have_no_effect_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"aug_elastic_share: it never happens in the preset medium; .* aug_elastic, too"
    ):
        preset("medium", 0.5, {"elastic_share": 0.01})
    with pytest.raises(
        ConfigError, match="aug_coarse: the preset light has no range for it; give aug_coarse_holes and"
    ):
        preset("light", 0.5, {"coarse": 0.5})
    assert preset("medium", 0.5, {"elastic": 0.0, "elastic_share": 0.01}).elastic == 0  # a search may come to 0
    assert preset("medium", 0.0, {"rotation_deg": 30}).rotate == 0


def test_every_range_belongs_to_a_probability() -> None:
    belonging = {key for ranges in RANGES.values() for key in ranges}
    names = {field.name for field in fields(Augmentation)}
    assert names == belonging | set(PROBABILITIES) | {"scale_min", "scale_max"}
    assert set(PROBABILITIES) - set(RANGES) == {"flip", "half_body"}


def test_top_view_is_medium_turned_freely() -> None:
    top = preset("top_view")
    assert (top.rotate, top.rotation_deg, top.half_body) == (1, 180, 0)
    angles = np.histogram(draws_of(top).angle_rad, bins=4, range=(-np.pi, np.pi))[0]
    assert angles.tolist() == pytest.approx([1000] * 4, abs=100)


def test_every_field_is_scaled_by_strength() -> None:
    light_touch = preset("aggressive", 0.05)
    for field in fields(Augmentation):
        there, base = getattr(light_touch, field.name), getattr(PRESETS["aggressive"], field.name)
        assert abs(there - field.default) < abs(base - field.default), field.name
