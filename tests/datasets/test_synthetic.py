"""The synthetic horse: its labels are exact, its pictures the same everywhere, its files COCO."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from posesweep.datasets import synthetic
from posesweep.datasets.horse_body import KEYPOINTS, LANDMARKS, PART_ID, Build, horse_body, surface
from posesweep.datasets.horse_coat import random_coat
from posesweep.datasets.horse_gait import GAITS, MOODS, random_build, random_pose, standing, striding
from posesweep.datasets.painter import FINE, Camera, look
from posesweep.datasets.scenery import Light
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.synthetic import Actor, HorseImage, Scene, _placed, render_horse, render_scene, write_synthetic
from posesweep.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
LIGHT = Light(np.array([0.0, 0.6, 0.8]), 0.6, np.ones(3))
SIZE = (320, 240)
INDEX = {name: i for i, name in enumerate(KEYPOINTS)}


@pytest.fixture(scope="module")
def hundred() -> list[HorseImage]:
    return [render_horse(seed=5, index=i) for i in range(100)]


def camera_at(x: float, y: float, z: float = 1.1, focal_px: float = 500.0) -> Camera:
    position = np.array([x, y, z])
    return Camera(position, look(position, np.array([0.0, 0.0, 1.1]), 0.0), focal_px, np.array([159.5, 119.5]))


def standing_horse(place: tuple[float, float] = (0.0, 0.0), heading: float = 0.0) -> Actor:
    body = _placed(horse_body(Build(), standing()), heading, np.array(place))
    return Actor(body, random_coat(np.random.default_rng(0)), 1.0)


def shot(camera: Camera, *actors: Actor) -> HorseImage:
    return render_scene(np.random.default_rng(0), Scene(actors, camera, LIGHT), SIZE, crowded=False)


def seen(result: HorseImage, name: str, horse: int = 0) -> int:
    return int(result.visibility[horse, INDEX[name]])


# -- the schema -------------------------------------------------------------------------------------------------------
def test_the_body_and_the_skeleton_file_name_the_same_26_points() -> None:
    skeleton = load_skeleton("horse26")
    assert len(KEYPOINTS) == len(set(KEYPOINTS)) == 26
    assert skeleton.keypoints == KEYPOINTS
    sided = {name for name in KEYPOINTS if name.startswith(("left_", "right_"))}
    assert {name for pair in skeleton.flip_pairs for name in pair} == sided
    assert all(left == right.replace("right_", "left_") for left, right in skeleton.flip_pairs)


# -- the body ---------------------------------------------------------------------------------------------------------
def test_a_standing_horse_is_as_large_as_a_horse_and_left_is_left() -> None:
    body = horse_body(Build(), standing())
    at = dict(zip(KEYPOINTS, body.points, strict=True))
    assert 1.45 < at["withers"][2] < 1.60
    assert body.vertices[:, 2].min() == pytest.approx(0.0, abs=1e-12)
    assert at["poll"][0] > at["withers"][0] > at["croup"][0] > at["tail_base"][0]
    for left, right in load_skeleton("horse26").flip_pairs:
        np.testing.assert_allclose(at[left], at[right] * [1, -1, 1], atol=1e-12)
        assert at[left][1] > 0


@pytest.mark.parametrize("mood", MOODS)
def test_bones_keep_their_length_in_every_pose(mood: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        pose = replace(random_pose(rng, mood), bend=0.0)
        at = dict(zip(KEYPOINTS, horse_body(Build(), pose).points, strict=True))
        assert np.linalg.norm(at["left_knee"] - at["left_front_fetlock"]) == pytest.approx(0.28)
        assert np.linalg.norm(at["right_hock"] - at["right_hind_fetlock"]) == pytest.approx(0.37)


def test_trotting_legs_move_in_diagonal_pairs() -> None:
    for phase in (0.0, 0.3, 0.7):
        legs = striding(GAITS["trot"], phase)
        later = striding(GAITS["trot"], phase + 0.5)
        np.testing.assert_allclose(legs[0], later[1])  # left front is half a stride from right front
        np.testing.assert_allclose(legs[3], later[2])


def test_a_grazing_horse_has_its_nose_near_the_ground() -> None:
    rng = np.random.default_rng(2)
    heights = [horse_body(Build(), random_pose(rng, "graze")).points[INDEX["left_nostril"], 2] for _ in range(30)]
    assert np.median(heights) < 0.35
    assert min(heights) > -0.01


def test_quads_face_outward() -> None:
    body = horse_body(Build(), standing())
    quads = body.vertices[surface().faces]
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    for name in ("trunk", "neck", "head", "tail", "left_front_lower", "right_hind_cannon"):
        own = surface().part == PART_ID[name]
        outward = quads[own].mean(axis=1) - quads[own].mean(axis=(0, 1))
        assert (np.einsum("fi,fi->f", normals[own], outward) > 0).mean() > 0.9, name
    left_eye = surface().part == PART_ID["left_eye"]
    assert normals[left_eye][0, 1] > 0 > normals[surface().part == PART_ID["right_eye"]][0, 1]


# -- projection -------------------------------------------------------------------------------------------------------
def test_keypoints_are_the_projection_of_the_3d_points(hundred: list[HorseImage]) -> None:
    for result in hundred[:20]:
        camera = result.camera
        matrix = np.array([[camera.focal_px, 0, camera.centre[0]], [0, camera.focal_px, camera.centre[1]], [0, 0, 1]])
        turn, move = cv2.Rodrigues(camera.rotation)[0], -camera.rotation @ camera.position
        expected, _ = cv2.projectPoints(result.points_3d.reshape(-1, 3), turn, move, matrix, np.zeros(4))
        np.testing.assert_allclose(result.keypoints.reshape(-1, 2), expected[:, 0], atol=1e-6)


def test_a_mirrored_camera_swaps_left_and_right() -> None:
    horse = standing_horse()
    here, there = shot(camera_at(4, 5), horse), shot(camera_at(4, -5), horse)
    swap = load_skeleton("horse26").flip_index
    mirrored = here.keypoints[0, swap] * [-1, 1] + [SIZE[0] - 1, 0]
    np.testing.assert_allclose(there.keypoints[0], mirrored, atol=1e-9)
    agree = there.visibility[0] == here.visibility[0, swap]
    assert agree.sum() >= 25  # the mane hangs on one side and may cover the withers from there


def test_seen_from_its_left_a_horse_that_looks_left_in_the_picture() -> None:
    result = shot(camera_at(0, 6), standing_horse())
    at = dict(zip(KEYPOINTS, result.keypoints[0], strict=True))
    assert at["left_eye"][0] < at["withers"][0] < at["tail_base"][0]  # the camera is on +y, x runs to its left
    assert at["poll"][1] < at["withers"][1] < at["left_front_hoof"][1]


# -- visibility -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("side", "near", "far"), [(6.0, "left", "right"), (-6.0, "right", "left")])
def test_the_trunk_hides_the_far_legs_and_the_head_its_far_eye(side: float, near: str, far: str) -> None:
    result = shot(camera_at(0, side), standing_horse())
    for joint in ("elbow", "stifle", "eye", "nostril", "knee", "hock", "front_hoof", "hind_hoof"):
        assert seen(result, f"{near}_{joint}") == 2, joint
    for joint in ("elbow", "stifle", "eye", "nostril"):
        assert seen(result, f"{far}_{joint}") == 1, joint


def test_from_behind_the_hindquarters_hide_the_head() -> None:
    result = shot(camera_at(-6, 0, focal_px=300), standing_horse())
    assert [seen(result, name) for name in ("left_stifle", "left_hock", "right_hock", "left_hind_hoof")] == [1, 2, 2, 2]
    assert [seen(result, f"{side}_{what}") for side in ("left", "right") for what in ("nostril", "elbow")] == [1] * 4


def test_a_horse_in_front_hides_the_one_behind() -> None:
    behind, before = standing_horse(), standing_horse(place=(0.0, 1.5))
    alone, both = shot(camera_at(0, 8), behind), shot(camera_at(0, 8), behind, before)
    for name in ("left_elbow", "left_stifle", "withers", "left_knee"):
        assert seen(alone, name) == 2, name
    assert seen(both, "left_elbow", 0) == seen(both, "left_stifle", 0) == 1
    assert seen(both, "left_elbow", 1) == 2
    assert both.areas[0] < 0.7 * alone.areas[0]


def test_outside_of_the_image_is_not_labelled() -> None:
    result = shot(camera_at(0, 6, focal_px=1000), standing_horse())
    x, y = result.keypoints[0].T
    outside = (x < -0.5) | (y < -0.5) | (x > SIZE[0] - 0.5) | (y > SIZE[1] - 0.5)
    assert outside.any()
    np.testing.assert_array_equal(result.visibility[0] == 0, outside)


def test_a_seen_keypoint_lies_on_a_part_it_belongs_to(hundred: list[HorseImage]) -> None:
    exact = near = total = 0
    for result in hundred:
        for horse, (points, visibility) in enumerate(zip(result.keypoints, result.visibility, strict=True), start=1):
            for landmark, point, flag in zip(LANDMARKS, points, visibility, strict=True):
                if flag != 2:
                    continue
                x, y = np.rint(point).astype(int)
                around = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                own = np.isin(result.part, [PART_ID[part] for part in landmark.parts]) & (result.owner == horse)
                exact, near, total = exact + own[y, x], near + own[around].any(), total + 1
    assert total > 1000
    assert exact / total > 0.93  # the others lie on an outline
    assert near / total > 0.998  # the tip of an ear may be thinner than a pixel


def test_nothing_is_painted_outside_of_the_painting_s_box(hundred: list[HorseImage]) -> None:
    for painting in (result.painting for result in hundred):
        outside = np.ones((SIZE[1], SIZE[0]), bool)
        outside[painting.box] = False
        assert not painting.seen[outside.repeat(FINE, axis=0).repeat(FINE, axis=1)].any()
        assert not outside.all()


def test_all_kinds_of_visibility_occur_in_sane_shares(hundred: list[HorseImage]) -> None:
    flags = np.concatenate([result.visibility.ravel() for result in hundred])
    outside, hidden, visible = (np.mean(flags == value) for value in (0, 1, 2))
    assert 0.005 < outside < 0.12
    assert 0.15 < hidden < 0.45
    assert 0.5 < visible < 0.85
    by_point = np.concatenate([result.visibility for result in hundred])
    assert ((by_point == 2).mean(axis=0) > 0.25).all()  # no point is always covered
    two = np.mean([len(result.keypoints) == 2 for result in hundred])
    assert 0.05 < two < 0.3


def test_boxes_hold_silhouette_and_labelled_keypoints_within_the_image(hundred: list[HorseImage]) -> None:
    for result in hundred:
        for horse, (x, y, width, height) in enumerate(result.boxes):
            assert x >= 0
            assert y >= 0
            assert x + width <= SIZE[0]
            assert y + height <= SIZE[1]
            rows, columns = np.nonzero(result.owner == horse + 1)
            assert len(rows) == result.areas[horse] <= width * height
            assert columns.min() >= x
            assert columns.max() <= x + width
            assert rows.min() >= y
            assert rows.max() <= y + height
            inside = result.keypoints[horse][result.visibility[horse] > 0].clip(0, [SIZE[0], SIZE[1]])
            assert (inside >= [x, y]).all()
            assert (inside <= [x + width, y + height]).all()


def test_every_horse_has_points_to_learn_from(hundred: list[HorseImage]) -> None:
    labelled = np.concatenate([(result.visibility > 0).sum(axis=1) for result in hundred])
    assert labelled.min() >= 6
    assert np.mean(labelled < 26) < 0.25


def test_a_tiny_picture_is_refused() -> None:
    with pytest.raises(DataError, match="40 x 240 pixels is too small"):
        render_horse(0, 0, (40, 240))


# -- the same everywhere ----------------------------------------------------------------------------------------------
def digest(result: HorseImage) -> str:
    arrays = (result.image, result.keypoints, result.visibility, result.boxes, result.areas, result.points_3d)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_a_picture_depends_on_seed_index_and_size_alone() -> None:
    first = digest(render_horse(3, 4))
    assert digest(render_horse(3, 4)) == first
    others = {digest(render_horse(3, 5)), digest(render_horse(4, 4)), digest(render_horse(3, 4, (192, 160)))}
    assert len(others | {first}) == 4


def test_another_process_draws_the_same_pictures() -> None:
    code = (
        "import hashlib; from posesweep.datasets.synthetic import render_horse\n"
        "for i in (1, 0):\n"
        "    r = render_horse(9, i); a = (r.image, r.keypoints, r.visibility, r.boxes, r.areas, r.points_3d)\n"
        "    print(hashlib.sha256(b''.join(x.tobytes() for x in a)).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [digest(render_horse(9, 1)), digest(render_horse(9, 0))]


def test_builds_differ_between_animals() -> None:
    rng = np.random.default_rng(0)
    sizes = [random_build(rng).size for _ in range(50)]
    assert 0.87 <= min(sizes) < 0.95 < 1.05 < max(sizes) <= 1.13


# -- files ------------------------------------------------------------------------------------------------------------
def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    path = write_synthetic(tmp_path / "horses", 12, seed=5)
    coco = COCO(str(path))
    (category,) = coco.loadCats(coco.getCatIds())
    skeleton = load_skeleton("horse26")
    assert category["name"] == "horse"
    assert tuple(category["keypoints"]) == KEYPOINTS
    assert {(KEYPOINTS[a - 1], KEYPOINTS[b - 1]) for a, b in category["skeleton"]} == set(skeleton.edges)
    assert len(coco.getImgIds()) == 12
    assert len(set(coco.getAnnIds())) == len(coco.dataset["annotations"])
    for position, image_id in enumerate(coco.getImgIds()):
        check_image(coco, image_id, path.parent / "images", render_horse(5, position))


def check_image(coco: COCO, image_id: int, folder: Path, expected: HorseImage) -> None:
    (record,) = coco.loadImgs(image_id)
    image = cv2.imread(str(folder / record["file_name"]))[..., ::-1]
    assert image.shape == (record["height"], record["width"], 3)
    assert np.abs(image.astype(int) - expected.image).mean() < 12  # JPEG of a grainy picture
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
    assert len(annotations) == len(expected.keypoints)
    for i, annotation in enumerate(annotations):
        points = np.array(annotation["keypoints"]).reshape(26, 3)
        np.testing.assert_array_equal(points[:, 2], expected.visibility[i])
        labelled = points[:, 2] > 0
        assert annotation["num_keypoints"] == labelled.sum()
        np.testing.assert_allclose(points[labelled, :2], expected.keypoints[i, labelled], atol=6e-4)
        assert (points[~labelled] == 0).all()
        assert annotation["area"] == expected.areas[i]
        camera = Camera(**{key: np.array(value) for key, value in annotation["camera"].items() if key != "focal_px"},
                        focal_px=annotation["camera"]["focal_px"])  # fmt: skip
        again = camera.project(np.array(annotation["points_3d"]))
        np.testing.assert_allclose(again, expected.keypoints[i], atol=0.05)


def test_a_complete_folder_is_left_alone(tmp_path: Path) -> None:
    path = write_synthetic(tmp_path / "horses", 3, seed=1, size=(96, 96))
    before = {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")}
    assert write_synthetic(tmp_path / "horses", 3, seed=1, size=(96, 96)) == path
    assert {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["horses"]  # no temporary folder is left


def test_the_files_do_not_depend_on_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, told = {}, {}
    for workers in (1, 2):
        monkeypatch.setattr(synthetic, "_workers", lambda n, workers=workers: workers)
        told[workers] = []
        path = write_synthetic(
            tmp_path / str(workers), 18, 1, (96, 96), lambda done, n, calls=told[workers]: calls.append((done, n))
        )
        files = [path, *sorted(path.parent.rglob("*.jpg"))]
        written[workers] = [(file.name, file.read_bytes()) for file in files]
    assert len(written[1]) == 19
    assert written[1] == written[2]
    assert told[1] == told[2] == [(done, 18) for done in range(1, 19)]


def test_few_pictures_are_not_worth_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert [synthetic._workers(n) for n in (1, 199, 200, 1000)] == [0, 1, 2, 3]


def test_a_half_written_folder_is_done_again(tmp_path: Path) -> None:
    images = tmp_path / "horses" / "images"
    images.mkdir(parents=True)
    (images / "000000.jpg").write_bytes(b"torn")
    path = write_synthetic(tmp_path / "horses", 2, seed=1, size=(96, 96))
    assert len(json.loads(path.read_text())["images"]) == 2
    assert cv2.imread(str(images / "000000.jpg")).shape == (96, 96, 3)


def test_pictures_of_an_older_version_are_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_synthetic(tmp_path / "horses", 1, seed=1, size=(96, 96))
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    path.with_name("images").joinpath("000000.jpg").write_bytes(b"as it once was")
    write_synthetic(tmp_path / "horses", 1, seed=1, size=(96, 96))
    assert json.loads(path.read_text())["info"]["version"] == synthetic.VERSION
    assert cv2.imread(str(path.parent / "images" / "000000.jpg")).shape == (96, 96, 3)


def test_a_folder_with_other_files_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds files that are not synthetic pictures"):
        write_synthetic(tmp_path, 1, seed=1)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_another_set_in_the_folder_is_named(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "horses", 1, seed=1, size=(96, 96))
    with pytest.raises(DataError, match=r"holds another data set \(seed 1 instead of 2, n 1 instead of 4\)"):
        write_synthetic(tmp_path / "horses", 4, seed=2, size=(96, 96))
