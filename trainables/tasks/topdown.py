"""Top-down pose estimation: one crop per object, one heatmap or a pair of SimCC vectors per keypoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field, field_validator
from torch import Tensor, nn

from posesweep.analysis.keypoint_ap import Detections, Truth, defined, keypoint_ap, match, oks
from posesweep.analysis.keypoint_errors import KeypointErrors, error_metrics
from posesweep.datasets.augment import Augmentation, margin_for, preset, widest
from posesweep.datasets.crops import Crops, CropSpec, Progress, open_crops
from posesweep.datasets.instances import Instances
from posesweep.datasets.load import Data, DataRequest, SyntheticRequest, load_data, read_annotations
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.split import image_groups, split_record
from posesweep.datasets.topdown import TopDownSamples
from posesweep.errors import ConfigError
from posesweep.search_spaces.mistakes import Mistake
from posesweep.trainables.checkpoint import load_weights
from posesweep.trainables.codecs import Codec, HeatmapCodec, Outputs, SimCCCodec
from posesweep.trainables.config import Settings, TrialConfig
from posesweep.trainables.context import default_cache
from posesweep.trainables.losses import heatmap_mse, simcc_kl
from posesweep.trainables.models import build_model, check_imgsz, layer_names
from posesweep.trainables.task import Batch, Dataset, DivergedError, LossParts, Prepared, Score

KEYPOINT_SCORE_COUNTS_ABOVE = 0.2  # an object's score is the mean of its keypoint scores above this (mmpose, COCO)
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0-255
IMAGENET_STD = (58.395, 57.12, 57.375)


class Config(TrialConfig):
    """What a top-down training needs beyond the common settings."""

    CHOICES: ClassVar[Mapping[str, Settings]] = {
        **TrialConfig.CHOICES,
        "codec": {
            "heatmap": {"sigma": 2.0, "udp": False, "dark": False},  # MSRA, as in the HRNet paper
            "simcc": {"sigma": 5.66, "simcc_split": 2.0, "simcc_beta": 10.0},  # RTMPose at 256x256
        },
        "augment": {
            "none": {},
            "light": {"aug_strength": 0.5},
            "medium": {"aug_strength": 0.5},
            "aggressive": {"aug_strength": 0.5},
        },
    }

    imgsz: tuple[int, int] = Field((192, 256), description="network input, width and height in pixels")
    codec: Literal["heatmap", "simcc"] = "heatmap"
    sigma: float | None = Field(None, gt=0, description="width of the target, in heatmap cells or SimCC bins")
    udp: bool | None = Field(None, description="unbiased encoding (Huang et al. 2020)")
    dark: bool | None = Field(None, description="distribution-aware decoding (Zhang et al. 2020)")
    simcc_split: float | None = Field(None, ge=1, description="SimCC bins per input pixel")
    simcc_beta: float | None = Field(None, gt=0, description="sharpness of the SimCC distributions in the loss")
    augment: Literal["none", "light", "medium", "aggressive"] = "medium"
    aug_strength: float | None = Field(
        None, ge=0, le=1, description="0 none, 0.5 the preset as it is, 1 twice as strong"
    )
    crop_margin: tuple[float, float] | None = Field(
        None, description="stored crop / input, width and height; of the widest augmentation in the sweep"
    )
    flip_test: bool = True
    limit: int | None = Field(None, ge=2, description="use only the first so many objects of each set: for debugging")

    @field_validator("imgsz", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value


def mistakes(config: Config) -> list[Mistake]:
    """Names and numbers that do not go together: model, freezing depth, input size."""
    try:
        layers = layer_names(config.model)
        check_imgsz(config.model, config.imgsz)
    except ConfigError as error:
        key, _, text = error.mistakes[0].partition(": ")
        return [Mistake(key, text)]
    if config.freeze > len(layers):
        text = f"{config.model} has {len(layers)} layers to freeze ({', '.join(layers)}), so at most {len(layers)}"
        return [Mistake("freeze", text)]
    return []


def prepare(configs: list[Config], progress: Progress | None = None) -> Prepared:
    """Read and check the data and build the crop stores of every config of a sweep, once, before its first trial."""
    for path in sorted({config.weights for config in configs if config.weights is not None}):
        load_weights(Path(path))
    data = load(configs[0])
    furthest = widest(augmentation(config) for config in configs)
    sizes = sorted({config.imgsz for config in configs})
    margins = np.array([margin_for(furthest, imgsz) for imgsz in sizes])
    margin = configs[0].crop_margin or (float(margins[:, 0].max()), float(margins[:, 1].max()))
    left_out: list[str] = []
    for imgsz in sizes:
        stores = open_stores(data, imgsz, margin, progress)
        left_out += [line for store in stores for line in store.left_out]
    notes = [*data.notes, *(f"left out: {line}" for line in dict.fromkeys(left_out))]
    groups = image_groups(data.val, configs[0].data.group_by)  # ranking resamples whole groups
    record = {**split_record(data.train, data.val), "notes": notes}
    record["groups"] = dict(zip(map(str, data.val.image_ids.tolist()), groups, strict=True))
    return Prepared(record, notes, {"crop_margin": margin})


def build(config: Config) -> "TopDown":
    """The task of one training. Raises DataError or ConfigError for what the user can put right."""
    data = load(config)
    augment = augmentation(config)
    margin = config.crop_margin or margin_for(augment, config.imgsz)
    train_crops, val_crops = open_stores(data, config.imgsz, margin)
    unread = np.unique(data.val.image_index[scored_rows(data.val)][~val_crops.usable])
    return TopDown(
        config=config,
        train=TopDownSamples(train_crops, data.train, config.imgsz, augment, config.seed),
        val=TopDownSamples(val_crops, scorable(data.val), config.imgsz, None, config.seed),
        truth=data.val.take(~np.isin(data.val.image_index, unread)),  # an image left out is no miss
        codec=codec(config),
    )


def build_on(config: Config, annotations: Path, images: Path | None) -> "TopDown":
    """The task with the objects of another annotation file to validate on; nothing of the training data is read.

    Raises DataError or ConfigError for what the user can put right.
    """
    request = DataRequest(train=annotations, images=images, box_margin=config.data.box_margin)
    skeleton = load_skeleton(config.data.skeleton) if config.data.skeleton is not None else None
    truth = read_annotations(annotations, request, skeleton)
    crops = open_crops(scorable(truth), CropSpec(*config.imgsz), default_cache())
    samples = TopDownSamples(crops, scorable(truth), config.imgsz)
    return TopDown(config, train=samples, val=samples, truth=truth, codec=codec(config))


@dataclass
class TopDown:
    """Crops of single objects -> keypoints in image pixels, scored by COCO keypoint AP over the validation images."""

    config: Config
    train: TopDownSamples
    val: TopDownSamples
    truth: Instances
    codec: Codec

    def datasets(self) -> tuple[Dataset, Dataset]:
        """Augmented training crops and plain validation crops."""
        return self.train, self.val

    def model(self) -> nn.Module:
        """Backbone and head for the codec's outputs."""
        config = self.config
        num_keypoints = len(self.truth.skeleton.keypoints)
        return build_model(config.model, num_keypoints, config.imgsz, config.simcc_split, config.pretrained)

    def loss(self, model: nn.Module, batch: Batch) -> LossParts:
        """Distance between the network's maps and the encoded keypoints; unlabelled keypoints weigh nothing."""
        outputs = model(normalise(batch["image"]))
        targets = self.codec.encode(batch["keypoints"], batch["visibility"] > 0)
        if isinstance(self.codec, SimCCCodec):
            return LossParts(simcc_kl(outputs, targets.values, targets.weights, self.codec.beta))
        return LossParts(heatmap_mse(outputs, targets.values, targets.weights))

    def predict(self, model: nn.Module, batch: Batch) -> dict[int, np.ndarray]:
        """Annotation id -> [K, 3]: x, y in image pixels, score."""
        images = normalise(batch["image"])
        outputs = model(images)
        if self.config.flip_test:
            mirrored = self.codec.flip(model(images.flip(3)), self.flip_index.to(images.device))
            outputs = average(outputs, mirrored)
        points, scores = self.codec.decode(outputs)
        in_image = to_image(points.double(), batch["to_image"])
        rows = torch.cat([in_image, scores.double()[..., None]], dim=-1).cpu().numpy()
        return dict(zip(batch["id"].tolist(), rows, strict=True))

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """AP and keypoint errors of one prediction per validation object. DivergedError when one is not finite."""
        assert predictions.keys() == set(self.val.ids.tolist()), "not exactly one prediction per validation object"
        rows = np.stack([predictions[int(i)] for i in self.val.ids])
        if not np.isfinite(rows).all():
            raise DivergedError("diverged: the network's predictions are not finite numbers")
        return score_predictions(self.truth, self.val.ids, rows)

    @cached_property
    def flip_index(self) -> Tensor:
        """Label of each keypoint in the mirrored image."""
        return torch.from_numpy(self.truth.skeleton.flip_index)


def normalise(images: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 H W"]:
    """RGB bytes -> float images with ImageNet's mean and deviation, on the device; a channels_last view."""
    mean, std = (torch.tensor(v, device=images.device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return images.float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def average(a: Outputs, b: Outputs) -> Outputs:
    """The mean of two outputs, axis by axis for SimCC."""
    if isinstance(a, tuple):
        return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    return (a + b) / 2


def to_image(points: Float[Tensor, "B K 2"], affine: Float[Tensor, "B 2 3"]) -> Float[Tensor, "B K 2"]:
    """Network-input pixels -> image pixels."""
    return points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]


def load(config: Config) -> Data:
    """The data a config names, read, checked and split; cut to `limit` objects a side when that is set."""
    files = [Path(file) for file in (config.data.train, config.data.val) if file is not None]
    versions = tuple(file.stat().st_mtime_ns for file in files if file.is_file())
    data = read_once(config.data.model_dump_json(), default_cache(), versions)
    if config.limit is None:
        return data
    cut = slice(config.limit)
    return replace(
        data, train=data.train.take(np.arange(len(data.train))[cut]), val=data.val.take(scored_rows(data.val)[cut])
    )


@lru_cache(maxsize=2)
def read_once(spec: str, cache: Path, versions: tuple[int, ...]) -> Data:
    """The data of a DataSpec in JSON. A reused worker trains many trials on the same data; reading them takes half a
    second for a thousand objects. `versions` of the annotation files tell when to read again."""
    values = json.loads(spec)
    if values["synthetic"] is not None:
        values["synthetic"] = SyntheticRequest(**values["synthetic"])
    for name in ("train", "val", "images"):
        values[name] = Path(values[name]) if values[name] is not None else None
    return load_data(DataRequest(**{name: value for name, value in values.items() if value is not None}), cache)


def open_stores(
    data: Data, imgsz: tuple[int, int], margin: tuple[float, float], progress: Progress | None = None
) -> tuple[Crops, Crops]:
    """The crop stores of training (with room for augmentation) and validation (exactly the input)."""
    train = open_crops(data.train, CropSpec(*imgsz, *margin), default_cache(), progress)
    return train, open_crops(scorable(data.val), CropSpec(*imgsz), default_cache(), progress)


def scored_rows(instances: Instances) -> Int[np.ndarray, "n"]:
    """Rows of the objects a top-down model is asked about: no crowds, at least one labelled keypoint."""
    return np.flatnonzero(instances.labelled & ~instances.crowd)


def scorable(instances: Instances) -> Instances:
    """The objects a top-down model is asked about; the others still take part in AP, as ignored truth."""
    return instances.take(scored_rows(instances))


def augmentation(config: Config) -> Augmentation:
    """How far this config's training samples are changed."""
    return preset(config.augment, config.aug_strength or 0.0)


def codec(config: Config) -> Codec:
    """How this config writes keypoints for the network and reads them back."""
    assert config.sigma is not None, "filled in by the config"
    if config.codec == "simcc":
        assert config.simcc_split is not None
        assert config.simcc_beta is not None
        return SimCCCodec(config.imgsz, config.sigma, config.simcc_split, config.simcc_beta)
    return HeatmapCodec(config.imgsz, config.sigma, bool(config.udp), bool(config.dark))


def score_predictions(truth: Instances, ids: Int[np.ndarray, "n"], rows: Float[np.ndarray, "n K 3"]) -> Score:
    """COCO keypoint AP over all of `truth`, and keypoint errors of the objects `ids`, one prediction (x, y, score per
    keypoint, image pixels) for each.

    An object's score is the mean of its keypoint scores above 0.2, 0 when there is none (mmpose; its box scores 1).
    """
    position = {int(i): row for row, i in enumerate(truth.ids)}
    own = truth.take(np.array([position[int(i)] for i in ids]))
    points, scores = rows[..., :2], rows[..., 2]
    counted = scores > KEYPOINT_SCORE_COUNTS_ABOVE
    object_scores = np.where(counted, scores, 0.0).sum(1) / np.maximum(counted.sum(1), 1)
    image_ids = own.image_ids[own.image_index]
    sigmas = truth.skeleton.sigmas
    matches = match(Truth.from_instances(truth), Detections(image_ids, own.category_ids, points, object_scores), sigmas)
    truths = Truth.from_instances(own)
    errors = KeypointErrors.between(points, own.keypoints, own.visibility, own.boxes)
    evidence = {
        "id": own.ids,
        "image_id": image_ids,
        "category_id": own.category_ids,
        "score": object_scores,
        "keypoints": points,
        "keypoint_score": scores.astype(np.float32),
        "oks": oks(points, truths, sigmas),
        "error_px": errors.distance_px,
        "true_keypoints": own.keypoints,
        "visibility": own.visibility,
        "area": own.areas,
        "box": own.boxes,
        **{f"match/{name}": array for name, array in matches.arrays().items()},
    }
    return Score({**defined(keypoint_ap(matches)), **error_metrics(errors)}, evidence)
