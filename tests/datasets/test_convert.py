"""convert: every sample set there and back, whole or not at all, the same again or refused, and its summary."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from posesweep.datasets import convert as module
from posesweep.datasets.convert import Conversion, convert, run
from posesweep.datasets.instances import Instances
from posesweep.datasets.quality import sharpness
from posesweep.datasets.read import Reading, read_any
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.writers import needs_skeleton_file, skeleton_text
from posesweep.errors import ConfigError, DataError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
SETS = {
    "coco": ("formats/coco/test_coco.json", None),
    "whole body": ("formats/coco/test_coco_wholebody.json", "coco_wholebody133"),
    "ap10k": ("formats/ap10k/test_ap10k.json", None),
    "animalpose": ("formats/animalpose/test_animalpose.json", None),
    "horse10": ("formats/horse10/test_horse10.json", None),
    "openfield csv": ("openfield/labeled-data/m4s1/CollectedData_Pranav.csv", None),
    "openfield h5": ("openfield/labeled-data/m4s1/CollectedData_Pranav.h5", None),
}
TABLE = """image,instance,category,group,identity,nose_x,nose_y,nose_v,tail_x,tail_y,tail_v
cage/a.png,1,mouse,m1,Tom,10,20,2,30.123456789,20,1
cage/a.png,2,mouse,m1,,40,10,2,50,30,2
b.png,1,rat,,,5,6,2,15,16,2
"""


def in_order(data: Instances) -> tuple[list[tuple[str, float]], np.ndarray, np.ndarray]:
    """What a round trip has to keep, in an order that does not depend on ids: images, keypoints, visibility."""
    names = [data.image_files[i].name for i in data.image_index]
    order = sorted(range(len(data)), key=lambda r: (names[r], *np.round(data.keypoints[r].ravel(), 6).tolist()))
    return [names[r] for r in order], data.keypoints[order], data.visibility[order]


def assert_same(before: Instances, after: Instances, atol: float = 1e-9) -> None:
    (names, points, visibility), (names_after, points_after, visibility_after) = in_order(before), in_order(after)
    assert names == names_after
    assert before.skeleton.keypoints == after.skeleton.keypoints
    np.testing.assert_allclose(points_after, points, rtol=0, atol=atol)
    np.testing.assert_array_equal(visibility_after, visibility)


@pytest.mark.parametrize("to", ["coco", "yolo", "csv"])
@pytest.mark.parametrize("name", SETS)
def test_sample_sets_come_back_with_equal_keypoints(tmp_path, name, to):
    source, skeleton = SHARED / SETS[name][0], SETS[name][1]
    if not source.is_file():
        pytest.skip(f"shared/data/{SETS[name][0]} is not here")
    if source.suffix == ".h5":
        pytest.importorskip("h5py")
    before = read_any(source, reading=Reading(skeleton=load_skeleton(skeleton) if skeleton else None))
    first = convert(source, tmp_path / "first", Conversion(to=to, skeleton=skeleton, quality=False))
    after = read_any(first.annotations, first.images)
    assert_same(before, after, atol=0 if to in ("coco", "csv") else 1e-9)
    if to != "coco":  # and back to COCO
        back = convert(first.annotations, tmp_path / "back", Conversion(images=first.images, quality=False))
        assert_same(before, read_any(back.annotations, back.images))
    else:
        np.testing.assert_array_equal(after.ids, before.ids)
        np.testing.assert_array_equal(after.boxes, before.boxes)
        np.testing.assert_array_equal(after.areas, before.areas)
        assert after.category_names == before.category_names
        assert after.supercategories == before.supercategories
        assert after.image_groups == before.image_groups
        assert after.image_fields == before.image_fields


@pytest.fixture
def table(tmp_path):
    """A small table with real images: noise beside plain grey."""
    (tmp_path / "set" / "cage").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "set" / "cage" / "a.png"), noise)
    cv2.imwrite(str(tmp_path / "set" / "b.png"), np.full((30, 20, 3), 90, np.uint8))
    path = tmp_path / "set" / "labels.csv"
    path.write_text(TABLE)
    return path


def test_coco_with_images_left_where_they_are(table, tmp_path):
    done = convert(table, tmp_path / "out")
    document = json.loads(done.annotations.read_text())
    assert [(i["file_name"], i["width"], i["height"]) for i in document["images"]] == [
        ("b.png", 20, 30),
        ("cage/a.png", 60, 40),
    ]
    assert document["images"][1]["group"] == "m1"
    tom = document["annotations"][1]
    assert tom["keypoints"] == [10, 20, 2, 30.123456789, 20, 1]
    assert (tom["identity"], tom["num_keypoints"], tom["iscrowd"]) == ("Tom", 2, 0)
    assert [c["name"] for c in document["categories"]] == ["mouse", "rat"]
    assert done.images == table.parent
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "annotations.json",
        "conversion.json",
        "quality.csv",
        "skeleton.yaml",
    ]


def test_copied_images_make_the_folder_complete(table, tmp_path):
    done = convert(table, tmp_path / "out", Conversion(copy=True))
    assert done.images == tmp_path / "out" / "images"
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert_same(read_any(table), read_any(moved))
    assert (moved / "images/cage/a.png").read_bytes() == (table.parent / "cage/a.png").read_bytes()


def test_quality_and_summary(table, tmp_path):
    done = convert(table, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "quality.csv").open()))
    assert [row["visible_share"] for row in rows] == ["1.000", "0.500", "1.000"]
    assert rows[0]["sharpness"] == "0.0"  # plain grey
    assert float(rows[1]["sharpness"]) > 1000  # noise
    summary = done.summary
    assert (summary.images, summary.instances, summary.categories) == (2, 3, {"mouse": 2, "rat": 1})
    assert summary.visibility.tolist() == [0, 1, 5]
    assert summary.labelled_per_keypoint == {"nose": 3, "tail": 3}
    # longer sides 20.123456789, 20 and 10, half of each added
    np.testing.assert_allclose(summary.box_width_px, [15, 20, 30.1851851835])


def test_sharpness_of_a_grey_step():
    # columns of 100 and 200: the Laplacian is +100 and -100 on either side of the step, 0 elsewhere
    image = np.full((10, 10, 3), 100, np.uint8)
    image[:, 5:] = 200
    assert sharpness(image, np.array([0.0, 0, 10, 10])) == pytest.approx(2 * 10 * 100**2 / 100)
    assert np.isnan(sharpness(image, np.array([20.0, 20, 5, 5])))


def test_a_second_run_finds_it_done_and_another_is_refused(table, tmp_path):
    out = tmp_path / "out"
    first = convert(table, out)
    before = (out / "annotations.json").stat().st_mtime_ns
    second = convert(table, out)
    assert (first.was_there, second.was_there) == (False, True)
    assert second.summary.instances == 3
    assert (out / "annotations.json").stat().st_mtime_ns == before
    with pytest.raises(DataError) as error:
        convert(table, out, Conversion(to="csv"))
    assert str(error.value) == (
        f"{out}: holds another conversion (of {table.resolve()}; the options differ); "
        "name a new folder or remove it, nothing is written over"
    )
    table.write_text(TABLE.replace("10,20", "10,21"))
    with pytest.raises(DataError, match=r"the data differ\)"):
        convert(table, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "set"]


def test_a_folder_of_something_else_is_refused(table, tmp_path):
    with pytest.raises(DataError) as error:
        convert(table, table.parent)
    assert str(error.value) == (
        f"{table.parent}: is there already and is no conversion; name a new folder, nothing is written over"
    )


def test_nothing_is_left_after_an_error(table, tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(28, "No space left on device", "quality.csv")

    monkeypatch.setattr(module, "quality_rows", fail)
    with pytest.raises(DataError) as error:
        convert(table, tmp_path / "out", Conversion(to="yolo"))
    assert str(error.value) == (
        f"{tmp_path}/out: the conversion stopped (No space left on device: quality.csv); nothing is left"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


SLOW = """
import sys, time
from pathlib import Path
from posesweep.datasets import convert
real = convert.sharpness
def slow(*args):
    print("started", flush=True)
    time.sleep(20)
convert.sharpness = slow
try:
    convert.convert(Path(sys.argv[1]), Path(sys.argv[2]), convert.Conversion(copy=True))
except KeyboardInterrupt:
    sys.exit(3)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_nothing_that_counts(table, tmp_path, how):
    out = tmp_path / "out"
    script = SLOW.replace("time.sleep(20)", "time.sleep(2)")
    process = subprocess.Popen([sys.executable, "-c", script, str(table), str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(DataError, match=r"out: another convert is writing it; wait for it, or name another folder$"):
        convert(table, out)
    os.kill(process.pid, how)
    process.wait(20)
    assert not out.exists()
    if how == signal.SIGTERM:
        assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert not convert(table, out).was_there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "set"]


def test_unreadable_images_are_left_out_up_to_a_share(table, tmp_path):
    lines = [f"{i}.png,1,mouse,,,1,2,2,3,4,2" for i in range(40)]
    for i in range(40):
        cv2.imwrite(str(table.parent / f"{i}.png"), np.zeros((9, 9, 3), np.uint8))
    (table.parent / "7.png").write_bytes(b"broken")
    table.write_text(TABLE + "\n".join(lines) + "\n")
    done = convert(table, tmp_path / "out")
    assert done.summary.instances == 42
    assert done.notes[-1] == (
        "1 of 42 images cannot be read, left out with their 1 annotations: "
        "7.png (no readable image header (UnidentifiedImageError))"
    )
    for i in range(3):
        (table.parent / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"set: 4 of 42 images cannot be read, and at most 5% may be left out: 0.png"):
        convert(table, tmp_path / "other")


def test_what_yolo_cannot_hold_is_said(table, tmp_path):
    table.write_text(
        "image,box_x,box_y,box_width,box_height,crowd,nose_x,nose_y,tail_x,tail_y\n"
        "b.png,-5,0,15,10,0,5,5,-1,5\nset.png,0,0,5,5,0,1,1,2,2\ncage/a.png,0,0,9,9,1,1,1,2,2\n"
    )
    os.link(table.parent / "b.png", table.parent / "set.png")
    done = convert(table, tmp_path / "out", Conversion(to="yolo"))
    assert done.notes[-3:] == (
        "1 crowds or objects outside their image are left out, which YOLO-pose does not know",
        "1 boxes reach beyond their image and are cut to it",
        "1 keypoints outside their image are written as not labelled",
    )
    after = read_any(tmp_path / "out")
    assert len(after) == 2
    assert after.visibility.tolist() == [[2, 0], [2, 2]]


def test_two_images_of_one_stem_cannot_share_a_label_file(table, tmp_path):
    os.link(table.parent / "b.png", table.parent / "b.jpg")
    table.write_text(TABLE + "b.jpg,1,rat,,,5,6,2,15,16,2\n")
    with pytest.raises(
        DataError, match=r"^b.jpg and b.png would share the label file labels/b.txt; rename one of them$"
    ):
        convert(table, tmp_path / "out", Conversion(to="yolo"))
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_unknown_target(table, tmp_path):
    with pytest.raises(ConfigError, match=r"^convert: there is no target 'koko'; known: coco, csv, yolo$"):
        convert(table, tmp_path / "out", Conversion(to="koko"))


def test_no_such_source(tmp_path):
    with pytest.raises(DataError, match=r"labels.csv: no such file or folder; give the annotations to convert$"):
        convert(tmp_path / "labels.csv", tmp_path / "out")


def test_run_prints_what_came_of_it(table, tmp_path, monkeypatch):
    out = StringIO()
    monkeypatch.setattr(module, "Console", lambda **_: Console(file=out, width=100))
    run(table, tmp_path / "out")
    text = out.getvalue()
    assert "keypoints   5 visible (83%), 1 hidden (17%), 0 not labelled (0%)" in text
    assert "box width   15 to 30 px, median 20" in text
    assert f"written: {tmp_path}/out/annotations.json" in text.replace("\n", "")


@pytest.fixture
def own(tmp_path):
    """A skeleton whose pairs, limbs and sigmas no name tells."""
    path = tmp_path / "set" / "own.yaml"
    path.write_text(
        "{keypoints: [nose, tail], flip_pairs: [[nose, tail]], edges: [[nose, tail]], sigmas: [0.1, 0.3]}\n"
    )
    return path


@pytest.mark.parametrize("to", ["coco", "yolo", "csv"])
def test_the_skeleton_is_written_whole_beside_the_annotations(table, own, tmp_path, monkeypatch, to):
    out = StringIO()
    monkeypatch.setattr(module, "Console", lambda **_: Console(file=out, width=100, soft_wrap=True))
    request = Conversion(to=to, skeleton=own, quality=False)
    run(table, tmp_path / "out", request)
    assert f", skeleton: {tmp_path}/out/skeleton.yaml}}" in out.getvalue()
    done = convert(table, tmp_path / "out", request)
    assert done.was_there
    before, after = load_skeleton(own), load_skeleton(done.skeleton)
    assert (after.name, after.flip_pairs, after.edges) == (before.name, before.flip_pairs, before.edges)
    assert after.sigmas.tolist() == [0.1, 0.3]
    assert read_any(done.annotations, done.images, Reading(after)).skeleton.flip_pairs == (("nose", "tail"),)
    if to == "yolo":
        assert read_any(done.annotations).skeleton.flip_pairs == (("nose", "tail"),)


def test_a_shipped_skeleton_is_not_written_and_one_of_its_name_is(tmp_path):
    mouse = load_skeleton("mouse4")
    assert not needs_skeleton_file(mouse)
    assert needs_skeleton_file(replace(mouse, sigmas=mouse.sigmas * 1.01))
    assert needs_skeleton_file(replace(mouse, flip_pairs=()))
    assert needs_skeleton_file(replace(mouse, name="mine"))
    whole = load_skeleton("coco17")
    (tmp_path / "s.yaml").write_text(skeleton_text(whole))
    assert skeleton_text(load_skeleton(tmp_path / "s.yaml")) == skeleton_text(whole)


def test_other_sigmas_are_another_conversion(table, own, tmp_path):
    convert(table, tmp_path / "out", Conversion(skeleton=own, quality=False))
    own.write_text(own.read_text().replace("0.3", "0.4"))
    with pytest.raises(DataError, match=r"the data differ\)"):
        convert(table, tmp_path / "out", Conversion(skeleton=own, quality=False))


@pytest.mark.parametrize("name", ["annotations.json", "skeleton.yaml"])
def test_a_conversion_that_lost_a_file_is_not_there_already(table, tmp_path, name):
    convert(table, tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    with pytest.raises(DataError) as error:
        convert(table, tmp_path / "out")
    assert str(error.value) == f"{tmp_path}/out: its {name} is gone; remove the folder and convert again"


@pytest.mark.parametrize("margin", [float("nan"), -0.1, float("inf")])
def test_a_box_margin_that_is_none(table, tmp_path, margin):
    with pytest.raises(ConfigError) as error:
        convert(table, tmp_path / "out", Conversion(box_margin=margin))
    assert str(error.value) == (
        f"convert: a box margin of {margin:g} is none; give the share of the longer side to add around keypoints "
        "without a box, a number from 0"
    )


def test_names_that_look_like_markup(table, tmp_path, monkeypatch):
    out = StringIO()
    monkeypatch.setattr(module, "Console", lambda **_: Console(file=out, width=100))
    table.write_text(TABLE.replace("nose", "[/b]nose").replace("rat", "[red]rat"))
    run(table, tmp_path / "out")
    assert re.search(r"^ *\[/b\]nose +3 +100% *$", out.getvalue(), re.MULTILINE)
    assert "[red]rat 1, mouse 2" in out.getvalue()


@pytest.fixture
def rich_coco(table):
    """A COCO file that says more of its images and annotations than other formats hold; group and identity are 0."""
    document = {
        "images": [{"id": 5, "file_name": "b.png", "width": 20, "height": 30, "group": 0, "light": "dim", "sun_x": 4}],
        "annotations": [
            {
                "id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 40, "identity": 0,
                "keypoints": [1, 1, 2, 5, 5, 2],
            }
        ],
        "categories": [{"id": 3, "name": "x", "keypoints": ["a", "b"]}],
    }  # fmt: skip
    path = table.parent / "rich.json"
    path.write_text(json.dumps(document))
    return path


def test_what_else_is_said_is_kept_or_its_loss_is_said(rich_coco, tmp_path):
    back = convert(rich_coco, tmp_path / "coco", Conversion(quality=False))
    after = read_any(back.annotations, back.images)
    assert (after.image_groups, after.identities) == (("0",), ("0",))
    assert after.image_fields == {"light": ("dim",), "sun_x": (4,)}
    yolo = convert(rich_coco, tmp_path / "yolo", Conversion(to="yolo", quality=False))
    assert yolo.notes[-1] == (
        "YOLO-pose has no place for these, left out: area of 1 annotations, identity of 1 annotations, "
        "group of 1 images, light of 1 images, sun_x of 1 images"
    )
    wide = convert(rich_coco, tmp_path / "csv", Conversion(to="csv", quality=False))
    row = next(csv.DictReader(wide.annotations.open()))
    assert (row["group"], row["identity"], row["light"]) == ("0", "0", "dim")
    assert wide.notes[-1] == ("fields of the images that are called like other columns of a table are left out: sun_x")
    after = read_any(wide.annotations, wide.images)
    assert (after.image_groups, after.identities) == (("0",), ("0",))


numbers = st.floats(0, 59.999, allow_subnormal=False)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(st.tuples(numbers, numbers, st.sampled_from([0, 1, 2])), min_size=3, max_size=3))
def test_any_coordinates_come_back(points, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    cv2.imwrite(str(folder / "a.png"), np.zeros((60, 60, 3), np.uint8))
    keypoints = [value for point in points for value in point]
    document = {
        "images": [{"id": 5, "file_name": "a.png", "width": 60, "height": 60}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 60, 60], "keypoints": [*keypoints, 1, 1, 2]}
        ],
        "categories": [{"id": 3, "name": "x", "keypoints": ["a", "b", "c", "d"]}],
    }
    (folder / "a.json").write_text(json.dumps(document))
    before = read_any(folder / "a.json")
    for to in ("coco", "csv", "yolo"):
        done = convert(folder / "a.json", folder / to, Conversion(to=to, quality=False))
        assert_same(before, read_any(done.annotations, done.images), atol=0 if to != "yolo" else 1e-9)


@pytest.mark.slow
def test_a_large_set_converts_in_parallel(tmp_path):
    """20,000 instances; `pytest -m slow tests/datasets/test_convert.py`. No more than a few ms an image."""
    cv2.imwrite(str(tmp_path / "0.jpg"), np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8))
    for i in range(1, 10_000):
        os.link(tmp_path / "0.jpg", tmp_path / f"{i}.jpg")
    rows = (f"{i // 2}.jpg,{i % 2},10,20,50,60.5" for i in range(20_000))
    (tmp_path / "a.csv").write_text("\n".join(["image,instance,nose_x,nose_y,tail_x,tail_y", *rows]) + "\n")
    started = time.monotonic()
    done = convert(tmp_path / "a.csv", tmp_path / "out")
    assert done.summary.instances == 20_000
    assert time.monotonic() - started < 120
