"""Top-down samples: keypoints follow the pixels, nothing depends on the batch, validation is the plain crop."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.datasets.augment import Augmentation, margin_for, preset
from posesweep.datasets.crops import Crops, CropSpec, open_crops
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.topdown import TopDownSamples

IMGSZ = (96, 128)
PLAIN = CropSpec(*IMGSZ)
WIDE = replace(PLAIN, margin_width=2.0, margin_height=1.75)
FACE = Skeleton("face", ("left_ear", "right_ear", "nose"), (("left_ear", "right_ear"),), (), np.full(3, 0.05))
WIDTH, HEIGHT, N = 320, 240, 12


@dataclass(frozen=True)
class Scene:
    """Images where keypoint k is the one bright dot of colour channel k."""

    instances: Instances
    cache: Path

    def samples(self, spec: CropSpec, augmentation: Augmentation | None, seed: int = 0) -> TopDownSamples:
        return TopDownSamples(self.crops(spec), self.instances, IMGSZ, augmentation, seed)

    def crops(self, spec: CropSpec) -> Crops:
        return open_crops(self.instances, spec, self.cache, threads=1)


def dots(points: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance2 = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
    return np.rint(255 * np.exp(-distance2 / (2 * 2.5**2))).astype(np.uint8)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("topdown")
    rng = np.random.default_rng(0)
    boxes = rng.uniform([90, 60, 60, 80], [130, 90, 90, 110], (N, 4))
    keypoints = boxes[:, None, :2] + rng.uniform(0.1, 0.9, (N, 3, 2)) * boxes[:, None, 2:]
    files = tuple(folder / f"{i}.png" for i in range(N))
    for file, points in zip(files, keypoints, strict=True):
        cv2.imwrite(str(file), dots(points)[..., ::-1])
    instances = Instances(
        skeleton=FACE,
        image_files=files,
        image_ids=np.arange(N),
        image_groups=("",) * N,
        image_index=np.arange(N),
        ids=np.arange(N) * 7 + 1000,
        category_ids=np.ones(N, dtype=np.int64),
        boxes=boxes,
        keypoints=keypoints,
        visibility=np.tile(np.array([2, 1, 2], np.uint8), (N, 1)),
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(N, dtype=bool),
    )
    return Scene(instances, folder / "cache")


def centre_of_mass(channel: np.ndarray) -> np.ndarray:
    weight = np.where(channel > 40, channel, 0).astype(float)
    return (np.indices(weight.shape) * weight).sum(axis=(1, 2))[::-1] / weight.sum()


def check_dots(batch: dict[str, np.ndarray]) -> int:
    """Every keypoint well inside the input is where its dot is; how many were looked at."""
    looked_at = 0
    for image, points, to_image in zip(batch["image"], batch["keypoints"], batch["to_image"], strict=True):
        mirrored = np.linalg.det(to_image[:, :2]) < 0
        reach = 10 / np.sqrt(abs(np.linalg.det(to_image[:, :2])))  # four sigmas of a dot, in input pixels
        for k, point in enumerate(points):
            if (point > reach).all() and (point < np.array(IMGSZ) - 1 - reach).all():
                channel = FACE.flip_index[k] if mirrored else k  # the left ear is now what was painted as the right
                assert np.linalg.norm(centre_of_mass(image[..., channel]) - point) < 1
                looked_at += 1
    return looked_at


def test_validation_is_the_stored_crop_and_its_keypoints(scene: Scene) -> None:
    samples = scene.samples(PLAIN, None)
    batch = samples.batch(np.arange(N), epoch=0)
    np.testing.assert_array_equal(batch["image"], scene.crops(PLAIN).images)
    np.testing.assert_array_equal(batch["id"], scene.instances.ids)
    np.testing.assert_array_equal(batch["visibility"], scene.instances.visibility)
    np.testing.assert_array_equal(samples.batch(np.arange(N), epoch=9)["image"], batch["image"])
    assert check_dots(batch) > N
    assert {key: value.dtype.name for key, value in batch.items()} == {
        "id": "int64",
        "image": "uint8",
        "keypoints": "float32",
        "visibility": "uint8",
        "to_image": "float64",
    }


def test_the_plain_input_by_hand(scene: Scene) -> None:
    x, y, width, height = scene.instances.boxes[0]
    span = max(width * 1.25, height * 1.25 * 96 / 128) * np.array([1, 128 / 96])
    start = np.array([x + width / 2, y + height / 2]) - span / 2
    expected = (scene.instances.keypoints[0] - start) * (np.array(IMGSZ) - 1) / span
    batch = scene.samples(WIDE, None).batch(np.array([0]), epoch=0)
    np.testing.assert_allclose(batch["keypoints"][0], expected, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    flip=st.sampled_from([0.0, 1.0]),
    rotation_deg=st.floats(0, 180),
    scale=st.floats(0.6, 1.4),
    shift=st.floats(0, 0.3),
    epoch=st.integers(0, 1000),
)
def test_a_dot_in_the_image_is_at_its_keypoint_in_the_input(
    scene: Scene, flip: float, rotation_deg: float, scale: float, shift: float, epoch: int
) -> None:
    moves = Augmentation(flip, 1.0, rotation_deg, scale, scale, 1.0, shift)
    check_dots(scene.samples(WIDE, moves).batch(np.arange(N), epoch))


def test_the_dots_are_really_looked_at(scene: Scene) -> None:
    moves = Augmentation(flip=0.5, rotate=1.0, rotation_deg=90, scale_min=0.7, scale_max=1.3, move=1.0, shift=0.1)
    assert check_dots(scene.samples(WIDE, moves).batch(np.arange(N), epoch=0)) > N


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["none", "light", "medium", "aggressive"]),
    strength=st.floats(0, 1),
    seed=st.integers(0, 1000),
    positions=st.lists(st.integers(0, N - 1), min_size=1, max_size=6),
)
def test_as_many_keypoints_come_out_as_went_in_and_each_leads_back(
    scene: Scene, name: str, strength: float, seed: int, positions: list[int]
) -> None:
    rows = np.array(positions)
    batch = scene.samples(PLAIN, preset(name, strength), seed).batch(rows, epoch=seed)
    assert batch["keypoints"].shape == (len(rows), 3, 2)
    back = np.einsum("bij,bkj->bki", batch["to_image"][:, :, :2], batch["keypoints"]) + batch["to_image"][:, None, :, 2]
    mirrored = np.linalg.det(batch["to_image"][:, :, :2]) < 0
    named = np.where(mirrored[:, None], FACE.flip_index, np.arange(3))
    np.testing.assert_allclose(back, scene.instances.keypoints[rows[:, None], named], atol=0.01)
    inside = ((batch["keypoints"] >= 0) & (batch["keypoints"] <= np.array(IMGSZ) - 1)).all(axis=2)
    expected = np.where(inside, scene.instances.visibility[rows[:, None], named], 0)
    np.testing.assert_array_equal(batch["visibility"], expected)


def test_a_point_outside_the_input_is_not_labelled(scene: Scene) -> None:
    far = Augmentation(scale_min=0.3, scale_max=0.3)
    batch = scene.samples(WIDE, far).batch(np.arange(N), epoch=0)
    assert (batch["visibility"] == 0).any()
    assert (batch["visibility"] > 0).any()


@pytest.mark.parametrize("spec", [PLAIN, WIDE])
def test_strength_zero_is_the_validation_pipeline(scene: Scene, spec: CropSpec) -> None:
    validation = scene.samples(PLAIN, None).batch(np.arange(N), epoch=0)
    trained = scene.samples(spec, preset("aggressive", 0.0)).batch(np.arange(N), epoch=3)
    for key in ("id", "keypoints", "visibility", "to_image"):
        np.testing.assert_array_equal(trained[key], validation[key])
    # the two stores were warped from the image with different offsets, so rounding may differ in a pixel's last bit
    assert np.abs(trained["image"].astype(int) - validation["image"]).max() <= (0 if spec == PLAIN else 1)


def test_a_sample_is_the_same_in_any_batch_thread_and_order(scene: Scene) -> None:
    samples = scene.samples(WIDE, preset("aggressive", 1.0), seed=5)
    whole = samples.batch(np.arange(N), epoch=2)
    again = scene.samples(WIDE, preset("aggressive", 1.0), seed=5)
    requests = [np.array([i, (i * 5 + 1) % N, i]) for i in range(N)] * 4
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda positions: again.batch(positions, 2), requests))
    for positions, batch in zip(requests, made, strict=True):
        for key in whole:
            np.testing.assert_array_equal(batch[key], whole[key][positions])
    other = samples.batch(np.arange(N), epoch=3)
    assert not any(np.array_equal(a, b) for a, b in zip(whole["image"], other["image"], strict=True))


def test_only_usable_rows_are_samples(scene: Scene) -> None:
    usable = np.arange(N) % 3 != 1
    crops = replace(scene.crops(PLAIN), usable=usable)
    samples = TopDownSamples(crops, scene.instances, IMGSZ)
    assert len(samples) == usable.sum()
    np.testing.assert_array_equal(samples.ids, scene.instances.ids[usable])
    batch = samples.batch(np.array([1, 4]), epoch=0)
    rows = np.flatnonzero(usable)[[1, 4]]
    np.testing.assert_array_equal(batch["image"], scene.crops(PLAIN).images[rows])
    np.testing.assert_array_equal(batch["id"], scene.instances.ids[rows])
    assert check_dots(batch) > 0


@pytest.mark.parametrize("name", ["light", "medium", "aggressive"])
def test_little_of_what_is_shown_falls_out_of_the_stored_crop(tmp_path: Path, name: str) -> None:
    """Counted in pixels: a white image is black in the input only where the store had nothing."""
    file = tmp_path / "white.png"
    cv2.imwrite(str(file), np.full((900, 900, 3), 255, np.uint8))
    n = 300
    white = Instances(
        skeleton=FACE,
        image_files=(file,),
        image_ids=np.zeros(1, dtype=np.int64),
        image_groups=("",),
        image_index=np.zeros(n, dtype=np.int64),
        ids=np.arange(n),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.tile([410.0, 400.0, 80.0, 100.0], (n, 1)),
        keypoints=np.zeros((n, 3, 2)),
        visibility=np.zeros((n, 3), dtype=np.uint8),
        areas=np.ones(n),
        crowd=np.zeros(n, dtype=bool),
    )
    full = preset(name)
    moves = Augmentation(
        full.flip, full.rotate, full.rotation_deg, full.scale_min, full.scale_max, full.move, full.shift
    )
    margins = margin_for(full, IMGSZ)
    crops = open_crops(white, replace(PLAIN, margin_width=margins[0], margin_height=margins[1]), tmp_path, threads=1)
    batch = TopDownSamples(crops, white, IMGSZ, moves, seed=11).batch(np.arange(n), epoch=4)
    lost = (batch["image"] < 128).all(axis=3).mean()
    assert 0.0005 < lost < 0.015


def test_a_crop_that_looks_past_its_picture_is_black(scene: Scene) -> None:
    crops = scene.crops(PLAIN)
    elsewhere = crops.from_image.copy()
    elsewhere[:, :, 2] += 10000
    batch = TopDownSamples(replace(crops, from_image=elsewhere), scene.instances, IMGSZ).batch(np.array([0]), epoch=0)
    assert batch["image"].max() == 0
