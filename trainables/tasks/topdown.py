"""Top-down pose estimation: one crop per object, one heatmap or a pair of SimCC vectors per keypoint."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from posesweep.analysis.keypoint_ap import Detections, Truth, defined, keypoint_ap, match, oks
from posesweep.analysis.keypoint_errors import KeypointErrors, error_metrics
from posesweep.datasets.augment import Augmentation, preset, widest
from posesweep.datasets.counting import counting
from posesweep.datasets.crops import Crops, CropSpec, Progress, open_crops
from posesweep.datasets.holdout import read_test
from posesweep.datasets.instances import Instances
from posesweep.datasets.load import Data, DataRequest, SyntheticRequest, load_data, read_annotations
from posesweep.datasets.show import save_augmented
from posesweep.datasets.skeleton import Skeleton, load_skeleton
from posesweep.datasets.split import image_groups, in_share, split_record
from posesweep.datasets.topdown import Part, Pictures, TopDownSamples
from posesweep.datasets.warps import margin_for
from posesweep.datasets.writers import skeleton_text
from posesweep.errors import ConfigError
from posesweep.search_spaces.mistakes import Mistake, say
from posesweep.search_spaces.schema import DataSpec
from posesweep.trainables.augment_settings import OWN_RANGES, AugmentSettings, own_ranges
from posesweep.trainables.codecs import DARK_KERNEL, Codec, HeatmapCodec, Outputs, SimCCCodec
from posesweep.trainables.config import Settings, TrialConfig, chosen_option, notes_on, sentence
from posesweep.trainables.context import default_cache
from posesweep.trainables.layout import SKELETON_FILE
from posesweep.trainables.loss_sum import (
    SETTINGS,
    Answer,
    LossSum,
    add_balance,
    balance_of,
    importance,
    misfit,
    read_loss,
    settings_of,
    weights_by_name,
)
from posesweep.trainables.models import build_model, check_imgsz, layer_names, model_settings, simcc_head_of
from posesweep.trainables.optim import HEAD, frozen_layers
from posesweep.trainables.starting import check_start, start_from
from posesweep.trainables.task import Arrays, Batch, Dataset, DivergedError, LossParts, Prepared, Score

KEYPOINT_SCORE_COUNTS_ABOVE = 0.2  # an object's score is the mean of its keypoint scores above this (mmpose, COCO)
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0-255
IMAGENET_STD = (58.395, 57.12, 57.375)
KeypointWeight = Annotated[float, Field(ge=0)]


class Config(AugmentSettings, TrialConfig):
    """What a top-down training needs beyond the common settings."""

    CHOICES: ClassVar[Mapping[str, Settings]] = {
        **TrialConfig.CHOICES,
        "model": model_settings(),
        "codec": {
            "heatmap": {"sigma": 2.0, "udp": False, "dark": False, "loss": "mse"},  # MSRA, as in the HRNet paper
            "simcc": {  # RTMPose at 256x256; its head is rtmcc
                "sigma": 5.66,
                "sigma_x": None,  # as sigma
                "simcc_split": 2.0,
                "simcc_beta": 10.0,
                "simcc_head": "plain",
                "loss": "kl",
            },
        },
        "augment": {
            "none": {},
            "light": {"aug_strength": 0.5, **OWN_RANGES},
            "medium": {"aug_strength": 0.5, **OWN_RANGES},
            "aggressive": {"aug_strength": 0.5, **OWN_RANGES},
            "top_view": {"aug_strength": 0.5, **OWN_RANGES},
        },
        "final_augment": {
            "same": {},
            "none": {"final_epochs": 30},  # as many as RTMPose
            "light": {"final_epochs": 30, "final_aug_strength": 0.5},
            "medium": {"final_epochs": 30, "final_aug_strength": 0.5},
            "aggressive": {"final_epochs": 30, "final_aug_strength": 0.5},
            "top_view": {"final_epochs": 30, "final_aug_strength": 0.5},
        },
    }

    channels: int | None = Field(None, ge=1, description="Lite-HRNet's width at stride 4")
    branches: int | None = Field(None, ge=1, description="Lite-HRNet's resolutions")
    decoder: Literal["simple", "classic"] | None = Field(None, description="ViTPose's way from stride 16 to 4")
    drop_path: float | None = Field(None, ge=0, lt=1, description="how often ViTPose's last block is left out")
    backbone: str | None = Field(None, description="SimpleBaseline's network, by timm's name")
    neck: Literal["deconv", "pyramid"] | None = Field(None, description="SimpleBaseline's way to stride 4")

    weights_skeleton: str | None = Field(
        None, description="whose keypoints the head in `weights` has, where it does not say: a skeleton's name or file"
    )
    imgsz: tuple[int, int] = Field((192, 256), description="network input, width and height in pixels")
    codec: Literal["heatmap", "simcc"] = "heatmap"
    sigma: float | None = Field(None, gt=0, description="width of the target, in heatmap cells or SimCC bins")
    sigma_x: float | None = Field(None, gt=0, description="SimCC's width along x where sigma is for y only, in bins")
    udp: bool | None = Field(None, description="unbiased encoding (Huang et al. 2020)")
    dark: bool | None = Field(None, description="distribution-aware coordinates (Zhang et al. 2020)")
    blur_kernel: int | None = Field(None, ge=3, description="cells, odd; blur of the heatmap before dark's step")
    simcc_split: float | None = Field(None, ge=1, description="SimCC bins per input pixel")
    simcc_beta: float | None = Field(None, gt=0, description="sharpness of the SimCC distributions in the loss")
    simcc_head: Literal["plain", "rtmcc"] | None = Field(
        None, description="two linear layers, or RTMPose's attention among the keypoints before them"
    )
    loss: str | None = Field(None, description="a loss, or a weighted sum of losses such as 'mse + 0.1 wing'")
    loss_balance: Literal["fixed", "learned"] = Field(
        "fixed", description="learned: the losses of a sum are weighed by uncertainty (Kendall et al. 2018)"
    )
    hidden_weight: float = Field(1.0, ge=0, le=1, description="how much a labelled but hidden keypoint counts")
    keypoint_weights: dict[str, KeypointWeight] = Field(
        {}, description="keypoint -> how much it counts; 1 if not given"
    )
    focal_alpha: float | None = Field(None, gt=0, lt=1, description="how much the target counts, the rest: background")
    focal_gamma: float | None = Field(None, ge=1, description="how much less a small error counts")
    ohkm_top: float | None = Field(None, gt=0, le=1, description="a sample's hardest keypoints, as a share of all")
    smooth_l1_beta: float | None = Field(None, gt=0, description="input pixels; below it the error counts squared")
    wing_width: float | None = Field(None, gt=0, description="input pixels; below it the error counts by its logarithm")
    wing_epsilon: float | None = Field(None, gt=0, description="input pixels; the smaller, the more small errors count")
    softargmax_beta: float | None = Field(None, gt=0, description="sharpness of the mean that coordinate losses see")
    augment: Literal["none", "light", "medium", "aggressive", "top_view"] = "medium"
    aug_strength: float | None = Field(
        None, ge=0, le=1, description="0 none, 0.5 the preset as it is, 1 twice as strong"
    )
    final_augment: Literal["same", "none", "light", "medium", "aggressive", "top_view"] = Field(
        "same", description="the augmentation of the last epochs"
    )
    final_epochs: int | None = Field(None, ge=1, description="how many epochs have final_augment")
    final_aug_strength: float | None = Field(None, ge=0, le=1, description="as aug_strength, for final_augment")
    crop_margin: tuple[float, float] | None = Field(
        None, description="stored crop / input, width and height; of the widest augmentation in the sweep"
    )
    cache_gb: float | None = Field(None, ge=0, description="gigabytes for all crop stores of a machine; null: no limit")
    flip_test: bool = True
    limit: int | None = Field(None, ge=2, description="use only the first so many objects of each set: for debugging")
    train_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="use only so much of the training images, whole groups; smaller shares lie in larger",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_simcc_head(cls, given: Any) -> Any:
        if not isinstance(given, dict) or chosen_option(cls, "codec", given) != "simcc" or given.get("simcc_head"):
            return given
        model = chosen_option(cls, "model", given)
        return {**given, "simcc_head": simcc_head_of(model)} if model in cls.CHOICES["model"] else given

    @model_validator(mode="before")
    @classmethod
    def _fill_in_loss_and_blur(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        defaults = _settings_of_loss_and_blur(given)
        return {**given, **{name: value for name, value in defaults.items() if given.get(name) is None}}

    @field_validator("loss", mode="before")
    @classmethod
    def _is_a_sum(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise sentence(f"{say(value)} must be text; write the sum itself, such as loss: mse + 0.1 wing")
        try:
            if isinstance(value, str):
                read_loss(value)
        except ConfigError as error:
            raise sentence(error.mistakes[0]) from None
        return value

    @field_validator("blur_kernel")
    @classmethod
    def _has_a_middle(cls, cells: int | None) -> int | None:
        if cells is not None and cells % 2 == 0:
            raise sentence(f"{cells} must be odd, to have a middle; try {cells + 1}")
        return cells

    @field_validator("imgsz", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value


def _settings_of_loss_and_blur(given: dict[str, Any]) -> dict[str, Any]:
    """The defaults of the settings that belong to the losses named in `loss`, and of dark's."""
    text = given.get("loss") or Config.CHOICES["codec"].get(chosen_option(Config, "codec", given), {}).get("loss")
    try:
        filled: dict[str, Any] = settings_of(read_loss(text)) if isinstance(text, str) else {}
    except ConfigError:
        filled = {}  # the field's own check says what is wrong
    return filled | ({"blur_kernel": DARK_KERNEL} if given.get("dark") is True else {})


def mistakes(config: Config) -> list[Mistake]:
    """Names and numbers that do not go together: model, freezing depth, input size, codec, losses."""
    return [
        *_mistakes_of_model(config),
        *_mistakes_of_loss(config),
        *_mistakes_of_weights(config),
        *_mistakes_of_augmentation(config),
    ]


def _mistakes_of_augmentation(config: Config) -> list[Mistake]:
    try:
        augmentations(config)
    except ConfigError as error:
        key, _, text = error.mistakes[0].partition(": ")
        return [Mistake(key, text)]
    return []


def _mistakes_of_weights(config: Config) -> list[Mistake]:
    if config.weights_skeleton is not None and config.weights is None:
        return [Mistake("weights_skeleton", "only weights uses it; take it out, or give the file it describes")]
    return []


def _mistakes_of_loss(config: Config) -> list[Mistake]:
    found = []
    assert config.loss is not None, "filled in by the config"
    losses = read_loss(config.loss)
    wrong = misfit(losses, config.codec)
    if wrong is not None:
        found.append(Mistake("loss", wrong))
    if config.loss_balance == "learned" and len(losses) == 1:
        text = f"learned balances several losses, and loss is {config.loss} alone; add another, or write fixed"
        found.append(Mistake("loss_balance", text))
    unused = SETTINGS.keys() - settings_of(losses).keys()
    for name in sorted(name for name in unused if getattr(config, name) is not None):
        text = f"loss: {config.loss} does not use it; take it out, or add when: {{loss: {SETTINGS[name]}}}"
        found.append(Mistake(name, text))
    if config.blur_kernel is not None and not config.dark:
        found.append(Mistake("blur_kernel", "only dark: true uses it; take it out, or add when: {dark: true}"))
    return found


def network_settings(config: Config) -> dict[str, Any]:
    """The settings that only this config's network has."""
    return {name: getattr(config, name) for name in config.CHOICES["model"].get(config.model, {})}


def network_arguments(config: Config) -> dict[str, Any]:
    """All that the network depends on, but the number of keypoints and its weights."""
    own = {**network_settings(config), "simcc_head": config.simcc_head}
    return {"name": config.model, "imgsz": config.imgsz, "simcc_split": config.simcc_split, **own}


def _mistakes_of_model(config: Config) -> list[Mistake]:
    try:
        settings = network_settings(config)
        layers = layer_names(config.model, settings)
        check_imgsz(config.model, config.imgsz, settings)
    except ConfigError as error:
        key, _, text = error.mistakes[0].partition(": ")
        return [Mistake(key, text)]
    if config.freeze > len(layers):
        text = f"{config.model} has {len(layers)} layers to freeze ({', '.join(layers)}), so at most {len(layers)}"
        return [Mistake("freeze", text)]
    try:
        frozen_layers([*layers, HEAD], config.freeze, config.lr_mult)
    except ConfigError as error:
        return [Mistake("lr_mult", error.mistakes[0].removeprefix("lr_mult: "))]
    if (config.final_epochs or 0) >= config.epochs:
        text = f"{config.final_epochs} must be fewer than the epochs: {config.epochs}"
        return [Mistake("final_epochs", f"{text}; try {max(1, config.epochs // 7)}, or take final_augment out")]
    return []


def prepare(configs: list[Config]) -> Prepared:
    """Read and check the data and build the crop stores of every config of a sweep, once, before its first trial."""
    check_beginnings(configs)
    data = load(configs[0])
    for config in configs:
        check_halves(config, data.train.skeleton)
    furthest = widest(stage for config in configs for stage in augmentations(config))
    sizes = sorted({config.imgsz for config in configs})
    margins = np.array([margin_for(furthest, imgsz) for imgsz in sizes])
    margin = configs[0].crop_margin or (float(margins[:, 0].max()), float(margins[:, 1].max()))
    stores: list[Crops] = []
    with counting("crops") as count:
        for imgsz in sizes:
            stores += open_stores(data, imgsz, margin, configs[0].cache_gb, count)
    left_out = [f"left out: {line}" for store in stores for line in store.left_out]
    notes = [*data.notes, *dict.fromkeys([*left_out, *(store.note for store in stores if store.note)])]
    groups = image_groups(data.val, configs[0].data.group_by)  # ranking resamples whole groups
    record = {**split_record(data.train, data.val), "notes": notes}
    record["groups"] = dict(zip(map(str, data.val.image_ids.tolist()), groups, strict=True))
    augmented = next((config for config in configs if config.augment != "none"), None)
    draw = partial(draw_augmented, data.train, augmented) if augmented is not None else None
    notes += test_notes(configs[0], data)
    return Prepared(record, [*notes, *notes_on(configs, torch.cuda.is_available())], {"crop_margin": margin}, draw)


def test_notes(config: Config, data: Data) -> list[str]:
    """What is kept for the very end. DataError where it cannot be used, see `read_test`."""
    if config.data.test is None:
        return []
    images = Path(config.data.test_images) if config.data.test_images is not None else None
    test = read_test(request_of(config.data), Path(config.data.test), images, data)
    return [f"test: {len(test)} objects in {len(test.image_files)} images, scored once, when the winner is known"]


def draw_augmented(train: Instances, config: Config, folder: Path) -> None:
    """Some training samples at every strength of the config's augmentation, as augmented.png in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_augmented(folder / "augmented.png", train, config.imgsz, config.augment, own_ranges(config))


def check_beginnings(configs: list[Config]) -> None:
    """Raise ConfigError when a config's `weights` cannot be read or are of another network, or when ImageNet weights
    that it asks for cannot be had: those are in the cache afterwards."""
    for config in {_beginning(config): config for config in configs}.values():
        settings = network_settings(config)
        if config.weights is not None:
            with torch.device("meta"):  # the shapes say enough
                network = build_model(config.model, 1, config.imgsz, **settings)
            check_start(network, Path(config.weights), config.weights_skeleton)
        if config.pretrained:
            build_model(config.model, 1, config.imgsz, pretrained=True, **settings)


def _beginning(config: Config) -> tuple[Any, ...]:
    """Equal for two configs that start from the same weights in the same backbone."""
    own = network_settings(config).items()
    return config.weights, config.weights_skeleton, config.pretrained, config.model, *own


def build(config: Config) -> "TopDown":
    """The task of one training. Raises DataError or ConfigError for what the user can put right."""
    data = load(config)
    margin = config.crop_margin or margin_for(widest(augmentations(config)), config.imgsz)
    train_crops, val_crops = open_stores(data, config.imgsz, margin, config.cache_gb)
    used = Part.of(train_crops, in_share(data.train, config.train_share, config.data.group_by))
    unread = np.unique(data.val.image_index[scored_rows(data.val)][~val_crops.usable])
    return TopDown(
        config=config,
        train=training_samples(config, used, data.train),
        val=TopDownSamples(val_crops, scorable(data.val), config.imgsz, None, config.seed),
        truth=data.val.take(~np.isin(data.val.image_index, unread)),  # an image left out is no miss
        codec=codec(config),
    )


def build_on(config: Config, annotations: Path, images: Path | None, skeleton: Skeleton | None = None) -> "TopDown":
    """The task with the objects of another annotation file to validate on; nothing of the training data is read.

    `skeleton` is what the network was trained on; None: the config's, else the file's. Raises DataError or ConfigError
    for what the user can put right.
    """
    request = DataRequest(annotations, images=images, **config.data.model_dump(include={"box_margin", "categories"}))
    if skeleton is None and config.data.skeleton is not None:
        skeleton = load_skeleton(config.data.skeleton)
    truth = read_annotations(annotations, request, skeleton)
    crops = open_crops(scorable(truth), CropSpec(*config.imgsz), default_cache(), cache_gb=config.cache_gb)
    samples = TopDownSamples(crops, scorable(truth), config.imgsz)
    return TopDown(config, train=samples, val=samples, truth=truth, codec=codec(config))


@dataclass
class TopDown:
    """Crops of single objects -> keypoints in image pixels, scored by COCO keypoint AP over the validation images."""

    config: Config
    train: Dataset
    val: TopDownSamples
    truth: Instances
    codec: Codec

    def datasets(self) -> tuple[Dataset, Dataset]:
        """Augmented training crops and plain validation crops."""
        return self.train, self.val

    def model(self) -> nn.Module:
        """Backbone and head for the codec's outputs."""
        return build_network(self.config, len(self.truth.skeleton.keypoints))

    def companions(self) -> dict[str, str]:
        """The skeleton: without the data, nothing else names the keypoints that the weights were trained on."""
        return {SKELETON_FILE: skeleton_text(self.truth.skeleton)}

    def start(self, model: nn.Module) -> str:
        """Put `weights` into a new network; returns a line that says what became of them."""
        assert self.config.weights is not None
        keypoints = self.truth.skeleton.keypoints
        return start_from(model, Path(self.config.weights), keypoints, self.config.weights_skeleton).summary()

    def loss(self, model: nn.Module, batch: Batch) -> LossParts:
        """The config's losses between the network's outputs and the keypoints; unlabelled keypoints weigh nothing."""
        outputs = model(normalise(batch["image"]))
        points, visibility = batch["keypoints"], batch["visibility"]
        targets = self.codec.encode(points, visibility > 0)
        per_keypoint = self.keypoint_weights.to(visibility.device)
        weights = targets.weights * importance(visibility, self.config.hidden_weight, per_keypoint)
        balance = balance_of(model) if self.config.loss_balance == "learned" else None
        return self.loss_sum(Answer(self.codec, outputs, targets.values, points, weights), balance)

    def predict(self, model: nn.Module, batch: Batch) -> dict[int, np.ndarray]:
        """Annotation id -> [K, 3]: x, y in image pixels, score."""
        mirrored = self.flip_index if self.config.flip_test else None
        rows = answers(model, self.codec, batch, mirrored)
        return dict(zip(batch["id"].tolist(), rows, strict=True))

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """AP and keypoint errors of one prediction per validation object. DivergedError when one is not finite."""
        assert predictions.keys() == set(self.val.ids.tolist()), "not exactly one prediction per validation object"
        rows = np.stack([predictions[int(i)] for i in self.val.ids])
        if not np.isfinite(rows).all():
            raise DivergedError("diverged: the network's predictions are not finite numbers")
        return score_predictions(self.truth, self.val.ids, rows)

    @cached_property
    def loss_sum(self) -> LossSum:
        """The losses that the config names, added up."""
        assert self.config.loss is not None, "filled in by the config"
        return LossSum(read_loss(self.config.loss), self.config.model_dump(include=set(SETTINGS)))

    @cached_property
    def keypoint_weights(self) -> Tensor:
        """How much each keypoint counts in the loss."""
        return torch.tensor(weights_by_name(self.config.keypoint_weights, self.truth.skeleton.keypoints))

    @cached_property
    def flip_index(self) -> Tensor:
        """Label of each keypoint in the mirrored image."""
        return torch.from_numpy(self.truth.skeleton.flip_index)


def build_network(config: Config, num_keypoints: int) -> nn.Module:
    """The network of a config, its weights new, or ImageNet's where the config says `pretrained`."""
    network = build_model(num_keypoints=num_keypoints, pretrained=config.pretrained, **network_arguments(config))
    if config.loss_balance == "learned":
        assert config.loss is not None, "filled in by the config"
        add_balance(network, len(read_loss(config.loss)))
    return network


def answers(
    model: nn.Module, codec: Codec, batch: Batch, flip_index: Int[Tensor, "K"] | None
) -> Float[np.ndarray, "B K 3"]:
    """x, y in image pixels and score of each keypoint, for the "image" and "to_image" of a batch.

    With `flip_index` the flip test: the mean of the outputs for the image and for its mirror image."""
    images = normalise(batch["image"])
    outputs = model(images)
    if flip_index is not None:
        mirrored = codec.flip(model(images.flip(3)), flip_index.to(images.device))
        outputs = average(outputs, mirrored)
    points, scores = codec.decode(outputs)
    in_image = to_image(points.double(), batch["to_image"])
    return torch.cat([in_image, scores.double()[..., None]], dim=-1).cpu().numpy()


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
    data = read_once(config.data.model_dump_json(), default_cache(), versions_of(config.data))
    weights_by_name(config.keypoint_weights, data.train.skeleton.keypoints)
    if config.limit is None:
        return data
    cut = slice(config.limit)
    return replace(
        data, train=data.train.take(np.arange(len(data.train))[cut]), val=data.val.take(scored_rows(data.val)[cut])
    )


def versions_of(data: DataSpec) -> tuple[int, ...]:
    """Differs when the files that the data are read from may have changed. What lies in folders is not followed: a
    number never given before, so they are read anew."""
    files = [Path(file) for file in (data.train, data.val, data.skeleton) if file is not None and Path(file).exists()]
    if any(file.is_dir() or file.suffix in (".yaml", ".yml", ".xml") for file in files if str(file) != data.skeleton):
        return (time.monotonic_ns(),)
    return tuple(file.stat().st_mtime_ns for file in files)


@lru_cache(maxsize=2)
def read_once(spec: str, cache: Path, versions: tuple[int, ...]) -> Data:
    """The data of a DataSpec in JSON. A reused worker trains many trials on the same data; reading them takes half a
    second for a thousand objects. `versions` of the annotation files tell when to read again."""
    return load_data(request_of(DataSpec.model_validate_json(spec)), cache)


def request_of(data: DataSpec) -> DataRequest:
    """What is trained on and validated with; nothing that trains or chooses reads the test split."""
    values = data.model_dump(exclude={"test", "test_images"}, exclude_none=True)
    if data.synthetic is not None:
        values["synthetic"] = SyntheticRequest(**values["synthetic"])
    for name in {"train", "val", "images", "val_images"} & values.keys():
        values[name] = Path(values[name])
    return DataRequest(**values)


def open_stores(
    data: Data,
    imgsz: tuple[int, int],
    margin: tuple[float, float],
    cache_gb: float | None = None,
    progress: Progress | None = None,
) -> tuple[Crops, Crops]:
    """The crop stores of training (with room for augmentation) and validation (exactly the input)."""
    train = open_crops(data.train, CropSpec(*imgsz, *margin), default_cache(), progress, cache_gb=cache_gb)
    return train, open_crops(scorable(data.val), CropSpec(*imgsz), default_cache(), progress, cache_gb=cache_gb)


def scored_rows(instances: Instances) -> Int[np.ndarray, "n"]:
    """Rows of the objects a top-down model is asked about: no crowds, at least one labelled keypoint."""
    return np.flatnonzero(instances.labelled & ~instances.crowd)


def scorable(instances: Instances) -> Instances:
    """The objects a top-down model is asked about; the others still take part in AP, as ignored truth."""
    return instances.take(scored_rows(instances))


def augmentations(config: Config) -> list[Augmentation]:
    """How far this config's training samples are changed, and, where those differ, how far in its last epochs."""
    stages = [preset(config.augment, config.aug_strength or 0.0, own_ranges(config))]
    if config.final_augment != "same":
        stages.append(preset(config.final_augment, config.final_aug_strength or 0.0))
    return stages


def check_halves(config: Config, skeleton: Skeleton) -> None:
    """ConfigError where halves of bodies are asked for and `skeleton` has none; a preset's are left out of it."""
    if config.aug_half_body and not skeleton.upper_body:
        text = f"aug_half_body: skeleton '{skeleton.name}' names no upper_body; add that list to its file"
        raise ConfigError(f"{text}, or take it out")


def training_samples(config: Config, pictures: Pictures, instances: Instances) -> Dataset:
    """The training set, augmented as the config says."""
    stages = [TopDownSamples(pictures, instances, config.imgsz, stage, config.seed) for stage in augmentations(config)]
    if config.final_epochs is None:
        return stages[0]
    return TwoStages(stages[0], stages[1], config.epochs - config.final_epochs)


class TwoStages:
    """The samples of `first` until epoch `change` (from 0), then those of `last`: RTMPose ends on weaker augmentation,
    so that the network's last steps are on pictures like those it will see."""

    def __init__(self, first: TopDownSamples, last: TopDownSamples, change: int) -> None:
        self.first, self.last, self.change = first, last, change
        self.ids: Int[np.ndarray, "n"] = first.ids  # the same in both

    def __len__(self) -> int:
        return len(self.first)

    def batch(self, positions: Int[np.ndarray, "B"], epoch: int) -> Arrays:
        """The samples at `positions` as that epoch's stage has them; see `TopDownSamples.batch`."""
        return (self.first if epoch < self.change else self.last).batch(positions, epoch)


def codec(config: Config) -> Codec:
    """How this config writes keypoints for the network and reads them back."""
    assert config.sigma is not None, "filled in by the config"
    if config.codec == "simcc":
        assert config.simcc_split is not None
        assert config.simcc_beta is not None
        sigmas = (config.sigma_x or config.sigma, config.sigma)
        return SimCCCodec(config.imgsz, sigmas, config.simcc_split, config.simcc_beta)
    assert config.loss is not None
    return HeatmapCodec(
        config.imgsz,
        config.sigma,
        udp=bool(config.udp),
        dark=bool(config.dark),
        blur_kernel=config.blur_kernel or DARK_KERNEL,
        sigmoid="focal" in read_loss(config.loss),
    )


def object_score(keypoint_scores: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "n"]:
    """The mean of an object's keypoint scores above 0.2, 0 when there is none (mmpose)."""
    counted = keypoint_scores > KEYPOINT_SCORE_COUNTS_ABOVE
    return np.where(counted, keypoint_scores, 0.0).sum(1) / np.maximum(counted.sum(1), 1)


def score_predictions(truth: Instances, ids: Int[np.ndarray, "n"], rows: Float[np.ndarray, "n K 3"]) -> Score:
    """COCO keypoint AP over all of `truth`, and keypoint errors of the objects `ids`, one prediction (x, y, score per
    keypoint, image pixels) for each.

    An object's score is `object_score`: its box, being annotated, scores 1.
    """
    position = {int(i): row for row, i in enumerate(truth.ids)}
    own = truth.take(np.array([position[int(i)] for i in ids]))
    points, scores = rows[..., :2], rows[..., 2]
    object_scores = object_score(scores)
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
