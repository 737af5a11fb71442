"""The blocks of a sweep file, and what each of them may hold."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from posesweep.errors import did_you_mean
from posesweep.search_spaces.parameters import Parameter

# what a trial reports, and whether more of it is better
METRICS: dict[str, Literal["maximize", "minimize"]] = {
    **dict.fromkeys(("val/AP", "val/AP50", "val/AP75", "val/APm", "val/APl", "val/AR", "val/PCK"), "maximize"),
    **dict.fromkeys(("val/NME", "val/RMSE_px", "loss"), "minimize"),
}


def sentence(text: str) -> PydanticCustomError:
    """An error of a validator whose text is shown to the user as it is."""
    return PydanticCustomError("sentence", "{text}", {"text": text})


class Block(BaseModel):
    """A block of the sweep file: it never changes and knows every key it may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SyntheticData(Block):
    """Rendered horses instead of files."""

    train: int = Field(ge=1, description="how many images to train on")
    val: int = Field(ge=1, description="how many images to validate on")
    seed: int = Field(0, ge=0)
    width: int = Field(ge=32, description="of the image, in pixels")
    height: int = Field(ge=32, description="of the image, in pixels")


class DataSpec(Block):
    """Where the annotations and images are and how they are split; either `train` or `synthetic` is given."""

    train: str | None = None
    val: str | None = None
    images: str | None = None
    skeleton: str | None = None
    group_by: str | None = Field(None, description="a regular expression with one group, on the image's file name")
    val_fraction: float = Field(0.2, gt=0, lt=1)
    split_seed: int = Field(0, ge=0)
    categories: list[str] | None = None
    box_margin: float = Field(0.0, ge=0, description="a share added around the keypoints where a format has no boxes")
    synthetic: SyntheticData | None = None
    split_hash: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.train is not None and self.synthetic is not None:
            raise sentence("has train and synthetic; keep one of them")
        if self.train is None and self.synthetic is None:
            raise sentence("needs train: the file of annotations (COCO .json or DeepLabCut .csv)")
        return self


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
            raise sentence(f"no trial reports '{name}'{did_you_mean(name, METRICS)}")
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
    trials: int = Field(60, ge=1)
    startup_trials: int = Field(10, ge=0, description="drawn at random before tpe begins to choose")
    seed: int = Field(0, ge=0)

    @field_validator("method", mode="before")
    @classmethod
    def _is_built(cls, method: Any) -> Any:
        if method in ("cmaes", "nsga2"):
            raise sentence(f"{method} is not built yet; use tpe")
        if method == "bayes":  # W&B's name
            raise sentence("'bayes' is called tpe here; write method: tpe")
        return method


class EarlyTerminate(Block):
    """When a trial that does worse than the others is stopped."""

    type: Literal["asha", "hyperband", "median", "none"] = "asha"
    min_epochs: int = Field(1, ge=1, description="no trial is stopped before")
    eta: int = Field(3, ge=2, description="one trial in eta goes on from each rung")
    startup_trials: int = Field(5, ge=0, description="median: finished before any trial is stopped")


class Resources(Block):
    """What one trial takes, and how many run at once."""

    workers_per_trial: int = Field(1, ge=1, description="processes of one trial, each with its own model (DDP)")
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    cpus_per_worker: int = Field(1, ge=1)
    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="trials at once")

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, gpus: float | str) -> float | str:
        if isinstance(gpus, float) and gpus > 1 and gpus != int(gpus):
            raise sentence(f"{gpus} must be a whole number when it is above 1")
        return gpus


class Failure(Block):
    """What happens to a trial whose process dies."""

    max_retries: int = Field(2, ge=0)


class Keep(Block):
    """Whose weights stay on disk."""

    checkpoints_of_top: int = Field(3, ge=1)


class Sweep(Block):
    """A whole sweep file, every value filled in.

    `baseline` and `try_first` are complete choices of the used parameters. `text` is what the user wrote, with overrides
    applied; `notes` are sentences the user should see before the sweep starts.
    """

    name: str
    task: str = "topdown"
    data: DataSpec
    metric: Metric = Metric()
    fixed: dict[str, Any] = {}
    parameters: dict[str, Parameter] = {}
    baseline: dict[str, Any] = {}
    try_first: tuple[dict[str, Any], ...] = ()
    warm_start: None = None
    search: Search = Search()
    early_terminate: EarlyTerminate = EarlyTerminate()
    confirm: None = None
    budget: None = None
    resources: Resources = Resources()
    failure: Failure = Failure()
    keep: Keep = Keep()
    text: str = ""
    notes: tuple[str, ...] = ()


BLOCKS: dict[str, type[Block]] = {
    "data": DataSpec,
    "metric": Metric,
    "search": Search,
    "early_terminate": EarlyTerminate,
    "resources": Resources,
    "failure": Failure,
    "keep": Keep,
}
NOT_BUILT = ("warm_start", "confirm", "budget")
FILE_KEYS = tuple(name for name in Sweep.model_fields if name not in ("text", "notes"))
LONG_KEYS = {field: f"{block}.{field}" for block, model in reversed(BLOCKS.items()) for field in model.model_fields}
