"""The networks: one file per family, found by the names it offers; a new network is one new file here, nothing else.

A network's file offers
    VARIANTS  the names a sweep may say (`model: hrnet_w32`)
    LAYERS    the names of the backbone's layers in order from the input: what `freeze` and `layer_decay` count
    STRIDE    input width and height must be multiples of it
    build(variant, pretrained) -> Backbone
and loads heavy libraries inside `build` only, so that listing the names stays cheap.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from posesweep.errors import ConfigError, did_you_mean
from posesweep.trainables.models.heads import HeatmapHead, SimCCHead
from posesweep.trainables.optim import Layers


@runtime_checkable
class Backbone(Protocol):
    """An nn.Module from images [B, 3, H, W] to one feature map [B, channels, H / stride, W / stride]."""

    channels: int
    stride: int

    def layers(self) -> Layers:
        """Every parameter in exactly one layer; the names are the file's LAYERS."""
        ...

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]: ...


class KeypointModel(nn.Module):
    """Backbone and head, from normalised images to heatmaps [B, K, h, w] or to logits over x and y [B, K, bins]."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def layers(self) -> Layers:
        """The backbone's layers in order from the input, then ("head", [head]); every parameter in exactly one."""
        return [*self.backbone.layers(), ("head", [self.head])]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Tensor | tuple[Tensor, Tensor]:
        return self.head(self.backbone(images))


def model_names() -> tuple[str, ...]:
    """All names that `model:` may take."""
    return tuple(variant for module in _files() for variant in module.VARIANTS)


def find_model(name: str) -> ModuleType:
    """The file that offers `name` among its VARIANTS. Raises ConfigError with the nearest name."""
    for module in _files():
        if name in module.VARIANTS:
            return module
    raise ConfigError(f"model: no network is called '{name}'{did_you_mean(name, model_names())}")


def layer_names(name: str) -> tuple[str, ...]:
    """The backbone's layers in order from the input, without the head. Builds nothing."""
    return find_model(name).LAYERS


def check_imgsz(name: str, imgsz: tuple[int, int]) -> None:
    """Raise ConfigError unless `imgsz` (width, height in pixels) is a multiple of what the network needs."""
    stride = find_model(name).STRIDE
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
) -> KeypointModel:
    """A new network with a heatmap head or, given `simcc_split` (bins per input pixel), a SimCC head.

    `imgsz` is the network input's width and height in pixels. Raises ConfigError for an unknown name, a size that
    the network cannot take, or ImageNet weights that cannot be had.
    """
    check_imgsz(name, imgsz)
    backbone = find_model(name).build(name, pretrained)
    if simcc_split is None:
        return KeypointModel(backbone, HeatmapHead(backbone.channels, num_keypoints))
    map_size = (imgsz[0] // backbone.stride, imgsz[1] // backbone.stride)
    bins = (round(imgsz[0] * simcc_split), round(imgsz[1] * simcc_split))
    return KeypointModel(backbone, SimCCHead(backbone.channels, num_keypoints, map_size, bins))


def _files() -> list[ModuleType]:
    """The modules of this folder that offer networks."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return [module for module in modules if hasattr(module, "VARIANTS")]
