"""The top-down task: what is scored, and what an unreadable image costs."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from posesweep.datasets.synthetic import write_synthetic
from posesweep.trainables.tasks import find_task, make_config
from posesweep.trainables.tasks.topdown import build, score_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("topdown")
    write_synthetic(made / "train", 24, 1, (160, 120))
    write_synthetic(made / "val", 24, 2, (160, 120))
    return made


def config_of(folder: Path, **settings):
    data = {"train": str(folder / "train" / "annotations.json"), "val": str(folder / "val" / "annotations.json")}
    return make_config({"data": data, "model": "tiny", "imgsz": [64, 64], **settings})


def perfect(task) -> dict[int, np.ndarray]:
    rows = {int(i): row for row, i in enumerate(task.truth.ids)}
    ones = np.ones((26, 1))
    return {int(i): np.concatenate([task.truth.keypoints[rows[int(i)]], ones], 1) for i in task.val.ids}


def test_perfect_predictions_score_one(folder):
    score = build(config_of(folder)).score(perfect(build(config_of(folder))))
    assert score.metrics["AP"] == pytest.approx(1.0)
    assert score.metrics["RMSE_px"] == 0.0
    assert score.metrics["PCK@0.05"] == 1.0


def test_an_unreadable_validation_image_is_left_out_and_no_miss(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    broken = next(iter(sorted((tmp_path / "data" / "val" / "images").iterdir())))
    broken.write_bytes(broken.read_bytes()[:200])
    config = config_of(tmp_path / "data")
    prepared = find_task("topdown").prepare([config])
    assert any(str(broken) in note and "left out" in note for note in prepared.notes)
    task = build(config)
    assert len(task.val) < len(build(config_of(folder)).val)
    assert task.score(perfect(task)).metrics["AP"] == pytest.approx(1.0)


def test_a_prediction_beside_every_point_scores_nothing(folder):
    task = build(config_of(folder))
    rows = np.stack([perfect(task)[int(i)] for i in task.val.ids])
    rows[..., :2] += 500
    score = score_predictions(task.truth, task.val.ids, rows)
    assert score.metrics["AP"] == 0.0
    labelled = score.evidence["visibility"] > 0
    np.testing.assert_allclose(score.evidence["error_px"][labelled], 500 * np.sqrt(2))
    assert np.isnan(score.evidence["error_px"][~labelled]).all()


def test_flip_test_of_a_mirrored_image_is_the_mirrored_answer(folder):
    """UDP's cells mirror onto cells, so averaging with the mirror image makes the network's answer symmetric."""
    import torch

    from posesweep.trainables.trial import to_device

    task = build(config_of(folder, udp=True, flip_test=True))
    torch.manual_seed(0)
    model = task.model().eval()
    batch = to_device(task.val.batch(np.arange(2), 0), torch.device("cpu"))
    batch["to_image"] = torch.eye(3, dtype=torch.float64)[:2].expand(2, 2, 3)  # answers in input pixels
    with torch.no_grad():
        plain = task.predict(model, batch)
        mirrored = task.predict(model, {**batch, "image": batch["image"].flip(2)})
    for i in plain:
        back = mirrored[i][task.truth.skeleton.flip_index]
        np.testing.assert_allclose(63 - back[:, 0], plain[i][:, 0], atol=1e-3)
        np.testing.assert_allclose(back[:, 1:], plain[i][:, 1:], atol=1e-3)
