"""How many trials share a GPU, from the memory that a step of the baseline takes."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from posesweep.errors import ConfigError
from posesweep.search_spaces.space import Sweep

CONTEXT_GIB = 0.6  # what CUDA, its libraries and the allocator's unused blocks take beside the tensors
USABLE = 0.9  # of the memory: evaluation, and other settings than the baseline's, may need more
GIB = 2**30


def trials_per_gpu(peak_gib: float, total_gib: float) -> int:
    """How many trials share a GPU of `total_gib`, when a step of one takes `peak_gib` of tensors; at least 1."""
    return max(1, int(USABLE * total_gib // (peak_gib + CONTEXT_GIB)))


def with_measured_share(sweep: Sweep) -> Sweep:
    """The sweep with a number for `trials_per_gpu: auto`. ConfigError where there is no GPU to measure on."""
    if sweep.resources.trials_per_gpu != "auto":
        return sweep
    if not torch.cuda.is_available():
        raise ConfigError(
            "resources.trials_per_gpu: auto is measured on a GPU of this machine, which has none; give a number, or "
            "take it out"
        )
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:  # its CUDA context goes with it
        peak_gib, total_gib = apart.submit(measure, sweep).result()
    share = trials_per_gpu(peak_gib, total_gib)
    print(f"note: the baseline's step takes {peak_gib:.1f} of {total_gib:.0f} GiB: {share} trials share a GPU")
    resources = sweep.resources.model_copy(update={"trials_per_gpu": share})
    return sweep.model_copy(update={"resources": resources})


def measure(sweep: Sweep) -> tuple[float, float]:
    """GiB that a step of the baseline takes at its peak, and GiB of the GPU. ConfigError when it does not fit."""
    from tempfile import TemporaryDirectory

    from posesweep.trainables.context import Context, pick_device
    from posesweep.trainables.fit import Trier
    from posesweep.trainables.tasks import make_config

    config = make_config({"task": sweep.task, "data": sweep.data.model_dump(), **sweep.fixed, **sweep.baseline})
    device = pick_device()
    with TemporaryDirectory() as folder:
        step = Trier(config, Context(Path(folder), lambda row: None, device)).step(config.batch)
    if step.peak_memory_gib is None:
        raise ConfigError(f"batch: {config.batch} does not fit into the GPU's memory; `posesweep fit` finds what does")
    return step.peak_memory_gib, torch.cuda.get_device_properties(device).total_memory / GIB
