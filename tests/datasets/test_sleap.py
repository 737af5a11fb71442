"""SLEAP files, written here as sleap-io lays them out: image files, frames in the package, symmetries, old formats."""

import json

import cv2
import numpy as np
import pytest

from posesweep.datasets.sleap import read_sleap
from posesweep.errors import DataError

h5py = pytest.importorskip("h5py")

POINT = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
INSTANCE = [
    ("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4"),
    ("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8"),
    ("tracking_score", "f4"),
]  # fmt: skip
FRAME = [
    ("frame_id", "u8"), ("video", "u4"), ("frame_idx", "u8"), ("instance_id_start", "u8"), ("instance_id_end", "u8"),
]  # fmt: skip
LIMB = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]}
MIRROR = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [2]}]}
METADATA = {
    # the file's nodes are in another order than the skeleton's, as they are after someone moved them in SLEAP
    "nodes": [{"name": name} for name in ("tail", "fin1", "nose", "fin2")],
    "skeletons": [
        {
            "graph": {"name": "fish"},
            "nodes": [{"id": 2}, {"id": 0}, {"id": 1}, {"id": 3}],
            "links": [
                {"source": 2, "target": 0, "type": LIMB},
                {"source": 1, "target": 3, "type": MIRROR},
                {"source": 3, "target": 1, "type": {"py/id": 2}},
                {"source": 0, "target": 1, "type": {"py/id": 1}},
            ],
        }
    ],
}
NAN = float("nan")
POINTS = [
    (1, 2, True), (11, 2, True), (5, 4, False), (NAN, NAN, False),
    (30, 20, True), (40, 20, True), (35, 22, True), (35, 18, True),
    (0, 0, True), (1, 1, True), (2, 2, True), (3, 3, True),  # a prediction's, which is in another table
]  # fmt: skip
FILES = {
    "type": "ImageVideo",
    "filename": "/home/ann/cage/a.png",
    "filenames": [f"/home/ann/cage/{n}.png" for n in "ab"],
}


def write(path, video=FILES, format_id=1.2, metadata=METADATA):
    """Two instances that a person labelled, on frames 0 and 1, and one that was predicted."""
    with h5py.File(path, "w") as file:
        group = file.create_group("metadata")
        group.attrs["format_id"], group.attrs["json"] = format_id, json.dumps(metadata)
        file["videos_json"] = [json.dumps({"backend": video})]
        file["tracks_json"] = [json.dumps([0, "Wanda"])]
        file["points"] = np.array([(x, y, v, v) for x, y, v in POINTS], dtype=POINT)
        file["frames"] = np.array([(7, 0, 0, 0, 1), (9, 0, 1, 1, 3)], dtype=FRAME)
        rows = [(0, 0, 7, 0, 0, -1, 0, 0, 4, 0), (1, 0, 9, 0, -1, -1, 0, 4, 8, 0), (2, 1, 9, 0, -1, -1, 0.9, 0, 4, 0)]
        file["instances"] = np.array(rows, dtype=INSTANCE)
    return path


@pytest.fixture
def labels(tmp_path):
    """A .slp file beside its images."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return write(tmp_path / "labels.slp")


def test_image_files(labels):
    data = read_sleap(labels)
    assert data.skeleton.keypoints == ("nose", "tail", "fin1", "fin2")
    assert data.skeleton.edges == (("nose", "tail"), ("tail", "fin1"))
    assert data.skeleton.flip_pairs == (("fin1", "fin2"),)
    assert [file.name for file in data.image_files] == ["a.png", "b.png"]
    assert data.keypoints[0].tolist() == [[1, 2], [11, 2], [5, 4], [0, 0]]
    assert data.visibility.tolist() == [[2, 2, 1, 0], [2, 2, 2, 2]]
    assert data.identities == ("Wanda", "")
    assert data.image_groups == ("cage", "cage")
    assert data.notes[0] == (
        "labels.slp: 1 predicted instances are left out; only what a person labelled is learnt from"
    )


def test_leading_folders_are_dropped_until_the_images_are_found(tmp_path):
    (tmp_path / "data" / "cage").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / "cage" / name).touch()
    data = read_sleap(write(tmp_path / "labels.slp"), tmp_path / "data")
    assert data.image_files[1] == tmp_path / "data" / "cage" / "b.png"


def test_before_format_1_1_the_corner_of_a_pixel_was_zero(labels):
    assert read_sleap(write(labels, format_id=1.0)).keypoints[0, 0].tolist() == [0.5, 1.5]


def package(path, order=None, fixed_length=True):
    """The file with frames 0 and 1 in it: plain red, and plain blue."""
    write(path, {"type": "HDF5Video", "filename": ".", "dataset": "video0/video"})
    colours = [(255, 0, 0), (0, 0, 255)]  # RGB
    images = [np.full((6, 8, 3), colour, np.uint8) for colour in colours]
    images = [image if order == "BGR" else image[..., ::-1] for image in images]  # imencode takes BGR
    coded = [cv2.imencode(".png", np.ascontiguousarray(image))[1].astype(np.int8) for image in images]
    with h5py.File(path, "r+") as file:
        if fixed_length:
            stored = np.zeros((2, max(map(len, coded))), np.int8)
            for row, content in zip(stored, coded, strict=True):
                row[: len(content)] = content
            frames = file.create_dataset("video0/video", data=stored)
        else:
            frames = file.create_dataset("video0/video", (2,), h5py.special_dtype(vlen=np.dtype("int8")))
            for i, content in enumerate(coded):
                frames[i] = content
        frames.attrs["format"], frames.attrs["channel_order"] = "png", order or "RGB"
        file["video0/frame_numbers"] = [0, 1]
    return path


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("fixed_length", [True, False])
def test_frames_in_the_package_are_written_in_their_colours(tmp_path, order, fixed_length):
    data = read_sleap(package(tmp_path / "a.pkg.slp", order, fixed_length), extract_to=tmp_path / "images")
    assert [file.relative_to(tmp_path).as_posix() for file in data.image_files] == [
        "images/video0/frame_000000.png",
        "images/video0/frame_000001.png",
    ]
    colours = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)[0, 0].tolist() for file in data.image_files]
    assert colours == [[255, 0, 0], [0, 0, 255]]
    assert data.image_groups == ("video0", "video0")


def test_frames_in_the_package_need_convert(tmp_path):
    path = package(tmp_path / "a.pkg.slp")
    with pytest.raises(DataError) as error:
        read_sleap(path)
    assert str(error.value) == (
        f"{path}: its frames are stored in the package; `posesweep convert {path} OUT` writes them out"
    )


def edited(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace_with(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


BAD = {
    "no points": (
        lambda f: f.pop("points"),
        "is not a SLEAP file (.slp): it has no points; is it cut off, or of another program?",
    ),
    "points cut off": (
        lambda f: replace_with("points", f["points"][:6])(f),
        "its instances refer to points that are not there, 6 for 2 instances of 4 nodes; save it again with SLEAP",
    ),
    "a frame that is not listed": (
        lambda f: replace_with("frames", f["frames"][:1])(f),
        "frame 9 is of a video that the file does not list; save it again with SLEAP",
    ),
    "metadata": (
        lambda f: f["metadata"].attrs.update(json="{"),
        "holds JSON that cannot be read (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "is it cut off?",
    ),
    "two skeletons": (
        lambda f: f["metadata"].attrs.update(json=json.dumps(METADATA | {"skeletons": METADATA["skeletons"] * 2})),
        "has 2 skeletons; PoseSweep trains one, so split it by skeleton in SLEAP",
    ),
    "nodes": (
        lambda f: f["metadata"].attrs.update(json=json.dumps(METADATA | {"nodes": []})),
        "its skeleton is not described as SLEAP does; save it again with SLEAP",
    ),
    "another version": (
        replace_with("instances", np.zeros(2, dtype=[("id", "i4")])),
        "is not readable as a SLEAP file (.slp) (no field of name instance_type); is it cut off, or of another "
        "version?",
    ),
    "video": (
        replace_with("videos_json", [json.dumps({"backend": {"filename": "mice.mp4"}})]),
        "frame 0 is of the video mice.mp4, and videos are not read; export a package (SLEAP: Predict > Export Labels "
        "Package) and give that",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=BAD)
def test_bad_files(labels, change, sentence):
    edited(labels, change)
    with pytest.raises(DataError) as error:
        read_sleap(labels)
    assert str(error.value) == f"{labels}: {sentence}"


def test_a_frame_that_is_no_image(tmp_path):
    path = edited(
        package(tmp_path / "a.pkg.slp"), lambda f: f["video0/video"].write_direct(np.zeros_like(f["video0/video"]))
    )
    with pytest.raises(
        DataError, match=r"video0/frame_000000.png is not stored in it, or is no image; export it again"
    ):
        read_sleap(path, extract_to=tmp_path / "images")
