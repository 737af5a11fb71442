from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.analysis.pictures import MARGIN, SIDE_PX, best_and_worst, draw_pictures, read_image, view_of
from posesweep.analysis.results import Evidence, SweepResults, read_sweep_folder
from posesweep.datasets.skeleton import Skeleton
from tests.analysis.fake_sweep import TRIALS, write_fake_sweep

Loaded = tuple[SweepResults, Evidence, Skeleton]


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    results = read_sweep_folder(write_fake_sweep(tmp_path, TRIALS[:1], objects=6))
    evidence, skeleton = results.evidence(0), results.skeleton
    assert evidence is not None
    assert skeleton is not None
    return results, evidence, skeleton


def test_best_and_worst_share_no_row_and_skip_what_has_no_oks() -> None:
    oks = np.array([0.5, np.nan, 0.9, 0.1, 0.7])
    best, worst = best_and_worst(oks, 2, 2)
    assert (best.tolist(), worst.tolist()) == ([2, 4], [3, 0])
    best, worst = best_and_worst(oks, 4, 3)
    assert (best.tolist(), worst.tolist()) == ([2], [3, 0, 4])
    best, worst = best_and_worst(np.full(2, np.nan), 4, 8)
    assert (len(best), len(worst)) == (0, 0)


def test_view_keeps_the_box_in_the_middle_and_upright() -> None:
    view, (width, height) = view_of(np.array([50.0, 20.0, 80.0, 160.0]))
    assert (width, height) == (round(SIDE_PX * 0.6), SIDE_PX)  # half as wide as high is widened: no slivers
    scale = SIDE_PX / (160 * MARGIN)
    assert view[0, 0] == view[1, 1] == pytest.approx(scale)
    centre = view @ [90, 100, 1]
    assert centre == pytest.approx([SIDE_PX * 0.3, SIDE_PX / 2])


def test_pictures_say_whose_they_are(loaded: Loaded) -> None:
    results, evidence, skeleton = loaded
    pictures, missing = draw_pictures(results, evidence, skeleton, [4, 1])
    assert missing == []
    assert [picture.annotation_id for picture in pictures] == [1004, 1001]
    furthest = int(np.nanargmax(evidence.error_px[4]))
    assert pictures[0].worst_keypoint == skeleton.keypoints[furthest]
    assert pictures[0].worst_px == np.nanmax(evidence.error_px[4])
    decoded = cv2.imdecode(np.frombuffer(pictures[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (pictures[0].height, pictures[0].width, 3)


def test_truth_is_white_and_the_way_to_it_red(loaded: Loaded) -> None:
    results, evidence, skeleton = loaded
    k = int(np.nanargmax(evidence.error_px[0]))
    picture = draw_pictures(results, evidence, skeleton, [0])[0][0]
    canvas = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
    view, _ = view_of(evidence.boxes[0])
    truth, predicted = (
        view[:, :2] @ points[0, k] + view[:, 2] for points in (evidence.true_keypoints, evidence.keypoints)
    )
    x, y = truth.round().astype(int)
    assert canvas[y, x].min() > 190
    x, y = ((truth + predicted) / 2).round().astype(int)
    around = canvas[y - 2 : y + 3, x - 2 : x + 3]
    assert (around[..., 2] - around[..., :2].max(-1)).max() > 60


def test_images_that_are_gone_are_named(loaded: Loaded) -> None:
    results, evidence, skeleton = loaded
    gone = Path(results.split["images"]["100"])
    gone.unlink()
    Path(results.split["images"]["101"]).write_bytes(b"not a picture")
    del results.split["images"]["102"]
    pictures, missing = draw_pictures(results, evidence, skeleton, range(6))
    assert pictures == []
    assert missing == [
        name for image in (gone, results.split["images"]["101"], "image id 102") for name in [str(image)] * 2
    ]


def test_a_relative_name_is_found_in_the_sweep_folder(loaded: Loaded) -> None:
    results, _, _ = loaded
    assert read_image("images/pony_100.jpg", results.folder) is not None
    assert read_image("", results.folder) is None


def test_an_empty_file_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert read_image("empty.jpg", tmp_path) is None
