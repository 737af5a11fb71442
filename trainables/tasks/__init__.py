"""One file per task; each has a `Config`, `mistakes`, `build_network`, `prepare`, `build` ...: see TaskModule.

A new task is a new file here: its name is the file's name.
"""

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import ValidationError
from torch import nn

from posesweep.errors import ConfigError, did_you_mean
from posesweep.search_spaces.mistakes import Mistake, mistakes_of
from posesweep.trainables.config import TrialConfig, unused_settings
from posesweep.trainables.task import Prepared, Task


@runtime_checkable
class TaskModule(Protocol):
    """What a file in this folder offers."""

    Config: type[TrialConfig]

    def mistakes(self, config: Any) -> list[Mistake]:
        """What is wrong with a config whose fields are each right: names and numbers that do not go together."""
        ...

    def network_arguments(self, config: Any) -> dict[str, Any]:
        """All that the network depends on, but the number of keypoints and its weights."""
        ...

    def build_network(self, config: Any, num_keypoints: int) -> nn.Module:
        """The network alone, for images float32 [batch, 3, H, W]; no data are read."""
        ...

    def prepare(self, configs: list[Any]) -> Prepared:
        """Check the data and make what trials share, once, before the first."""
        ...

    def build_on(self, config: Any, annotations: Path, images: Path | None) -> Task:
        """The task with another annotation file to validate on."""
        ...

    def build(self, config: Any) -> Task:
        """The task, ready to train."""
        ...


def task_names() -> list[str]:
    """Every task there is."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_task(name: str) -> TaskModule:
    """The task's module; ConfigError with the nearest name when there is none."""
    if name not in task_names():
        raise ConfigError(f"task: there is no task '{name}'{did_you_mean(name, task_names())}")
    return cast(TaskModule, import_module(f"{__name__}.{name}"))


def defaults_of(task: str) -> dict[str, Any]:
    """The settings a sweep may fix or search -> their defaults."""
    fields = find_task(task).Config.model_fields
    own_blocks = {"task", "data", "metric", "workers", "threads"}  # said elsewhere in the sweep file
    return {name: field.default for name, field in fields.items() if name not in own_blocks}


def check_values(task: str, values: dict[str, Any]) -> list[Mistake]:
    """Every mistake in one full set of settings."""
    module = find_task(task)
    found = [Mistake(key, text) for key, text in unused_settings(module.Config, values).items()]
    given = {name: value for name, value in values.items() if name not in {mistake.key for mistake in found}}
    sound = {"task": task, "data": {"train": "-"}, **given}
    try:
        config = module.Config.model_validate(sound)
    except ValidationError as error:
        found += mistakes_of(error, module.Config)
        broken = {mistake.key.partition(".")[0] for mistake in found}
        if "" in broken:  # of several settings together: there is no config without it
            return found
        try:
            config = module.Config.model_validate({name: value for name, value in sound.items() if name not in broken})
        except ValidationError:
            return found  # the rest does not go with the defaults of what is broken
    return found + module.mistakes(config)


def make_config(values: dict[str, Any]) -> TrialConfig:
    """The config of one training; ConfigError with every mistake."""
    task = str(values.get("task", "topdown"))
    found = check_values(task, values)
    if found:
        raise ConfigError([f"{mistake.key}: {mistake.text}" if mistake.key else mistake.text for mistake in found])
    model = find_task(task).Config
    try:
        return model.model_validate(values)
    except ValidationError as error:  # of what a sweep file says elsewhere, such as the data
        raise ConfigError([f"{mistake.key}: {mistake.text}" for mistake in mistakes_of(error, model)]) from None


def build_task(config: TrialConfig) -> Task:
    """The task a config asks for, ready to train."""
    return find_task(config.task).build(config)
