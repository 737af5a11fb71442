"""What is known of the network that a checkpoint comes from, besides its tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posesweep.datasets.skeleton import load_skeleton, shipped
from posesweep.errors import ConfigError
from posesweep.files import read_json
from posesweep.trainables.models.openmmlab import OWN, common_names
from posesweep.trainables.weights_file import WeightsFile

ROWS = ("head.final_layer.weight", "head.final_layer.bias")  # one row per keypoint, in every kind of head


@dataclass(frozen=True)
class Origin:
    """None: not known."""

    keypoints: Sequence[str] | None = None  # of the rows of its head
    imgsz: tuple[int, int] | None = None  # width and height of its input, in pixels


def origin_of(file: WeightsFile, skeleton: str | None = None) -> Origin:
    """What is known of the network that a file comes from. ConfigError when `skeleton` does not fit the file's head,
    DataError when there is none of that name."""
    layout, names = common_names(file.tensors)
    rows = next((len(file.tensors[key]) for key, common in names.items() if common == ROWS[0]), None)
    own = _written_beside(file.path.resolve()) if layout == OWN else Origin()
    if skeleton is not None:
        named = load_skeleton(skeleton).keypoints
        if rows is not None and len(named) != rows:
            raise ConfigError(
                f"weights_skeleton: {skeleton} has {len(named)} keypoints, the head in {file.path} {rows}"
            )
        return Origin(named, own.imgsz)
    known = (names for names in (file.keypoints, own.keypoints) if names is not None and len(names) == rows)
    return Origin(next(known, None), own.imgsz)


def _written_beside(weights: Path) -> Origin:
    """What PoseSweep wrote beside its weights: exported, or in the folder of a sweep's trial or a single training."""
    exported, trial = weights.with_name("best.yaml"), weights.parent.parent / "config.yaml"
    config = next((_yaml(path) for path in (exported, trial) if path.is_file()), {})
    imgsz = tuple(config["imgsz"]) if "imgsz" in config else None
    skeleton, split = weights.with_name("skeleton.yaml"), trial.parent.parent.parent / "split.json"
    if skeleton.is_file():
        return Origin(load_skeleton(skeleton).keypoints, imgsz)
    if trial.is_file() and split.is_file():
        return Origin(tuple(read_json(split)["skeleton"]["keypoints"]), imgsz)
    named = config.get("data", {}).get("skeleton")
    known = named is not None and (named in shipped() or Path(named).is_file())
    return Origin(load_skeleton(named).keypoints if known else None, imgsz)


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
