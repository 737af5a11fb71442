"""What happens to pixels: each change by hand, and the fast paths against albumentations' transforms."""

import os
import time
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from posesweep.datasets import pixels
from posesweep.datasets.augment import PRESETS, Augmentation, Draws, chances, preset
from posesweep.datasets.pixels import Covers, Noise, change_pixels

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
IMGSZ = (192, 256)
NOTHING = Augmentation()
NOISE = Noise.enough_for(Augmentation(noise=1.0, iso=1.0), IMGSZ, seed=0)
PHOTOGRAPHS = sorted((Path(__file__).resolve().parents[2] / "../shared/data/formats/coco").glob("*.jpg"))


def draws_of(augmentation: Augmentation, n: int = 50) -> Draws:
    return Draws.of(augmentation, chances(n, seed=0, epoch=0))


def one(**values: object) -> Draws:
    """A single sample to which only `values` happen."""
    given_values = {name: np.array([value]) for name, value in values.items()}
    return replace(draws_of(NOTHING, 1), **given_values)


def changed(image: np.ndarray, draws: Draws, i: int = 0) -> np.ndarray:
    result = image.copy()
    change_pixels(result, draws, i, NOISE)
    return result


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A photograph's shapes and colours: coarse blobs, fine ones, an edge."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(20, 236, (16, 12, 3)).astype(np.uint8), IMGSZ, interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.normal(0, 12, (128, 96, 3)), IMGSZ)
    image = np.clip(coarse + fine, 0, 255).astype(np.uint8)
    image[:, 150:] //= 3
    return image


def test_a_hit_with_no_range_changes_no_pixel(picture: np.ndarray) -> None:
    always = Augmentation(**dict.fromkeys(("colour", "gamma", "noise", "iso", "clahe", "jpeg"), 1.0))
    np.testing.assert_array_equal(changed(picture, draws_of(always)), picture)


def test_colour_by_hand(picture: np.ndarray) -> None:
    d = one(recolour=True, colour=np.array([[0.5, 0, 0, 10], [0, 1, 0, 0], [0, 0, 2.0, -300]]))
    result = changed(picture, d)
    assert np.abs(result[..., 0] - (picture[..., 0] / 2 + 10)).max() <= 0.5
    np.testing.assert_array_equal(result[..., 1], picture[..., 1])
    np.testing.assert_array_equal(result[..., 2], np.clip(picture[..., 2].astype(int) * 2 - 300, 0, 255))


def luma(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])


def test_each_colour_change_does_what_its_name_says() -> None:
    grey = np.full((4, 4, 3), 90, np.uint8)
    patch = np.full((4, 4, 3), (150, 100, 80), np.uint8)
    for i in range(20):
        for change in ({"saturation": 0.9}, {"hue_deg": 40}):  # neither touches grey, neither changes luma
            only = draws_of(Augmentation(colour=1.0, **change))
            assert np.abs(changed(grey, only, i).astype(int) - 90).max() <= 1
            assert np.abs(luma(changed(patch, only, i)) - luma(patch)).max() < 1.1
        brighter = changed(patch, draws_of(Augmentation(colour=1.0, brightness=0.2)), i).astype(int) - patch
        assert np.ptp(brighter) <= 1
        assert abs(brighter.mean()) <= 51.5
        contrasted = changed(patch, draws_of(Augmentation(colour=1.0, contrast=0.2)), i)
        assert 0.78 < np.ptp(contrasted[0, 0]) / np.ptp(patch[0, 0]) < 1.22


def test_gamma_leaves_black_and_white() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert changed(ramp, one(gamma=2.0))[0, [0, 128, 255], 0].tolist() == [0, round(128**2 / 255), 255]


@pytest.mark.parametrize(
    "drawn", [{"blur_px": 0.7}, {"blur_px": 1.2}, {"blur_px": 3.0}, {"motion_px": 9, "motion_deg": 30.0}]
)
def test_blur_smooths_and_moves_nothing(drawn: dict[str, float]) -> None:
    dot = np.zeros((256, 192, 3), np.uint8)
    dot[98:103, 78:83] = 255
    weight = changed(dot, one(**drawn))[..., 0].astype(float)
    assert (weight > 0).sum() > 25
    np.testing.assert_allclose((np.indices(weight.shape) * weight).sum(axis=(1, 2)) / weight.sum(), [100, 80], atol=0.1)


def test_holes_are_black_rectangles(picture: np.ndarray) -> None:
    holes = np.zeros((8, 4))
    holes[:2] = [[0, 0, 0.125, 0.125], [0.5, 0.75, 1, 1]]
    result = picture.copy()
    Covers.of(one(hole=[0.25, 0.5, 0.5, 0.75], holes=holes), IMGSZ).cut(result, 0)
    expected = picture.copy()
    expected[128:192, 48:96] = 0
    expected[:32, :24] = 0
    expected[192:, 96:] = 0
    np.testing.assert_array_equal(result, expected)


def test_what_a_hole_or_a_patch_covers() -> None:
    covers = Covers.of(one(hole=[0.25, 0.5, 0.5, 0.75], patch=[0, 0, 0.25, 0.25]), IMGSZ)
    points = np.array([[[47.4, 150], [47.6, 150], [95.4, 191.4], [95.6, 150], [10, 10], [-3, 10], [100, 100]]])
    assert covers.hide(points).tolist() == [[False, True, True, False, True, False, False]]
    assert not Covers.of(one(), IMGSZ).hide(np.zeros((1, 3, 2))).any()


def test_a_patch_is_cut_from_the_other_picture(picture: np.ndarray) -> None:
    other = np.random.default_rng(1).integers(0, 255, (300, 250, 3)).astype(np.uint8)
    result = picture.copy()
    Covers.of(one(patch=[0.25, 0.5, 0.5, 0.75]), IMGSZ).paste(result, 0, other, np.array([0.5, 1.0]))
    np.testing.assert_array_equal(result[128:192, 48:96], other[236:300, 101:149])
    result[128:192, 48:96] = picture[128:192, 48:96]
    np.testing.assert_array_equal(result, picture)


def test_a_patch_of_a_small_picture_is_as_large_as_it() -> None:
    result = np.zeros((256, 192, 3), np.uint8)
    small = np.full((10, 20, 3), 9, np.uint8)
    Covers.of(one(patch=[0, 0, 0.5, 0.5]), IMGSZ).paste(result, 0, small, np.array([0.5, 0.5]))
    assert (result[:10, :20] == 9).all()
    assert result.sum() == 10 * 20 * 3 * 9


def test_compression_loses_more_at_lower_quality(picture: np.ndarray) -> None:
    lost = [np.abs(changed(picture, one(jpeg_quality=q)).astype(int) - picture).mean() for q in (95, 60, 20)]
    assert 0 < lost[0] < lost[1] < lost[2] < 20


def test_no_noise_is_stored_that_is_not_used() -> None:
    assert len(Noise.enough_for(PRESETS["light"], IMGSZ, 0).normal) == 0
    medium = Noise.enough_for(PRESETS["medium"], IMGSZ, 0)
    assert (len(medium.normal) > 0, len(medium.uniform)) == (True, 0)
    assert len(Noise.enough_for(PRESETS["aggressive"], IMGSZ, 0).uniform) > 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(PRESETS)), st.floats(0, 1), st.integers(0, 49))
def test_no_preset_fails_on_any_image(name: str, strength: float, i: int) -> None:
    draws = draws_of(preset(name, strength))
    for level in (0, 255):
        changed(np.full((64, 48, 3), level, np.uint8), draws, i)


def test_every_pixel_change_happens_in_the_strongest_preset(picture: np.ndarray) -> None:
    """A field of Draws that nothing reads would be a setting without effect."""
    draws = draws_of(preset("aggressive", 1.0), 200)
    for field in fields(Draws):
        if field.name in {"recolour", "gamma", "clahe_clip", "blur_px", "motion_px", "noise_std", "iso_intensity"}:
            nothing = getattr(draws_of(NOTHING, 200), field.name)
            only = replace(draws_of(NOTHING, 200), colour=draws.colour, **{field.name: getattr(draws, field.name)})
            i = int(np.flatnonzero(getattr(draws, field.name) != nothing)[0])
            assert (changed(picture, only, i) != picture).any(), field.name


# ------------------------------------------------------------------------------------- fast paths and albumentations


def quantiles(change: np.ndarray) -> np.ndarray:
    return np.quantile(change, [0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999])


def next_to_each_other(change: np.ndarray) -> np.ndarray:
    """Correlation of a change with that one pixel to the right, one pixel down, and of the next channel."""
    c = change - change.mean()
    pairs = ((c[:, 1:], c[:, :-1]), (c[1:], c[:-1]), (c[..., 1:], c[..., :-1]))
    return np.array([(a * b).mean() for a, b in pairs]) / c.var()


@pytest.mark.parametrize("std", [4.0, 12.0, 25.0])
def test_gaussian_noise_is_that_of_albumentations(std: float) -> None:
    import albumentations

    grey = np.full((256, 192, 3), 128, np.uint8)
    theirs = albumentations.Compose([albumentations.GaussNoise((std / 255, std / 255), p=1.0)], seed=0)
    # of a float image: of bytes, albumentations cuts the noise's decimals off, which makes it 0.4 narrower than asked
    a = theirs(image=grey.astype(np.float32) / 255)["image"].astype(float) * 255 - 128
    for at in (0, 1000, 200_000):
        b = changed(grey, one(noise_std=std, noise_at=at)).astype(float) - 128
        assert b.std() == pytest.approx(a.std(), rel=0.02)
        assert abs(b.mean() - a.mean()) < 0.2
        np.testing.assert_allclose(quantiles(b), quantiles(a), atol=1 + 0.04 * std)
        np.testing.assert_allclose(next_to_each_other(b), next_to_each_other(a), atol=0.02)
        assert (
            ks_2samp(np.rint(a).ravel(), b.ravel()).statistic < 0.02
        )  # 147,456 values; a step of b is 0.03 deviations


@pytest.mark.parametrize("intensity", [0.1, 0.3, 0.5, 0.9])
def test_iso_noise_is_that_of_albumentations(picture: np.ndarray, intensity: float) -> None:
    from albumentations.augmentations.pixel.functional import iso_noise

    def change(image: np.ndarray) -> np.ndarray:
        return image.astype(float) - picture

    theirs = np.stack([change(iso_noise(picture, 0.03, intensity, np.random.default_rng(i))) for i in range(8)])
    ours = np.stack([change(changed(picture, one(iso_intensity=intensity, iso_at=30_000 * i))) for i in range(8)])
    share_theirs, share_ours = ((c != 0).any(axis=3).mean() for c in (theirs, ours))
    assert share_ours == pytest.approx(share_theirs, rel=0.03)
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.04)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.04)
    np.testing.assert_allclose(next_to_each_other(ours[0]), next_to_each_other(theirs[0]), atol=0.03)
    rng = np.random.default_rng(0)
    hit = [rng.choice(c[(c != 0).any(axis=3)].ravel(), 3000) for c in (theirs, ours)]
    assert ks_2samp(*hit).pvalue > 0.01


def test_iso_noise_of_a_pixel_by_hand() -> None:
    """A pixel that is hit once goes `intensity` of the way from its lightness to white, hue and saturation kept."""
    import colorsys

    image = np.zeros((64, 64, 3), np.uint8)
    image[::2] = (200, 120, 40)
    uniform = np.zeros(64 * 64, np.uint16)
    uniform[:4] = 65_535  # more events than any limit but the last
    uniform[4:10] = 64_000
    result = image.copy()
    pixels.add_iso_noise(result, 0.25, uniform)
    np.testing.assert_array_equal(result.reshape(-1, 3)[10:], image.reshape(-1, 3)[10:])
    hue, lightness, saturation = colorsys.rgb_to_hls(*(image[0, 5] / 255))
    once = np.array(colorsys.hls_to_rgb(hue, lightness + 0.25 * (1 - lightness), saturation)) * 255
    assert np.abs(result[0, 5] - once).max() <= 1
    assert (result[0, 0] > result[0, 5]).all()


def test_the_hue_noise_left_out_is_below_what_eight_bits_hold(picture: np.ndarray) -> None:
    from albumentations.augmentations.pixel.functional import iso_noise

    with_hue, without = (iso_noise(picture, shift, 0.5, np.random.default_rng(0)) for shift in (0.05, 0.0))
    assert np.abs(with_hue.astype(int) - without).max() <= 1
    assert (with_hue != without).mean() < 0.02


@pytest.mark.parametrize("clip", [1.0, 2.0, 4.0])
def test_equalisation_is_that_of_albumentations(picture: np.ndarray, clip: float) -> None:
    """Exactly (to rounding) for grey; of a coloured image, most of the change is that of albumentations.

    The transform has no randomness besides its clip limit, so images are compared, not statistics."""
    from albumentations.augmentations.pixel.functional import clahe

    grey = np.repeat(picture[..., :1], 3, axis=2)
    # the share of the change that may be another: none of grey, more where colours are as strong as in `picture`
    for image, other_share in ((grey, 0.0), (picture, 0.4), *((photograph, 0.3) for photograph in photographs())):
        theirs, ours = clahe(image, clip, (8, 8)).astype(int), changed(image, one(clahe_clip=clip)).astype(int)
        apart, change = np.abs(ours - theirs).mean(), np.abs(theirs - image).mean()
        assert apart < other_share * change + 0.5
        assert np.corrcoef((ours - image).ravel(), (theirs - image).ravel())[0, 1] > 0.9


def photographs() -> list[np.ndarray]:
    """Parts of COCO images, where they are at hand."""
    return [np.ascontiguousarray(cv2.imread(str(file))[20:276, 100:292, ::-1]) for file in PHOTOGRAPHS]


def cost(change: object, image: np.ndarray) -> float:
    """CPU seconds of the fastest of some calls on a fresh copy."""
    assert callable(change)
    times = []
    for _ in range(12):
        fresh = image.copy()
        begin = time.thread_time()
        change(fresh)
        times.append(time.thread_time() - begin)
    return min(times)


@pytest.mark.parametrize(("name", "times_faster"), [("iso", 3.0), ("noise", 2.0), ("clahe", 1.3)])
def test_the_fast_paths_are_fast(picture: np.ndarray, name: str, times_faster: float) -> None:
    """Several times (benchmarks/pipeline.py measures them); less is asked of a busy machine that checks every shape."""
    import albumentations

    theirs, ours = {
        "iso": (albumentations.ISONoise((0.03, 0.03), (0.3, 0.3), p=1.0), one(iso_intensity=0.3)),
        "noise": (albumentations.GaussNoise((0.04, 0.04), p=1.0), one(noise_std=10.0)),
        "clahe": (albumentations.CLAHE((3.0, 3.0), p=1.0), one(clahe_clip=3.0)),
    }[name]
    fast = cost(lambda image: change_pixels(image, ours, 0, NOISE), picture)
    assert cost(lambda image: theirs(image=image), picture) > times_faster * fast
