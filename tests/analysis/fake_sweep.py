"""A sweep folder made up in a second: what `trainables` would have written for twelve trials on drawn ponies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from posesweep.analysis.keypoint_ap import Detections, Matches, Truth, keypoint_ap, match
from posesweep.datasets.skeleton import Skeleton
from posesweep.files import trial_folder
from posesweep.search_spaces.parameters import Parameter

SIZE = (320, 240)  # width, height of a drawn image
EPOCHS = 18
PONY = {  # keypoint -> place in a body of length 1, x right and y down from the withers
    "nose": (0.62, -0.20),
    "poll": (0.42, -0.42),
    "withers": (0.25, 0.0),
    "tail_base": (-0.45, 0.02),
    "left_elbow": (0.22, 0.32),
    "left_front_hoof": (0.27, 0.85),
    "right_elbow": (0.14, 0.33),
    "right_front_hoof": (0.08, 0.86),
    "left_stifle": (-0.32, 0.34),
    "left_hind_hoof": (-0.28, 0.86),
    "right_stifle": (-0.42, 0.33),
    "right_hind_hoof": (-0.52, 0.85),
}
LIMBS = (
    ("nose", "poll"),
    ("poll", "withers"),
    ("withers", "tail_base"),
    ("withers", "left_elbow"),
    ("left_elbow", "left_front_hoof"),
    ("withers", "right_elbow"),
    ("right_elbow", "right_front_hoof"),
    ("tail_base", "left_stifle"),
    ("left_stifle", "left_hind_hoof"),
    ("tail_base", "right_stifle"),
    ("right_stifle", "right_hind_hoof"),
)
SIGMAS = np.array([0.03, 0.04, 0.08, 0.07, 0.06, 0.04, 0.06, 0.04, 0.07, 0.04, 0.07, 0.04])
SKELETON = Skeleton(
    name="pony12",
    keypoints=tuple(PONY),
    flip_pairs=tuple((name, name.replace("left", "right")) for name in PONY if name.startswith("left")),
    edges=LIMBS,
    sigmas=SIGMAS,
)


@dataclass(frozen=True)
class FakeTrial:
    """`noise` is the typical error of a keypoint as a share of the body's length."""

    noise: float
    params: dict[str, Any] = field(default_factory=dict)
    state: str = "finished"
    epochs: int = EPOCHS
    reason: str = ""
    role: str = "search"


def _heatmap(lr0: float, sigma: float, freeze: int, aug_strength: float) -> dict[str, Any]:
    return {"lr0": lr0, "codec": "heatmap", "sigma": sigma, "freeze": freeze, "aug_strength": aug_strength}


def _simcc(lr0: float, freeze: int, aug_strength: float) -> dict[str, Any]:
    return {"lr0": lr0, "codec": "simcc", "freeze": freeze, "aug_strength": aug_strength}


def _pruned(noise: float, params: dict[str, Any], epochs: int, rank: str) -> FakeTrial:
    reason = f"stopped at epoch {epochs}: {rank} trials that came this far"
    return FakeTrial(noise, params, "pruned", epochs, reason)


TRIALS = (
    FakeTrial(0.042, _heatmap(5e-4, 2.0, 0, 0.5), role="baseline"),
    FakeTrial(0.034, _heatmap(1.2e-3, 2.4, 1, 0.35), role="try_first"),
    _pruned(0.090, _simcc(3e-5, 3, 0.8), 2, "val/AP 0.021 is below 0.160, the best third of the 2"),
    FakeTrial(0.031, _simcc(2.1e-3, 1, 0.42)),
    FakeTrial(0.038, _heatmap(8e-4, 1.4, 2, 0.6)),
    _pruned(0.065, _simcc(1.1e-4, 0, 0.1), 6, "val/AP 0.144 is below 0.310, the best third of the 4"),
    _pruned(0.072, _heatmap(7e-5, 3.6, 4, 0.9), 2, "val/AP 0.035 is below 0.170, the best third of the 6"),
    FakeTrial(0.029, _simcc(1.7e-3, 0, 0.48)),
    FakeTrial(
        0.05,
        _simcc(9e-4, 2, 0.3),
        "failed",
        3,
        "out of memory on cuda:0 at batch 32 after 3 attempts; try a smaller batch",
    ),
    FakeTrial(0.0295, _heatmap(1.5e-3, 2.1, 0, 0.55)),
    _pruned(0.055, _heatmap(2.4e-4, 3.1, 3, 0.2), 6, "val/AP 0.201 is below 0.344, the best third of the 7"),
    FakeTrial(
        0.2,
        _simcc(9.5e-3, 0, 0.7),
        "diverged",
        4,
        "the loss became infinite in epoch 5; the learning rate may be too high",
    ),
)


def write_fake_sweep(
    folder: Path, trials: Sequence[FakeTrial] = TRIALS, objects: int = 60, name: str = "ponies"
) -> Path:
    """Write a sweep of `trials` over `objects` validation objects, two of them to an image, and return its folder."""
    truth = _draw_truth(folder / "images", objects)
    _write_sweep_files(folder, name, truth)
    for number, trial in enumerate(trials):
        write_trial(folder, number, trial, truth)
    return folder


@dataclass(frozen=True)
class Ponies:
    """n drawn ponies; points and boxes in image pixels."""

    images: dict[int, str]
    image_ids: np.ndarray  # n
    points: np.ndarray  # n, K, 2
    visibility: np.ndarray  # n, K
    boxes: np.ndarray  # n, 4
    hardness: np.ndarray  # n: how much harder than usual


def _draw_truth(folder: Path, objects: int) -> Ponies:
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    shape = np.array(list(PONY.values()))
    images, points, image_ids = {}, [], []
    for image_id in range(100, 100 + (objects + 1) // 2):
        picture = np.full((SIZE[1], SIZE[0], 3), (200, 170, 120), np.uint8)
        picture[150:] = (70, 140, 90)
        picture = cv2.add(picture, rng.integers(0, 25, picture.shape, dtype=np.uint8))
        for side in range(2 if len(points) + 1 < objects else 1):
            length = rng.uniform(75, 115)
            pony = shape * length * [rng.choice([-1, 1]), 1] + [88 + 145 * side, rng.uniform(85, 110)]
            pony += rng.normal(0, 0.02 * length, pony.shape)
            _draw_pony(picture, pony, length, tuple(int(c) for c in rng.integers(30, 130, 3)))
            points.append(pony)
            image_ids.append(image_id)
        images[image_id] = str(folder / f"pony_{image_id}.jpg")
        cv2.imwrite(images[image_id], picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    xy = np.array(points)
    low, high = xy.min(1) - 8, xy.max(1) + 8
    visibility = rng.choice(np.array([0, 1, 2], np.uint8), xy.shape[:2], p=[0.06, 0.14, 0.8])
    hardness = rng.lognormal(0, 0.55, len(xy))
    return Ponies(images, np.array(image_ids), xy, visibility, np.hstack([low, high - low]), hardness)


def _draw_pony(picture: np.ndarray, points: np.ndarray, length: float, colour: tuple[int, ...]) -> None:
    place = dict(zip(PONY, points.round().astype(int).tolist(), strict=True))
    for a, b in LIMBS:
        cv2.line(picture, place[a], place[b], colour, max(4, int(length * 0.07)), cv2.LINE_AA)
    middle = (points[2] + points[3]) / 2 + [0, length * 0.12]
    axes = (int(length * 0.40), int(length * 0.18))
    cv2.ellipse(picture, middle.round().astype(int).tolist(), axes, 0, 0, 360, colour, -1, cv2.LINE_AA)


def _write_sweep_files(folder: Path, name: str, truth: Ponies) -> None:
    sweep = {
        "name": name,
        "task": "topdown",
        "data": {"train": "data/train.json", "val": "data/val.json", "images": "data/images", "skeleton": "pony12"},
        "metric": {"name": "val/AP", "goal": "maximize"},
        "fixed": {"model": "small", "epochs": EPOCHS, "imgsz": [128, 128], "batch": 16},
        "parameters": {
            "lr0": {"min": 1e-5, "max": 1e-2, "log": True},
            "codec": {"values": ["heatmap", "simcc"]},
            "sigma": {"min": 1.0, "max": 4.0, "when": {"codec": "heatmap"}},
            "freeze": {"min": 0, "max": 4},
            "aug_strength": {"min": 0.0, "max": 1.0},
        },
        "baseline": {"lr0": 5e-4, "codec": "heatmap", "sigma": 2.0},
        "search": {"method": "tpe", "trials": 12, "startup_trials": 6, "seed": 0},
        "early_terminate": {"type": "asha", "min_epochs": 2, "eta": 3},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    (folder / "space.json").write_text(json.dumps(sweep | {"parameters": _resolved(sweep["parameters"])}))
    skeleton = {
        "name": SKELETON.name,
        "keypoints": list(SKELETON.keypoints),
        "flip_pairs": SKELETON.flip_pairs,
        "edges": SKELETON.edges,
        "sigmas": SIGMAS.tolist(),
        "sigmas_note": "the sigmas of pony12 are a stated default, not measured",
    }
    split = {
        "images": {str(k): v for k, v in truth.images.items()},
        "train": list(range(5000, 5240)),
        "val": list(range(1000, 1000 + len(truth.points))),
        "hash": "3f9a1c22d07be481",
        "skeleton": skeleton,
        "notes": ["3 annotations had no area; it was derived from the box."],
    }
    (folder / "split.json").write_text(json.dumps(split))


def _resolved(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters as space.json has them: low and high, where the sweep file says min and max."""
    found = {}
    for name, said in parameters.items():
        rest = {key: value for key, value in said.items() if key not in ("min", "max")}
        rest["when"] = {key: [value] for key, value in said.get("when", {}).items()}
        kind = "categorical" if "values" in said else "int" if isinstance(said["max"], int) else "float"
        parameter = Parameter(kind=kind, low=said.get("min"), high=said.get("max"), **rest)
        found[name] = parameter.model_dump(mode="json")
    return found


def write_trial(folder: Path, number: int, trial: FakeTrial, truth: Ponies) -> None:
    """config.yaml, metrics.jsonl, status.json and, when something was scored, evidence.npz."""
    path = trial_folder(folder, number)
    path.mkdir(parents=True)
    config = {"task": "topdown", "model": "small", "imgsz": [128, 128], "batch": 16, "epochs": EPOCHS, "seed": 0}
    config |= {"optimizer": "adamw", "weight_decay": 0.01} | trial.params
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    evidence = _evidence(trial, number, truth)
    rows = _epochs(trial, number, keypoint_ap(_matches(evidence))["AP"])
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "status.json").write_text(json.dumps(_status(trial, number, rows)))
    if trial.state in ("finished", "pruned"):
        np.savez(path / "evidence.npz", **evidence)


def _evidence(trial: FakeTrial, number: int, truth: Ponies) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([7, number])
    n, K = truth.visibility.shape
    shared = np.random.default_rng(11).normal(0, 1, (n, K, 2))  # what is hard is hard for every trial
    own = rng.normal(0, 1, (n, K, 2))
    scale = np.sqrt(truth.boxes[:, 2] * truth.boxes[:, 3])[:, None, None] * trial.noise * truth.hardness[:, None, None]
    keypoints = truth.points + scale * (0.8 * shared + 0.6 * own) * (SIGMAS / SIGMAS.mean())[:, None] ** 0.5
    labelled = truth.visibility > 0
    error = np.where(labelled, np.linalg.norm(keypoints - truth.points, axis=-1), np.nan)
    area = truth.boxes[:, 2] * truth.boxes[:, 3] * 0.6
    similarity = np.exp(-(error**2) / (2 * area[:, None] * (2 * SIGMAS) ** 2))
    confidence = np.exp(-2 * trial.noise * truth.hardness) * rng.uniform(0.85, 1, n)
    found = {
        "id": np.arange(1000, 1000 + n),
        "image_id": truth.image_ids,
        "category_id": np.ones(n, np.int64),
        "score": confidence,
        "keypoints": keypoints,
        "keypoint_score": np.repeat(confidence[:, None], K, axis=1).astype(np.float32),
        "oks": np.nanmean(similarity, axis=1),
        "error_px": error,
        "true_keypoints": np.where(labelled[..., None], truth.points, 0.0),
        "visibility": truth.visibility,
        "area": area,
        "box": truth.boxes,
    }
    return found | {f"match/{name}": array for name, array in _matches(found).arrays().items()}


def _matches(found: dict[str, np.ndarray]) -> Matches:
    truth = Truth(
        image_ids=found["image_id"],
        category_ids=found["category_id"],
        keypoints=found["true_keypoints"],
        visibility=found["visibility"],
        areas=found["area"],
        boxes=found["box"],
        crowd=np.zeros(len(found["id"]), bool),
        ids=found["id"],
    )
    return match(truth, Detections(found["image_id"], found["category_id"], found["keypoints"], found["score"]), SIGMAS)


def _epochs(trial: FakeTrial, number: int, best: float) -> list[dict[str, float]]:
    rng = np.random.default_rng([13, number])
    rows = []
    for epoch in range(1, trial.epochs + 1):
        rise = (1 - np.exp(-4 * epoch / EPOCHS)) / (1 - np.exp(-4 * trial.epochs / EPOCHS))
        ap = best * (rise if epoch == trial.epochs else max(0.0, rise * 0.97 + rng.normal(0, 0.012)))
        if trial.state == "diverged":
            ap = 0.05 * rng.uniform()
        ap = min(ap, best)
        loss = 0.02 / (1 + epoch) * (1 + 40 * (trial.state == "diverged") * epoch)
        row = {"epoch": epoch, "step": 15 * epoch, "loss": loss, "lr": trial.params.get("lr0", 1e-3), "val/AP": ap}
        row |= {"val/AP50": min(1.0, ap * 1.4), "val/PCK": min(1.0, ap * 1.5), "val/RMSE_px": 4 / (ap + 0.1)}
        rows.append(row | {"train_s": 4.0, "val_s": 0.5, "save_s": 0.05, "attempt": 1})
    return rows


def _status(trial: FakeTrial, number: int, rows: list[dict[str, float]]) -> dict[str, Any]:
    best = max(rows, key=lambda row: row["val/AP"], default={"epoch": 0, "val/AP": None})
    status = {"trial": number, "state": trial.state, "reason": trial.reason, "role": trial.role, "params": trial.params}
    status |= {"best_epoch": best["epoch"], "best": best["val/AP"], "epochs": len(rows), "seed": 0, "attempt": 1}
    status["versions"] = {"posesweep": "0.1.0", "torch": "2.15.0", "python": "3.11.9"}
    status["cost"] = {"train_s": 4.0 * len(rows), "val_s": 0.5 * len(rows)}
    status["held_s"] = 5.1 * len(rows) + 2
    status |= {"device": "cpu", "parameters": 1_234_567}
    started = datetime(2026, 11, 20, 10, tzinfo=UTC) + timedelta(minutes=number)
    return status | {"started": started.isoformat(), "ended": (started + timedelta(seconds=130)).isoformat()}


def many_trials(count: int, seed: int = 5) -> list[FakeTrial]:
    """A sweep as a search would have run it: a baseline, then `count` - 1 sampled trials, two thirds of them stopped at
    a rung; the score depends on lr0 most, on sigma a little. One fails, one diverges."""
    rng = np.random.default_rng(seed)
    trials = [FakeTrial(0.042, _heatmap(5e-4, 2.0, 0, 0.5), role="baseline")]
    for number in range(1, count):
        lr0, freeze, strength = 10 ** rng.uniform(-5, -2), int(rng.integers(0, 5)), rng.uniform()
        params = (
            _heatmap(lr0, rng.uniform(1, 4), freeze, strength) if rng.uniform() < 0.6 else _simcc(lr0, freeze, strength)
        )
        noise = (
            0.028 + 0.02 * (np.log10(lr0) + 2.8) ** 2 + 0.004 * abs(params.get("sigma", 2) - 2) + rng.normal(0, 0.002)
        )
        if number == 5:
            trials.append(FakeTrial(0.2, params, "diverged", 4, "the loss became infinite in epoch 5"))
        elif number == 9:
            trials.append(FakeTrial(noise, params, "failed", 3, "out of memory on cuda:0 at batch 32 after 3 attempts"))
        elif noise > 0.036:
            epochs = 2 if noise > 0.045 else 6
            trials.append(
                _pruned(noise, params, epochs, f"val/AP 0.144 is below 0.310, the best third of the {number}")
            )
        else:
            trials.append(FakeTrial(noise, params, reason=f"trained all {EPOCHS} epochs"))
    return trials
