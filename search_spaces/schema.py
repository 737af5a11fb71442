"""The blocks of a sweep file, and what each of them may hold."""

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from posesweep.search_spaces.mistakes import or_nearest, say
from posesweep.search_spaces.parameters import Parameter

# what a trial reports, and whether more of it is better
METRICS: dict[str, Literal["maximize", "minimize"]] = {
    **dict.fromkeys(("val/AP", "val/AP50", "val/AP75", "val/APm", "val/APl"), "maximize"),
    **dict.fromkeys(("val/AR", "val/PCK@0.05", "val/PCK@0.2"), "maximize"),
    **dict.fromkeys(("val/NME", "val/RMSE_px", "val/mean_error_px", "loss"), "minimize"),
}


def sentence(text: str) -> PydanticCustomError:
    """An error of a validator whose text is shown to the user as it is."""
    return PydanticCustomError("sentence", "{text}", {"text": text})


class Block(BaseModel):
    """A block of the sweep file: it never changes and knows every key it may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes true for 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and not {int, float}.isdisjoint({annotation, *get_args(annotation)}):
            raise sentence(f"{say(value)} must be a number")
        return value


class SyntheticData(Block):
    """Rendered horses instead of files."""

    train: int = Field(ge=1, description="how many images to train on")
    val: int = Field(ge=1, description="how many images to validate on")
    seed: int = Field(default=0, ge=0)
    width: int = Field(ge=32, description="of the image, in pixels")
    height: int = Field(ge=32, description="of the image, in pixels")


class DataSpec(Block):
    """Where the annotations and images are and how they are split; either `train` or `synthetic` is given."""

    train: str | None = None
    val: str | None = None
    images: str | None = None
    val_images: str | None = Field(default=None, description="the folder of the images of val, where it is another")
    skeleton: str | None = None
    group_by: str | None = Field(
        default=None,
        description="a regular expression with one group, on the image's file name; or a key of the images in the "
        "annotation file, such as video_id; or identity",
    )
    split: Literal["random", "stratified", "auto"] = Field(
        default="random",
        description="stratified: sizes, visibility and categories alike on both sides; "
        "auto: also near-duplicates and frames of one video on one side",
    )
    folds: int | None = Field(default=None, ge=2, description="validation is one of that many equal parts")
    fold: int = Field(default=0, ge=0, description="which one, from 0 on")
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    categories: list[str] | None = None
    box_margin: float = Field(
        default=0.25, ge=0, description="a share added around the keypoints where a format has no boxes"
    )
    synthetic: SyntheticData | None = None
    test: str | None = Field(
        default=None, description="annotations that nothing is chosen by; the winner is scored on them once, at the end"
    )
    test_images: str | None = Field(default=None, description="the folder of the images of test, where it is another")
    split_hash: str | None = None

    @field_validator("group_by")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise sentence(f"'{pattern}' is no regular expression: {error}") from None
        if groups != 1 and not re.fullmatch(r"[\w -]+", pattern):  # a plain word is a key of the annotation file
            raise sentence(f"'{pattern}' has {groups} groups in (..); mark the one part that names the group")
        return pattern

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.train is not None and self.synthetic is not None:
            raise sentence("has train and synthetic; keep one of them")
        if self.train is None and self.synthetic is None:
            raise sentence("needs train: the annotations (COCO, YOLO-pose, DeepLabCut, CSV, LabelMe, CVAT or SLEAP)")
        return self

    @model_validator(mode="after")
    def _images_of_val(self) -> Self:
        if self.val_images is not None and self.val is None:
            raise sentence("has val_images without val, whose images they are; give val, or take it out")
        if self.test_images is not None and self.test is None:
            raise sentence("has test_images without test, whose images they are; give test, or take it out")
        return self

    @model_validator(mode="after")
    def _splits_one_file(self) -> Self:
        asked = "folds" if self.folds is not None else "split" if self.split != "random" else None
        given = "val" if self.val is not None else "synthetic" if self.synthetic is not None else None
        if asked and given:
            raise sentence(f"has {asked}, and {given} that is not split; keep one of them")
        if self.fold >= (self.folds or 1):
            rule = f"fold must be below folds ({self.folds})" if self.folds else "has fold without folds; give both"
            raise sentence(rule)
        return self


def with_paths_from(folder: Path, data: DataSpec) -> DataSpec:
    """Every path absolute: of the current directory where it exists there, else of `folder`; skeleton names stay."""
    found = {}
    for name in ("train", "val", "test", "images", "val_images", "test_images", "skeleton"):
        value = getattr(data, name)
        if value is not None and (name != "skeleton" or value.endswith((".yaml", ".yml"))):
            found[name] = path_from(folder, value)
    return data.model_copy(update=found)


def path_from(folder: Path, value: str) -> str:
    """A path of a sweep file, absolute: of the current directory where it exists there, else of the file's `folder`."""
    path = Path(value).expanduser()
    return str((path if path.exists() else folder / path).absolute())


class Metric(Block):
    """What trials are compared by; `goal` follows from the name."""

    name: str = "val/AP"
    goal: Literal["maximize", "minimize"] = Field(
        default_factory=lambda data: METRICS.get(data.get("name"), "maximize")
    )

    @field_validator("name")
    @classmethod
    def _is_reported(cls, name: str) -> str:
        if name not in METRICS:
            raise sentence(f"no trial reports '{name}'{or_nearest(name, METRICS)}")
        return name

    @field_validator("goal")
    @classmethod
    def _is_the_better_way(cls, goal: str, info: ValidationInfo) -> str:
        name = info.data.get("name")
        if name is not None and goal != METRICS[name]:
            raise sentence(f"{name} is better when it is {_better(name)}; write {METRICS[name]}, or take goal out")
        return goal


def _better(name: str) -> str:
    return "larger" if METRICS[name] == "maximize" else "smaller"


class Search(Block):
    """How values are proposed; `trials` counts all of them, the baseline and try_first included."""

    method: Literal["tpe", "random", "grid"] = "tpe"
    trials: int = Field(default=60, ge=1)
    startup_trials: int = Field(default=10, ge=0, description="drawn at random before tpe begins to choose")
    seed: int = Field(default=0, ge=0)

    @field_validator("method", mode="before")
    @classmethod
    def _is_offered(cls, method: Any) -> Any:
        if method == "cmaes":
            raise sentence("cmaes searches numbers only, without when: and without stopped trials; use tpe")
        if method == "nsga2":
            raise sentence("nsga2 is for several metrics at once, and a sweep has one; use tpe")
        if method == "bayes":  # W&B's name
            raise sentence("'bayes' is called tpe here; write method: tpe")
        return method


class EarlyTerminate(Block):
    """When a trial that does worse than the others is stopped."""

    type: Literal["asha", "hyperband", "median", "none"] = "asha"
    min_epochs: int = Field(default=1, ge=1, description="no trial is stopped before")
    eta: int = Field(default=3, ge=2, description="one trial in eta goes on from each rung")
    startup_trials: int = Field(default=5, ge=0, description="median: finished before any trial is stopped")


class Resources(Block):
    """What one trial takes, and how many run at once."""

    # `batch` is that of all workers together, so lr0 needs no scaling with their number (with the batch: lr_scaling)
    workers_per_trial: int = Field(default=1, ge=1, description="processes of one trial, each with its own model (DDP)")
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(default="auto", description="0.5: a half")
    trials_per_gpu: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None, description="that share one GPU; auto: as many as its memory holds, measured on the baseline"
    )
    cpus_per_worker: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="trials at once; auto: as many as there is room for, also while nodes come and go"
    )
    placement: Literal["pack", "spread", "strict_pack", "strict_spread"] = Field(
        default="pack",
        description="of the workers of one trial: on few nodes or on many; strict: on one, or each alone",
    )

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, gpus: float | str) -> float | str:
        if isinstance(gpus, float) and gpus > 1 and gpus != int(gpus):
            raise sentence(f"{gpus} must be a whole number when it is above 1")
        return gpus

    @model_validator(mode="after")
    def _one_share(self) -> Self:
        if self.trials_per_gpu is not None and (self.gpus_per_worker != "auto" or self.workers_per_trial > 1):
            other = "gpus_per_worker" if self.gpus_per_worker != "auto" else "several workers_per_trial"
            raise sentence(f"has trials_per_gpu and {other}; keep one of them")
        return self


class Failure(Block):
    """What happens to a trial whose process dies or hangs."""

    max_retries: int = Field(default=2, ge=0)
    stall_minutes: float = Field(default=30, gt=0, description="a trial that reports no epoch for so long is ended")


class Wandb(Block):
    """Weights & Biases: every trial a run of the sweep's group."""

    project: str = Field(default="posesweep", min_length=1)
    entity: str | None = Field(default=None, description="the user or team; null: your own")
    mode: Literal["online", "offline"] | None = Field(default=None, description="null: as WANDB_MODE says, else online")
    tags: list[str] = []


class Mlflow(Block):
    """MLflow: every trial a run of the sweep's experiment."""

    uri: str | None = Field(default=None, description="of a server or store; null: mlflow.db in the sweep's folder")
    experiment: str | None = Field(default=None, description="null: the sweep's name")


class Track(Block):
    """Where trials are logged besides the sweep's folder. `track: wandb`, a list, or each with its own settings."""

    wandb: Wandb | None = None
    mlflow: Mlflow | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """A name, and `wandb: true` or `wandb:` with nothing behind it, ask for the usual settings."""
        if isinstance(given, str):
            given = [given]
        if isinstance(given, list):
            if not all(isinstance(one, str) or (isinstance(one, dict) and len(one) == 1) for one in given):
                raise sentence(f"{say(given)} must be names, such as [wandb, mlflow]")
            given = dict([(one, True) if isinstance(one, str) else next(iter(one.items())) for one in given])
        if not isinstance(given, dict):
            return given
        return {name: {} if value is None or value is True else value or None for name, value in given.items()}

    @property
    def names(self) -> list[str]:
        """Those that are asked for, which are also the names of their packages."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]


class Keep(Block):
    """Whose weights stay on disk, and how full it may become."""

    checkpoints_of_top: int = Field(default=3, ge=1)
    disk_floor_gb: float = Field(default=2, ge=0, description="left free on the disk of the sweep; below it stops")
    copy_to: str | None = Field(
        default=None,
        min_length=1,
        description="s3://bucket/runs, gs://bucket/runs or a folder, to which the sweep folder is copied as it grows; "
        "on a new machine the same command goes on from there",
    )
    copy_minutes: float = Field(default=5, gt=0, description="between two copyings: the most that a lost machine costs")


class Confirm(Block):
    """The best trials of the search and the baseline, trained again with other seeds and ranked by all of them."""

    top_k: int = Field(default=3, ge=1, description="how many of the best finished trials")
    seeds: int = Field(default=3, ge=1, description="trainings of each, with seeds that the search did not use")
    epochs: int | None = Field(default=None, ge=1, description="of each training; null: as in the search")

    @property
    def trainings(self) -> int:
        """The baseline's included; fewer when it is among the best."""
        return (self.top_k + 1) * self.seeds


class Budget(Block):
    """When no new trial is begun any more; counted over every run of the sweep, what confirm needs included."""

    hours: float | None = Field(default=None, gt=0, description="in which at least one trial was training")
    gpu_hours: float | None = Field(default=None, gt=0, description="GPUs held, summed over trials")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.hours is None and self.gpu_hours is None:
            raise sentence("needs hours or gpu_hours, such as {hours: 24}; or take it out")
        return self


class Sweep(Block):
    """A whole sweep file, every value filled in.

    `baseline` and `try_first` are complete choices of the used parameters. `text` is what the user wrote, with
    overrides applied; `notes` are sentences the user should see before the sweep starts.
    """

    name: str
    task: str = "topdown"
    data: DataSpec
    metric: Metric = Metric()
    fixed: dict[str, Any] = {}
    parameters: dict[str, Parameter] = {}
    baseline: dict[str, Any] = {}
    try_first: tuple[dict[str, Any], ...] = ()
    warm_start: tuple[str, ...] = ()  # folders of earlier sweeps
    search: Search = Search()
    early_terminate: EarlyTerminate = EarlyTerminate()
    confirm: Confirm | None = None
    budget: Budget | None = None
    resources: Resources = Resources()
    failure: Failure = Failure()
    keep: Keep = Keep()
    track: Track = Track()
    text: str = ""
    notes: tuple[str, ...] = ()


BLOCKS: dict[str, type[Block]] = {
    "data": DataSpec,
    "metric": Metric,
    "search": Search,
    "early_terminate": EarlyTerminate,
    "confirm": Confirm,
    "budget": Budget,
    "resources": Resources,
    "failure": Failure,
    "keep": Keep,
    "track": Track,
}
FILE_KEYS = tuple(name for name in Sweep.model_fields if name not in ("text", "notes"))
LONG_KEYS = {field: f"{block}.{field}" for block, model in reversed(BLOCKS.items()) for field in model.model_fields}


def text_fields(model: type[Block]) -> set[str]:
    """The fields of a block that hold text or a list of texts."""
    return {name for name, info in model.model_fields.items() if _is_text(info.annotation)}


def _is_text(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType, list):
        return any(map(_is_text, get_args(annotation)))
    return annotation is str
