"""Seconds a training step, HRNet-W32 and RTMPose-m, in four ways: float32, channels_last, bf16 and both of these.

The step is a trial's own (`trial.train_step`: forward, backward, optimizer) on ready pictures of noise, 192x256 pixels.
The four ways alternate in one process and ratios are to plain float32 of the same round, so that other load on the
machine does not favour one. Peak memory is that of a process of its own for each: of the GPU, or on a CPU of the whole
process, PyTorch's libraries (about 0.4 GiB) included.

On a device that does not compute in bf16, PyTorch emulates it, and a step of HRNet-W32 takes minutes on a CPU: those
two ways are left out there unless `--emulated` is given (best with --batch 1 --repeats 1).

    OMP_NUM_THREADS=1 python benchmarks/train_step.py [--repeats 5] [--batch 8] [--device cuda] [--threads 1]
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.topdown import TopDownSamples
from posesweep.trainables.context import Context, pick_device, prepare_process
from posesweep.trainables.fit import GIB, peak_of_process
from posesweep.trainables.task import Arrays
from posesweep.trainables.tasks import make_config
from posesweep.trainables.tasks.topdown import Config, TopDown, codec
from posesweep.trainables.trial import Training, computes_in_bf16, prepare_training, train_step

WIDTH, HEIGHT = 192, 256  # network input, pixels
NETWORKS: dict[str, dict[str, Any]] = {
    "hrnet_w32": {"optimizer": "adam", "codec": "heatmap"},
    "rtmpose_m": {"optimizer": "adamw", "codec": "simcc"},
}
MODES: dict[str, dict[str, Any]] = {
    "float32": {"channels_last": False, "amp": False},
    "channels_last": {"channels_last": True, "amp": False},
    "bf16": {"channels_last": False, "amp": "bf16"},
    "bf16, channels_last": {"channels_last": True, "amp": "bf16"},
}
PLAIN = "float32"


@dataclass(frozen=True)
class Noise:
    """Pictures of the input's size, as `topdown.Pictures`."""

    images: np.ndarray
    from_image: np.ndarray
    usable: np.ndarray


class PlanarInput(nn.Module):
    """A network that is given its pictures one channel after the other: a trial's are channels_last in memory, and
    a convolution follows its input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images.contiguous())


@dataclass(frozen=True)
class Setting:
    """What all measurements of a run share."""

    batch: int
    device: str
    threads: int

    def training(self, network: str, mode: str) -> tuple[Training, Arrays]:
        """A network ready for `train_step` in one of MODES, and its batch."""
        values = {"data": {"train": "-"}, "imgsz": (WIDTH, HEIGHT), "batch": self.batch, "augment": "none"}
        config = make_config({**values, "model": network, **NETWORKS[network], **MODES[mode], "threads": self.threads})
        assert isinstance(config, Config)
        task, arrays = drawn_task(config)
        context = Context(Path(tempfile.gettempdir()), lambda row: None, torch.device(self.device))
        training = prepare_training(config, context, task, task.model())
        training.network.train()
        if not config.channels_last:
            training = replace(training, model=PlanarInput(training.network))
        return training, arrays

    def timed_step(self, training: Training, arrays: Arrays) -> float:
        """Seconds of one step, from start to the end of what the GPU was given."""
        start = time.perf_counter()
        train_step(training, arrays)
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start


def drawn_task(config: Config) -> tuple[TopDown, Arrays]:
    """The task on pictures of noise with keypoints anywhere, and one batch of them."""
    rng = np.random.default_rng(0)
    n, skeleton = config.batch, load_skeleton("coco17")
    keypoints = rng.uniform(0, (WIDTH, HEIGHT), (n, len(skeleton.keypoints), 2))
    instances = Instances(
        skeleton=skeleton,
        image_files=tuple(Path(f"{i}.png") for i in range(n)),
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(n),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.tile([0.0, 0.0, WIDTH, HEIGHT], (n, 1)),
        keypoints=keypoints,
        visibility=np.full(keypoints.shape[:2], 2, dtype=np.uint8),
        areas=np.full(n, float(WIDTH * HEIGHT)),
        crowd=np.zeros(n, dtype=bool),
    )
    images = rng.integers(0, 256, (n, HEIGHT, WIDTH, 3), dtype=np.uint8)
    pictures = Noise(images, np.tile(np.eye(2, 3), (n, 1, 1)), np.ones(n, dtype=bool))
    samples = TopDownSamples(pictures, instances, config.imgsz)
    return TopDown(config, samples, samples, instances, codec(config)), samples.batch(np.arange(n), 0)


def step_times(setting: Setting, network: str, modes: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """Mode -> seconds of each step; the modes alternate, after one step each that does not count."""
    trainings = {mode: setting.training(network, mode) for mode in modes}
    for training, arrays in trainings.values():
        setting.timed_step(training, arrays)
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(repeats):
        for mode, (training, arrays) in trainings.items():
            times[mode].append(setting.timed_step(training, arrays))
    return times


def peak_gib(setting: Setting, network: str, mode: str) -> float:
    """Peak memory of two steps in a process of their own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_peak_bytes, setting, network, mode).result() / GIB


def _peak_bytes(setting: Setting, network: str, mode: str) -> int:
    prepare_process(setting.threads, seed=0)
    training, arrays = setting.training(network, mode)
    for _ in range(2):
        setting.timed_step(training, arrays)
    return torch.cuda.max_memory_allocated() if setting.device.startswith("cuda") else peak_of_process()


def print_table(setting: Setting, network: str, peaks_gib: dict[str, float], repeats: int) -> None:
    """Time one network in the modes whose peaks are given, and print both."""
    times = step_times(setting, network, list(peaks_gib), repeats)
    table = Table("", "s a step", f"of {PLAIN}", "lowest-highest", "peak, GiB", title=network, title_justify="left")
    for mode, seconds in times.items():
        ratios = [mine / plain for mine, plain in zip(seconds, times[PLAIN], strict=True)]
        around = f"{min(ratios):.2f}-{max(ratios):.2f}"
        middle = f"{statistics.median(seconds):.4f}", f"{statistics.median(ratios):.2f}"
        table.add_row(mode, *middle, around, f"{peaks_gib[mode]:.2f}")
    Console(width=100).print(table)


def main() -> None:
    """Measure every network and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default=str(pick_device()), help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--emulated", action="store_true", help="bf16 too where the device does not compute in it")
    given = parser.parse_args()
    setting = Setting(given.batch, given.device, given.threads)
    prepare_process(given.threads, seed=0)
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, threads: {given.threads}"
    print(f"{name}; torch {torch.__version__}; batch {given.batch} of {WIDTH}x{HEIGHT}; {given.repeats} repeats")
    modes = list(MODES)
    if not computes_in_bf16(device):
        print("This device does not compute in bf16: PyTorch emulates it, and `amp: true` would choose another format.")
        modes = [mode for mode, settings in MODES.items() if given.emulated or not settings["amp"]]
    # before this process grows: to Linux, a new process has at some time been as large as the one that started it
    peaks_gib = {network: {mode: peak_gib(setting, network, mode) for mode in modes} for network in NETWORKS}
    for network in NETWORKS:
        print_table(setting, network, peaks_gib[network], given.repeats)


if __name__ == "__main__":
    main()
