"""Everything one training needs, and nothing it does not know."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from posesweep.search_spaces.schema import Block, DataSpec, Metric, sentence

Settings = Mapping[str, Mapping[str, Any]]  # an option's value -> the settings that exist only with it, and defaults

Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0)]
WARMUP = {"warmup": 1.0, "warmup_steps": None, "warmup_start": None}  # one epoch, unless `warmup_steps` says otherwise


class TrialConfig(Block):
    """One training, whatever the task; a task adds its own fields (`tasks/<name>.py: Config`).

    Frozen. An unknown key is refused, and so is a setting that the chosen optimizer or schedule does not use: nothing
    is ignored. Settings left out are filled in, so a dumped config is the full effective one.
    """

    CHOICES: ClassVar[Mapping[str, Settings]] = {
        "optimizer": {  # every default is that of torch's or timm's class
            "adamw": {"betas": (0.9, 0.999), "eps": 1e-8},
            "adam": {"betas": (0.9, 0.999), "eps": 1e-8},
            "sgd": {"momentum": 0.9, "nesterov": True},
            "nadamw": {"betas": (0.9, 0.999), "eps": 1e-8},
            "lion": {"betas": (0.9, 0.99)},
            "lamb": {"betas": (0.9, 0.999), "eps": 1e-6},
            "adan": {"betas": (0.98, 0.92, 0.99), "eps": 1e-8},
        },
        "schedule": {
            "cosine": {**WARMUP, "final_lr": 0.01},
            "flat_cosine": {**WARMUP, "flat": 0.5, "final_lr": 0.05},  # RTMPose
            "cosine_restarts": {**WARMUP, "cycle_epochs": 10.0, "cycle_mult": 2.0, "final_lr": 0.01},
            "multistep": {
                **WARMUP,
                "milestones": (0.81, 0.952),
                "lr_drop": 0.1,
            },  # epochs 170, 200 of 210: mmpose's HRNet
            "one_cycle": {"pct_start": 0.3, "div_factor": 25.0, "final_div": 1e4},  # torch's OneCycleLR
            "constant": WARMUP,
        },
        "lr_scaling": {"none": {}, "linear": {"lr_batch": 32}, "sqrt": {"lr_batch": 32}},
    }
    # a setting -> the settings that exist only when it is set (not null), and their defaults
    BELONGING: ClassVar[Settings] = {"patience": {"patience_smooth": 3, "min_delta": 0.0}}

    task: str = "topdown"
    data: DataSpec
    metric: Metric = Metric()

    model: str = "small"
    pretrained: bool = False
    weights: str | None = Field(None, description="a checkpoint to start from: ours, OpenMMLab's or timm's")
    freeze: int = Field(0, ge=0, description="how many of the network's layers, from the input, stay as they are")

    epochs: int = Field(60, ge=1)
    batch: int = Field(32, ge=1, description="samples per optimizer step, over all workers and accumulation steps")
    accumulate: int = Field(1, ge=1, description="forward passes per optimizer step")
    optimizer: Literal["adamw", "adam", "sgd", "nadamw", "lion", "lamb", "adan"] = "adamw"
    lr0: float = Field(5e-4, gt=0)
    lr_scaling: Literal["none", "linear", "sqrt"] = Field("none", description="how the lr grows with batch / lr_batch")
    lr_batch: int | None = Field(None, ge=1, description="the batch that lr0 is meant for")
    betas: tuple[Beta, ...] | None = Field(
        None, description="decay of the optimizer's running averages; adan has three"
    )
    eps: float | None = Field(None, gt=0, description="added to the optimizer's denominator")
    momentum: float | None = Field(None, ge=0, lt=1)
    nesterov: bool | None = None
    weight_decay: float = Field(0.0, ge=0)
    decay_norm_bias: bool = Field(False, description="weight decay on norms and biases too")
    head_lr_mult: float = Field(1.0, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    lr_mult: dict[str, Share] = Field({}, description="layer name -> factor on its lr; 0.0 leaves it as it is")
    schedule: Literal["cosine", "flat_cosine", "cosine_restarts", "multistep", "one_cycle", "constant"] = "cosine"
    warmup: float | None = Field(1.0, ge=0, description="epochs of linear warm-up")
    warmup_steps: int | None = Field(None, ge=0, description="optimizer steps of linear warm-up, in place of warmup")
    warmup_start: float | None = Field(None, ge=0, le=1, description="the lr of the first step, as a share of lr0")
    final_lr: float | None = Field(None, ge=0, le=1, description="the lowest lr, as a share of lr0")
    flat: float | None = Field(None, ge=0, lt=1, description="how long the lr stays, as a share of the epochs")
    cycle_epochs: float | None = Field(None, gt=0, description="epochs of the first cosine")
    cycle_mult: float | None = Field(None, ge=1, description="how much longer each cosine is than the one before")
    pct_start: float | None = Field(None, gt=0, lt=1, description="how long the lr rises, as a share of the epochs")
    div_factor: float | None = Field(None, ge=1, description="the lr begins at lr0 divided by this")
    final_div: float | None = Field(None, ge=1, description="the lr ends at its beginning divided by this")
    milestones: tuple[float, ...] | None = Field(None, description="where the lr drops, as shares of the epochs")
    lr_drop: float | None = Field(None, gt=0, lt=1)
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights")
    amp: bool | Literal["bf16", "fp16"] = False
    channels_last: bool = True
    sync_bn: bool = Field(True, description="batch-norm statistics over all workers of the trial")
    workers: int = Field(1, ge=1, description="processes of the trial; batch is shared among them")
    threads: int = Field(1, ge=1, description="CPU threads of a worker; equal results bit for bit need equal threads")
    compile: bool = Field(False, description="torch.compile the training steps; meant for GPUs")
    grad_checkpoint: bool = Field(False, description="recompute activations in the backward pass: slower, less memory")
    val_every: int = Field(1, ge=1)
    patience: int | None = Field(None, ge=1, description="validations without improvement before the training ends")
    patience_smooth: int | None = Field(None, ge=1, description="the metric is the median of so many validations")
    min_delta: float | None = Field(None, ge=0, description="what counts as an improvement of the metric")
    keep_best: int = Field(1, ge=1, description="weights of so many best epochs are kept; above 1 also in top/")
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
    def _one_warmup(self) -> "TrialConfig":
        if self.warmup is not None and self.warmup_steps is not None:
            both = f"warmup: {self.warmup:g} (epochs) and warmup_steps: {self.warmup_steps}"
            raise sentence(f"{both} both say how long the warm-up is; take one out")
        return self

    @model_validator(mode="after")
    def _compiled_or_recomputed(self) -> "TrialConfig":
        if self.compile and self.grad_checkpoint:
            raise sentence("compile: true and grad_checkpoint: true do not work together in torch; take one out")
        return self

    @model_validator(mode="after")
    def _betas_of_the_optimizer(self) -> "TrialConfig":
        usual = self.CHOICES["optimizer"][self.optimizer].get("betas")
        if self.betas is not None and usual is not None and len(self.betas) != len(usual):
            found = f"betas: {len(self.betas)} numbers, but {self.optimizer} has {len(usual)}"
            raise sentence(f"{found}; try {list(usual)}")
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrialConfig":
        parts = self.workers * self.accumulate
        if self.batch % parts:
            shared = f"{self.workers} workers x {self.accumulate} accumulation steps"
            near = max(parts, round(self.batch / parts) * parts)
            raise sentence(f"batch: {self.batch} cannot be shared by {shared}; try {near}")
        return self

    @property
    def lr(self) -> float:
        """The learning rate before schedule and layers: lr0, times batch / lr_batch (linear: Goyal et al. 2017,
        arXiv:1706.02677, section 2.1, for SGD) or its root (sqrt: Malladi et al. 2022, arXiv:2205.10287, for Adam).

        The number of workers does not enter: `batch` is that of all of them together.
        """
        if self.lr_batch is None:
            return self.lr0
        ratio = self.batch / self.lr_batch
        return self.lr0 * (ratio if self.lr_scaling == "linear" else math.sqrt(ratio))

    @property
    def batch_per_forward(self) -> int:
        """Samples in one forward pass of one worker."""
        return self.batch // (self.workers * self.accumulate)


def settings_of_choices(cls: type[TrialConfig], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the settings which belong to the chosen options and are not given; null for those of others."""
    filled: dict[str, Any] = {}
    for option, settings in cls.CHOICES.items():
        chosen = settings.get(chosen_option(cls, option, given), {})
        every = {name: None for names in settings.values() for name in names}
        filled |= {name: default for name, default in {**every, **chosen}.items() if given.get(name) is None}
    for setting, names in cls.BELONGING.items():
        is_set = given.get(setting) is not None
        filled |= {name: default for name, default in names.items() if is_set and given.get(name) is None}
    if given.get("warmup_steps") is not None and "warmup" in filled:
        filled["warmup"] = None  # its default gives way
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
    for setting, names in cls.BELONGING.items():
        if given.get(setting) is None:
            text = f"is used together with {setting} only; take it out, or set {setting}"
            unused |= {name: text for name in names if given.get(name) is not None}
    return unused


def notes_on(configs: Iterable[TrialConfig], on_gpu: bool) -> list[str]:
    """What a sweep of these configs should know before it starts, and what is no mistake."""
    if on_gpu or not any(config.compile for config in configs):
        return []
    return ["compile: true takes 30 to 230 s at the start of a trial on a CPU and gains nothing; it is meant for GPUs"]


def chosen_option(cls: type[TrialConfig], option: str, given: Mapping[str, Any]) -> Any:
    """The value of an option: the one given, else the field's default; None for one that is no name at all."""
    chosen = given.get(option, cls.model_fields[option].default)
    return chosen if isinstance(chosen, str) else None
