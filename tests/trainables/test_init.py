"""`posesweep init`: what it writes is read without a mistake and trains, whatever the data and the machine."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from posesweep.datasets.dlc import read_dlc
from posesweep.datasets.load import DataRequest
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.synthetic import write_synthetic
from posesweep.errors import ConfigError, DataError
from posesweep.files import read_json_lines
from posesweep.search_spaces.space import Sweep, read_sweep
from posesweep.trainables.debug import run_debug
from posesweep.trainables.init import Machine, Wanted, data_to_check, init, run
from posesweep.trainables.planning import Hardware
from posesweep.trainables.tasks import check_values, defaults_of

OPENFIELD = Path(__file__).resolve().parents[2] / "../shared/data/openfield"
CPU = Machine(Hardware(2), lambda plan, keypoints: 0.02, lambda model: False)


def machine(hardware, pretrained=True):
    return Machine(hardware, lambda plan, keypoints: 0.05, lambda model: pretrained)


def swept(file: Path) -> Sweep:
    return read_sweep(file, (), check_values, defaults_of)


@pytest.fixture(scope="module")
def horses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("horses") / "set"
    write_synthetic(folder, 12, 0, (96, 72))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POSESWEEP_CACHE", str(tmp_path / "cache"))


def document_of(folder):
    return json.loads((folder / "annotations.json").read_text())


def renamed(folder, to, names, **more):
    """The set in `folder`, its keypoints called `names`, in the new folder `to`."""
    shutil.copytree(folder, to)
    document = document_of(folder)
    document["categories"][0] |= {"keypoints": names, **more}
    (to / "annotations.json").write_text(json.dumps(document))
    return to


def test_real_mice(tmp_path):
    if not OPENFIELD.is_dir():
        pytest.skip("shared/data/openfield is not here")
    plan = init(OPENFIELD, Wanted(tmp_path / "sweep.yaml"), CPU)
    sweep = swept(tmp_path / "sweep.yaml")
    assert sweep.name == "openfield"
    assert (sweep.data.skeleton, sweep.data.split, sweep.data.val_fraction) == ("mouse4", "auto", 0.25)
    assert Path(sweep.data.train).name == "CollectedData_Pranav.csv"
    assert sweep.fixed["augment"] == "top_view"
    assert (sweep.fixed["model"], sweep.fixed["imgsz"], sweep.fixed["pretrained"]) == ("small", [128, 128], False)
    assert sweep.search.trials == plan.trials
    text = (tmp_path / "sweep.yaml").read_text()
    assert "#   116 images, 116 objects with 4 keypoints (100% labelled)" in text
    assert "# machine: 2 CPUs, no GPU\n#   about " in text
    assert "training images that adjoin or resemble a validation image are left out" in text.replace("\n#  ", "")
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.yaml", "cache"}


def test_what_is_written_trains(horses, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(horses, Path("sweep.yaml"))
    said = capsys.readouterr().out
    assert "python run_sweep.py sweep.yaml --debug" in said
    assert "posesweep check sweep.yaml" in said
    sweep = swept(Path("sweep.yaml"))
    run_debug(sweep.model_copy(update={"fixed": {**sweep.fixed, "limit": 4}}), tmp_path / "debug")
    rows = read_json_lines(tmp_path / "debug" / "metrics.jsonl")
    assert len(rows) == 2
    assert all(np.isfinite(row["loss"]) for row in rows)


@pytest.mark.parametrize(
    ("hardware", "pretrained", "model", "settings"),
    [
        (Hardware(4), False, "small", {"pretrained": False}),
        (Hardware(8, 1, 8.0), True, "hrnet_w18", {"pretrained": True, "amp": True}),
        (Hardware(16, 2, 80.0), True, "hrnet_w32", {"pretrained": True, "augment": "aggressive"}),
        (Hardware(16, 1, 80.0), False, "hrnet_w32", {"pretrained": False}),
    ],
)
def test_a_coco_set_on_machines(horses, tmp_path, hardware, pretrained, model, settings):
    init(horses, Wanted(tmp_path / "s.yaml", name="mine"), machine(hardware, pretrained))
    sweep = swept(tmp_path / "s.yaml")
    assert (sweep.name, sweep.data.skeleton, sweep.fixed["model"]) == ("mine", "horse26", model)
    assert sweep.fixed.items() >= settings.items()
    assert ("freeze" in sweep.parameters) == pretrained
    assert ("not here and cannot be fetched" in (tmp_path / "s.yaml").read_text()) == (
        hardware.gpus > 0 and not pretrained
    )


def test_every_setting_says_why(horses, tmp_path):
    init(horses, Wanted(tmp_path / "s.yaml"), CPU)
    lines = (tmp_path / "s.yaml").read_text().splitlines()
    block = lines[lines.index("fixed:") + 1 : next(i for i, line in enumerate(lines) if line.startswith("# always"))]
    assert len(block) > 10
    assert all("#" in line for line in block)


def test_files_of_training_and_validation(horses, tmp_path):
    folder = tmp_path / "set"
    document = document_of(horses)
    (folder / "annotations").mkdir(parents=True)
    shutil.copytree(horses / "images", folder / "images")
    for side, kept in (("train", document["images"][:8]), ("val", document["images"][8:])):
        ids = {image["id"] for image in kept}
        rows = [row for row in document["annotations"] if row["image_id"] in ids]
        part = {**document, "images": kept, "annotations": rows}
        (folder / f"annotations/{side}.json").write_text(json.dumps(part))
    init(folder, Wanted(folder / "sweep.yaml"), CPU)
    text = (folder / "sweep.yaml").read_text()
    assert "  train: annotations/train.json\n  val: annotations/val.json\n  images: images\n" in text
    data = swept(folder / "sweep.yaml").data
    assert (data.split, data.group_by) == ("random", None)  # there is nothing to split
    request, split = data_to_check(folder / "sweep.yaml")
    assert request.train == folder / "annotations/train.json"
    assert not split
    assert data_to_check(folder) == (DataRequest(request.train, request.val, request.images), False)


def test_keypoints_that_no_shipped_skeleton_has(horses, tmp_path):
    names = [f"{'left' if i % 2 else 'right'}_p{i // 2}" for i in range(26)]
    folder = renamed(horses, tmp_path / "set", names)
    init(folder, Wanted(tmp_path / "s.yaml"), CPU)
    sweep = swept(tmp_path / "s.yaml")
    assert sweep.data.skeleton == str(tmp_path / "s_skeleton.yaml")
    skeleton = load_skeleton(tmp_path / "s_skeleton.yaml")
    assert skeleton.keypoints == tuple(names)
    assert skeleton.flip_pairs[0] == ("left_p0", "right_p0")
    assert len(skeleton.flip_pairs) == 13
    assert skeleton.edges
    assert set(skeleton.sigmas) == {0.05}
    assert "a stated default" in skeleton.sigmas_note
    assert "13 left/right pairs inferred, sigmas 0.05: look at it" in (tmp_path / "s.yaml").read_text()


def test_a_skeleton_with_names_that_yaml_would_misread(horses, tmp_path):
    names = ["on", "1", "null", "a: b", 'a "b"', "#x", *(f"p{i}" for i in range(20))]
    folder = renamed(horses, tmp_path / "set", names, skeleton=[])
    init(folder, Wanted(tmp_path / "s.yaml"), CPU)
    skeleton = load_skeleton(tmp_path / "s_skeleton.yaml")
    assert (skeleton.keypoints, skeleton.flip_pairs, skeleton.edges) == (tuple(names), (), ())


def test_images_of_videos_are_grouped(horses, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(horses, folder)
    document = document_of(horses)
    for i, image in enumerate(document["images"]):
        image["video_id"] = i % 6
    (folder / "annotations.json").write_text(json.dumps(document))
    init(folder, Wanted(tmp_path / "s.yaml"), CPU)
    data = swept(tmp_path / "s.yaml").data
    assert (data.group_by, data.split) == ("video_id", "stratified")


def table(folder, video, frames, images):
    """A DeepLabCut table of `frames` frames with two points each."""
    (folder / f"labeled-data/{video}").mkdir(parents=True)
    rows = ["scorer,A,A,A,A", "bodyparts,nose,nose,tail,tail", "coords,x,y,x,y"]
    for i in range(frames):
        name = f"labeled-data/{video}/img{i}.jpg"
        shutil.copy(next(images), folder / name)
        rows.append(f"{name},{10 + i},12,{50 + i},40")
    (folder / f"labeled-data/{video}/CollectedData_A.csv").write_text("\n".join(rows) + "\n")


def test_a_project_of_several_videos(horses, tmp_path):
    project = tmp_path / "project"
    images = iter(sorted((horses / "images").iterdir()))
    for i in range(6):
        table(project, f"m{i}", 2, images)
    (project / "config.yaml").write_text("scorer: A\n")
    init(project, Wanted(tmp_path / "out/s.yaml"), CPU)
    sweep = swept(tmp_path / "out/s.yaml")
    assert sweep.data.train == str(tmp_path / "out/s_labels.csv")
    assert sweep.data.split == "stratified"
    found = read_dlc(Path(sweep.data.train), Path(sweep.data.images))
    assert len(found) == 12
    assert set(found.image_groups) == {f"m{i}" for i in range(6)}
    with pytest.raises(DataError, match="has 6 tables of labels; name one, or a sweep file of posesweep init"):
        data_to_check(project)


def cut_to(folder, to, images):
    shutil.copytree(folder, to)
    document = document_of(folder)
    document["images"] = document["images"][:images]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] in ids]
    (to / "annotations.json").write_text(json.dumps(document))
    return to


@pytest.mark.parametrize("images", [2, 3])
def test_tiny_sets(horses, tmp_path, images):
    plan = init(cut_to(horses, tmp_path / "set", images), Wanted(tmp_path / "s.yaml"), CPU)
    assert plan.batch == 8
    swept(tmp_path / "s.yaml")


def test_one_image_cannot_be_split_and_nothing_is_written(horses, tmp_path):
    folder = cut_to(horses, tmp_path / "set", 1)
    with pytest.raises(
        DataError, match=r"only one image|1 groups of images cannot be spread over 2 sides; give more data"
    ):
        init(folder, Wanted(tmp_path / "out/s.yaml"), CPU)
    assert not (tmp_path / "out").exists()


def test_unusable_annotations_get_their_readers_sentence(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="is not whole JSON"):
        init(tmp_path / "a.json", Wanted(tmp_path / "s.yaml"), CPU)
    assert not (tmp_path / "s.yaml").exists()


def test_nothing_is_written_over(horses, tmp_path):
    (tmp_path / "s.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"s\.yaml is there already, and init writes over nothing"):
        init(horses, Wanted(tmp_path / "s.yaml"), CPU)
    assert (tmp_path / "s.yaml").read_text() == "mine"
    folder = renamed(horses, tmp_path / "set", [f"p{i}" for i in range(26)])
    (tmp_path / "t_skeleton.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"t_skeleton\.yaml is there already"):
        init(folder, Wanted(tmp_path / "t.yaml"), CPU)
    assert not (tmp_path / "t.yaml").exists()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"name": "my mice"}, "--name: 'my mice' cannot be the name of a folder; try my-mice"),
        ({"minutes": 0.0}, "--minutes: 0 must be above 0"),
    ],
)
def test_options_that_cannot_be(horses, tmp_path, wanted, words):
    with pytest.raises(ConfigError, match=words):
        init(horses, Wanted(tmp_path / "s.yaml", **wanted), CPU)


def test_a_folder_with_an_odd_name(horses, tmp_path, monkeypatch):
    folder = tmp_path / 'a: "b" # é'
    shutil.copytree(horses, folder)
    monkeypatch.chdir(tmp_path)
    init(Path(folder.name), Wanted(Path("s.yaml")), CPU)
    sweep = swept(Path("s.yaml"))
    assert sweep.name == "a-b"
    assert Path(sweep.data.train) == folder / "annotations.json"


def test_paths_hold_where_another_file_lies_in_the_current_directory(horses, tmp_path, monkeypatch):
    shutil.copytree(horses, tmp_path / "there/set")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/annotations.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    init(tmp_path / "there/set", Wanted(tmp_path / "there/s.yaml"), CPU)
    assert Path(swept(tmp_path / "there/s.yaml").data.train) == tmp_path / "there/set/annotations.json"


def test_what_check_is_given_for_a_sweep(horses, tmp_path):
    init(horses, Wanted(tmp_path / "s.yaml"), CPU)
    request, split = data_to_check(tmp_path / "s.yaml")
    assert (request.split, request.skeleton, split) == ("auto", "horse26", True)
    (tmp_path / "demo.yaml").write_text(
        "data: {synthetic: {train: 2, val: 2, width: 64, height: 64}}\nsearch: {trials: 1}\n"
    )
    with pytest.raises(ConfigError, match="its data are synthetic; there is nothing to check"):
        data_to_check(tmp_path / "demo.yaml")
