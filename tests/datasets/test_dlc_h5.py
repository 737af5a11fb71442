"""DeepLabCut's H5 tables: the real one against its CSV, both of pandas' layouts, and files that are something else."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from posesweep.datasets.dlc import read_dlc
from posesweep.errors import DataError

h5py = pytest.importorskip("h5py")

OPENFIELD = Path(__file__).resolve().parents[2] / "../shared/data/openfield/labeled-data/m4s1"
COLUMNS = [("Ann", part, axis) for part in ("nose", "left", "right") for axis in "xy"]
FRAMES = ["labeled-data/cage/img2.png", "labeled-data/cage/img1.png"]
VALUES = np.array([[10, 20, 30, 20, np.nan, np.nan], [1, 2, 3, 4, 5, 12.5]])


def axis(group, name, labels):
    """An axis as pandas' layout "fixed" has it: sorted levels, and codes into them."""
    group.attrs[f"{name}_nlevels"] = len(labels[0])
    for i, column in enumerate(zip(*labels, strict=True)):
        levels = sorted(set(column))
        group[f"{name}_level{i}"] = np.array(levels, dtype="S")
        group[f"{name}_label{i}"] = np.array([levels.index(label) for label in column], dtype=np.int8)


def fixed(path, columns=COLUMNS, values=VALUES, frames=FRAMES):
    """The file that `DataFrame.to_hdf` writes by default, its frames in three columns."""
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs.update(pandas_type=np.bytes_("frame"), nblocks=1, ndim=2)
        axis(group, "axis0", columns)
        axis(group, "axis1", [tuple(frame.split("/")) for frame in frames])
        axis(group, "block0_items", columns)
        group["block0_values"] = values
    return path


def table(path, columns=COLUMNS, names=None):
    """The file that `DataFrame.to_hdf(format="table")` writes, its column names pickled."""
    rows = np.zeros(len(FRAMES), dtype=[("index", "S40"), ("values_block_0", "<f8", (len(columns),))])
    rows["index"], rows["values_block_0"] = FRAMES, VALUES
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_("frame_table")
        group["table"] = rows
        group["table"].attrs["values_block_0_kind"] = np.bytes_(names or pickle.dumps(columns, protocol=0))
    return path


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "labeled-data" / "cage"
    folder.mkdir(parents=True)
    for frame in FRAMES:
        (tmp_path / frame).touch()
    return folder


@pytest.mark.parametrize("layout", [fixed, table])
def test_both_layouts_of_pandas(project, layout):
    data = read_dlc(layout(project / "CollectedData_Ann.h5"))
    assert [file.name for file in data.image_files] == ["img1.png", "img2.png"]
    assert data.keypoints.tolist() == [[[1, 2], [3, 4], [5, 12.5]], [[10, 20], [30, 20], [0, 0]]]
    assert data.visibility.tolist() == [[2, 2, 2], [2, 2, 0]]
    assert data.image_groups == ("cage", "cage")


def test_several_animals(project):
    columns = [("Ann", animal, part, axis) for animal in ("m1", "m2") for part in ("nose", "tail") for axis in "xy"]
    values = np.array([[1, 2, 3, 4, 10, 20, 30, 40], [np.nan] * 4 + [5, 6, 7, 8]])
    data = read_dlc(fixed(project / "CollectedData_Ann.h5", columns, values, FRAMES[::-1]))
    assert data.identities == ("m1", "m2", "m2")
    assert data.keypoints.tolist() == [[[1, 2], [3, 4]], [[10, 20], [30, 40]], [[5, 6], [7, 8]]]


def test_openfield_is_the_same_as_csv_and_as_h5():
    if not OPENFIELD.is_dir():
        pytest.skip("shared/data/openfield is not here")
    one, other = (read_dlc(OPENFIELD / f"CollectedData_Pranav.{end}") for end in ("csv", "h5"))
    np.testing.assert_array_equal(one.keypoints, other.keypoints)
    np.testing.assert_array_equal(one.boxes, other.boxes)
    assert one.image_files == other.image_files


class Harmful:
    """A pickle that runs something when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_pickle_with_code_in_it_is_not_run(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = table(project / "CollectedData_Ann.h5", names=pickle.dumps(Harmful(), protocol=0))
    with pytest.raises(DataError) as error:
        read_dlc(path)
    assert str(error.value) == (
        f"{path}: its column names are not plain text (it asks for posix.system); such a file could run code and is "
        "not "
        "read; give the .csv beside it"
    )
    assert not (tmp_path / "harmed").exists()


def test_values_in_other_files_are_not_read(project, tmp_path):
    (tmp_path / "secret").write_bytes(b"0" * 96)
    path = fixed(project / "CollectedData_Ann.h5")
    with h5py.File(path, "r+") as file:
        del file["df_with_missing/block0_values"]
        outside = [(str(tmp_path / "secret"), 0, 96)]
        file["df_with_missing"].create_dataset("block0_values", (2, 6), "f8", external=outside)
    with pytest.raises(DataError, match=r"block0_values keeps its values in other files, which are not read$"):
        read_dlc(path)


def test_an_array_of_absurd_size_is_not_read(project):
    path = fixed(project / "CollectedData_Ann.h5")
    with h5py.File(path, "r+") as file:
        del file["df_with_missing/block0_values"]
        file["df_with_missing"].create_dataset("block0_values", (10**6, 10**6), "f8", chunks=(1, 1000))
    with pytest.raises(DataError, match=r"block0_values declares 8000 GB, more than is read$"):
        read_dlc(path)
