"""From a request to checked data: formats, splits, synthetic sets and what a resumed sweep must find again."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from posesweep.datasets.load import DataRequest, SyntheticRequest, load_data
from posesweep.datasets.split import split_record
from posesweep.errors import ConfigError, DataError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
OPENFIELD = SHARED / "openfield/labeled-data/m4s1/CollectedData_Pranav.csv"
KEYPOINTS = [2, 3, 2, 8, 9, 1, 5, 5, 2, 6, 6, 2]


def coco(folder, name="train.json", count=10, first_id=1, **changes):
    """A COCO file of `count` mice, one an image, with its empty images beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = range(first_id, first_id + count)
    for i in ids:
        (folder / f"{i}.png").touch()
    annotation = {"category_id": 1, "bbox": [1, 2, 20, 10], "area": 100, "keypoints": KEYPOINTS} | changes
    names = ["snout", "leftear", "rightear", "tailbase"]
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in ids],
        "annotations": [{"id": i, "image_id": i, **annotation} for i in ids],
        "categories": [{"id": 1, "name": "mouse", "keypoints": names}],
    }
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_one_file_is_split(tmp_path):
    data = load_data(DataRequest(train=coco(tmp_path)), tmp_path / "cache")
    assert (len(data.train), len(data.val)) == (8, 2)
    assert data.train.skeleton.name == "mouse4"
    assert data.split_hash == split_record(data.train, data.val)["hash"]


def test_two_files_are_taken_as_they_are(tmp_path):
    train, val = coco(tmp_path), coco(tmp_path, "val.json", 3, first_id=50)
    data = load_data(DataRequest(train=train, val=val), tmp_path / "cache")
    assert data.train.ids.tolist() == list(range(1, 11))
    assert data.val.ids.tolist() == [50, 51, 52]


def test_crowds_and_unlabelled_objects_stay_in_val_only(tmp_path):
    def spoil(document):
        document["annotations"][0]["iscrowd"] = 1
        document["annotations"][1]["keypoints"] = [0] * 12

    train, val = coco(tmp_path), coco(tmp_path, "val.json", 3, first_id=50)
    edit(train, spoil)
    edit(val, spoil)
    data = load_data(DataRequest(train=train, val=val), tmp_path / "cache")
    assert data.train.ids.tolist() == list(range(3, 11))
    assert data.val.ids.tolist() == [50, 51, 52]
    assert data.notes[-1] == "2 training annotations are crowds or have no labelled keypoint: not trained on"


def test_images_elsewhere(tmp_path):
    path = coco(tmp_path / "images").rename(tmp_path / "train.json")
    data = load_data(DataRequest(train=path, images=tmp_path / "images"), tmp_path / "cache")
    assert data.train.image_files[0].parent == tmp_path / "images"


def test_images_of_val_in_a_folder_of_their_own(tmp_path):
    train = coco(tmp_path / "train2017").rename(tmp_path / "train.json")
    val = coco(tmp_path / "val2017", first_id=100).rename(tmp_path / "val.json")
    request = DataRequest(train=train, val=val, images=tmp_path / "train2017", val_images=tmp_path / "val2017")
    data = load_data(request, tmp_path / "cache")
    assert {file.parent.name for file in data.train.image_files} == {"train2017"}
    assert {file.parent.name for file in data.val.image_files} == {"val2017"}


def test_the_same_data_have_the_same_hash_and_changed_data_say_so(tmp_path):
    path = coco(tmp_path)
    request = DataRequest(train=path)
    found = load_data(request, tmp_path / "cache").split_hash
    assert load_data(replace(request, split_hash=found), tmp_path / "cache").split_hash == found
    edit(path, lambda document: document["annotations"][4].update(bbox=[1, 2, 20, 11]))
    now = load_data(request, tmp_path / "cache").split_hash
    with pytest.raises(DataError) as error:
        load_data(replace(request, split_hash=found), tmp_path / "cache")
    assert str(error.value) == (
        f"the data changed since this sweep began: its split has the hash {now}, it was {found}, so new scores could "
        "not be compared with old ones; put the files back, or start a sweep under a new name"
    )


def test_an_image_in_both_files(tmp_path):
    train, val = coco(tmp_path), coco(tmp_path, "val.json", 3, first_id=10)
    with pytest.raises(DataError) as error:
        load_data(DataRequest(train=train, val=val), tmp_path / "cache")
    assert str(error.value) == (
        f"1 images are in both train and val ({tmp_path}/10.png, for example); "
        "an image that was trained on says nothing as validation: take it out of one of them"
    )


def test_nothing_to_score(tmp_path):
    train, val = coco(tmp_path), coco(tmp_path, "val.json", 3, first_id=50, iscrowd=1)
    with pytest.raises(DataError) as error:
        load_data(DataRequest(train=train, val=val), tmp_path / "cache")
    assert str(error.value) == "no validation annotation has a labelled keypoint and is no crowd; nothing to score"


def test_nothing_to_train_on(tmp_path):
    train, val = coco(tmp_path, iscrowd=1), coco(tmp_path, "val.json", 3, first_id=50)
    with pytest.raises(DataError) as error:
        load_data(DataRequest(train=train, val=val), tmp_path / "cache")
    assert str(error.value) == "no training annotation has a labelled keypoint and is no crowd; nothing to learn from"


def test_val_must_fit_the_skeleton_of_train(tmp_path):
    train, val = coco(tmp_path), coco(tmp_path, "val.json", 3, first_id=50)
    edit(val, lambda document: document["categories"][0].update(keypoints=["leftear", "snout", "rightear", "tailbase"]))
    with pytest.raises(DataError, match=r"val.json: category 'mouse': lists the keypoints of skeleton mouse4 in anoth"):
        load_data(DataRequest(train=train, val=val), tmp_path / "cache")


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (DataRequest(), "data: give either train (COCO, DeepLabCut, YOLO-pose or other annotations) or synthetic"),
        (
            DataRequest(train=Path("labels.txt")),
            "data: 'labels.txt' is none of the formats that are read: COCO keypoints (.json); YOLO-pose (data.yaml); "
            "DeepLabCut (CollectedData_*.csv or .h5); a table of keypoints (.csv, .tsv or .parquet); LabelMe (.json, "
            "or a "
            "folder of them); CVAT for images (.xml); SLEAP (.slp)",
        ),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, request_, sentence):
    with pytest.raises(ConfigError) as error:
        load_data(request_, tmp_path)
    assert str(error.value) == sentence


def test_synthetic_sets_are_drawn_below_the_cache_with_seeds_of_their_own(tmp_path, monkeypatch):
    calls = []

    def write_synthetic(folder, n, seed, size):
        calls.append((folder.name, n, seed, size))
        return coco(folder, count=n)

    monkeypatch.setitem(sys.modules, "posesweep.datasets.synthetic", SimpleNamespace(write_synthetic=write_synthetic))
    ask = DataRequest(synthetic=SyntheticRequest(5, 2, 3, 64, 48), skeleton="mouse4")
    data = load_data(ask, tmp_path)
    assert calls == [("train", 5, 6, (64, 48)), ("val", 2, 7, (64, 48))]
    assert (len(data.train), len(data.val)) == (5, 2)
    assert data.train.image_files[0].is_relative_to(tmp_path)
    other = load_data(replace(ask, synthetic=SyntheticRequest(5, 2, 4, 64, 48)), tmp_path)
    assert other.train.image_files[0].parents[1] != data.train.image_files[0].parents[1]


def test_rendered_horses(tmp_path):
    pytest.importorskip("posesweep.datasets.synthetic")
    data = load_data(DataRequest(synthetic=SyntheticRequest(3, 2, 0, 160, 120)), tmp_path)
    assert data.train.skeleton.name == "horse26"
    assert len(data.train) >= 3
    assert len(data.val) >= 2
    assert all(file.is_file() for file in (*data.train.image_files, *data.val.image_files))


def test_openfield_is_split_by_tens_of_frames(tmp_path):
    if not OPENFIELD.is_file():
        pytest.skip("shared/data/openfield is not here")
    with pytest.raises(DataError, match=r"^all 116 images are of one group m4s1, which a split may not part"):
        load_data(DataRequest(train=OPENFIELD), tmp_path)
    data = load_data(DataRequest(train=OPENFIELD, group_by=r"img(\d{3})"), tmp_path)
    assert len(data.train) + len(data.val) == 116
    tens = [{file.name[:6] for file in side.image_files} for side in (data.train, data.val)]
    assert not tens[0] & tens[1]
    assert len(data.val) == 20
