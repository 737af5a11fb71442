"""Which of our networks a checkpoint is of, by the names and shapes of its backbone; and all that `posesweep weights`
says of one."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

from posesweep.trainables.matching import match
from posesweep.trainables.models import build_model, model_settings
from posesweep.trainables.models.openmmlab import common_names
from posesweep.trainables.origins import ROWS, Origin, origin_of
from posesweep.trainables.weights_file import WeightsFile, read_weights

IMGSZ = (192, 256)  # of the networks that a file is held against; a backbone's shapes do not depend on it
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # what simple_baseline is published with
WORTH_SAYING = 0.5  # of both backbones


@dataclass(frozen=True)
class Candidate:
    """One of our networks, the share of its backbone that is in the file, and of the file's that is in it."""

    name: str
    settings: dict[str, Any]
    backbone_share: float
    file_share: float

    @property
    def likeness(self) -> float:
        """1 when the backbones are the same."""
        return self.backbone_share * self.file_share

    def words(self) -> str:
        """As in a sweep file."""
        return ", ".join([f"model: {self.name}", *(f"{name}: {value}" for name, value in self.settings.items())])


def candidates(file: WeightsFile) -> list[Candidate]:
    """All our networks, the likest first. The first call builds them, without memory for weights: some seconds."""
    found = []
    for name, settings, network in _networks():
        report, _ = match(network, file, ("",), Origin())
        found.append(Candidate(name, settings, report.backbone_share, report.file_share))
    return sorted(found, key=lambda candidate: (-candidate.likeness, candidate.name))


def it_looks_like(file: WeightsFile) -> str:
    """The way out for somebody who gave this file to another network."""
    best = candidates(file)[0]
    if best.likeness < WORTH_SAYING:
        return f"it fits none of ours; `posesweep weights {file.path}` says what it holds"
    return f"it looks like {best.settings.get('backbone', best.name)}; set {best.words()}"


def describe(path: Path) -> None:
    """Print what a checkpoint holds and which of our networks it fits. ConfigError for what is none."""
    file = read_weights(path)
    layout, names = common_names(file.tensors)
    console = Console()
    for label, value in _facts(file, layout, names).items():
        console.print(f"{label:>12}  {value}", markup=False, highlight=False)
    console.print(_parts(file))
    fitting = [candidate for candidate in candidates(file) if candidate.backbone_share >= WORTH_SAYING]
    if not fitting:
        console.print("It fits none of our networks: not half of any one's backbone is in it.")
        return
    table = Table(title="Networks it fits", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("network", no_wrap=True)
    table.add_column("of its backbone in the file", justify="right")
    table.add_column("of the file's backbone in it", justify="right")
    for candidate in fitting:
        table.add_row(candidate.words(), f"{candidate.backbone_share:.1%}", f"{candidate.file_share:.1%}")
    console.print(table)


@cache
def _networks() -> list[tuple[str, dict[str, Any], nn.Module]]:
    """Every network on the meta device, with the settings that make another backbone of it."""
    found: list[tuple[str, dict[str, Any], nn.Module]] = []
    for name, settings in model_settings().items():
        backbones: list[dict[str, Any]] = [{}]
        if "backbone" in settings:
            backbones = [{"backbone": backbone} for backbone in RESNETS]
        with torch.device("meta"):
            found += [(name, own, build_model(name, 1, IMGSZ, **own)) for own in backbones]
    return found


def _facts(file: WeightsFile, layout: str, names: dict[str, str]) -> dict[str, str]:
    numbers = sum(tensor.numel() for tensor in file.tensors.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values()})
    rows = [file.tensors[key] for key, common in names.items() if common == ROWS[0]]
    keypoints = "no head for keypoints"
    if rows:
        named = origin_of(file).keypoints
        keypoints = f"{len(rows[0])}: {', '.join(named)}" if named else f"{len(rows[0])}, not named"
    return {
        "file": str(file.path),
        "format": file.format + (f", weights under '{file.place}'" if file.place else ""),
        "layout": layout,
        "tensors": f"{len(file.tensors):,} with {numbers:,} numbers ({', '.join(kinds)})",
        "keypoints": keypoints,
        "not read": ", ".join(file.extras) or "nothing",
    }


def _parts(file: WeightsFile) -> Table:
    """The tensors by the first two parts of their names."""
    parts: dict[str, list[int]] = {}
    for name, tensor in file.tensors.items():
        *start, _ = name.split(".")
        parts.setdefault("".join(f"{part}." for part in start[:2]) or name, []).append(tensor.numel())
    table = Table(title="Parts", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("names", no_wrap=True)
    table.add_column("tensors", justify="right")
    table.add_column("numbers", justify="right")
    for beginning, counts in parts.items():
        table.add_row(beginning, str(len(counts)), f"{sum(counts):,}")
    return table
