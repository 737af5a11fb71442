"""Starting a training from a checkpoint: `weights` in a sweep file."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from posesweep.errors import ConfigError
from posesweep.trainables.candidates import it_looks_like
from posesweep.trainables.matching import Report, match
from posesweep.trainables.origins import origin_of
from posesweep.trainables.weights_file import WeightsFile, read_weights

ENOUGH = 0.5  # of the backbone's numbers: with less, the file is of another network


def start_from(network: nn.Module, path: Path, keypoints: Sequence[str], skeleton: str | None = None) -> Report:
    """Put the weights of a checkpoint into a new network as far as they fit, and say what became of them.

    `keypoints` name the rows of the network's head. Those of the file are named by `skeleton` (a shipped name or a YAML
    file), else by the file itself or by what PoseSweep wrote beside it. Where they are known, every keypoint of the
    same name keeps its row; where they are not, a head of as many rows is taken as it is, and another starts fresh.
    Raises ConfigError for a file that cannot be read, is of another network, or has other keypoints than `skeleton`.
    """
    file = read_weights(path)
    report, values = match(network, file, keypoints, origin_of(file, skeleton))
    _check_enough(report, file)
    network.load_state_dict(values, strict=False)
    return report


def check_start(network: nn.Module, path: Path, skeleton: str | None = None) -> None:
    """Raise what `start_from` would raise; the network may lie on the meta device."""
    file = read_weights(path)
    report, _ = match(network, file, (), origin_of(file, skeleton))
    _check_enough(report, file)


def _check_enough(report: Report, file: WeightsFile) -> None:
    if report.backbone_share < ENOUGH:
        raise ConfigError(
            f"weights: {file.path} is of another network: {report.backbone_share:.0%} of this one's backbone is in it; "
            f"{it_looks_like(file)}"
        )
