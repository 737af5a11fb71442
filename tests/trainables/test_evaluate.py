"""posesweep eval: annotated boxes and a detector's; equal to pycocotools on the results it writes."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import save_file

from posesweep.cli import main
from posesweep.datasets.crops import BOX_PADDING
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.writers import skeleton_text
from posesweep.files import read_json
from posesweep.trainables import evaluate as module
from posesweep.trainables.rescoring import best_of_each, rescored, seen_areas
from posesweep.trainables.tasks import make_config
from posesweep.trainables.tasks.topdown import build_network
from posesweep.trainables.trial import dump_config

COCO_FOLDER = Path(__file__).resolve().parents[2] / "../shared/data/formats/coco"
needs_coco = pytest.mark.skipif(not COCO_FOLDER.is_dir(), reason="shared/data/formats/coco is not here")
NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def evaluate(capsys, *arguments, expect: int = 0) -> dict[str, float] | str:
    capsys.readouterr()
    assert main(["eval", *map(str, arguments)]) == expect
    said = capsys.readouterr()
    if expect:
        return said.err
    lines = [line.split() for line in said.out.splitlines()]
    return {words[0]: float(words[1]) for words in lines if len(words) == 2 and words[0][0] in "APNRm"}


def pycocotools(annotations: Path, results: Path, sigmas: np.ndarray) -> dict[str, float]:
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        scored = COCOeval(truth, truth.loadRes(str(results)), "keypoints")
        scored.params.kpt_oks_sigmas = sigmas
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return {name: float(value) for name, value in zip(NAMES, scored.stats, strict=True) if value != -1}


class Oracle:
    """In place of the network: the annotated keypoints of the object nearest to the middle of the box, moved a little.

    Sees of an object what a network does: the input and where it lies in the image."""

    def __init__(self, annotations: Path, imgsz: tuple[int, int], noise_px: float) -> None:
        document = read_json(annotations)
        rows = [np.reshape(a["keypoints"], (-1, 3)) for a in document["annotations"] if any(a["keypoints"])]
        self.points = np.array([row[:, :2] for row in rows], float)
        self.middles = np.array([row[row[:, 2] > 0, :2].mean(0) for row in rows])
        self.imgsz, self.noise_px = imgsz, noise_px
        self.random = np.random.default_rng(0)

    def __call__(self, images: np.ndarray, to_image: np.ndarray) -> np.ndarray:
        middle = (np.array(self.imgsz) - 1) / 2
        at = to_image[:, :, :2] @ middle + to_image[:, :, 2]
        nearest = ((at[:, None] - self.middles) ** 2).sum(2).argmin(1)
        points = self.points[nearest] + self.random.normal(0, self.noise_px, (len(at), *self.points.shape[1:]))
        return np.concatenate([points, self.random.uniform(0.1, 1, (*points.shape[:2], 1))], axis=2)


@pytest.fixture
def coco_model(tmp_path: Path) -> Path:
    """An exported folder for COCO's seventeen keypoints, its weights new."""
    folder = tmp_path / "winner"
    folder.mkdir()
    config = make_config({"data": {"train": "/nowhere.json"}, "model": "tiny", "imgsz": [48, 64], "threads": 1})
    (folder / "best.yaml").write_text(dump_config(config))
    (folder / "skeleton.yaml").write_text(skeleton_text(load_skeleton("coco17")))
    torch.manual_seed(0)
    save_file(build_network(config, 17).state_dict(), folder / "weights.safetensors")
    return folder


@needs_coco
@pytest.mark.parametrize("boxes", [True, False])
def test_equal_to_pycocotools_on_coco(coco_model, tmp_path, capsys, monkeypatch, boxes):
    annotations, out = COCO_FOLDER / "test_coco.json", tmp_path / "results.json"
    oracle = Oracle(annotations, (48, 64), noise_px=6.0)
    monkeypatch.setattr(module.Predictor, "of", lambda trained: oracle)
    given = ["--boxes", COCO_FOLDER / "test_coco_det_AP_H_56.json"] if boxes else []
    ours = evaluate(capsys, coco_model, "--data", annotations, "--images", COCO_FOLDER, *given, "--out", out)
    reference = pycocotools(annotations, out, load_skeleton("coco17").sigmas)
    assert {name: ours[name] for name in reference} == {name: round(value, 4) for name, value in reference.items()}
    if boxes:
        assert 0.2 < ours["AP"] < 0.95, "a trivial AP would prove nothing"
        per_image = [entry["image_id"] for entry in read_json(out)]
        assert max(per_image.count(i) for i in set(per_image)) <= 20


@needs_coco
def test_what_nms_and_scores_do_to_coco(coco_model, tmp_path, capsys, monkeypatch):
    common = [coco_model, "--data", COCO_FOLDER / "test_coco.json", "--images", COCO_FOLDER]
    common += ["--boxes", COCO_FOLDER / "test_coco_det_AP_H_56.json", "--out", tmp_path / "results.json"]
    counts = {}
    for nms in ("1", "0.9", "0.1"):
        oracle = Oracle(COCO_FOLDER / "test_coco.json", (48, 64), noise_px=0.5)
        monkeypatch.setattr(module.Predictor, "of", lambda trained, oracle=oracle: oracle)
        evaluate(capsys, *common, "--nms", nms, "--min-score", "0.3")
        counts[nms] = len(read_json(tmp_path / "results.json"))
    assert counts["1"] > counts["0.9"] >= counts["0.1"] >= 11  # eleven people can be told apart


def test_a_detection_where_nothing_is_annotated_is_a_false_one(handed_over, tmp_path, capsys, monkeypatch):
    """Of the images in the file one holds no annotation; a box with the highest score in it costs precision."""
    document = read_json(handed_over.annotations)
    empty = document["images"][0]["id"]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != empty]
    (tmp_path / "val.json").write_text(json.dumps(document))
    right = [
        {"image_id": a["image_id"], "bbox": a["bbox"], "score": 0.5, "category_id": a["category_id"]}
        for a in document["annotations"]
    ]
    false = [{**right[0], "image_id": empty, "score": 1.0}]
    found = {}
    for name, detections in {"right": right, "both": right + false}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(detections))
        oracle = Oracle(tmp_path / "val.json", (64, 64), noise_px=0.0)
        oracle.random = np.random.default_rng(1)
        monkeypatch.setattr(module.Predictor, "of", lambda trained, oracle=oracle: oracle)
        arguments = ["--data", tmp_path / "val.json", "--images", handed_over.data / "val" / "images"]
        arguments += ["--boxes", tmp_path / f"{name}.json", "--out", tmp_path / "out.json", "--nms", "1"]
        found[name] = evaluate(capsys, handed_over.sweep, *arguments)
        reference = pycocotools(tmp_path / "val.json", tmp_path / "out.json", load_skeleton("horse26").sigmas)
        assert found[name]["AP"] == round(reference["AP"], 4)
    assert found["both"]["AP"] < found["right"]["AP"]


def test_annotated_boxes_as_detections_score_as_annotated_boxes(handed_over, tmp_path, capsys):
    data = ["--data", handed_over.annotations]
    plain = evaluate(capsys, handed_over.sweep, *data)
    boxes = evaluate(capsys, handed_over.sweep, *data, "--boxes", handed_over.annotations, "--nms", "1")
    assert {name: plain[name] for name in boxes} == boxes
    assert evaluate(capsys, handed_over.sweep) == plain


def test_results_of_annotated_boxes_are_those_of_pycocotools(handed_over, tmp_path, capsys):
    out = tmp_path / "results.json"
    ours = evaluate(capsys, handed_over.training, "--data", handed_over.annotations, "--out", out)
    reference = pycocotools(handed_over.annotations, out, load_skeleton("horse26").sigmas)
    assert {name: ours[name] for name in reference} == {name: round(v, 4) for name, v in reference.items()}


def test_the_score_is_the_box_times_the_keypoints_above_a_fifth():
    rows = np.zeros((2, 4, 3))
    rows[0, :, 2] = [0.9, 0.5, 0.2, 0.1]  # 0.2 itself does not count
    np.testing.assert_allclose(rescored(np.array([0.5, 1.0]), rows), [0.5 * 0.7, 0.0])


def test_nms_is_within_a_category():
    rows = np.zeros((3, 4, 3))
    kept = best_of_each(rows, np.array([0.5, 0.9, 0.7]), np.ones(3), np.array([1, 1, 2]), np.full(4, 0.05))
    assert kept.tolist() == [1, 2]


def test_the_area_of_nms_is_what_the_network_sees():
    """A box of 30x60 for an input of 64x64: 60 x 1.25 = 75 pixels each way."""
    assert BOX_PADDING == 1.25
    np.testing.assert_allclose(seen_areas(np.array([[0, 0, 30.0, 60.0]]), (64, 64)), [75.0**2])


def test_boxes_that_fit_nothing_are_told(handed_over, tmp_path, capsys):
    (tmp_path / "det.json").write_text(json.dumps([{"image_id": 0, "bbox": [0, 0, 9, 9], "category_id": 77}]))
    said = evaluate(
        capsys, handed_over.sweep, "--data", handed_over.annotations, "--boxes", tmp_path / "det.json", expect=2
    )
    assert "none of its 1 boxes is of an annotated image, of an annotated category (1) and scores at least 0" in said


def test_data_that_are_gone_name_the_settings_and_the_way_around(handed_over, tmp_path, capsys):
    assert main(["export", str(handed_over.sweep), str(tmp_path / "winner")]) == 0
    settings = tmp_path / "winner" / "best.yaml"
    settings.write_text(settings.read_text().replace(str(handed_over.data), "/nowhere/data"))
    said = evaluate(capsys, tmp_path / "winner", expect=2)
    assert "data.train: /nowhere/data/train/annotations.json is not there; say where it lies on this machine" in said
    assert "or score other annotations: --data FILE --images FOLDER" in said
    score = evaluate(capsys, tmp_path / "winner", "--data", handed_over.annotations)
    assert score == evaluate(capsys, handed_over.sweep)
    said = evaluate(capsys, tmp_path / "winner", "--images", tmp_path, expect=2)
    assert "--images: is for the images of --data" in said
