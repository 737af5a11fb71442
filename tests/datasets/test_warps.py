"""Geometry: affines by hand, margins that hold, halves of bodies, perspective and elastic fields, one warp for all."""

import os
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from posesweep.datasets import warps
from posesweep.datasets.augment import Augmentation, Draws, chances, preset
from posesweep.datasets.pixels import Noise
from posesweep.datasets.warps import SMOOTHNESS, Bends, ElasticField, Halves, Warp, margin_for

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
IMGSZ = (192, 256)
NOTHING = Augmentation()
NOISE = Noise.enough_for(Augmentation(elastic=1.0), IMGSZ, seed=0)


def draws_of(augmentation: Augmentation, n: int) -> Draws:
    return Draws.of(augmentation, chances(n, seed=0, epoch=0))


def one(**values: object) -> Draws:
    """A single sample to which only `values` happen."""
    given_values = {name: np.array([value]) for name, value in values.items()}
    return replace(draws_of(NOTHING, 1), **given_values)


# ----------------------------------------------------------------------------------------------------------- affines


def test_there_and_back() -> None:
    affines = warps.input_to_box(draws_of(preset("aggressive"), 20), IMGSZ)
    back = warps.chain(warps.inverse(affines), affines)
    np.testing.assert_allclose(back, np.tile(np.eye(2, 3), (20, 1, 1)), atol=1e-9)
    points = np.random.default_rng(0).uniform(0, 200, (20, 5, 2))
    np.testing.assert_allclose(warps.moved(warps.inverse(affines), warps.moved(affines, points)), points, atol=1e-9)


def test_nothing_drawn_is_the_identity() -> None:
    affines = warps.input_to_box(draws_of(NOTHING, 3), IMGSZ)
    np.testing.assert_allclose(affines, np.tile(np.eye(2, 3), (3, 1, 1)), atol=1e-12)


def test_geometry_by_hand() -> None:
    middle, right = np.array([95.5, 127.5]), np.array([1.0, 0.0])

    def goes(draws: Draws, point: np.ndarray) -> np.ndarray:
        (affine,) = warps.input_to_box(draws, IMGSZ)
        return affine[:, :2] @ point + affine[:, 2]

    np.testing.assert_allclose(goes(one(flip=True), np.array([0.0, 40.0])), [191, 40])
    np.testing.assert_allclose(goes(one(scale=2.0), middle + right), middle + 2 * right)
    np.testing.assert_allclose(goes(one(shift=[0.1, -0.2]), middle), middle + np.array([19.1, -51.0]))
    turned = goes(one(angle_rad=np.pi / 2), middle + right) - middle
    # a quarter turn in image pixels, where a crop pixel is 192/191 wide and 256/255 high
    np.testing.assert_allclose(turned, [0, (192 / 191) / (256 / 255)], atol=1e-12)
    # a mirrored sample still shows the region moved to the same side
    np.testing.assert_allclose(goes(one(flip=True, shift=[0.1, 0.0]), middle), middle + np.array([19.1, 0.0]))


@settings(max_examples=60, deadline=None)
@given(
    scale=st.tuples(st.floats(0.3, 2.5), st.floats(0.3, 2.5)),
    offset=st.tuples(st.floats(-90, 90), st.floats(-90, 90)),
    mirrored=st.booleans(),
)
def test_on_whole_pixels_moves_by_half_a_pixel_at_most(
    scale: tuple[float, float], offset: tuple[float, float], mirrored: bool
) -> None:
    affine = np.array([[[-scale[0] if mirrored else scale[0], 0, offset[0]], [0, scale[1], offset[1]]]])
    whole, changed = warps.on_whole_pixels(affine, IMGSZ)
    edges = np.array([[-0.5, -0.5], [191.5, 255.5]])  # of the input's first and last pixel
    found = edges @ whole[0, :, :2].T + whole[0, :, 2]
    np.testing.assert_allclose(found - 0.5, np.rint(found - 0.5), atol=1e-6)  # edges of whole pixels
    before = edges @ affine[0, :, :2].T + affine[0, :, 2]
    assert np.abs(found.mean(axis=0) - before.mean(axis=0)).max() <= 0.5 + 1e-6
    assert np.abs(np.ptp(found, axis=0) - np.ptp(before, axis=0)).max() <= 0.5 + 1e-6
    again, twice = warps.on_whole_pixels(whole, IMGSZ)
    np.testing.assert_allclose(again, whole, atol=1e-9)
    assert not twice.any()
    assert changed.any() == (np.abs(whole - affine).max() > 1e-9)


def test_what_is_turned_stays_where_it_is() -> None:
    turned = warps.input_to_box(one(angle_rad=0.3), IMGSZ)
    same, changed = warps.on_whole_pixels(turned, IMGSZ)
    assert not changed.any()
    np.testing.assert_array_equal(same, turned)
    upside_down = warps.input_to_box(one(angle_rad=np.pi, shift=[0.013, 0]), IMGSZ)
    assert not warps.on_whole_pixels(upside_down, IMGSZ)[1].any()


# ----------------------------------------------------------------------------------------------------------- margins


@pytest.mark.parametrize("imgsz", [(192, 256), (384, 192)])
@pytest.mark.parametrize("name", ["light", "medium", "aggressive", "top_view"])
def test_the_margin_holds_for_other_draws_and_a_smaller_one_would_not(name: str, imgsz: tuple[int, int]) -> None:
    margins = np.array(margin_for(preset(name), imgsz))
    assert (margins * 8 % 1 == 0).all()
    draws = Draws.of(preset(name), chances(2000, seed=5, epoch=1))
    grid = np.stack(np.meshgrid(np.linspace(0, imgsz[0] - 1, 16), np.linspace(0, imgsz[1] - 1, 16)), -1)
    points = np.stack([cv2.perspectiveTransform(grid, m).reshape(-1, 2) for m in warps.perspectives(draws, imgsz)])
    seen = warps.moved(warps.input_to_box(draws, imgsz), points)
    off = np.abs(seen - (np.array(imgsz) - 1) / 2) * 2 / np.array(imgsz)  # 1 = the border of the plain input

    def lost(at: np.ndarray) -> float:
        return float((off > at).any(axis=2).mean())

    assert lost(margins) < 0.012
    assert lost(margins - 1 / 8) > 0.01


def test_margins_of_known_recipes() -> None:
    assert margin_for(NOTHING) == (1.0, 1.0)
    assert margin_for(Augmentation(flip=1.0)) == (1.0, 1.0)
    assert margin_for(Augmentation(scale_min=1.5, scale_max=1.5)) == (1.5, 1.5)
    wide, high = margin_for(Augmentation(rotate=1.0, rotation_deg=80, scale_min=0.7, scale_max=1.3))
    assert wide > high  # the long side swings across the short one
    assert wide * high < 3  # (2.0, 1.5) loses next to nothing
    square = margin_for(Augmentation(rotate=0.6, rotation_deg=40, scale_min=0.7, scale_max=1.3))
    assert square[0] * square[1] <= 1.5 * 1.5  # 1.5 each way was measured to lose 0.6 %
    assert margin_for(Augmentation(perspective=1.0, perspective_share=0.2)) > (1.0, 1.0)


# ------------------------------------------------------------------------------------------------------------ halves


def body(labelled: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Ten points, the first six of the upper half, in a column down the plain input."""
    points = np.array([[[90.0, 20.0 * i] for i in range(10)]])
    seen = np.zeros((1, 10), dtype=bool)
    seen[0, labelled] = True
    return points, seen


UPPER = np.arange(10) < 6


def test_half_a_body_by_hand() -> None:
    """mmpose's rule: centred on the mean of the half's points, 1.5 times as large as their box."""
    halves = Halves.of(*body(list(range(10))), UPPER, IMGSZ)
    upper, lower = halves.affines[0]
    np.testing.assert_allclose(upper[:, :2], np.eye(2) * 1.5 * 100 / 255)
    np.testing.assert_allclose(upper[:, :2] @ [95.5, 127.5] + upper[:, 2], [90, 50])
    np.testing.assert_allclose(lower[:, :2] @ [95.5, 127.5] + lower[:, 2], [90, 150])
    np.testing.assert_allclose(lower[:, :2], np.eye(2) * 0.25 * max(1, 1.5 * 60 / 255 / 0.25))


def test_which_half_is_shown() -> None:
    def shown(labelled: list[int], upper: bool) -> float:
        halves = Halves.of(*body(labelled), UPPER, IMGSZ)
        (affine,) = halves.chosen(np.array([0]), one(half_body=True, upper=upper))
        return float(affine[1, :2] @ [95.5, 127.5] + affine[1, 2])

    every = list(range(10))
    assert (shown(every, True), shown(every, False)) == pytest.approx((50, 150))
    assert shown([*range(6), 6, 7], False) == pytest.approx(130)  # two points are enough
    assert shown([0, *range(3, 10)], False) == pytest.approx(150)
    assert shown(every[:7], True) == pytest.approx(127.5)  # seven labelled points: the whole body
    halves = Halves.of(*body(every), np.arange(10) < 9, IMGSZ)
    (affine,) = halves.chosen(np.array([0]), one(half_body=True, upper=False))
    assert float(affine[1, :2] @ [95.5, 127.5] + affine[1, 2]) == pytest.approx(80)  # one point is no half: the other
    (plain,) = halves.chosen(np.array([0]), one(half_body=False))
    np.testing.assert_array_equal(plain, np.eye(2, 3))


# ------------------------------------------------------------------------------------------- perspective and elastic


def test_perspective_takes_the_corners_where_they_were_drawn() -> None:
    corners = np.array([[0.1, -0.05], [0, 0.1], [-0.1, 0], [0.02, 0.03]])
    (matrix,) = warps.perspectives(one(corners=corners), IMGSZ)
    square = np.array([[0, 0], [191, 0], [191, 255], [0, 255.0]])
    np.testing.assert_allclose(
        cv2.perspectiveTransform(square[None], matrix)[0], square + corners * (191, 255), atol=1e-3
    )
    np.testing.assert_array_equal(warps.perspectives(one(), IMGSZ), [np.eye(3)])


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    """Displacements of 150 elastic fields with a deviation of 1 % of 192 pixels, at every pixel of the input."""
    rng = np.random.default_rng(3)
    pixels = np.stack(np.meshgrid(np.arange(0.0, 192, 4), np.arange(0.0, 256, 4)), -1)
    drawn = [ElasticField.drawn(0.01, NOISE.normal[at:], IMGSZ) for at in rng.integers(0, 1 << 18, 150)]
    return np.stack([field.at(pixels.reshape(-1, 2)).reshape(pixels.shape) for field in drawn])


def test_an_elastic_field_is_that_of_albumentations(fields: np.ndarray) -> None:
    """The same deviation, correlation lengths and distribution as in the middle of a larger image of albumentations."""
    from albumentations.augmentations.geometric.functional import generate_displacement_fields

    sigma, border = SMOOTHNESS * 192, 64
    largest = 4.6  # of the noise of the larger image, typically
    alpha = 0.01 * 192 * 2 * np.sqrt(np.pi) * sigma * largest
    shape = (256 + 2 * border, 192 + 2 * border)
    theirs = []
    for seed in range(60):
        dx, dy = generate_displacement_fields(
            shape, alpha, sigma, False, (0, 0), np.random.default_rng(seed), "gaussian"
        )
        theirs.append(np.stack([dx, dy], -1)[border:-border:4, border:-border:4])
    theirs_all = np.stack(theirs)
    assert fields.std() == pytest.approx(theirs_all.std(), rel=0.05)
    assert fields.std() == pytest.approx(0.01 * 192, rel=0.05)

    def correlation(f: np.ndarray, axis: int, apart: int) -> float:
        a, b = np.split(np.moveaxis(f, axis, 0), [apart])[1], np.moveaxis(f, axis, 0)[:-apart]
        return float((a * b).mean() / f.var())

    for apart in (2, 4, 8, 12):  # in steps of four pixels
        expected = np.exp(-((4 * apart) ** 2) / (4 * sigma**2))
        for axis in (1, 2):
            assert correlation(fields, axis, apart) == pytest.approx(correlation(theirs_all, axis, apart), abs=0.07)
            assert correlation(fields, axis, apart) == pytest.approx(expected, abs=0.05)
    assert abs((fields[..., 0] * fields[..., 1]).mean() / fields.var()) < 0.05  # x and y are independent
    far_apart = (slice(None), slice(4, None, 16), slice(4, None, 16), 0)  # 64 pixels: no correlation is left
    assert ks_2samp(fields[far_apart].ravel(), theirs_all[far_apart].ravel()).pvalue > 0.01


def test_an_elastic_field_is_as_strong_at_the_border_as_in_the_middle(fields: np.ndarray) -> None:
    assert fields[:, :2].std() == pytest.approx(fields[:, 28:36].std(), rel=0.15)
    assert fields[:, :, -2:].std() == pytest.approx(fields[:, :, 20:28].std(), rel=0.15)


@pytest.mark.parametrize("imgsz", [(192, 256), (97, 65), (16, 16)])
def test_an_elastic_field_leads_back(imgsz: tuple[int, int]) -> None:
    noise = Noise.enough_for(Augmentation(elastic=1.0), imgsz, seed=1)
    points = np.random.default_rng(0).uniform(-5, np.array(imgsz) + 5, (40, 2))
    for at in range(0, 50_000, 5_000):
        field = ElasticField.drawn(0.016, noise.normal[at:], imgsz)
        found = field.undo(points)
        np.testing.assert_allclose(found + field.at(found), points, atol=0.15)


def test_an_elastic_field_is_drawn_several_times_faster_than_that_of_albumentations() -> None:
    """Measured 14 times (benchmarks/pipeline.py); less is asked of a busy machine that checks every shape."""
    import albumentations

    image = np.zeros((256, 192, 3), np.uint8)
    theirs = albumentations.ElasticTransform(100, SMOOTHNESS * 192, p=1.0)

    def ours() -> None:
        field = ElasticField.drawn(0.01, NOISE.normal, IMGSZ)
        warps.remap(image, field.spread(field.looked_up(np.eye(3)), IMGSZ))

    def fastest(work: object) -> float:
        assert callable(work)
        times = []
        for _ in range(8):
            begin = time.thread_time()
            work()
            times.append(time.thread_time() - begin)
        return min(times)

    assert fastest(lambda: theirs(image=image)) > 3 * fastest(ours)


def test_a_map_looks_where_the_field_says() -> None:
    field = ElasticField.drawn(0.02, NOISE.normal, IMGSZ)
    matrix = np.array([[1.1, 0.2, 5], [-0.1, 0.9, 3], [1e-4, 2e-4, 1]])
    where = field.spread(field.looked_up(matrix), IMGSZ)
    assert where.shape == (256, 192, 2)
    pixels = np.stack(np.meshgrid(np.arange(192.0), np.arange(256.0)), -1).reshape(-1, 2)
    shown = pixels + np.concatenate([field.at(part) for part in np.split(pixels, 4)])
    expected = cv2.perspectiveTransform(shown[None], matrix)[0]
    assert np.abs(where.reshape(-1, 2) - expected).max() < 0.1


def test_bends_undo_what_they_do() -> None:
    draws = draws_of(Augmentation(perspective=0.5, perspective_share=0.1, elastic=0.5, elastic_share=0.01), 30)
    bends = Bends.of(draws, NOISE, IMGSZ)
    kinds = {(i in bends.fields, bool(draws.corners[i].any())) for i in range(30)}
    assert len(kinds) == 4
    points = np.random.default_rng(0).uniform(20, 170, (30, 5, 2))
    found = bends.undo(points)
    for i in range(30):
        at = found[i] + bends.fields[i].at(found[i]) if i in bends.fields else found[i]
        np.testing.assert_allclose(cv2.perspectiveTransform(at[None], bends.matrices[i])[0], points[i], atol=0.1)
    assert (found[~bends.there] == points[~bends.there]).all()


# -------------------------------------------------------------------------------------------------------------- warp


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8)
    return cv2.resize(coarse, (320, 400), interpolation=cv2.INTER_CUBIC)


def warped(to_picture: np.ndarray, picture: np.ndarray, draws: Draws | None = None) -> np.ndarray:
    bends = Bends.of(draws or one(), NOISE, IMGSZ)
    out = np.full((256, 192, 3), 77, np.uint8)
    Warp(to_picture, bends, IMGSZ)(0, picture, out)
    return out


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_resizing_shows_what_a_warp_would(picture: np.ndarray, scale: float, mirrored: bool) -> None:
    affine = (
        np.array([[[-scale, 0, 260.0], [0, scale, 30.3]]])
        if mirrored
        else np.array([[[scale, 0, 20.2], [0, scale, 30.3]]])
    )
    whole, _ = warps.on_whole_pixels(affine, IMGSZ)
    out = warped(whole, picture)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(picture, whole[0], IMGSZ, flags=flags)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(out[inner].astype(int) - expected[inner]).max() <= 3
    assert np.abs(out.astype(int) - expected)[inner].mean() < 0.6


def test_what_looks_past_the_picture_is_black_there(picture: np.ndarray) -> None:
    whole, _ = warps.on_whole_pixels(np.array([[[1.2, 0, -60.0], [0, 1.2, 20.0]]]), IMGSZ)
    out = warped(whole, picture)
    assert (out[:, :49] == 0).all()
    assert (out[:, 51:] > 0).any(axis=2).mean() > 0.95
    assert (warped(np.array([[[1.0, 0, 5000], [0, 1.0, 0]]]), picture) == 0).all()
    bent = one(corners=np.full((4, 2), 0.01), elastic_share=0.01)
    assert (warped(np.array([[[1.0, 0, 5000], [0, 1.0, 0]]]), picture, bent) == 0).all()


@pytest.mark.parametrize("turned", [0.0, 0.4])
def test_a_bent_warp_is_that_of_opencv(picture: np.ndarray, turned: float) -> None:
    corners = np.array([[0.08, -0.03], [0, 0.06], [-0.1, 0], [0.02, 0.03]])
    affine = warps.input_to_box(one(angle_rad=turned), IMGSZ) + np.array([[0, 0, 60], [0, 0, 70.0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    draws = one(corners=corners)
    matrix = np.vstack([affine[0], [0, 0, 1]]) @ warps.perspectives(draws, IMGSZ)[0]
    expected = cv2.warpPerspective(picture, matrix, IMGSZ, flags=flags)
    assert np.abs(warped(affine, picture, draws).astype(int) - expected).mean() < 0.5
    elastic = replace(draws, elastic_share=np.array([0.01]), elastic_at=np.array([0]))
    field = ElasticField.drawn(0.01, NOISE.normal, IMGSZ)
    expected = cv2.remap(picture, field.spread(field.looked_up(matrix), IMGSZ), None, cv2.INTER_LINEAR)
    assert np.abs(warped(affine, picture, elastic).astype(int) - expected).mean() < 0.5
