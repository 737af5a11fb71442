"""How long a forward pass takes on this machine, for the ranked trials of a sweep; `analysis/pareto.py` reads it.

trials/<n>/latency.json: {"ms": {"1": ..., "16": ...}, "ms_flip_test": {...}, "flip_test", "device", "model", "imgsz"}.
Median milliseconds of the network alone on a batch of 1 and of 16 that is on the device already; with the flip test it
passes twice. Equal networks are measured once.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from posesweep.analysis.pareto import LATENCY
from posesweep.analysis.results import SweepResults
from posesweep.errors import PoseSweepError
from posesweep.files import read_json, trial_folder, write_json
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import pick_device
from posesweep.trainables.tasks import find_task, make_config
from posesweep.trainables.trial import Precision

BATCHES = (1, 16)
LIMIT_S = 5.0  # for all networks together: a sweep's end is no benchmark
WARM_UP, REPEATS = 2, 15
SHARE_S = 0.4  # what one network and batch may take of it, once there are three repeats


def measure_latency(results: SweepResults, trials: Sequence[int], limit_s: float = LIMIT_S) -> str:
    """Measure the networks of `trials` that have no latency.json yet, best first; returns a sentence where something
    was left out and "" otherwise. Nothing is measured where all have the same network."""
    configs = _configs(results, trials)
    different = {_network_key(config) for config in configs.values()}
    if len({(_network_key(config), _flips(config)) for config in configs.values()}) < 2:
        return "latency not measured: all ranked trials have the same network" if configs else ""
    device = pick_device()
    measured = {_network_key(configs[trial]): _before(results.folder, trial, device) for trial in reversed(configs)}
    todo = {key: config for config in configs.values() if not measured[key := _network_key(config)]}
    if not todo:
        return ""
    skeleton = results.skeleton
    if skeleton is None:
        return "latency not measured: split.json does not say how many keypoints there are"
    deadline = time.monotonic() + limit_s
    try:
        measured |= _measure_all(todo, len(skeleton.keypoints), device, deadline)
    except (PoseSweepError, torch.OutOfMemoryError) as error:
        return f"latency not measured: {error}"
    for trial, config in configs.items():
        if found := measured[_network_key(config)]:
            write_json(trial_folder(results.folder, trial) / LATENCY, found | {"flip_test": _flips(config)})
    left_out = sum(not measured[key] for key in todo)
    count = f"1 network of {len(different)} was" if left_out == 1 else f"{left_out} networks of {len(different)} were"
    return f"latency: {count} not measured within {limit_s:g} s" if left_out else ""


def _configs(results: SweepResults, trials: Sequence[int]) -> dict[int, TrialConfig]:
    """The configs of the trials; those that this version cannot read are left out, as is what has no config.yaml."""
    found = {}
    for trial in trials:
        settings = results.settings(trial)
        try:
            found[trial] = make_config(settings) if settings else None
        except PoseSweepError:
            continue  # of an older version; its other results are shown all the same
    return {trial: config for trial, config in found.items() if config is not None}


def _flips(config: TrialConfig) -> bool:
    return bool(getattr(config, "flip_test", False))


def _network_key(config: TrialConfig) -> str:
    """Equal for two configs whose forward passes take equally long, the flip test apart."""
    return repr((find_task(config.task).network_arguments(config), config.amp, config.channels_last))


def _before(folder: Path, trial: int, device: torch.device) -> dict[str, Any]:
    """What was measured earlier on this kind of device; {} where nothing was."""
    file = trial_folder(folder, trial) / LATENCY
    found = read_json(file) if file.is_file() else {}
    return found if found.get("device") == device_name(device) else {}


def device_name(device: torch.device) -> str:
    """'NVIDIA H100', or 'cpu, 2 threads'."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"


def _measure_all(
    todo: dict[str, TrialConfig], keypoints: int, device: torch.device, deadline: float
) -> dict[str, dict[str, Any]]:
    """Of every network first one object, then 16: what the time limit cuts off is the less asked for."""
    found: dict[str, dict[str, Any]] = {key: {} for key in todo}
    networks: dict[str, nn.Module] = {}
    for size in BATCHES:
        for key, config in todo.items():
            expected_s = found[key].get("ms", {}).get("1", 0.0) / 1000 * size * (WARM_UP + 3)
            if time.monotonic() + expected_s > deadline:
                continue
            if key not in networks:
                networks[key] = _network(config, keypoints, device)
            times = _times(networks[key], config, size, device)
            entry = found[key] or _facts(config, device)
            for name, ms in times.items():
                entry[name] = entry.get(name, {}) | {str(size): round(ms, 3)}
            found[key] = entry
    return found


def _network(config: TrialConfig, keypoints: int, device: torch.device) -> nn.Module:
    network = find_task(config.task).build_network(config.model_copy(update={"pretrained": False}), keypoints)
    network = network.to(device).eval()
    return network.to(memory_format=torch.channels_last) if config.channels_last else network


def _facts(config: TrialConfig, device: torch.device) -> dict[str, Any]:
    settings = {name: getattr(config, name) for name in ("model", "imgsz") if hasattr(config, name)}
    return {**settings, "device": device_name(device), "torch": torch.__version__, "cpus": os.cpu_count()}


@torch.inference_mode()
def _times(network: nn.Module, config: TrialConfig, size: int, device: torch.device) -> dict[str, float]:
    """{"ms", "ms_flip_test"} of one batch."""
    width, height = getattr(config, "imgsz")  # noqa: B009  of the tasks that look at images
    images = torch.zeros(size, 3, height, width, device=device)
    if config.channels_last:
        images = images.to(memory_format=torch.channels_last)
    precision = Precision.of(config.amp, device)

    def once() -> None:
        with precision.autocast():
            network(images)

    def twice() -> None:
        with precision.autocast():
            network(images)
            network(images.flip(3))

    return {"ms": median_ms(once, device), "ms_flip_test": median_ms(twice, device)}


def median_ms(run: Callable[[], None], device: torch.device) -> float:
    """Median milliseconds of `run`, after two runs that are not counted; 3 to 15 repeats, as its length allows."""
    end = math.inf
    seconds: list[float] = []
    for i in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if i == WARM_UP:
            end = start + SHARE_S
        if i >= WARM_UP:
            seconds.append(now - start)
        if len(seconds) >= 3 and now > end:
            break
    return 1000 * median(seconds)
