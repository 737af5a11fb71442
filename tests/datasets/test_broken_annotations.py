"""Files that are broken, hostile or half right: the sentence that each gets, and nothing left on the disk by it.

Each is given to `convert`, which reads as everything else does. What the single readers say of their own format's
mistakes is in their tests; here is what every one of them has to survive.
"""

import json
import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets.convert import convert
from posesweep.datasets.read import Reading, read_any
from posesweep.errors import PoseSweepError

FISH = {"id": 1, "name": "fish", "keypoints": ["nose", "tail"]}
TABLE = "image,instance,nose_x,nose_y,tail_x,tail_y\na.png,1,1,2,3,4\n"
YOLO = "train: images\nkpt_shape: [2, 3]\nnames: [fish]\n"
LINE = "0 0.5 0.5 0.4 0.2 0.25 0.5 2 0.5 0.75 1"


def coco(text=None, **changes):
    """A COCO file of one fish, with changes to its annotation."""
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [1, 2, 2, 3, 4, 2]}
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [annotation | changes],
        "categories": [FISH],
    }
    return json.dumps(document) if text is None else text


def image_named(name):
    return coco().replace('"a.png"', json.dumps(name))


def yolo(line=LINE, document=YOLO):
    return {"data.yaml": document, "labels/a.txt": line + "\n", "images/a.png": None}


def labelme(**changes):
    points = [{"label": n, "points": [[i, i * i]], "shape_type": "point"} for i, n in enumerate(("nose", "tail"), 1)]
    document = {"imagePath": "a.png", "shapes": points} | changes
    return json.dumps({key: value for key, value in document.items() if value is not None})


def cvat(inside):
    return f'<?xml version="1.0"?>{inside}'


LAUGHS = "a: &a [lol, lol, lol]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nnames: *c\n"
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotations>&a;</annotations>'
NUMBERS = "keypoints must be a flat list of numbers"

# name -> files (text, bytes, None for an image, a Path for a link), which of them is given, and the sentence after it
BROKEN = {
    "empty json": ({"a.json": ""}, "is empty (0 bytes); write or copy it again"),
    "truncated json": (
        {"a.json": coco()[:60]},
        "is not whole JSON (line 1, column 61: Expecting value); was it cut off? write or copy it again",
    ),
    "binary json": (
        {"a.json": b"\x89PNG\xff\xfe"},
        "is not text, so not JSON; data.train and data.val name the annotations",
    ),
    "json nested too deep": (
        {"a.json": "[" * 200_000},
        "is nested thousands of levels deep, which no annotation file is",
    ),
    "a number of 5000 digits": (
        {"a.json": coco(area=1).replace('"area": 1', '"area": ' + "9" * 5000)},
        "holds a number that cannot be read (Exceeds the limit (4300 digits) for integer string conversion: value has "
        "5000 digits; use sys.set_int_max_str_digits() to increase the limit)",
    ),
    "detections": (
        {"a.json": json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.9}])},
        "is a list of detections with scores, as detectors write, not annotations; give the file with images, "
        "annotations "
        "and categories",
    ),
    "nan": (
        {"a.json": coco(keypoints=[math.nan, 2, 2, 3, 4, 2])},
        "annotation 7: keypoint 'nose' is at (nan, 2); coordinates must be finite numbers",
    ),
    "infinity": (
        {"a.json": coco(keypoints=[1, 2, 2, 3, -math.inf, 2])},
        "annotation 7: keypoint 'tail' is at (3, -inf); coordinates must be finite numbers",
    ),
    "a coordinate of 400 digits": (
        {"a.json": coco(keypoints=[10**400, 2, 2, 3, 4, 2])},
        "annotation 7: keypoints has a number too large to be a coordinate",
    ),
    "keypoints as text": (
        {"a.json": coco(keypoints=["1", "2", "2", "3", "4", "2"])},
        f"annotation 7: {NUMBERS}, without quotes around them (found '1')",
    ),
    "keypoints as booleans": (
        {"a.json": coco(keypoints=[True, 2, 2, 3, 4, 2])},
        f"annotation 7: {NUMBERS} (found true)",
    ),
    "keypoints in one text": (
        {"a.json": coco(keypoints="1 2 2 3 4 2")},
        f"annotation 7: {NUMBERS}, without quotes around them (found '1 2 2 3 4 2')",
    ),
    "3K + 1 numbers": (
        {"a.json": coco(keypoints=[1, 2, 2, 3, 4, 2, 5])},
        "annotation 7: keypoints has 7 numbers, skeleton fish needs 6 (x, y, visibility for 2 keypoints)",
    ),
    "id as text": (
        {"a.json": coco(id="7")},
        "annotation entry 1: id '7' is not a whole number; ids are whole numbers, without quotes",
    ),
    "id of 30 digits": (
        {"a.json": coco(id=10**30)},
        f"annotation entry 1: id {10**30} is not a whole number; ids are whole numbers, without quotes",
    ),
    "id true": (
        {"a.json": coco(id=True)},
        "annotation entry 1: id True is not a whole number; ids are whole numbers, without quotes",
    ),
    "negative box": (
        {"a.json": coco(bbox=[0, 0, -9, 9])},
        "annotation 7: bbox [0, 0, -9, 9] has no area; width and height must be above 0",
    ),
    "box as text": (
        {"a.json": coco(bbox=["0", "0", "9", "9"])},
        "annotation 7: bbox must be a flat list of numbers, without quotes around them (found '0')",
    ),
    "unknown category": (
        {"a.json": coco(category_id=5)},
        "annotation 7: category_id 5 is not among the file's categories",
    ),
    "area of 400 digits": (
        {"a.json": coco(area=10**400)},
        f"annotation 7: area {10**400} must be a number of square pixels, 0 or more",
    ),
    "../ in a file name": (
        {"a.json": image_named("../a.png")},
        "image entry 1: file name '../a.png' leads out of the images folder {folder}; images must lie below it",
    ),
    "absolute file name": (
        {"a.json": image_named("/etc/passwd")},
        "image entry 1: file name '/etc/passwd' leads out of the images folder {folder}; images must lie below it",
    ),
    "zero byte in a file name": (
        {"a.json": image_named("a.png\0.jpg")},
        "image entry 1: file name 'a.png\\x00.jpg' is not a file name; give each image one",
    ),
    "link out of the folder": (
        {"a.json": image_named("link.png"), "link.png": Path("/etc/passwd")},
        "image entry 1: file name 'link.png' is a link that leads out of the images folder {folder} (to "
        "/etc/passwd); copy "
        "the file there, or name a folder that holds both as data.images",
    ),
    "missing image with a name that is not ascii": (
        {"a.json": image_named("Füße/колено.png")},
        "1 of 1 images are not below the folder {folder} (looked for {folder}/Füße/колено.png, for example); "
        "name the folder of the images as data.images",
    ),
    "csv without columns": (
        {"a.csv": "image,instance,x\na.png,1,2\n"},
        "has neither the columns keypoint, x, y (a row a keypoint) nor columns like nose_x and nose_y (a row an "
        "object)",
    ),
    "csv with a row twice": (
        {"a.csv": TABLE + TABLE.splitlines()[1] + "\n"},
        "row 3 (a.png): instance is on an earlier row already; a column 'instance' tells several objects of one "
        "image apart",
    ),
    "csv in latin-1": (
        {"a.csv": TABLE.replace("nose", "Füße").encode("latin-1")},
        "is not text, so not a table; data.train and data.val name the annotations",
    ),
    "empty csv": ({"a.csv": ""}, "is empty (0 bytes); write or copy it again"),
    "no parquet": (
        {"a.parquet": b"PAR1 or so"},
        "is not readable as a Parquet table; is it cut off? write or copy it again",
    ),
    "yaml of aliases": (
        {"data.yaml": LAUGHS},
        "uses the alias '*a'; write the value out, without anchors",
    ),
    "yaml nested too deep": (
        {"data.yaml": "a: " + "[" * 5000},
        "is nested more than 100 levels deep, which no data.yaml is",
    ),
    "yaml with an object in it": (
        {"data.yaml": "names: !!python/object/apply:os.system [touch harmed]\n"},
        "is not readable as YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.system' (line 1, column 8)",
    ),
    "huge yaml": (
        {"data.yaml": "a: " + "x" * 2**19},
        "has 524291 characters, more than the 524288 that a data.yaml may have",
    ),
    "yaml that is a list": ({"data.yaml": "- a\n"}, "is not a mapping of names to values, as data.yaml is"),
    "yolo line too long": (
        yolo(LINE + " 0.5"),
        "labels/a.txt line 1: has 12 numbers, kpt_shape [2, 3] needs 11: class, box and 2 x 3",
    ),
    "yolo in pixels": (
        yolo(LINE.replace("0.25", "16")),
        "labels/a.txt line 1: x of 'keypoint_1', 16, is not between 0 and 1; YOLO's coordinates are shares of the "
        "image's "
        "width and height",
    ),
    "yolo class beyond names": (
        yolo("3" + LINE[1:]),
        "labels/a.txt line 1: class 3 is not among the 1 names of data.yaml",
    ),
    "yolo images elsewhere": (
        yolo(document=YOLO.replace("images", "/etc")),
        "train: file name '/etc' leads out of the images folder {folder}; images must lie below it",
    ),
    "xml of entities": (
        {"a.xml": cvat(ENTITIES)},
        "declares a document type (<!DOCTYPE ...>); annotation files need none, take it out",
    ),
    "xml that reads files": (
        {"a.xml": cvat(EXTERNAL)},
        "declares a document type (<!DOCTYPE ...>); annotation files need none, take it out",
    ),
    "truncated xml": (
        {"a.xml": cvat("<annotations><image")},
        "is not whole XML (line 1, column 35: unclosed token); was it cut off? export it again",
    ),
    "xml nested too deep": (
        {"a.xml": cvat("<annotations>" + "<a>" * 5000)},
        "is nested more than 100 levels deep, which no annotation file is",
    ),
    "labelme without imagePath": (
        {"a.json": labelme(imagePath=None)},
        "imagePath is None; it must name the image, as seen from this file",
    ),
    "labelme with ../": (
        {"a.json": labelme(imagePath="../../a.png")},
        "image ../../a.png: file name '../../a.png' leads out of the images folder {folder}; images must lie below it",
    ),
    "slp that is no hdf5": (
        {"a.slp": b"SQLite format 3"},
        "is no HDF5 file, so not a SLEAP file (.slp); is it a table of another format, or cut off?",
    ),
    "h5 that is no hdf5": (
        {"a.h5": b"\x80\x04\x95" + pickle.dumps([1])},
        "is no HDF5 file, so not a DeepLabCut table (CollectedData_<scorer>.h5); is it a table of another format, or "
        "cut off?",
    ),
    "an unknown format": (
        {"a.mat": b"MATLAB 5.0"},
        None,
    ),
}


def put(folder, files):
    """The files below `folder`, the first of which is given; a.png is always there."""
    for name, content in {**files, "a.png": None}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
        elif isinstance(content, Path):
            path.symlink_to(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
    return folder / next(iter(files))


@pytest.mark.parametrize(("files", "sentence"), BROKEN.values(), ids=BROKEN)
def test_broken_files(tmp_path, monkeypatch, files, sentence):
    if next(iter(files)).endswith((".slp", ".h5")):
        pytest.importorskip("h5py")
    folder = tmp_path / "set"
    source = put(folder, files)
    there = sorted(path.name for path in folder.rglob("*"))
    monkeypatch.chdir(folder)
    with pytest.raises(PoseSweepError) as error:
        convert(source, tmp_path / "out")
    if sentence is not None:
        assert str(error.value) == f"{source}: {sentence.format(folder=folder)}"
    else:
        assert str(error.value).startswith(f"data: '{source}' is none of the formats that are read: COCO keypoints")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert sorted(path.name for path in folder.rglob("*")) == there


def test_the_files_that_were_broken_are_read_when_whole(tmp_path):
    """The table above breaks one thing at a time: without it, each of its files is good."""
    for number, files in enumerate(({"a.json": coco()}, {"a.csv": TABLE}, yolo(), {"a.json": labelme()})):
        data = read_any(put(tmp_path / str(number), files), reading=Reading())
        assert len(data) == 1


@pytest.mark.parametrize("kind", ["frame_table", "series"])
def test_h5_tables_of_another_version(tmp_path, kind):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("df").attrs["pandas_type"] = np.bytes_(kind)
    with pytest.raises(PoseSweepError) as error:
        convert(tmp_path / "a.h5", tmp_path / "out")
    table = "a DeepLabCut table (CollectedData_<scorer>.h5)"
    sentence = {
        "frame_table": f"its table has the layout 'frame_table', which {table} never has; give the .csv beside it",
        "series": f"its table has the layout 'series', which {table} never has; give the .csv beside it",
    }[kind]
    assert str(error.value) == f"{tmp_path}/a.h5: {sentence}"
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_h5_cut_off(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["df"] = np.arange(10_000)
    (tmp_path / "a.h5").write_bytes((tmp_path / "whole.h5").read_bytes()[:3000])
    with pytest.raises(PoseSweepError) as error:
        read_any(tmp_path / "a.h5")
    assert str(error.value).startswith(f"{tmp_path}/a.h5: is not readable as a DeepLabCut table")
    assert "truncated file" in str(error.value)
    assert str(error.value).endswith("is it cut off, or of another version?")


def test_without_h5py_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.slp").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(PoseSweepError) as error:
        read_any(tmp_path / "a.slp")
    assert str(error.value) == f"{tmp_path}/a.slp: a SLEAP file (.slp) needs h5py; pip install 'posesweep[formats]'"
