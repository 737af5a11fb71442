"""Top-down samples: keypoints follow the pixels, nothing depends on the batch, validation is the plain crop."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.datasets.augment import PRESETS, PROBABILITIES, Augmentation, preset
from posesweep.datasets.crops import Crops, CropSpec, open_crops
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.topdown import TopDownSamples
from posesweep.datasets.warps import margin_for, moved

IMGSZ = (96, 128)
PLAIN = CropSpec(*IMGSZ)
WIDE = replace(PLAIN, margin_width=2.0, margin_height=1.75)
COPIES = 3  # of every point: halves of a body are shown from eight points on
EARS = tuple((f"left_ear{i}", f"right_ear{i}") for i in range(COPIES))
FACE = Skeleton(
    name="face",
    keypoints=tuple(name for i, pair in enumerate(EARS) for name in (*pair, f"nose{i}")),
    flip_pairs=EARS,
    edges=(),
    sigmas=np.full(3 * COPIES, 0.05),
    upper_body=tuple(ear for pair in EARS for ear in pair),
)
K = 3 * COPIES
WIDTH, HEIGHT, N = 320, 240, 12


def only(probability: str) -> Augmentation:
    """The transform of this probability, always, as far as "aggressive" goes; nothing else."""
    nothing = dict.fromkeys(PROBABILITIES, 0.0)
    return replace(preset("aggressive"), scale_min=1.0, scale_max=1.0, **nothing | {probability: 1.0})


def at_strength(augmentation: Augmentation, strength: float) -> Augmentation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "this", augmentation)
        return preset("this", strength)


@dataclass(frozen=True)
class Scene:
    """Images where keypoint k is the one bright dot of colour channel k % 3."""

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
    points = boxes[:, None, :2] + rng.uniform(0.1, 0.9, (N, 3, 2)) * boxes[:, None, 2:]
    files = tuple(folder / f"{i}.png" for i in range(N))
    for file, three in zip(files, points, strict=True):
        cv2.imwrite(str(file), dots(three)[..., ::-1])
    instances = Instances(
        skeleton=FACE,
        image_files=files,
        image_ids=np.arange(N),
        image_groups=("",) * N,
        image_index=np.arange(N),
        ids=np.arange(N) * 7 + 1000,
        category_ids=np.ones(N, dtype=np.int64),
        boxes=boxes,
        keypoints=np.tile(points, (1, COPIES, 1)),
        visibility=np.tile(np.array([2, 1, 2], np.uint8), (N, COPIES)),
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(N, dtype=bool),
    )
    return Scene(instances, folder / "cache")


def centre_of_mass(channel: np.ndarray) -> np.ndarray:
    """Of the bright middle of a dot: where the image is bent, a whole large dot has its own centre elsewhere."""
    weight = np.where(channel > 0.9 * channel.max(), channel, 0).astype(float)
    return (np.indices(weight.shape) * weight).sum(axis=(1, 2))[::-1] / weight.sum()


def check_dots(batch: dict[str, np.ndarray]) -> int:
    """Every keypoint well inside the input is where its dot is; how many were looked at."""
    looked_at = 0
    for image, points, to_image in zip(batch["image"], batch["keypoints"], batch["to_image"], strict=True):
        mirrored = np.linalg.det(to_image[:, :2]) < 0
        reach = 10 / np.sqrt(abs(np.linalg.det(to_image[:, :2])))  # four sigmas of a dot, in input pixels
        for k, point in enumerate(points):
            if (point > reach).all() and (point < np.array(IMGSZ) - 1 - reach).all():
                channel = (FACE.flip_index[k] if mirrored else k) % 3  # the left ear is what was painted as the right
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


# every transform that moves pixels, as far as the strongest preset goes at strength 1
MOVES = {
    "flip": Augmentation(flip=1.0),
    "rotation": Augmentation(rotate=1.0, rotation_deg=180.0),
    "zoom in": Augmentation(scale_min=0.5, scale_max=1.0),
    "zoom out": Augmentation(scale_min=1.0, scale_max=1.6),
    "shift": Augmentation(move=1.0, shift=0.3),
    "half body": Augmentation(half_body=1.0),
    "perspective": Augmentation(perspective=1.0, perspective_share=0.16),
    "elastic": Augmentation(elastic=1.0, elastic_share=0.016),
}
TOGETHER = Augmentation(
    **{key: value for a in MOVES.values() for key, value in asdict(a).items() if value != getattr(Augmentation(), key)}
)
MOVES["together"] = replace(TOGETHER, flip=0.5, scale_min=1.0, scale_max=1.4, shift=0.15)


@pytest.mark.parametrize("name", MOVES)
@settings(max_examples=15, deadline=None)
@given(epoch=st.integers(0, 10_000))
def test_a_dot_in_the_image_is_at_its_keypoint_in_the_input(scene: Scene, name: str, epoch: int) -> None:
    check_dots(scene.samples(WIDE, MOVES[name]).batch(np.arange(N), epoch))


@pytest.mark.parametrize("name", MOVES)
def test_the_dots_are_really_looked_at(scene: Scene, name: str) -> None:
    assert sum(check_dots(scene.samples(WIDE, MOVES[name]).batch(np.arange(N), epoch)) for epoch in range(3)) > N


def test_a_keypoint_that_is_off_by_two_pixels_is_noticed(scene: Scene) -> None:
    batch = scene.samples(WIDE, MOVES["elastic"]).batch(np.arange(N), 0)
    with pytest.raises(AssertionError):
        check_dots({**batch, "keypoints": batch["keypoints"] + np.float32([2, 0])})


# every transform alone, and the presets
TRANSFORMS = {name: only(name) for name in PROBABILITIES} | {name: preset(name) for name in PRESETS}
TRANSFORMS["scale"] = Augmentation(scale_min=0.5, scale_max=1.5)


@pytest.mark.parametrize("name", TRANSFORMS)
@settings(max_examples=12, deadline=None)
@given(
    strength=st.floats(0, 1),
    seed=st.integers(0, 1000),
    positions=st.lists(st.integers(0, N - 1), min_size=1, max_size=6),
)
def test_as_many_keypoints_come_out_as_went_in_and_each_leads_back(
    scene: Scene, name: str, strength: float, seed: int, positions: list[int]
) -> None:
    rows = np.array(positions)
    augmentation = at_strength(TRANSFORMS[name], strength)
    batch = scene.samples(PLAIN, augmentation, seed).batch(rows, epoch=seed)
    assert batch["image"].shape == (len(rows), *IMGSZ[::-1], 3)
    assert batch["keypoints"].shape == (len(rows), K, 2)
    assert np.isfinite(batch["keypoints"]).all()
    mirrored = np.linalg.det(batch["to_image"][:, :, :2]) < 0
    named = np.where(mirrored[:, None], FACE.flip_index, np.arange(K))
    before = scene.instances.visibility[rows[:, None], named]
    inside = ((batch["keypoints"] >= 0) & (batch["keypoints"] <= np.array(IMGSZ) - 1)).all(axis=2)
    np.testing.assert_array_equal(batch["visibility"] > 0, inside & (before > 0))
    assert (batch["visibility"] <= before).all()
    back = moved(batch["to_image"], batch["keypoints"].astype(float))
    if not (augmentation.perspective or augmentation.elastic):
        np.testing.assert_allclose(back, scene.instances.keypoints[rows[:, None], named], atol=0.01)


def test_a_covered_keypoint_stays_and_counts_as_hidden(scene: Scene) -> None:
    covering = Augmentation(dropout=1.0, dropout_share=0.9, coarse=1.0, coarse_holes=8, coarse_share=0.3)
    batch = scene.samples(PLAIN, covering).batch(np.arange(N), 0)
    plain = scene.samples(PLAIN, None).batch(np.arange(N), 0)
    np.testing.assert_array_equal(batch["keypoints"], plain["keypoints"])
    x, y = np.rint(batch["keypoints"]).astype(int).transpose(2, 0, 1)
    black = (batch["image"][np.arange(N)[:, None], y, x] == 0).all(axis=2)
    assert 0 < black.sum() < black.size
    np.testing.assert_array_equal(batch["visibility"], np.where(black, 1, plain["visibility"]))


def test_a_patch_is_of_another_picture_and_covers(scene: Scene) -> None:
    patched = scene.samples(PLAIN, Augmentation(occlusion=1.0, occlusion_share=0.9)).batch(np.arange(N), 0)
    plain = scene.samples(PLAIN, None).batch(np.arange(N), 0)
    changed = (patched["image"] != plain["image"]).any(axis=(1, 2, 3))
    assert changed.sum() > N / 2
    assert (patched["visibility"] < plain["visibility"]).any()
    np.testing.assert_array_equal(patched["keypoints"], plain["keypoints"])


def test_halves_are_shown_only_where_the_skeleton_names_them(scene: Scene) -> None:
    half = Augmentation(half_body=1.0)
    nameless = replace(scene.instances, skeleton=replace(scene.instances.skeleton, upper_body=()))
    plain = scene.samples(PLAIN, None).batch(np.arange(N), 0)
    without = TopDownSamples(scene.crops(PLAIN), nameless, IMGSZ, half).batch(np.arange(N), 0)
    np.testing.assert_array_equal(without["image"], plain["image"])
    assert (scene.samples(PLAIN, half).batch(np.arange(N), 0)["image"] != plain["image"]).any()


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
        keypoints=np.zeros((n, K, 2)),
        visibility=np.zeros((n, K), dtype=np.uint8),
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
