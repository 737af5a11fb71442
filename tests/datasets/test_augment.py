"""Augmentation: presets and their strength, draws that depend on nothing but the sample, margins that hold, pixels."""

from dataclasses import asdict, fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.datasets import augment
from posesweep.datasets.augment import PRESETS, PROBABILITIES, Augmentation, Draws, chances, preset, widest
from posesweep.errors import ConfigError

IMGSZ = (192, 256)
NOTHING = Augmentation()
NOISE = augment.noise_field(IMGSZ, seed=0)


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
    assert d.hole.min() >= 0
    assert d.hole.max() <= 1
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
    }
    assert set(hits) == set(PROBABILITIES)
    for name, hit in hits.items():
        assert hit.mean() == pytest.approx(getattr(a, name), abs=0.015), name
    table = np.stack([hit.astype(float) for hit in hits.values()])
    assert np.abs(np.corrcoef(table) - np.eye(len(table))).max() < 0.04  # none comes along with another


def test_nothing_drawn_is_the_identity() -> None:
    affines = augment.input_to_box(draws_of(NOTHING, 3), IMGSZ)
    np.testing.assert_allclose(affines, np.tile(np.eye(2, 3), (3, 1, 1)), atol=1e-12)


def one(**values: object) -> Draws:
    """A single sample to which only `values` happen."""
    given_values = {name: np.array([value]) for name, value in values.items()}
    return replace(draws_of(NOTHING, 1), **given_values)


def test_geometry_by_hand() -> None:
    middle, right = np.array([95.5, 127.5]), np.array([1.0, 0.0])

    def goes(draws: Draws, point: np.ndarray) -> np.ndarray:
        (affine,) = augment.input_to_box(draws, IMGSZ)
        return affine[:, :2] @ point + affine[:, 2]

    np.testing.assert_allclose(goes(one(flip=True), np.array([0.0, 40.0])), [191, 40])
    np.testing.assert_allclose(goes(one(scale=2.0), middle + right), middle + 2 * right)
    np.testing.assert_allclose(goes(one(shift=[0.1, -0.2]), middle), middle + np.array([19.1, -51.0]))
    turned = goes(one(angle_rad=np.pi / 2), middle + right) - middle
    # a quarter turn in image pixels, where a crop pixel is 192/191 wide and 256/255 high
    np.testing.assert_allclose(turned, [0, (192 / 191) / (256 / 255)], atol=1e-12)
    # a mirrored sample still shows the region moved to the same side
    np.testing.assert_allclose(goes(one(flip=True, shift=[0.1, 0.0]), middle), middle + np.array([19.1, 0.0]))


@pytest.mark.parametrize("imgsz", [(192, 256), (384, 192)])
@pytest.mark.parametrize("name", ["light", "medium", "aggressive"])
def test_the_margin_holds_for_other_draws_and_a_smaller_one_would_not(name: str, imgsz: tuple[int, int]) -> None:
    margins = np.array(augment.margin_for(preset(name), imgsz))
    assert (margins * 8 % 1 == 0).all()
    affines = augment.input_to_box(Draws.of(preset(name), chances(2000, seed=5, epoch=1)), imgsz)
    pixels = np.stack(np.meshgrid(np.linspace(0, imgsz[0] - 1, 16), np.linspace(0, imgsz[1] - 1, 16)), -1).reshape(
        -1, 2
    )
    seen = np.einsum("bij,pj->bpi", affines[:, :, :2], pixels) + affines[:, None, :, 2]
    off = np.abs(seen - (np.array(imgsz) - 1) / 2) * 2 / np.array(imgsz)  # 1 = the border of the plain input

    def lost(at: np.ndarray) -> float:
        return float((off > at).any(axis=2).mean())

    assert lost(margins) < 0.012
    assert lost(margins - 1 / 8) > 0.01


def test_margins_of_known_recipes() -> None:
    assert augment.margin_for(NOTHING) == (1.0, 1.0)
    assert augment.margin_for(Augmentation(flip=1.0)) == (1.0, 1.0)
    assert augment.margin_for(Augmentation(scale_min=1.5, scale_max=1.5)) == (1.5, 1.5)
    wide, high = augment.margin_for(Augmentation(rotate=1.0, rotation_deg=80, scale_min=0.7, scale_max=1.3))
    assert wide > high  # the long side swings across the short one
    assert wide * high < 3  # (2.0, 1.5) loses next to nothing
    square = augment.margin_for(Augmentation(rotate=0.6, rotation_deg=40, scale_min=0.7, scale_max=1.3))
    assert square[0] * square[1] <= 1.5 * 1.5  # 1.5 each way was measured to lose 0.6 %


def coloured(augmentation: Augmentation, image: np.ndarray, i: int = 0) -> np.ndarray:
    changed = image.copy()
    augment.change_pixels(changed, draws_of(augmentation, 50), i, NOISE)
    return changed


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(40, 216, (16, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, IMGSZ, interpolation=cv2.INTER_LINEAR)


def test_a_hit_with_no_range_changes_no_pixel(picture: np.ndarray) -> None:
    always = Augmentation(**dict.fromkeys(("colour", "gamma", "noise"), 1.0))
    np.testing.assert_array_equal(coloured(always, picture), picture)


def test_colour_by_hand(picture: np.ndarray) -> None:
    d = one(recolour=True, colour=np.array([[0.5, 0, 0, 10], [0, 1, 0, 0], [0, 0, 2.0, -300]]))
    changed = picture.copy()
    augment.change_pixels(changed, d, 0, NOISE)
    assert np.abs(changed[..., 0] - (picture[..., 0] / 2 + 10)).max() <= 0.5
    np.testing.assert_array_equal(changed[..., 1], picture[..., 1])
    np.testing.assert_array_equal(changed[..., 2], np.clip(picture[..., 2].astype(int) * 2 - 300, 0, 255))


def luma(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])


def test_each_colour_change_does_what_its_name_says() -> None:
    grey = np.full((4, 4, 3), 90, np.uint8)
    patch = np.full((4, 4, 3), (150, 100, 80), np.uint8)
    for i in range(20):
        for change in ({"saturation": 0.9}, {"hue_deg": 40}):  # neither touches grey, neither changes luma
            only = Augmentation(colour=1.0, **change)
            assert np.abs(coloured(only, grey, i).astype(int) - 90).max() <= 1
            assert np.abs(luma(coloured(only, patch, i)) - luma(patch)).max() < 1.1
        brighter = coloured(Augmentation(colour=1.0, brightness=0.2), patch, i).astype(int) - patch
        assert np.ptp(brighter) <= 1
        assert abs(brighter.mean()) <= 51.5
        spread = np.ptp(coloured(Augmentation(colour=1.0, contrast=0.2), patch, i)[0, 0]) / np.ptp(patch[0, 0])
        assert 0.78 < spread < 1.22


def test_gamma_leaves_black_and_white() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    changed = ramp.copy()
    augment.change_pixels(changed, one(gamma=2.0), 0, NOISE)
    assert changed[0, [0, 128, 255], 0].tolist() == [0, round(128**2 / 255), 255]


def test_noise_has_the_spread_drawn_and_no_mean() -> None:
    grey = np.full((256, 192, 3), 128, np.uint8)
    seen = []
    for at in (0, 1000, augment._NOISE_PLACES - 1):
        noisy = grey.copy()
        augment.change_pixels(noisy, one(noise_std=12.0, noise_at=at), 0, NOISE)
        assert noisy.std() == pytest.approx(12, rel=0.03)
        assert noisy.mean() == pytest.approx(128, abs=0.2)
        seen.append(noisy)
    assert np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1] < 0.02


@pytest.mark.parametrize(
    "drawn", [{"blur_px": 0.7}, {"blur_px": 1.2}, {"blur_px": 3.0}, {"motion_px": 9, "motion_deg": 30.0}]
)
def test_blur_smooths_and_moves_nothing(drawn: dict[str, float]) -> None:
    dot = np.zeros((256, 192, 3), np.uint8)
    dot[100, 80] = 255
    dot[98:103, 78:83] = 255
    blurred = dot.copy()
    augment.change_pixels(blurred, one(**drawn), 0, NOISE)
    weight = blurred[..., 0].astype(float)
    assert (weight > 0).sum() > 25
    np.testing.assert_allclose((np.indices(weight.shape) * weight).sum(axis=(1, 2)) / weight.sum(), [100, 80], atol=0.1)


def test_dropout_is_one_black_rectangle(picture: np.ndarray) -> None:
    changed = picture.copy()
    augment.change_pixels(changed, one(hole=[0.25, 0.5, 0.5, 0.75]), 0, NOISE)
    expected = picture.copy()
    expected[128:192, 48:96] = 0
    np.testing.assert_array_equal(changed, expected)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(PRESETS)), st.floats(0, 1), st.integers(0, 49))
def test_no_preset_fails_on_any_image(name: str, strength: float, i: int) -> None:
    for level in (0, 255):
        image = np.full((64, 48, 3), level, np.uint8)
        coloured(preset(name, strength), image, i)


def test_every_field_is_scaled_by_strength() -> None:
    light_touch = preset("aggressive", 0.05)
    for field in fields(Augmentation):
        there, base = getattr(light_touch, field.name), getattr(PRESETS["aggressive"], field.name)
        assert abs(there - field.default) < abs(base - field.default), field.name
