"""A config on another machine, or in a moved folder: where its files are now, said before anything is read."""

from pathlib import Path
from typing import TypeVar

from posesweep.errors import ConfigError
from posesweep.search_spaces.schema import with_paths_from
from posesweep.trainables.config import TrialConfig

AnyConfig = TypeVar("AnyConfig", bound=TrialConfig)
SKELETON_FILE = "skeleton.yaml"  # beside the weights: whose keypoints they find


def placed(config: AnyConfig, folder: Path) -> AnyConfig:
    """The config with every path absolute: of the current directory where it exists there, else of `folder`, which
    holds the config's file. ConfigError, a line for each file or folder that is not there, naming the setting to give.
    """
    found = config.model_copy(update={"data": with_paths_from(folder, config.data)})
    if found.weights is not None and not Path(found.weights).exists() and (folder / found.weights).exists():
        found = found.model_copy(update={"weights": str((folder / found.weights).absolute())})
    missing = _missing(found, folder)
    if missing:
        raise ConfigError(missing)
    return found


def _missing(config: TrialConfig, folder: Path) -> list[str]:
    named = {f"data.{name}": getattr(config.data, name) for name in ("train", "val", "images", "val_images")}
    if config.data.skeleton is not None and config.data.skeleton.endswith((".yaml", ".yml")):
        named["data.skeleton"] = config.data.skeleton
    named["weights"] = config.weights
    lines = []
    for setting, path in named.items():
        if path is None or Path(path).exists():
            continue
        way_out = f"say where it lies on this machine: {setting}=PATH"
        if setting == "data.skeleton" and (folder / SKELETON_FILE).is_file():
            way_out += f", such as {folder / SKELETON_FILE}"
        if setting == "weights":
            way_out += ", or weights=null to begin without it"
        lines.append(f"{setting}: {path} is not there; {way_out}")
    return lines
