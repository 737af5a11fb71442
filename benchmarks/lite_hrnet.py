"""Lite-HRNet with four branches against the small default networks, on the demo's horses, at equal epochs: AP,
parameters, and milliseconds a picture.

Data, batch, averaging and codec are the demo's (search_spaces/demo.yaml); one learning rate for all, or the best of
several; the input is 128x96 pixels, which four branches divide. Times are of the forward pass with one thread, and the
networks alternate.

    OMP_NUM_THREADS=1 python benchmarks/lite_hrnet.py [--epochs 6] [--lr0 5e-3 ...] [--repeats 15]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from posesweep.search_spaces.space import DEMO, read_sweep
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import in_this_process, prepare_process
from posesweep.trainables.models import build_model
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import run_trial

WIDTH, HEIGHT, KEYPOINTS = 128, 96, 26
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny": {"model": "tiny"},
    "small": {"model": "small"},
    "lite_hrnet_18, 16 channels": {"model": "lite_hrnet_18", "channels": 16, "branches": 4},
    "lite_hrnet_18, 40 channels": {"model": "lite_hrnet_18", "channels": 40, "branches": 4},
}
SETTINGS: dict[str, Any] = {  # of the demo's space, near what its searches find
    "weight_decay": 2.0e-2,
    "sigma": 1.0,
    "augment": "light",
    "aug_strength": 0.3,
    "imgsz": (WIDTH, HEIGHT),
    "threads": 1,
}
BATCHES = (1, 16)


def config_of(network: str, epochs: int, lr0: float) -> TrialConfig:
    """The demo's training with another network."""
    demo = read_sweep(DEMO)
    values = {"data": demo.data.model_dump(), **demo.fixed, **SETTINGS, **NETWORKS[network]}
    return make_config({**values, "epochs": epochs, "val_every": epochs, "lr0": lr0})


def ap_after_training(network: str, epochs: int, lr0: float) -> tuple[float, float]:
    """AP of the last epoch, and the seconds that training took."""
    with tempfile.TemporaryDirectory() as folder:
        loop = run_trial(config_of(network, epochs, lr0), in_this_process(Path(folder), lambda row: None))
    return loop.rows[-1]["val/AP"], loop.cost["train_s"]


def milliseconds(models: dict[str, nn.Module], batch: int, repeats: int) -> dict[str, float]:
    """Network -> median milliseconds a picture of the forward pass on `batch` pictures; the networks alternate."""
    images = torch.rand(batch, 3, HEIGHT, WIDTH).to(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, model in models.items():
                start = time.perf_counter()
                model(images)
                times[name].append(1000 * (time.perf_counter() - start) / batch)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def built(network: str) -> nn.Module:
    """The network as a trial validates it."""
    settings = dict(NETWORKS[network])
    model = build_model(settings.pop("model"), KEYPOINTS, (WIDTH, HEIGHT), **settings)
    return model.eval().to(memory_format=torch.channels_last)


def run(epochs: int, lr0s: Sequence[float], repeats: int) -> None:
    """Train and time every network, and print the table."""
    prepare_process(threads=1, seed=0)
    models = {network: built(network) for network in NETWORKS}
    speed = {batch: milliseconds(models, batch, repeats) for batch in BATCHES}
    heads = [f"ms a picture, batch {batch}" for batch in BATCHES]
    table = Table("network", "parameters", "AP", "lr0", "training, s", *heads)
    for network, model in models.items():
        outcomes = {lr0: ap_after_training(network, epochs, lr0) for lr0 in lr0s}
        best = max(outcomes, key=lambda lr0: outcomes[lr0][0])
        ap, seconds = outcomes[best]
        parameters = sum(p.numel() for p in model.parameters())
        shown = [f"{speed[batch][network]:.2f}" for batch in BATCHES]
        table.add_row(network, f"{parameters:,}", f"{ap:.3f}", f"{best:g}", f"{seconds:.0f}", *shown)
    print(f"{epochs} epochs of the demo's horses, input {WIDTH}x{HEIGHT}, one thread, torch {torch.__version__}")
    Console(width=120).print(table)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr0", type=float, nargs="+", default=[5e-3])
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    run(given.epochs, given.lr0, given.repeats)


if __name__ == "__main__":
    main()
