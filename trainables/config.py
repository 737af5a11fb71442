"""Everything one training needs, and nothing it does not know."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from posesweep.search_spaces.schema import Block, DataSpec, Metric, sentence

Settings = Mapping[str, Mapping[str, Any]]  # an option's value -> the settings that exist only with it, and defaults


class TrialConfig(Block):
    """One training, whatever the task; a task adds its own fields (`tasks/<name>.py: Config`).

    Frozen. An unknown key is refused, and so is a setting that the chosen optimizer or schedule does not use: nothing
    is ignored. Settings left out are filled in, so a dumped config is the full effective one.
    """

    CHOICES: ClassVar[Mapping[str, Settings]] = {
        "optimizer": {
            "adam": {},
            "adamw": {},
            "sgd": {"momentum": 0.9, "nesterov": True},
        },
        "schedule": {
            "cosine": {"final_lr": 0.01},
            "multistep": {"milestones": (0.81, 0.952), "lr_drop": 0.1},  # epochs 170 and 200 of 210, mmpose's HRNet
        },
    }

    task: str = "topdown"
    data: DataSpec
    metric: Metric = Metric()

    model: str = "small"
    pretrained: bool = False
    weights: str | None = Field(None, description="a weights.safetensors file to start from")
    freeze: int = Field(0, ge=0, description="how many of the network's layers, from the input, stay as they are")

    epochs: int = Field(60, ge=1)
    batch: int = Field(32, ge=1, description="samples per optimizer step, over all workers and accumulation steps")
    accumulate: int = Field(1, ge=1, description="forward passes per optimizer step")
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr0: float = Field(5e-4, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    nesterov: bool | None = None
    weight_decay: float = Field(0.0, ge=0)
    head_lr_mult: float = Field(1.0, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    schedule: Literal["cosine", "multistep"] = "cosine"
    warmup: float = Field(1.0, ge=0, description="epochs of linear warm-up")
    final_lr: float | None = Field(None, ge=0, le=1, description="the lr of the last step, as a share of lr0")
    milestones: tuple[float, ...] | None = Field(None, description="where the lr drops, as shares of the epochs")
    lr_drop: float | None = Field(None, gt=0, lt=1)
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights")
    amp: bool | Literal["bf16", "fp16"] = False
    channels_last: bool = True
    sync_bn: bool = Field(True, description="batch-norm statistics over all workers of the trial")
    workers: int = Field(1, ge=1, description="processes of the trial; batch is shared among them")
    threads: int = Field(1, ge=1, description="CPU threads of a worker; equal results bit for bit need equal threads")
    val_every: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return {**given, **settings_of_choices(cls, given)} if isinstance(given, dict) else given

    @field_validator("milestones")
    @classmethod
    def _rising_shares(cls, shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if shares is not None and (list(shares) != sorted(set(shares)) or not all(0 < s < 1 for s in shares)):
            raise sentence("must be rising shares of the epochs between 0 and 1; try [0.8, 0.95]")
        return shares

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrialConfig":
        parts = self.workers * self.accumulate
        if self.batch % parts:
            shared = f"{self.workers} workers x {self.accumulate} accumulation steps"
            near = max(parts, round(self.batch / parts) * parts)
            raise sentence(f"batch: {self.batch} cannot be shared by {shared}; try {near}")
        return self

    @property
    def batch_per_forward(self) -> int:
        """Samples in one forward pass of one worker."""
        return self.batch // (self.workers * self.accumulate)


def settings_of_choices(cls: type[TrialConfig], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the settings which belong to the chosen options and are not given."""
    filled: dict[str, Any] = {}
    for option, settings in cls.CHOICES.items():
        chosen = settings.get(chosen_option(cls, option, given), {})
        filled |= {name: default for name, default in chosen.items() if given.get(name) is None}
    return filled


def unused_settings(cls: type[TrialConfig], given: Mapping[str, Any]) -> dict[str, str]:
    """Given settings that the chosen options do not use -> the sentence that says so."""
    unused = {}
    for option, settings in cls.CHOICES.items():
        chosen = chosen_option(cls, option, given)
        if chosen not in settings:
            continue  # the field's own check names the options
        foreign = {name for names in settings.values() for name in names} - set(settings[chosen])
        for name in sorted(foreign):
            if given.get(name) is not None:
                owner = next(value for value, names in settings.items() if name in names)
                unused[name] = f"{option}: {chosen} does not use it; take it out, or add when: {{{option}: {owner}}}"
    return unused


def chosen_option(cls: type[TrialConfig], option: str, given: Mapping[str, Any]) -> Any:
    """The value of an option: the one given, else the field's default."""
    return given.get(option, cls.model_fields[option].default)
