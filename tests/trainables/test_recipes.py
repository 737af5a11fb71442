"""Every ready-made sweep: reads without a mistake, and what it proposes builds and trains, on drawn data.

The default tests read all of them, make a config of 20 choices from each space, and train the small networks. All
recipes, baseline and 20 choices, about ten minutes of one core:

    OMP_NUM_THREADS=1 python -m pytest tests/trainables/test_recipes.py -m slow
"""

import json
import math
import random
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from posesweep.datasets.augment import Augmentation
from posesweep.datasets.skeleton import load_skeleton
from posesweep.search_spaces.choices import sample
from posesweep.search_spaces.schema import Sweep
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables.codecs import HeatmapCodec, SimCCCodec
from posesweep.trainables.context import Context
from posesweep.trainables.schedules import Schedule, lr_factor
from posesweep.trainables.task import Task
from posesweep.trainables.tasks import build_task, check_values, defaults_of, make_config
from posesweep.trainables.tasks.topdown import Config, augmentations, codec
from posesweep.trainables.trial import prepare_training, train_mode, train_step

RECIPES = sorted((Path(__file__).resolve().parents[2] / "search_spaces").glob("*.yaml"))
CHEAP = ("demo", "openfield")
FAMILIES = ("coco17_hrnet_w32", "coco17_lite_hrnet", "coco17_rtmpose_m")
CHOICES = 20
OBJECTS = 2
IMAGE = 160  # pixels, each side


@cache
def sweep_of(recipe: Path) -> Sweep:
    return read_sweep(recipe, (), check_values, defaults_of)


def choices(recipe: Path) -> Iterator[dict[str, Any]]:
    sweep = sweep_of(recipe)
    rng = random.Random(0)
    for _ in range(CHOICES):
        yield sample(sweep.parameters, sweep.fixed, rng)


def small_imgsz(imgsz: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of the same shape, in pixels, with sides of at least 64 that the networks divide."""
    width, height = (side // math.gcd(*imgsz) for side in imgsz)
    if min(imgsz) < 64 + 32:
        return imgsz
    return next((width * n, height * n) for n in count(1) if not (width * n % 32 or height * n % 32 or width * n < 64))


def draw_data(folder: Path, skeleton_name: str) -> dict[str, Any]:
    """A `data:` block of noise with keypoints anywhere in it, two objects to train on and two to validate on."""
    rng = np.random.default_rng(0)
    skeleton = load_skeleton(skeleton_name)
    for i, side in enumerate(("train", "val")):
        images, annotations = [], []
        for j in range(OBJECTS):
            number = 1 + i * OBJECTS + j
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (IMAGE, IMAGE, 3), dtype=np.uint8))
            images.append({"id": number, "file_name": f"{number}.png", "width": IMAGE, "height": IMAGE})
            points = rng.uniform(20, IMAGE - 20, (len(skeleton.keypoints), 2)).round(1)
            keypoints = [float(value) for point in points for value in (*point, 2)]
            annotations.append(
                {"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints, "iscrowd": 0}
                | {"bbox": [10, 10, IMAGE - 20, IMAGE - 20], "area": float((IMAGE - 20) ** 2)}
            )
        categories = [{"id": 1, "name": "thing", "keypoints": list(skeleton.keypoints)}]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{side}.json").write_text(json.dumps(document))
    files = {side: str(folder / f"{side}.json") for side in ("train", "val")}
    return {**files, "images": str(folder), "skeleton": skeleton_name}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return cache(lambda skeleton: draw_data(tmp_path_factory.mktemp(skeleton), skeleton))


def shrunk(sweep: Sweep, choice: dict[str, Any], data: dict[str, Any]) -> Config:
    """The config of one trial of the sweep, with a batch of two small samples and weights that need no network."""
    values = {"task": sweep.task, "data": data, **sweep.fixed, **choice}
    values |= {"imgsz": small_imgsz(tuple(values["imgsz"])), "batch": OBJECTS, "pretrained": False}
    config = make_config(values)
    assert isinstance(config, Config)
    return config


def skeleton_of(sweep: Sweep) -> str:
    """Of the recipe's data; the synthetic horses, and what is in nobody's annotations yet, have 26 keypoints."""
    return str(sweep.data.skeleton or "horse26")


def train_one_step(config: Config, folder: Path) -> None:
    """One step as a trial takes it: the loss is finite, what trains has moved, what is frozen has not."""
    torch.manual_seed(0)
    task: Task = build_task(config)
    training = prepare_training(config, Context(folder, lambda row: None, torch.device("cpu")), task, task.model())
    train_mode(training.network, training.frozen)
    before = {name: p.detach().clone() for name, p in training.network.named_parameters()}
    parts = train_step(training, task.datasets()[0].batch(np.arange(OBJECTS), 0))
    assert all(torch.isfinite(value) for value in parts.values()), parts
    for name, parameter in training.network.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, f"{name} {'moved' if moved else 'did not move'}"
    frozen = sum(not p.requires_grad for p in training.network.parameters())
    assert (frozen > 0) == (config.freeze > 0)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_reads_and_proposes_configs(recipe, drawn):
    sweep = sweep_of(recipe)
    assert sweep.name == recipe.stem
    assert sweep.baseline.keys() <= sweep.parameters.keys()
    assert sweep.notes == ()  # nothing was filled in
    for choice in (sweep.baseline, *sweep.try_first, *choices(recipe)):
        shrunk(sweep, choice, drawn(skeleton_of(sweep)))


# what mmpose's configs of the same names say; its RandomBBoxTransform's defaults are rotation 80, scale 0.5 to 1.5
MOVED = {"flip": 0.5, "rotate": 0.6, "move": 0.3, "shift": 0.16, "half_body": 0.3}
HRNET = Augmentation(**MOVED, rotation_deg=80.0, scale_min=0.5, scale_max=1.5)
LITE_HRNET = Augmentation(**MOVED, rotation_deg=60.0, scale_min=0.75, scale_max=1.25)
RECOLOURED = {"colour": 0.5, "hue_deg": 10.0, "saturation": 0.12, "brightness": 0.12, "blur": 0.2, "blur_px": 2.0}
HOLE = {"dropout": 1.0, "dropout_share": 0.4}
RTMPOSE = Augmentation(**MOVED, **RECOLOURED, **HOLE, rotation_deg=80.0, scale_min=0.6, scale_max=1.4)
SQUARE, UPRIGHT = (256, 256), (192, 256)
PUBLISHED = {
    "ap10k_hrnet_w32": (HRNET, HeatmapCodec(SQUARE, 2.0)),
    "animalpose_hrnet_w32": (HRNET, HeatmapCodec(SQUARE, 2.0)),
    "coco17_hrnet_w32": (HRNET, HeatmapCodec(UPRIGHT, 2.0)),
    "coco17_hrnet_w32_dark": (HRNET, HeatmapCodec(UPRIGHT, 2.0, dark=True, blur_kernel=11)),
    "coco17_hrnet_w32_udp": (HRNET, HeatmapCodec(UPRIGHT, 2.0, udp=True, dark=True, blur_kernel=11)),
    "coco17_lite_hrnet": (LITE_HRNET, HeatmapCodec(UPRIGHT, 2.0)),
    "ap10k_rtmpose_m": (RTMPOSE, SimCCCodec(SQUARE, (5.66, 5.66), 2.0, 10.0)),
    "coco17_rtmpose_m": (RTMPOSE, SimCCCodec(UPRIGHT, (4.9, 5.66), 2.0, 10.0)),
}


def published(name: str) -> Config:
    """The baseline as the recipe has it; nothing is read."""
    sweep = sweep_of(next(recipe for recipe in RECIPES if recipe.stem == name))
    config = make_config({"task": sweep.task, "data": sweep.data.model_dump(), **sweep.fixed, **sweep.baseline})
    assert isinstance(config, Config)
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_baselines_are_as_published(name):
    config = published(name)
    assert (augmentations(config)[0], codec(config)) == PUBLISHED[name]
    assert (config.freeze, config.layer_decay, config.head_lr_mult, config.flip_test) == (0, 1.0, 1.0, True)
    if "rtmpose" in name:
        optimizer = ("adamw", 4e-3, 0.05, False, 0.9998)
        assert (config.epochs, config.batch) == ((420, 1024) if "coco" in name else (210, 512))
        assert (config.final_epochs, config.simcc_head, config.loss) == (30, "rtmcc", "kl")
    else:
        optimizer = ("adam", 5e-4, 0.0, False, None)
        assert (config.epochs, config.batch, config.loss) == (210, 512, "mse")
    shown = (config.optimizer, config.lr0, config.weight_decay, config.decay_norm_bias, config.ema)
    assert shown == optimizer


def test_a_width_along_x_of_its_own_is_simccs():
    values = {"data": {"train": "-"}, "imgsz": [96, 128], "codec": "simcc"}
    of = {sigma_x: codec(make_config({**values, "sigma_x": sigma_x})) for sigma_x in (None, 4.9)}
    assert (of[None].sigma, of[4.9].sigma) == ((5.66, 5.66), (4.9, 5.66))
    x, y = of[4.9].encode(torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1, dtype=torch.bool)).values
    assert x[0, 0, 45] == pytest.approx(math.exp(-(5**2) / (2 * 4.9**2)))
    assert y[0, 0, 65] == pytest.approx(math.exp(-(5**2) / (2 * 5.66**2)))
    (found,) = check_values("topdown", {"sigma_x": 4.9})
    words = "codec: heatmap does not use it; take it out, or add when: {codec: simcc}"
    assert (found.key, found.text) == ("sigma_x", words)


@pytest.mark.parametrize("steps_per_epoch", [7, 18, 293, 1172])
def test_hrnet_drops_after_170_and_200_epochs(steps_per_epoch):
    config = published("ap10k_hrnet_w32")
    settings = {name: getattr(config, name) for name in ("milestones", "lr_drop", "warmup_steps", "warmup_start")}
    schedule = Schedule(config.epochs, steps_per_epoch, kind="multistep", **settings)
    for epoch, before, after in [(170, 1.0, 0.1), (200, 0.1, 0.01)]:
        assert lr_factor(schedule, epoch * steps_per_epoch - 1) == pytest.approx(before)
        assert lr_factor(schedule, epoch * steps_per_epoch) == pytest.approx(after)
    assert lr_factor(schedule, 0) == pytest.approx(0.001)
    assert lr_factor(schedule, 498) < 1 == lr_factor(schedule, 499)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.stem in CHEAP], ids=lambda recipe: recipe.stem)
def test_small_networks_train_with_every_choice(recipe, drawn, tmp_path):
    sweep = sweep_of(recipe)
    for choice in (sweep.baseline, *choices(recipe)):
        train_one_step(shrunk(sweep, choice, drawn(skeleton_of(sweep))), tmp_path)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.stem in FAMILIES], ids=lambda recipe: recipe.stem)
def test_the_baseline_trains(recipe, drawn, tmp_path):
    sweep = sweep_of(recipe)
    train_one_step(shrunk(sweep, sweep.baseline, drawn(skeleton_of(sweep))), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_all_train_with_every_choice(recipe, drawn, tmp_path):
    """`OMP_NUM_THREADS=1 python -m pytest tests/trainables/test_recipes.py -m slow`: ten minutes."""
    sweep = sweep_of(recipe)
    for choice in (sweep.baseline, *sweep.try_first, *choices(recipe)):
        train_one_step(shrunk(sweep, choice, drawn(skeleton_of(sweep))), tmp_path)
