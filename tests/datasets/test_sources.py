"""Which files of a folder are taken for annotations; only names and first bytes matter, so most are nearly empty."""

import json

import pytest

from posesweep.datasets.sources import Sources, find_sources, merged
from posesweep.errors import DataError

TABLE = "scorer,{s},{s}\nbodyparts,snout,snout\ncoords,x,y\nlabeled-data/{video}/img{i}.png,{i},2\n"


def put(folder, *names, text="{}"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def put_table(folder, video, scorer="Ann", i=1, suffix=".csv", text=TABLE):
    name = f"labeled-data/{video}/CollectedData_{scorer}{suffix}"
    put(folder, name, text=text.format(s=scorer, video=video, i=i))
    return folder / name


def test_a_file_is_taken_as_it_is(tmp_path):
    put(tmp_path, "mine.csv", "other.csv")
    assert find_sources(tmp_path / "mine.csv") == Sources(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (["train.json", "val.json"], "train.json", "val.json"),
        (["annotations/instances_train.json", "annotations/instances_val.json"], None, None),
        (["train.json", "valid.json", "test.json"], "train.json", "valid.json"),
        (["train.json", "test.json"], "train.json", "test.json"),
        (["training.csv", "validation.csv"], "training.csv", "validation.csv"),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], None, None),
        (["train.json", "everything.json"], "train.json", None),
        (["all.json"], "all.json", None),
        (["annotations.csv", "conversion.json"], "annotations.csv", None),
        (["images/notes.txt", "labels.parquet"], "labels.parquet", None),
    ],
)
def test_the_annotation_files_of_a_folder(tmp_path, names, train, val):
    put(tmp_path, *names)
    train, val = (train, val) if train else names
    assert find_sources(tmp_path) == Sources(tmp_path / train, tmp_path / val if val else None)


def test_of_cocos_files_the_keypoints_are_taken(tmp_path):
    kinds = ("captions", "instances", "person_keypoints")
    put(tmp_path, *(f"annotations/{kind}_{side}2017.json" for kind in kinds for side in ("train", "val")))
    found = find_sources(tmp_path)
    assert found.train.name == "person_keypoints_train2017.json"
    assert found.val is not None
    assert found.val.name == "person_keypoints_val2017.json"


def test_the_images_of_coco_files_in_a_folder_of_their_own(tmp_path):
    document = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
    put(tmp_path, "annotations/train.json", text=json.dumps(document))
    put(tmp_path, "images/a.jpg")
    assert find_sources(tmp_path).images == tmp_path / "images"
    assert find_sources(tmp_path / "annotations/train.json").images == tmp_path / "images"
    assert find_sources(tmp_path, tmp_path / "else").images == tmp_path / "else"


def test_images_that_the_reader_finds_itself_are_not_named(tmp_path):
    document = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
    put(tmp_path, "train.json", text=json.dumps(document))
    put(tmp_path, "images/a.jpg")
    assert find_sources(tmp_path).images is None


def test_a_data_yaml_is_found_whatever_its_name(tmp_path):
    put(tmp_path, "tigers.yaml", text="kpt_shape: [12, 2]\n")
    put(tmp_path, "other.yaml", text="lr0: 1\n")
    assert find_sources(tmp_path).train == tmp_path / "tigers.yaml"


def test_a_folder_of_labelme_files(tmp_path):
    put(tmp_path, "a.json", "b.json", text='{"shapes": []}')
    assert find_sources(tmp_path) == Sources(tmp_path)


def test_a_deeplabcut_project_takes_the_tables_of_its_scorer(tmp_path):
    put(tmp_path, "config.yaml", text="scorer: Ann\n")
    table = put_table(tmp_path, "m1")
    put_table(tmp_path, "m1", scorer="Bob")
    put_table(tmp_path, "m1", suffix=".h5")
    assert find_sources(tmp_path) == Sources(table)


def test_the_tables_of_several_videos_become_one(tmp_path):
    put(tmp_path, "config.yaml", text="scorer: Ann\n")
    tables = tuple(put_table(tmp_path, video, i=i) for i, video in enumerate(("m1", "m2"), 1))
    found = find_sources(tmp_path)
    assert (found.tables, found.images) == (tables, tmp_path)
    assert merged(tables) == (
        "scorer,Ann,Ann\nbodyparts,snout,snout\ncoords,x,y\nlabeled-data/m1/img1.png,1,2\nlabeled-data/m2/img2.png,2,2\n"
    )


def test_tables_of_other_body_parts_are_not_mixed(tmp_path):
    first = put_table(tmp_path, "m1")
    second = put_table(tmp_path, "m2", text=TABLE.replace("snout", "tail"))
    with pytest.raises(DataError, match=r"has other columns than .*; label the same body parts in every video"):
        merged([first, second])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "holds no annotations that are read: COCO keypoints"),
        (["a.json", "b.json"], r"holds several files of annotations \(a.json, b.json\); name one of them"),
        (["split1_train.csv", "split2_train.csv", "split1_test.csv", "split2_test.csv"], "name one of them"),
        ([f"{i}.xml" for i in range(8)], "4.xml and 3 more"),
    ],
)
def test_what_a_folder_without_clear_annotations_is_told(tmp_path, names, words):
    put(tmp_path, *names)
    with pytest.raises(DataError, match=words):
        find_sources(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file or folder; name the annotations or the folder that holds them"):
        find_sources(tmp_path / "nothing")


def test_deeplabcut_projects_that_cannot_be_used(tmp_path):
    put(tmp_path, "config.yaml", text="scorer: Ann\n")
    (tmp_path / "labeled-data").mkdir()
    with pytest.raises(DataError, match="is a DeepLabCut project without labels"):
        find_sources(tmp_path)
    for video in ("m1", "m2"):
        put_table(tmp_path, video, suffix=".h5")
    with pytest.raises(DataError, match=r"has 2 tables, in HDF5 only; write them as CSV"):
        find_sources(tmp_path)


def test_a_word_in_its_name_does_not_choose_one_file_among_others(tmp_path):
    put(tmp_path, "person_keypoints.json", "mine.json")
    with pytest.raises(DataError) as error:
        find_sources(tmp_path)
    files = "mine.json, person_keypoints.json"
    assert str(error.value) == f"{tmp_path}: holds several files of annotations ({files}); name one of them"
