"""Settings for a new sweep from what the data and the machine are like.

Everything here is a place to begin a search from. Where a number comes from a recipe, the recipe is named.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from posesweep.datasets.looking import Portrait

FEW_OBJECTS = 2000  # to train on; fewer are learned best by a network that knows ImageNet and is held back
LARGE_SET = 5000  # objects from which RTMPose is worth its slower start
SMALL_GPU_GB, LARGE_GPU_GB = 10, 20
MINUTES_ON_CPU, MINUTES_ON_GPU = 10.0, 240.0  # of a whole sweep, unless the user says
FEWEST_TRIALS, MOST_TRIALS = 8, 60
STOPPED_EARLY = 0.5  # how much of every trial's full training a sweep with ASHA costs, roughly
VALIDATION_COST = 0.6  # of an object, in training steps of one: two forward passes, of the image and its mirror image
LOADING_S = 0.0007  # of one augmented sample, on the CPU that also trains
MOST_ENLARGED = 2.0  # an input shows no more than the image holds, however small its objects
STEP_PX, LEAST_PX = 32, 64  # inputs are multiples of 32, the coarsest stride
ASPECTS = (0.5, 2.0)
USUAL_MAP = 55.0  # cells, the root of 64 x 48: where HRNet's sigma is 2
USUAL_SIMCC_PX = 256.0  # where RTMPose's sigma is 5.66 bins


@dataclass(frozen=True)
class Hardware:
    """What trains: `gpu_memory_gb` is of one GPU, 0 without one."""

    cpus: int
    gpus: int = 0
    gpu_memory_gb: float = 0.0

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPU{'s' * (self.gpus > 1)} of {self.gpu_memory_gb:.0f} GB" if self.gpus else "no GPU"
        return f"{self.cpus} CPU{'s' * (self.cpus > 1)}, {gpus}"


@dataclass(frozen=True)
class Searched:
    """One parameter: how it is written in the file, the baseline's value, and why it is searched."""

    name: str
    spec: dict[str, Any]
    baseline: Any
    why: str


@dataclass(frozen=True)
class Setting:
    """One fixed setting, and why."""

    name: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class Case:
    """What settings follow from: the data, their split, the machine."""

    portrait: Portrait
    train: int  # objects
    val: int
    keypoints: int
    hardware: Hardware
    minutes: float | None = None  # that the sweep may take; None: the usual


@dataclass(frozen=True)
class Plan:
    """A sweep's settings. `minutes` is an estimate for all trials, `trial_minutes` for one that is not stopped."""

    model: str
    pretrained: bool
    imgsz: tuple[int, int]
    batch: int
    epochs: int
    fixed: tuple[Setting, ...] = ()
    searched: tuple[Searched, ...] = ()
    trials: int = FEWEST_TRIALS
    min_epochs: int = 1
    trial_minutes: float = 0.0
    minutes: float = 0.0


StepTimer = Callable[[Plan, int], float]  # a plan and its number of keypoints -> seconds of one optimizer step
WeightsAtHand = Callable[[str], bool]  # whether a network's ImageNet weights can be had


def plan_sweep(case: Case, timer: StepTimer, weights_at_hand: WeightsAtHand) -> Plan:
    """Network, input, batch, epochs, what to search, and how many trials fit into the time."""
    model = choose_model(case.train, case.hardware)
    imgsz = choose_imgsz(case.portrait, case.hardware)
    batch = choose_batch(case.train, case.hardware)
    pretrained = case.hardware.gpus > 0 and weights_at_hand(model)
    plan = Plan(model, pretrained, imgsz, batch, choose_epochs(case.train, batch, case.hardware))
    plan = in_time(plan, case, timer(plan, case.keypoints))
    plan = replace(plan, min_epochs=max(1, round(plan.epochs / 9)))  # rungs at a ninth, a third and the whole
    return replace(plan, fixed=tuple(fixed_settings(plan, case)), searched=tuple(searched_settings(plan, case)))


def choose_model(train: int, hardware: Hardware) -> str:
    """The network for a number of objects and a machine."""
    if not hardware.gpus:
        return "small" if train <= FEW_OBJECTS else "tiny"
    if hardware.gpu_memory_gb < SMALL_GPU_GB:
        return "hrnet_w18"
    return "rtmpose_m" if hardware.gpu_memory_gb >= LARGE_GPU_GB and train >= LARGE_SET else "hrnet_w32"


def choose_imgsz(portrait: Portrait, hardware: Hardware) -> tuple[int, int]:
    """Width and height of the input, multiples of 32 in the shape of the median padded box.

    As large as the machine trains in reasonable time, and no more than twice as large as the objects are in their
    images. Square for objects that are turned freely: their boxes lie and stand alike."""
    width, height = portrait.padded_px
    side = 128 if not hardware.gpus else 224 if hardware.gpu_memory_gb < SMALL_GPU_GB else 256
    most = MOST_ENLARGED * math.sqrt(width * height)
    aspect = 1.0 if portrait.turned_freely else min(max(width / height, ASPECTS[0]), ASPECTS[1])
    root = math.sqrt(aspect)
    return _multiple(side * root, most * root), _multiple(side / root, most / root)


def choose_batch(train: int, hardware: Hardware) -> int:
    """A power of two that fits into the machine and leaves eight steps in an epoch where it can; 8 at least, which
    batch norm needs."""
    if not hardware.gpus:
        largest = 16
    else:
        largest = 16 if hardware.gpu_memory_gb < SMALL_GPU_GB else 32 if hardware.gpu_memory_gb < LARGE_GPU_GB else 64
    fitting = 2 ** int(math.log2(max(1, train // 8)))
    return min(largest, max(8, fitting))


def choose_epochs(train: int, batch: int, hardware: Hardware) -> int:
    """As many as the optimizer steps that a set of this size needs take: 3,000 to 30,000 on a GPU (AP-10K's recipes
    take about 4,000 for its 8,000 images, at a batch of 512), 700 on a CPU, where a sweep should take minutes."""
    steps = min(max(3000, 4 * train), 30_000) if hardware.gpus else 700
    fewest, most = (20, 210) if hardware.gpus else (6, 120)
    return min(max(fewest, round(steps * batch / train)), most)


def in_time(plan: Plan, case: Case, step_s: float) -> Plan:
    """The plan with as many trials as its time allows, and fewer epochs where not even the fewest trials would fit."""
    hardware = case.hardware
    minutes = case.minutes or (MINUTES_ON_GPU if hardware.gpus else MINUTES_ON_CPU)
    object_s = step_s / plan.batch + (0.0 if hardware.gpus else LOADING_S)
    epoch_minutes = object_s * (case.train + VALIDATION_COST * case.val) / 60
    at_once = max(1, hardware.gpus or hardware.cpus)
    a_trial = STOPPED_EARLY * epoch_minutes / at_once
    epochs = min(plan.epochs, max(4, int(minutes / (FEWEST_TRIALS * a_trial))))
    trials = min(max(FEWEST_TRIALS, int(minutes / (epochs * a_trial))), MOST_TRIALS if hardware.gpus else 16)
    return replace(
        plan, epochs=epochs, trials=trials, trial_minutes=epochs * epoch_minutes, minutes=trials * epochs * a_trial
    )


def fixed_settings(plan: Plan, case: Case) -> list[Setting]:
    """What is the same in every trial."""
    simcc = plan.model.startswith("rtmpose")
    steps = plan.epochs * max(1, case.train // plan.batch)
    lasting = round(1 - 1 / min(max(steps / 12, 10), 2000), 4)
    shown = "{:.0f} x {:.0f}".format(*case.portrait.padded_px)
    settings = [
        Setting("model", plan.model, _why_model(case)),
        Setting("pretrained", plan.pretrained, _why_pretrained(plan, case.hardware)),
        Setting("imgsz", list(plan.imgsz), f"width, height; the median box with its padding is {shown} pixels"),
        Setting("batch", plan.batch, f"{max(1, case.train // plan.batch)} steps an epoch"),
        Setting("epochs", plan.epochs, f"about {steps:,} steps for {case.train:,} objects"),
        Setting("warmup", max(1, round(plan.epochs / 25)), "epochs in which the learning rate rises"),
        Setting("ema", lasting, "validated and kept are weights averaged over about a twelfth of the training"),
        _augment(case),
    ]
    if simcc:
        settings += [Setting("codec", "simcc", "RTMPose's"), Setting("schedule", "flat_cosine", "RTMPose's")]
    else:
        settings.append(Setting("udp", True, "unbiased coordinates; a small heatmap needs them most"))
    if case.hardware.gpus:
        settings.append(Setting("amp", True, "half the memory, and faster"))
    return settings


def searched_settings(plan: Plan, case: Case) -> list[Searched]:
    """What is searched; baselines are the recipes that these networks were published with, or our demo's on a CPU."""
    few, on_gpu = case.train < FEW_OBJECTS, case.hardware.gpus > 0
    gentle = plan.pretrained and few
    lr0 = {True: 1e-4, False: 5e-4}[gentle] if on_gpu else 2e-3
    low, high = (1e-5, 5e-3) if on_gpu else (3e-4, 2e-2)
    found = [
        Searched("lr0", _log(low, high), lr0, "learning rate: what matters most"),
        Searched("weight_decay", _log(1e-3, 1e-1), 1e-2, "holds the weights back; more for fewer images"),
    ]
    if plan.pretrained:
        found += _of_pretrained(gentle)
    found += _of_simcc(plan) if plan.model.startswith("rtmpose") else _of_heatmaps(plan)
    strength = {"min": 0.0, "max": 1.0}
    found.append(Searched("aug_strength", strength, 0.5, "0 none, 0.5 the preset as it is, 1 twice as strong"))
    return found


def _of_pretrained(gentle: bool) -> list[Searched]:
    """Fine-tuning: how far the network may leave what it knows."""
    mult, freeze = (10.0, 2) if gentle else (1.0, 0)
    return [
        Searched("head_lr_mult", _log(1.0, 30.0), mult, "the head is new and may learn faster than the rest"),
        Searched("layer_decay", {"min": 0.5, "max": 1.0}, 1.0, "below 1, early layers learn slower"),
        Searched("freeze", {"min": 0, "max": 4}, freeze, "so many of the first layers stay as ImageNet made them"),
    ]


def _of_heatmaps(plan: Plan) -> list[Searched]:
    """Sigma shrinks with the map: HRNet's 2 is for 64 x 48 cells."""
    cells = (plan.imgsz[0] // 4, plan.imgsz[1] // 4)
    usual = round(min(max(2.0 * math.sqrt(cells[0] * cells[1]) / USUAL_MAP, 1.0), 3.0), 1)
    spread = {"min": round(usual / 2, 2), "max": round(usual * 2, 1)}
    return [
        Searched("sigma", spread, usual, f"width of the target, in cells of the {cells[0]} x {cells[1]} heatmap"),
        Searched("dark", {"values": [False, True]}, False, "finer coordinates from the heatmap's shape"),
    ]


def _of_simcc(plan: Plan) -> list[Searched]:
    """RTMPose's sigma is 5.66 bins at 256 x 256."""
    usual = round(5.66 * math.sqrt(plan.imgsz[0] * plan.imgsz[1]) / USUAL_SIMCC_PX, 2)
    spread = {"min": round(usual / 2.5, 1), "max": round(usual * 1.6, 1)}
    return [
        Searched("sigma", spread, usual, "width of the target, in bins of half a pixel"),
        Searched("simcc_beta", {"min": 5.0, "max": 20.0}, 10.0, "sharpness of the distributions in the loss"),
    ]


def _augment(case: Case) -> Setting:
    portrait = case.portrait
    if portrait.turned_freely:
        text = f"90 % of the body axes lie within {portrait.axis_range_deg:.0f} of 180 degrees: no pose is upright"
        return Setting("augment", "top_view", text)
    if case.hardware.gpus and case.train < FEW_OBJECTS:
        return Setting("augment", "aggressive", f"{case.train:,} objects are few; rotation up to 80 degrees")
    return Setting("augment", "medium", "HRNet's: rotation up to 40 degrees, scale 0.7 to 1.3")


def _why_model(case: Case) -> str:
    if not case.hardware.gpus:
        return "a small network, for CPUs"
    return f"for a GPU of {case.hardware.gpu_memory_gb:.0f} GB and {case.train:,} objects"


def _why_pretrained(plan: Plan, hardware: Hardware) -> str:
    if not hardware.gpus:
        return f"there are no ImageNet weights of {plan.model}"
    if plan.pretrained:
        return "ImageNet weights"
    return "the ImageNet weights are not here and cannot be fetched; where they can, write true: it helps much"


def _log(low: float, high: float) -> dict[str, Any]:
    return {"min": low, "max": high, "log": True}


def _multiple(px: float, most: float) -> int:
    """The multiple of 32 nearest to `px` that is not above `most`; 64 at least."""
    return max(LEAST_PX, min(STEP_PX * round(px / STEP_PX), STEP_PX * int(most / STEP_PX)))


# ------------------------------------------------------------------------------------------------ asking the machine


def this_machine() -> Hardware:
    """The CPUs this process may use, and the GPUs that torch sees."""
    import os

    import torch

    gpus = torch.cuda.device_count()
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if gpus else 0.0
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Hardware(cpus, gpus, memory)


def step_seconds(plan: Plan, keypoints: int) -> float:
    """The time of one optimizer step here, measured on noise: on a GPU, or on one CPU thread as trials have."""
    import torch

    from posesweep.trainables.context import pick_device
    from posesweep.trainables.models import build_model

    device, threads = pick_device(), torch.get_num_threads()
    split = 2.0 if plan.model.startswith("rtmpose") else None
    torch.set_num_threads(1)
    try:
        network = build_model(plan.model, keypoints, plan.imgsz, split).to(device).train()
        images = torch.rand(plan.batch, 3, plan.imgsz[1], plan.imgsz[0], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            times = [_timed(partial(_step, network, images)) for _ in range(4)]
    finally:
        torch.set_num_threads(threads)
    return min(times[1:])


def _step(network: Any, images: Any) -> None:
    outputs = network(images)
    sum(o.float().square().mean() for o in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
    if images.is_cuda:
        import torch

        torch.cuda.synchronize()


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def can_be_pretrained(model: str) -> bool:
    """Whether ImageNet weights of `model` are in the cache or can be downloaded; they are in the cache afterwards."""
    from posesweep.errors import ConfigError
    from posesweep.trainables.models import build_model

    try:
        build_model(model, 1, (64, 64), pretrained=True)
    except ConfigError:
        return False
    return True
