"""The crop store: right pixels, built once by whoever comes first, never from a dead builder's leftovers."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets import crops as crops_module
from posesweep.datasets.augment import preset
from posesweep.datasets.crops import (
    CropsOnDemand,
    CropSpec,
    Recipe,
    content_key,
    cut,
    image_to_crop,
    open_crops,
    regions,
    shrinks,
)
from posesweep.datasets.decoding import decode
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.topdown import TopDownSamples
from posesweep.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SPEC = CropSpec(24, 32)
POINT = Skeleton("point", ("nose",), (), (), np.array([0.05]))


def smooth_image(seed: int, width: int = 80, height: int = 60) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def one_per_image(files: list[Path], boxes_each: int = 1) -> Instances:
    n = len(files) * boxes_each
    return Instances(
        skeleton=POINT,
        image_files=tuple(files),
        image_ids=np.arange(len(files)),
        image_groups=("",) * len(files),
        image_index=np.arange(n) % len(files),  # the instances of an image are not neighbours
        ids=np.arange(n) + 100,
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.array([[10.0 + row, 8.0, 30.0, 40.0] for row in range(n)]).reshape(n, 4),
        keypoints=np.zeros((n, 1, 2)),
        visibility=np.zeros((n, 1), dtype=np.uint8),
        areas=np.ones(n),
        crowd=np.zeros(n, dtype=bool),
    )


def write_pngs(folder: Path, n: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i:03d}.png" for i in range(n)]
    for i, file in enumerate(files):
        cv2.imwrite(str(file), smooth_image(i)[..., ::-1])
    return files


def test_regions_by_hand() -> None:
    # 40x40 about (30, 40): padded to 50x50, and 24:32 makes the height 50 * 32/24
    centres, sizes = regions(np.array([[10.0, 20.0, 40.0, 40.0]]), (24, 32))
    np.testing.assert_allclose(centres, [[30, 40]])
    np.testing.assert_allclose(sizes, [[50, 50 * 32 / 24]])


def test_the_affine_takes_the_region_to_the_crop_as_agreed() -> None:
    boxes = np.array([[10.0, 20.0, 40.0, 40.0]])
    (affine,) = image_to_crop(boxes, SPEC)
    x = np.array([17.0, 33.0])  # x_in = (x - (cx - sw/2)) * (W-1)/sw
    np.testing.assert_allclose(affine[0, 0] * x + affine[0, 2], (x - (30 - 25)) * 23 / 50)
    (wider,) = image_to_crop(boxes, replace(SPEC, margin_width=1.5, margin_height=2.0))
    np.testing.assert_allclose(wider[:, 2] - affine[:, 2], [6, 16])  # whole pixels more on every side
    assert replace(SPEC, margin_width=1.5, margin_height=2.0).stored_size == (36, 64)


def test_a_stored_crop_is_the_image_seen_through_its_affine(tmp_path: Path) -> None:
    instances = one_per_image(write_pngs(tmp_path / "images", 3), boxes_each=2)
    store = open_crops(instances, SPEC, tmp_path / "cache", threads=2)
    assert store.images.shape == (6, 32, 24, 3)
    assert store.usable.all()
    assert store.left_out == []
    for row in range(6):
        image = smooth_image(row % 3).astype(np.float32)
        inverse = cv2.invertAffineTransform(store.from_image[row])
        x, y = np.meshgrid(np.arange(24), np.arange(32))
        at = (np.stack([x, y, np.ones_like(x)], -1) @ inverse.T).astype(np.float32)
        expected = cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        assert np.abs(store.images[row] - expected).max() <= 2


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    fine = np.indices((512, 512)).sum(axis=0) % 2 * 255  # a checkerboard of single pixels: its mean is grey
    image = np.repeat(fine[..., None], 3, axis=2).astype(np.uint8)
    out = np.zeros((32, 24, 3), np.uint8)
    (affine,) = image_to_crop(np.array([[150.0, 130.0, 200.0, 260.0]]), SPEC)
    cut(image, affine, out)
    assert out.min() > 120
    assert out.max() < 136


@pytest.mark.parametrize("size", [60.0, 90.0, 130.0, 260.0])  # shrinks 3 to 14 times, blocks of 2, 4, 8
def test_averaging_moves_nothing(size: float) -> None:
    image = np.zeros((400, 500, 3), np.uint8)
    x, y = 241, 187
    cv2.circle(image, (x, y), int(size / 12), (255, 255, 255), -1)
    (affine,) = image_to_crop(np.array([[200.0, 150.0, size, size]]), SPEC)
    out = np.zeros((32, 24, 3), np.uint8)
    cut(image, affine, out)
    weight = out[..., 0].astype(float)
    found = (np.indices(weight.shape) * weight).sum(axis=(1, 2))[::-1] / weight.sum()
    np.testing.assert_allclose(found, affine[:, :2] @ [x, y] + affine[:, 2], atol=0.15)


def test_outside_the_image_is_black() -> None:
    image = np.full((60, 80, 3), 200, np.uint8)
    out = np.ones((32, 24, 3), np.uint8)
    for box in ([-40.0, -40.0, 60.0, 80.0], [-400.0, -400.0, 600.0, 800.0]):  # plain, and averaged first
        (affine,) = image_to_crop(np.array([box]), SPEC)
        cut(image, affine, out)
        assert out[0, 0].tolist() == [0, 0, 0]
        assert out.max() == 200


def spoil(files: list[Path]) -> list[str]:
    """Five ways of being unusable, in turn; what each is called."""
    _, jpeg = cv2.imencode(".jpg", smooth_image(0))
    contents = [None, b"", b"not an image at all", jpeg.tobytes()[: len(jpeg) // 2], files[3].read_bytes()[:-900]]
    for file, content in zip(files, contents, strict=True):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
    reasons = ["missing", "empty file", "not an image", "truncated", "truncated"]
    return [f"{file}: {why}" for file, why in zip(files, reasons, strict=True)]


def test_unusable_images_are_left_out_with_their_names(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 100)
    expected = spoil(files[10:15])
    store = open_crops(one_per_image(files, boxes_each=2), SPEC, tmp_path / "cache")
    assert sorted(store.left_out) == sorted(expected)
    assert np.flatnonzero(~store.usable).tolist() == [*range(10, 15), *range(110, 115)]
    again = open_crops(one_per_image(files, boxes_each=2), SPEC, tmp_path / "cache")
    assert again.left_out == store.left_out


def test_more_than_five_per_cent_unusable_stops_and_names_the_folder(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 99)
    spoil(files[10:15])
    with pytest.raises(DataError) as error:
        open_crops(one_per_image(files), SPEC, tmp_path / "cache")
    assert str(error.value).startswith(
        f"{tmp_path / 'images'}: 5 of 99 images cannot be used and at most 5% may be left out: 010.png (missing), "
    )
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_an_empty_box_is_named(tmp_path: Path) -> None:
    instances = one_per_image(write_pngs(tmp_path / "images", 2))
    instances.boxes[1, 2] = 0
    with pytest.raises(DataError, match=r"annotation 101 of .*001\.png: box .* above 0"):
        open_crops(instances, SPEC, tmp_path / "cache")


def test_no_instances_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotated object"):
        open_crops(one_per_image([]), SPEC, tmp_path / "cache")


def test_the_key_follows_content_not_names(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 2)
    key = content_key(one_per_image(files), SPEC)
    moved = [file.rename(tmp_path / f"renamed{i}.png") for i, file in enumerate(files)]
    assert content_key(one_per_image(moved), SPEC) == key
    keys = {key, content_key(one_per_image(moved), replace(SPEC, margin_width=1.5))}
    keys.add(content_key(one_per_image(moved).take(np.array([1])), SPEC))
    keys.add(content_key(one_per_image(moved[::-1]), SPEC))
    shifted = one_per_image(moved)
    shifted.boxes[0, 0] += 1e-9
    keys.add(content_key(shifted, SPEC))
    changed = bytearray(moved[0].read_bytes())
    changed[-20] ^= 1  # same size, same path: only the content and its time differ
    moved[0].write_bytes(changed)
    keys.add(content_key(one_per_image(moved), SPEC))
    assert len(keys) == 6


def test_both_ends_of_a_large_file_count_and_its_time(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    content = bytearray(np.random.default_rng(0).bytes(400_000))
    keys = set()
    for place, time_s in ((None, 1), (10, 1), (-10, 1), (200_000, 2)):
        if place is not None:
            content[place] ^= 1
        file.write_bytes(content)
        os.utime(file, (time_s, time_s))
        crops_module._fingerprint.cache_clear()
        keys.add(content_key(one_per_image([file]), SPEC))
    assert len(keys) == 4


def test_a_full_disk_is_said_before_anything_is_cropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    instances = one_per_image(write_pngs(tmp_path / "images", 2))
    with pytest.raises(
        DataError, match=r"cache: the crop store needs 0\.00 GB there \(No space left on device\); free"
    ):
        open_crops(instances, SPEC, tmp_path / "cache")
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_each_image_is_decoded_once_and_an_open_store_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(crops_module, "decode", lambda path, shrink: decoded.append(path) or decode(path, shrink))
    instances = one_per_image(write_pngs(tmp_path / "images", 4), boxes_each=3)
    said = []
    open_crops(instances, SPEC, tmp_path / "cache", lambda done, total: said.append((done, total)))
    assert sorted(decoded) == list(instances.image_files)
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]
    open_crops(instances, SPEC, tmp_path / "cache")
    assert len(decoded) == 4


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    instances = one_per_image(write_pngs(tmp_path / "images", 4))
    with pytest.raises(KeyboardInterrupt):
        open_crops(instances, SPEC, tmp_path / "cache", interrupt)
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


BUILDER = """
import runpy, sys, time
from pathlib import Path
tests = runpy.run_path(sys.argv[1])
folder, wait_s = Path(sys.argv[2]), float(sys.argv[3])
files = sorted((folder / "images").glob("*.png"))
def slowly(done, total):
    print(done, flush=True)
    time.sleep(wait_s)
print("ready", flush=True)
store = tests["open_crops"](tests["one_per_image"](files), tests["SPEC"], folder / "cache", slowly, 1)
print("rows", len(store.images), int(store.images.sum()), flush=True)
"""


def builder(folder: Path, wait_s: float, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"{before}\n{BUILDER}", __file__, str(folder), str(wait_s)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_make_one_store(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images", 8)
    both = [builder(tmp_path, 0.1), builder(tmp_path, 0.1)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(lines) for lines in said) == [2, 10]  # one built 8 images, the other only opened
    assert said[0][-1] == said[1][-1]
    assert len(list((tmp_path / "cache").glob("crops-*/images.npy"))) == 1


def test_a_killed_builder_leaves_no_store_and_the_next_one_builds(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 8)
    process = builder(tmp_path, 30)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "1\n"]  # midway, holding the lock
    waiting = builder(tmp_path, 0)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "ready\n"
    time.sleep(0.2)
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == [".lock", ".unfinished"]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    said = waiting.communicate(timeout=60)[0].splitlines()
    assert said[:-1] == [str(i + 1) for i in range(8)]
    store = open_crops(one_per_image(files), SPEC, tmp_path / "cache")
    assert said[-1] == f"rows 8 {store.images.sum()}"
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == ["", ".lock"]


def test_the_store_cannot_be_written_through(tmp_path: Path) -> None:
    store = open_crops(one_per_image(write_pngs(tmp_path / "images", 1)), SPEC, tmp_path / "cache")
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


# ------------------------------------------------------------------------------------------- images decoded smaller


@pytest.mark.parametrize(
    ("density", "expected"), [(2.0, 1), (1.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.125, 8), (0.01, 8)]
)
def test_no_crop_gets_fewer_pixels_of_its_image_than_it_has(density: float, expected: int) -> None:
    affines = np.tile(np.array([[0.001, 0, 0], [0, 0.001, 0]]), (3, 1, 1))
    affines[1, 0, 0] = density  # one direction of one crop decides for its image
    assert shrinks(affines, np.array([0, 0, 1])).tolist() == [expected, expected, 8]


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("side_px", [60, 100, 200, 330])  # 1.9, 3.1, 6.5, 10 image pixels per crop pixel
def test_a_mark_stays_within_half_a_pixel_when_its_image_is_decoded_smaller(
    side_px: int, orientation: int | None, tmp_path: Path
) -> None:
    size = (563, 421) if orientation is None else (560, 424)  # without EXIF the last pixels may be incomplete
    upright = np.full((size[1], size[0], 3), 30, np.uint8)
    x, y = 331.0, 243.0
    cv2.circle(upright, (331, 243), side_px // 8, (230, 230, 230), -1, cv2.LINE_AA)
    path = tmp_path / "a.jpg"
    save_turned(path, upright, orientation)
    instances = replace(
        one_per_image([path]), boxes=np.array([[x - side_px * 0.6, y - side_px * 0.4, side_px, side_px]])
    )
    store = open_crops(instances, SPEC, tmp_path / "cache", threads=1)
    recipe = Recipe.of(instances, SPEC)
    assert decode(path, int(recipe.shrinks[0])).shrink == min(8, 2 ** int(np.log2(side_px * 1.25 / 24)))
    bright = np.clip(store.images[0, ..., 0].astype(float) - 40, 0, None)
    bright[:, :] *= bright > 20
    found = (np.indices(bright.shape) * bright).sum(axis=(1, 2))[::-1] / bright.sum()
    np.testing.assert_allclose(found, store.from_image[0, :, :2] @ [x, y] + store.from_image[0, :, 2], atol=0.15)


def save_turned(path: Path, upright: np.ndarray, orientation: int | None) -> None:
    """A JPEG that is `upright` once EXIF's `orientation` is applied."""
    from PIL import Image

    turns = (None, None, 0, 3, 1, 5, 2, 6, 4)  # Pillow's transpositions that undo each orientation
    picture, exif = Image.fromarray(upright), Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
        turn = turns[orientation]
        picture = picture if turn is None else picture.transpose(Image.Transpose(turn))
    picture.save(path, quality=95, **({"exif": exif} if orientation else {}))


@pytest.mark.parametrize("size", [90.0, 180.0, 400.0])
def test_a_smaller_decoded_image_gives_nearly_the_pixels_of_the_whole_one(size: float, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    large_shapes = cv2.resize(smooth_image(3), (640, 480), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), large_shapes, [cv2.IMWRITE_JPEG_QUALITY, 95])
    instances = replace(one_per_image([path]), boxes=np.array([[80.0, 30.0, size, size]]))
    recipe = Recipe.of(instances, SPEC)
    crops = [np.zeros((32, 24, 3), np.uint8) for _ in range(2)]
    for out, shrink in zip(crops, (1, int(recipe.shrinks[0])), strict=True):
        recipe.make(decode(path, shrink), 0, out)
    assert recipe.shrinks[0] > 1
    difference = np.abs(crops[0].astype(int) - crops[1])
    assert difference.mean() < 1.5
    assert difference.max() < 30


@pytest.mark.parametrize(
    "box", [[-1e9, -1e9, 2e9, 2e9], [1e6, 1e6, 5.0, 5.0], [10.0, 10.0, 1e-6, 1e-6], [0.0, 0.0, 1e300, 1.0]]
)
def test_an_absurd_box_costs_no_memory(box: list[float]) -> None:
    out = np.ones((32, 24, 3), np.uint8)
    cut(smooth_image(0), image_to_crop(np.array([box]), SPEC)[0], out)


# -------------------------------------------------------------------------------------------- not enough room: cache_gb


def test_without_room_the_same_pixels_are_made_each_time(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 100)
    cv2.imwrite(str(files[0].with_suffix(".jpg")), smooth_image(0, 1600, 1200))
    files[0] = files[0].with_suffix(".jpg")
    expected_lines = spoil(files[10:15])
    instances = one_per_image(files, boxes_each=2)
    instances.boxes[[0, 100]] = [[400, 200, 900, 700], [300, 100, 700, 900]]
    stored = open_crops(instances, SPEC, tmp_path / "cache")
    anew = open_crops(instances, SPEC, tmp_path / "other", cache_gb=0.0004)
    assert isinstance(anew.images, CropsOnDemand)
    assert anew.images.shape == stored.images.shape
    np.testing.assert_array_equal(anew.usable, stored.usable)
    np.testing.assert_array_equal(anew.from_image, stored.from_image)
    assert sorted(anew.left_out) == sorted(stored.left_out) == sorted(expected_lines)
    for row in np.flatnonzero(anew.usable).tolist():
        np.testing.assert_array_equal(anew.images[row], stored.images[row])
    assert stored.note == ""
    assert anew.note == (
        f"no crop store: it needs 0.00 GB and cache_gb is 0.0004 for all of {tmp_path / 'other'}, so images are "
        "decoded each time they are used, which is slower; raise cache_gb, or free room with posesweep clean --all"
    )
    assert not list((tmp_path / "other").glob("*/images.npy"))


def test_without_room_what_cannot_be_read_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(crops_module, "decode", lambda path, shrink: decoded.append(path) or decode(path, shrink))
    instances = one_per_image(write_pngs(tmp_path / "images", 4), boxes_each=3)
    for _ in range(2):
        crops = open_crops(instances, SPEC, tmp_path / "cache", cache_gb=0)
        assert len(decoded) == 4
    for row in range(12):
        crops.images[row]
    assert len(decoded) == 8, "the images decoded last are kept"


def test_an_image_that_vanishes_meanwhile_is_named(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 2)
    crops = open_crops(one_per_image(files), SPEC, tmp_path / "cache", cache_gb=0)
    files[1].unlink()
    with pytest.raises(DataError, match=r"^.*001\.png: missing; it could be read when the data was checked$"):
        crops.images[1]


def test_samples_are_the_same_with_and_without_a_store(tmp_path: Path) -> None:
    instances = one_per_image(write_pngs(tmp_path / "images", 6))
    spec = replace(SPEC, margin_width=1.5, margin_height=1.5)
    batches = []
    for cache_gb in (0, None):
        crops = open_crops(instances, spec, tmp_path / "cache", cache_gb=cache_gb)
        batches.append(TopDownSamples(crops, instances, (24, 32), preset("medium")).batch(np.arange(6), 0))
    for name, values in batches[0].items():
        np.testing.assert_array_equal(values, batches[1][name], name)


def test_an_older_store_makes_room_for_a_new_one(tmp_path: Path) -> None:
    instances = one_per_image(write_pngs(tmp_path / "images", 4))
    size_gb = 4 * 24 * 32 * 3 / 1e9
    cache = tmp_path / "cache"

    def stored(first_x: float) -> bool:
        boxes = instances.boxes.copy()
        boxes[0, 0] = first_x
        crops = open_crops(replace(instances, boxes=boxes), SPEC, cache, cache_gb=2.5 * size_gb)
        return not isinstance(crops.images, CropsOnDemand)

    assert stored(1)
    assert stored(2)
    assert not stored(3), "those opened within the hour stay"
    folders = sorted(cache.glob("crops-*/images.npy"), key=lambda path: path.stat().st_mtime)
    os.utime(folders[0].with_name("used"), (0, 0))
    assert stored(3)
    assert not folders[0].is_file()
    assert folders[1].is_file()
    assert stored(2), "still there"


# ------------------------------------------------------------------------------------------------ several machines


# as if each process were on a machine of its own, with a lock that only that machine sees
NO_LOCKS = "import fcntl, os, socket; fcntl.flock = lambda *_: None; socket.gethostname = lambda: f'm{os.getpid()}'"


def test_where_locks_do_not_reach_the_first_store_wins(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images", 8)
    both = [builder(tmp_path, 0.1, NO_LOCKS), builder(tmp_path, 0.1, NO_LOCKS)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert [path.name for path in (tmp_path / "cache").glob("crops-*/*.npy")] == ["images.npy"]
    assert not list((tmp_path / "cache").glob("*.unfinished"))


def test_where_locks_do_not_reach_a_killed_builder_harms_nobody(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 8)
    killed, other = builder(tmp_path, 30, NO_LOCKS), builder(tmp_path, 0.05, NO_LOCKS)
    assert killed.stdout is not None
    assert [killed.stdout.readline() for _ in range(2)] == ["ready\n", "1\n"]
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    said = other.communicate(timeout=60)[0].splitlines()
    store = open_crops(one_per_image(files), SPEC, tmp_path / "cache")
    assert said[-1] == f"rows 8 {store.images.sum()}"
    expected = open_crops(one_per_image(files), SPEC, tmp_path / "another")
    np.testing.assert_array_equal(store.images, expected.images)


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    instances = one_per_image(write_pngs(tmp_path / "images", 2))
    open_crops(instances, SPEC, tmp_path / "cache")
    (images,) = (tmp_path / "cache").glob("*/images.npy")
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"crops-[0-9a-f]{24}: this crop store is damaged .*posesweep clean --all"):
        open_crops(instances, SPEC, tmp_path / "cache")


def test_an_image_a_box_or_the_margin_that_changes_makes_a_new_store(tmp_path: Path) -> None:
    files = write_pngs(tmp_path / "images", 2)
    instances = one_per_image(files)
    first = open_crops(instances, SPEC, tmp_path / "cache").images.copy()
    moved = replace(instances, boxes=instances.boxes + np.array([3.0, 0, 0, 0]))
    assert (open_crops(moved, SPEC, tmp_path / "cache").images != first).any()
    wider = open_crops(instances, replace(SPEC, margin_width=1.5), tmp_path / "cache").images
    assert wider.shape == (2, 32, 36, 3)
    cv2.imwrite(str(files[0]), smooth_image(7))
    changed = open_crops(instances, SPEC, tmp_path / "cache").images
    assert (changed[0] != first[0]).any()
    np.testing.assert_array_equal(changed[1], first[1])
    assert len(list((tmp_path / "cache").glob("crops-*/"))) == 4
