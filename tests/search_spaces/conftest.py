"""A training's settings, as small as they can be: what read_sweep asks about."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posesweep.errors import ConfigError, did_you_mean
from posesweep.search_spaces.mistakes import Mistake, mistakes_of
from posesweep.search_spaces.space import Sweep, read_sweep


class Settings(BaseModel):
    """The settings of a training that knows no more than these tests need."""

    model_config = ConfigDict(extra="forbid")

    model: str = "small"
    imgsz: tuple[int, int] = (192, 256)
    codec: Literal["heatmap", "simcc"] = "heatmap"
    sigma: float | None = Field(None, gt=0, description="heatmap cells")
    dark: bool | None = None
    epochs: int = Field(60, ge=1)
    batch: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)
    lr0: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    freeze: int = Field(0, ge=0)
    warmup: float = Field(1.0, ge=0)
    ema: float | None = Field(None, gt=0, lt=1)
    amp: bool | Literal["bf16", "fp16"] = False
    augment: Literal["none", "light", "medium", "aggressive"] = "medium"
    aug_strength: float = Field(0.5, ge=0, le=1)


def known(task: str) -> dict[str, Any]:
    if task != "topdown":
        raise ConfigError(f"task: there is no task '{task}'{did_you_mean(task, ['topdown'])}")
    return {name: field.default for name, field in Settings.model_fields.items()}


def check(task: str, values: dict[str, Any]) -> list[Mistake]:
    mistakes = []
    if values.get("codec") == "simcc" and values.get("sigma") is not None:
        mistakes.append(Mistake("sigma", "codec: simcc does not use it; take it out, or add when: {codec: heatmap}"))
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        return mistakes + mistakes_of(error, Settings)
    if settings.batch % settings.accumulate:
        mistakes.append(Mistake("accumulate", f"{settings.accumulate} does not divide batch: {settings.batch}"))
    return mistakes


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Sweep]:
    """read(text, *overrides): the sweep of a file 'sweep.yaml', checked as a real one is."""

    def read_text(text: str, *overrides: str) -> Sweep:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return read_sweep(path, overrides, check, known)

    return read_text


@pytest.fixture
def wrong(read: Callable[..., Sweep]) -> Callable[..., list[str]]:
    """wrong(text, *overrides): what the user reads, line by line."""

    def read_text(text: str, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, *overrides)
        return caught.value.mistakes

    return read_text
