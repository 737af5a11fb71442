"""The networks: one file per family, found by the names it offers; a new network is one new file here, nothing else
(a setting of its own is also a field of the task's Config).

A network's file offers
    VARIANTS  the names a sweep may say (`model: hrnet_w32`) -> the settings that only this network has, and defaults
    plan(variant, settings) -> Plan: its layers and the stride of its input, without building it
    build(variant, settings, imgsz, pretrained) -> Backbone
and, where the usual is not wanted,
    neck(backbone, settings) -> Neck: the layers between backbone and head; usually none, or for heatmaps from a map
              coarser than stride 4 deconvolutions to it
    SIMCC_HEAD  the name in SIMCC_HEADS that it has unless told otherwise; usually "plain"
and loads heavy libraries inside functions only, so that listing the names stays cheap.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Protocol, cast, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from posesweep.errors import ConfigError, did_you_mean
from posesweep.trainables.models.heads import HeatmapHead, SimCCHead
from posesweep.trainables.models.necks import Neck, deconvolutions
from posesweep.trainables.models.plan import Plan, Settings
from posesweep.trainables.models.recomputation import recompute
from posesweep.trainables.models.rtmcc import RTMCCHead
from posesweep.trainables.optim import LayeredModel, Layers

SIMCC_HEADS = {"plain": SimCCHead, "rtmcc": RTMCCHead}


@runtime_checkable
class Backbone(Protocol):
    """An nn.Module from images [B, 3, H, W] to a feature map [B, channels, H / stride, W / stride], or to several for
    a neck that takes several; `channels` and `stride` are then the last one's."""

    channels: int
    stride: int

    def layers(self) -> Layers:
        """Every parameter in exactly one layer; the names are the plan's."""
        ...

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Tensor | list[Tensor]: ...


class KeypointModel(nn.Module):
    """Backbone, neck and head: normalised images to heatmaps [B, K, h, w] or to logits over x and y [B, K, bins]."""

    def __init__(self, backbone: Backbone, neck: Neck, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def layers(self) -> Layers:
        """The backbone's layers in order from the input, then ("head", [neck, head]); each parameter in one of them."""
        return [*self.backbone.layers(), ("head", [self.neck, self.head])]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Tensor | tuple[Tensor, Tensor]:
        return self.head(self.neck(self.backbone(images)))


def model_names() -> tuple[str, ...]:
    """All names that `model:` may take."""
    return tuple(model_settings())


def model_settings() -> dict[str, Settings]:
    """Every name that `model:` may take -> the settings which only that network has, and their defaults."""
    return {variant: settings for module in _files() for variant, settings in module.VARIANTS.items()}


def find_model(name: str) -> ModuleType:
    """The file that offers `name` among its VARIANTS. Raises ConfigError with the nearest name."""
    for module in _files():
        if name in module.VARIANTS:
            return module
    raise ConfigError(f"model: no network is called '{name}'{did_you_mean(name, model_names())}")


def simcc_head_of(name: str) -> str:
    """The SimCC head that the network has unless told otherwise."""
    return getattr(find_model(name), "SIMCC_HEAD", "plain")


def layer_names(name: str, settings: Settings | None = None) -> tuple[str, ...]:
    """The backbone's layers in order from the input, without the head; `settings` not given have their defaults."""
    return _plan(name, settings or {}).layers


def check_imgsz(name: str, imgsz: tuple[int, int], settings: Settings | None = None) -> None:
    """Raise ConfigError unless `imgsz` (width, height in pixels) is a multiple of what the network needs."""
    stride = _plan(name, settings or {}).stride
    if any(side < stride or side % stride for side in imgsz):
        width, height = (max(stride, round(side / stride) * stride) for side in imgsz)
        raise ConfigError(
            f"imgsz: {imgsz[0]}x{imgsz[1]} must be multiples of {stride} pixels for {name}; try [{width}, {height}]"
        )


def build_model(
    name: str,
    num_keypoints: int,
    imgsz: tuple[int, int],
    simcc_split: float | None = None,
    pretrained: bool = False,
    **settings: Any,
) -> KeypointModel:
    """A new network that puts out heatmaps or, given `simcc_split` (bins per input pixel), SimCC logits.

    `imgsz` is the network input's width and height in pixels; `settings` are the network's own (see `model_settings`)
    and, with SimCC, `simcc_head`. Raises ConfigError for an unknown name, settings or a size that the network cannot
    take, or ImageNet weights that cannot be had.
    """
    simcc_head = settings.pop("simcc_head", None) or simcc_head_of(name)
    check_imgsz(name, imgsz, settings)
    file, complete = find_model(name), _complete(name, settings)
    backbone = file.build(name, complete, imgsz, pretrained)
    if hasattr(file, "neck"):
        neck = file.neck(backbone, complete)
    elif simcc_split is None:
        neck = deconvolutions(backbone.channels, backbone.stride)
    else:
        neck = Neck(channels=backbone.channels, stride=backbone.stride)
    if simcc_split is None:
        return KeypointModel(backbone, neck, HeatmapHead(neck.channels, num_keypoints, neck.map_kernel))
    map_size = (imgsz[0] // neck.stride, imgsz[1] // neck.stride)
    bins = (round(imgsz[0] * simcc_split), round(imgsz[1] * simcc_split))
    return KeypointModel(backbone, neck, SIMCC_HEADS[simcc_head](neck.channels, num_keypoints, map_size, bins))


def set_grad_checkpointing(model: nn.Module) -> None:
    """Compute the backbone's blocks again in the backward pass instead of keeping what they computed: less memory,
    more time, the same gradients and batch-norm statistics. `model` is one of build_model's, in place."""
    *backbone, _head = cast(LayeredModel, model).layers()
    recompute(backbone)


def _plan(name: str, settings: Settings) -> Plan:
    return find_model(name).plan(name, _complete(name, settings))


def _complete(name: str, settings: Settings) -> Settings:
    """The network's settings, with the defaults of those not given."""
    defaults: Mapping[str, Any] = find_model(name).VARIANTS[name]
    for setting in settings:
        if setting not in defaults:
            raise ConfigError(f"{setting}: {name} has no such setting{did_you_mean(setting, defaults)}")
    return {**defaults, **settings}


def _files() -> tuple[ModuleType, ...]:
    """The modules of this folder that offer networks."""
    return _files_in(tuple(__path__))


@cache
def _files_in(folders: tuple[str, ...]) -> tuple[ModuleType, ...]:
    """The same, looked for once: a config is checked thousands of times."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(folders)]
    return tuple(module for module in modules if hasattr(module, "VARIANTS"))
