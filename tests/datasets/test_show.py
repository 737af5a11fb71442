"""`posesweep show`: the pages show what is annotated and what training sees, and make a wrong flip pair visible."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets.drawing import GAP_PX, LEFT, LINE_PX, MARGIN_PX, MIDDLE, RIGHT, tile_px
from posesweep.datasets.instances import Instances
from posesweep.datasets.show import (
    STRIDE,
    Shown,
    augmented_page,
    choose,
    flipped_page,
    gaussians,
    run,
    samples_page,
    save_augmented,
    targets_page,
)
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import ConfigError, DataError

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
NAMES = ("left_ear", "right_ear", "nose", "tail")
DUCK = Skeleton(
    "duck", NAMES, (("left_ear", "right_ear"),), (("left_ear", "nose"), ("right_ear", "nose")), np.full(4, 0.05)
)
TOP = MARGIN_PX + 2 * LINE_PX  # of the first row of a page
IMGSZ = (64, 64)


@pytest.fixture
def ducks(tmp_path: Path) -> Instances:
    """Six objects on five grey images of 160x120, boxes of 80x80 about (80, 60)."""
    files = tuple(tmp_path / f"{i}.png" for i in range(5))
    for i, file in enumerate(files):
        cv2.imwrite(str(file), np.full((120, 160, 3), 60 + i, np.uint8))
    n = 6
    points = np.tile(np.array([[60.0, 40.0], [100.0, 40.0], [80.0, 50.0], [80.0, 90.0]]), (n, 1, 1))
    return Instances(
        skeleton=DUCK,
        image_files=files,
        image_ids=np.arange(5),
        image_groups=("",) * 5,
        image_index=np.array([0, 0, 1, 2, 3, 4]),
        ids=np.arange(n) + 10,
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.tile([40.0, 20.0, 80.0, 80.0], (n, 1)),
        keypoints=points,
        visibility=np.full((n, 4), 2, np.uint8),
        areas=np.ones(n),
        crowd=np.zeros(n, dtype=bool),
    )


def places(page: np.ndarray, column: int, columns: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Centres x, y, as shares of the tile, of what is drawn in `colour` in the first row of a page of square tiles."""
    width = tile_px(columns)
    left = MARGIN_PX + column * (width + GAP_PX)
    mask = (page[TOP : TOP + width, left : left + width] == colour).all(axis=2).astype(np.uint8)
    mask = cv2.erode(mask, np.ones((4, 4), np.uint8))  # discs stay, lines and figures go
    _, _, _, centres = cv2.connectedComponentsWithStats(mask)
    return centres[1:] / width


def test_chosen_are_labelled_and_of_different_images_first(ducks: Instances) -> None:
    five = choose(ducks, 5, seed=3).instances
    assert sorted(five.image_index) == [0, 1, 2, 3, 4]
    assert len(choose(ducks, 99).instances) == 6
    ducks.visibility[2:] = 0
    ducks.crowd[0] = True
    assert choose(ducks, 99).instances.ids.tolist() == [11]


def test_images_that_cannot_be_read_are_left_out_and_named(ducks: Instances) -> None:
    ducks.image_files[1].write_bytes(b"")
    chosen = choose(ducks, 99)
    assert len(chosen.instances) == 5
    assert chosen.left_out == [f"{ducks.image_files[1]}: empty file"]
    for file in ducks.image_files:
        file.unlink(missing_ok=True)
    with pytest.raises(
        DataError, match=r"^no object has a labelled keypoint, a box and an image that can be read \(.*\)$"
    ):
        choose(ducks, 99)


def test_samples_show_keypoints_where_they_are(ducks: Instances) -> None:
    page = samples_page(ducks)
    # the box fills 1/1.4 of the tile: (60, 40) lies a quarter of the box from its corner
    expected = (np.array([0.25, 0.25]) - 0.5) / 1.4 + 0.5
    np.testing.assert_allclose(places(page, 0, 3, LEFT), [expected], atol=0.01)
    np.testing.assert_allclose(places(page, 0, 3, RIGHT), [[1 - expected[0], expected[1]]], atol=0.01)
    assert len(places(page, 2, 3, MIDDLE)) == 2


def test_a_large_image_and_one_at_the_border_are_shown(ducks: Instances) -> None:
    cv2.imwrite(str(ducks.image_files[0]), np.full((1200, 1600, 3), 60, np.uint8))
    for box in ([300.0, 100.0, 1200.0, 1000.0], [-900.0, -900.0, 1000.0, 1000.0], [1599.0, 1199.0, 1.0, 1.0]):
        page = samples_page(replace(ducks, boxes=np.tile(np.array(box), (6, 1))))
        assert page.shape[1] == 1200


def test_in_the_mirror_labels_swap_sides(ducks: Instances) -> None:
    page = flipped_page(ducks, IMGSZ)
    for column in (0, 1):  # the left ear is left of the right one in the image, and, swapped, in the mirror too
        assert places(page, column, 4, LEFT)[0, 0] < 0.45
        assert places(page, column, 4, RIGHT)[0, 0] > 0.55


def test_a_wrong_flip_pair_shows(ducks: Instances) -> None:
    right = flipped_page(ducks, IMGSZ)
    wrong = replace(DUCK, flip_pairs=(("left_ear", "tail"),))
    page = flipped_page(replace(ducks, skeleton=wrong), IMGSZ)
    before, after = (places(page, column, 4, LEFT)[0] for column in (0, 1))
    assert before[1] < 0.5 < after[1], "the left ear is where the tail is"
    missing = flipped_page(replace(ducks, skeleton=replace(DUCK, flip_pairs=())), IMGSZ)
    assert not len(places(missing, 1, 4, LEFT))
    assert len(places(right, 1, 4, LEFT)) == 1


def test_augmented_rows_are_samples_and_columns_strengths(ducks: Instances) -> None:
    page = augmented_page(ducks, IMGSZ, "light")
    first, second, third = (places(page, column, 5, LEFT) for column in (0, 2, 4))
    np.testing.assert_allclose(first[0], (0.25 - 0.5) / 1.25 + 0.5, atol=0.02)
    assert not np.allclose(first, second)
    assert not np.allclose(second, third)
    other = augmented_page(ducks, IMGSZ, "light", seed=1)
    np.testing.assert_array_equal(places(other, 0, 5, LEFT), first)
    assert (page != other).any()
    turned = augmented_page(ducks, IMGSZ, "light", {"rotation_deg": 0.0, "rotate": 0.0})
    assert (page != turned).any(), "ranges of its own are drawn, too"


def test_the_report_gets_its_picture(ducks: Instances, tmp_path: Path) -> None:
    save_augmented(tmp_path / "pictures" / "augmented.png", ducks, IMGSZ, "aggressive")
    picture = cv2.imread(str(tmp_path / "pictures" / "augmented.png"))
    assert picture.shape[1] == 1200
    with pytest.raises(ConfigError, match="augment: 'medum' is not a preset; did you mean 'medium'"):
        save_augmented(tmp_path / "b.png", ducks, IMGSZ, "medum")


def test_gaussians_by_hand() -> None:
    points = np.array([[[3.0, 2.0], [4.5, 1.0], [0.0, 0.0]]])
    (maps,) = gaussians(points, np.array([[2, 1, 0]], np.uint8), (8, 6), 2.0)
    assert maps.shape == (3, 6, 8)
    assert maps[0, 2, 3] == 1
    assert maps[0, 3, 5] == pytest.approx(np.exp(-(4 + 1) / 8))
    assert maps[1, 1, 4] == maps[1, 1, 5] == pytest.approx(np.exp(-0.25 / 8))
    assert not maps[2].any()


def test_targets_lie_under_their_keypoints(ducks: Instances) -> None:
    page = targets_page(ducks, IMGSZ, 1.0)
    width = tile_px(4)
    tile = page[TOP : TOP + width, MARGIN_PX + width + GAP_PX :][:, :width].astype(int)
    hot = tile.sum(axis=2) > 350
    _, labels, _, centres = cv2.connectedComponentsWithStats(hot.astype(np.uint8))
    x, y = places(page, 0, 4, LEFT)[0] * width
    assert np.hypot(*(centres[1:] - (x, y)).T).min() < STRIDE * width / IMGSZ[0] / 2, "not half a cell away"
    assert hot.mean() < 0.05
    assert labels.max() == 4
    nothing = targets_page(ducks, IMGSZ, 1.0, np.zeros((6, 4, 16, 16)))
    tile = nothing[TOP : TOP + width, MARGIN_PX + width + GAP_PX :][:, :width]
    assert tile.astype(int).sum(axis=2).max() < 200


def coco(folder: Path, ducks: Instances) -> Path:
    keypoints = np.dstack([ducks.keypoints, ducks.visibility]).reshape(6, -1)
    annotations = [
        {"id": int(i), "image_id": int(j), "category_id": 1, "bbox": b.tolist(), "keypoints": k.tolist(), "area": 900}
        | {"num_keypoints": 4, "iscrowd": 0}
        for i, j, b, k in zip(ducks.ids, ducks.image_index, ducks.boxes, keypoints, strict=True)
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 160, "height": 120} for i in range(5)]
    category = {"id": 1, "name": "duck", "keypoints": list(NAMES), "skeleton": [[1, 3], [2, 3]]}
    path = folder / "ducks.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path


def test_all_pages_are_written(ducks: Instances, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures"
    run(coco(tmp_path, ducks), tmp_path, None, out, Shown(IMGSZ, count=3))
    names = ["samples", "flipped", "augmented", "targets"]
    assert capsys.readouterr().out.splitlines() == [str(out / f"{name}.png") for name in names]
    assert sorted(path.stem for path in out.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Shown((4, 64)), "imgsz: [4, 64] must be at least 8 pixels each; try [192, 256]"),
        (Shown((99999999, 99999999)), "imgsz: [99999999, 99999999] must be at most 4096 pixels each; try [192, 256]"),
        (Shown(sigma=0.0), "sigma: 0 must be > 0 (heatmap cells); try 2.0"),
        (Shown(sigma=float("nan")), "sigma: nan must be > 0 (heatmap cells); try 2.0"),
        (Shown(count=0), "count: 0 must be at least 1"),
        (Shown(augment="strong"), "augment: 'strong' is not a preset"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_read(
    settings: Shown, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        run(tmp_path / "missing.json", None, None, tmp_path / "out", settings)
    assert str(error.value).startswith(words)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not (DATA / "openfield").is_dir(), reason=f"no sample data at {DATA}")
def test_the_mice(tmp_path: Path) -> None:
    table = DATA / "openfield/labeled-data/m4s1/CollectedData_Pranav.csv"
    run(table, None, "mouse4", tmp_path, Shown((96, 96), count=3))
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(DataError, match="cannot be made a folder"):
        run(tmp_path / "missing.json", None, None, tmp_path / "out")
