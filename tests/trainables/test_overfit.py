"""Every network learns eight real animals or people by heart: measured on the pictures it was trained on, AP >= 0.95.

A head that mixes up axes, a codec that shifts, a loss that misses a keypoint or a backbone that does not learn cannot
get there. All of them, about half an hour of one core:

    OMP_NUM_THREADS=1 python -m pytest tests/trainables/test_overfit.py -m slow -s
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posesweep.datasets.crops import CropSpec, open_crops
from posesweep.datasets.load import DataRequest, read_annotations
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.topdown import TopDownSamples
from posesweep.trainables.checkpoint import LoopState
from posesweep.trainables.context import Context, default_cache, prepare_process
from posesweep.trainables.tasks import make_config
from posesweep.trainables.tasks.topdown import TopDown, codec, scored_rows
from posesweep.trainables.trial import prepare_training, score_network, train_epoch

FORMATS = Path(__file__).resolve().parents[2] / "../shared/data/formats"
OBJECTS = 8
FILES = {"coco17": "coco/test_coco.json", "ap10k17": "ap10k/test_ap10k.json"}
COMMON = {
    "augment": "none",
    "flip_test": False,
    "optimizer": "adamw",
    "clip": 1.0,
    "batch": OBJECTS,
    "schedule": "cosine",
    "warmup": 10,
    "threads": 1,
}
HEATMAP = {"codec": "heatmap", "sigma": 2.0, "udp": True, "dark": True}  # exact to a fraction of a cell
SIMCC = {"codec": "simcc", "simcc_split": 2.0}
LARGE_IMGSZ = (64, 96)  # of the large networks, which take long


@dataclass(frozen=True)
class Learner:
    """A network and the steps, each on all the pictures, that it is given."""

    model: str
    steps: int
    lr0: float
    imgsz: tuple[int, int] = (96, 128)
    settings: dict[str, Any] = field(default_factory=lambda: dict(HEATMAP))

    def __str__(self) -> str:
        return self.model


FAST = [
    Learner("tiny", 150, 1e-2),
    Learner("rtmpose_t", 80, 1e-3, LARGE_IMGSZ, SIMCC),
]
SLOW = [
    Learner("small", 150, 5e-3),
    Learner("lite_hrnet_18", 250, 5e-3, settings={**HEATMAP, "channels": 16}),
    Learner("vitpose_t", 250, 1e-3, settings={**HEATMAP, "drop_path": 0.0}),
    Learner("simple_baseline", 150, 2e-3, settings={**HEATMAP, "backbone": "resnet18"}),
    Learner("hrnet_w18_small", 150, 2e-3, LARGE_IMGSZ),
    Learner("hrnet_w32", 100, 1e-3, LARGE_IMGSZ),
    Learner("hrnet_w48", 100, 1e-3, LARGE_IMGSZ),
    Learner("rtmpose_m", 100, 5e-4, LARGE_IMGSZ, SIMCC),
    Learner("vitpose_b", 120, 5e-4, LARGE_IMGSZ, {**HEATMAP, "drop_path": 0.0}),
]


def task_on(skeleton: str, learner: Learner) -> TopDown:
    """The first objects of a real file, for training and validation alike."""
    file = FORMATS / FILES[skeleton]
    if not file.is_file():
        pytest.skip(f"{file.name} is not there")
    values = {"data": {"train": str(file)}, "model": learner.model, "imgsz": learner.imgsz, "epochs": learner.steps}
    config = make_config({**COMMON, **values, "lr0": learner.lr0, **learner.settings})
    everything = read_annotations(file, DataRequest(train=file), load_skeleton(skeleton))
    objects = everything.take(scored_rows(everything)[:OBJECTS])
    crops = open_crops(objects, CropSpec(*config.imgsz), default_cache())
    samples = TopDownSamples(crops, objects, config.imgsz)
    return TopDown(config, train=samples, val=samples, truth=objects, codec=codec(config))


def learn_by_heart(task: TopDown, folder: Path) -> float:
    """Train as a trial does, an epoch being one step on all pictures; AP on the same pictures."""
    config = task.config
    prepare_process(config.threads, config.seed)
    context = Context(folder, lambda row: None, torch.device("cpu"))
    training = prepare_training(config, context, task, task.model())
    loop = LoopState()
    while loop.epoch < config.epochs:
        train_epoch(training, task.train, loop)
    return score_network(training.scored_network, task, task.val, config, context).metrics["AP"]


def check(skeleton: str, learner: Learner, folder: Path) -> None:
    task = task_on(skeleton, learner)
    start = time.process_time()
    ap = learn_by_heart(task, folder)
    seconds = time.process_time() - start
    print(f"\n{learner} on {len(task.truth)} of {skeleton}: AP {ap:.3f} after {learner.steps} steps, {seconds:.0f} s")
    assert ap >= 0.95


@pytest.mark.parametrize("learner", FAST, ids=str)
def test_a_small_network_learns_people_by_heart(learner, tmp_path):
    check("coco17", learner, tmp_path)


def test_a_small_network_learns_animals_by_heart(tmp_path):
    check("ap10k17", FAST[0], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("learner", SLOW, ids=str)
@pytest.mark.parametrize("skeleton", FILES)
def test_every_network_learns_by_heart(skeleton, learner, tmp_path):
    """`OMP_NUM_THREADS=1 python -m pytest tests/trainables/test_overfit.py -m slow -s`: half an hour of one core."""
    check(skeleton, learner, tmp_path)


def test_untrained_networks_do_not_know_them(tmp_path):
    task = task_on("coco17", Learner("tiny", 1, 1e-9))
    task = TopDown(task.config.model_copy(update={"warmup": 0.0}), task.train, task.val, task.truth, task.codec)
    assert learn_by_heart(task, tmp_path) < 0.2
    assert np.unique(task.val.ids).size == OBJECTS
