"""SimpleBaseline (Xiao et al., 2018): any of timm's backbones that gives feature maps, and a neck to stride 4.

`backbone` is timm's name, `neck` is `deconv` (three deconvolutions from stride 32, as in the paper) or `pyramid` (the
maps of all strides from 4 on, summed: lighter). What timm says of a backbone's maps is tried out without weights first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise
from math import log2
from typing import Any

import torch
from torch import Tensor, nn

from posesweep.errors import ConfigError
from posesweep.trainables.models.necks import HEATMAP_STRIDE, Neck, deconvolutions, pyramid
from posesweep.trainables.models.plan import Plan, Settings
from posesweep.trainables.models.pretrained import timm_network

VARIANTS: dict[str, Settings] = {"simple_baseline": {"backbone": "resnet50", "neck": "deconv"}}
COARSEST = (4, 8, 16, 32, 64)  # strides of a last map from which deconvolutions come to stride 4
WAY_OUT = "try resnet50, convnext_tiny or mobilenetv3_small_050"


@dataclass(frozen=True)
class Level:
    """One map of a backbone. `module` is the path of the module that makes it, with "_" for timm's "."."""

    index: int
    channels: int
    stride: int
    module: str

    @property
    def layer(self) -> str:
        """stage1 makes the map at stride 4, stage2 that at 8; all before is the stem."""
        return "stem" if self.stride < HEATMAP_STRIDE else f"stage{round(log2(self.stride)) - 1}"


class FeatureMaps(nn.Module):
    """timm's network; puts out the maps of the levels that are `used`, the finest first, or the one if it is one."""

    def __init__(self, trunk: Any, levels: tuple[Level, ...], used: tuple[Level, ...]) -> None:
        super().__init__()
        self.trunk = trunk
        self.levels = levels
        self.used = used
        self.channels = levels[-1].channels
        self.stride = levels[-1].stride

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        maps = self.trunk(images)
        return maps if len(self.used) > 1 else maps[0]

    def layers(self) -> list[tuple[str, list[nn.Module]]]:
        """The modules in timm's order, which is that of the forward pass; a layer ends with the module that makes its
        map."""
        layers: dict[str, list[nn.Module]] = {level.layer: [] for level in self.levels}
        ends = {level.module: level.layer for level in self.levels}
        network = getattr(self.trunk, "model", self.trunk)  # timm's FeatureGetterNet keeps the whole network
        waiting: list[nn.Module] = []
        for path, module in _units(network, "", set(ends)):
            waiting.append(module)
            if path in ends:
                layers[ends[path]] += waiting
                waiting = []
        layers[self.levels[-1].layer] += waiting
        return list(layers.items())


def plan(variant: str, settings: Settings) -> Plan:
    """From timm's description of the backbone. Raises ConfigError for a backbone that there is not or that gives no
    maps to build on."""
    levels = levels_of(settings["backbone"])
    _used(levels, settings)
    return Plan(tuple(dict.fromkeys(level.layer for level in levels)), levels[-1].stride)


def build(variant: str, settings: Settings, imgsz: tuple[int, int], pretrained: bool) -> FeatureMaps:
    """The backbone; with `pretrained`, timm's ImageNet weights. Raises ConfigError when those cannot be fetched."""
    levels = levels_of(settings["backbone"])
    used = _used(levels, settings)
    indices = tuple(level.index for level in used)
    trunk = timm_network(settings["backbone"], pretrained, features_only=True, out_indices=indices)
    return FeatureMaps(trunk, levels, used)


def neck(backbone: FeatureMaps, settings: Settings) -> Neck:
    """What `neck` says, from the backbone's maps to stride 4."""
    if settings["neck"] == "pyramid":
        return pyramid([level.channels for level in backbone.used], backbone.used[0].stride)
    return deconvolutions(backbone.channels, backbone.stride)


def levels_of(backbone: str) -> tuple[Level, ...]:
    """The backbone's maps, the finest first. Raises ConfigError with the nearest names that timm knows, or with what
    is the matter with the maps."""
    levels, wrong = _described(backbone)
    if wrong:
        raise ConfigError(f"backbone: {wrong}")
    return levels


@lru_cache  # a sweep asks for each of its corners
def _described(backbone: str) -> tuple[tuple[Level, ...], str]:
    """The backbone's maps, or what is wrong with it."""
    import timm  # here, not above: the names of the networks are listed without it

    if not timm.is_model(backbone):
        near = get_close_matches(backbone, timm.list_models(), n=3)
        known = f"did you mean {' or '.join(near)}?" if near else WAY_OUT
        return (), f"timm has no network '{backbone}'; {known}"
    try:
        with torch.device("meta"), torch.enable_grad():
            return _try_out(timm.create_model(backbone, features_only=True)), ""
    except (RuntimeError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        return (), f"{backbone} cannot be used here ({reason}); {WAY_OUT}"


def _try_out(trunk: Any) -> tuple[Level, ...]:
    """timm's description of the maps, held against a forward and a backward pass; runs on a device without memory.

    Raises ValueError where the two differ.
    """
    levels = tuple(
        Level(i, info["num_chs"], info["reduction"], info["module"].replace(".", "_"))
        for i, info in enumerate(trunk.feature_info.info)
    )
    coarsest = levels[-1].stride
    if coarsest not in COARSEST:
        raise ValueError(f"its last map is at stride {coarsest}, not at one of {', '.join(map(str, COARSEST))}")
    if any(fine.stride >= coarse.stride for fine, coarse in pairwise(levels)):
        strides = list(dict.fromkeys(level.stride for level in levels))
        raise ValueError(f"its {len(levels)} maps are not each coarser than the one before: strides {strides}")
    maps = trunk(torch.zeros(2, 3, 6 * coarsest, 4 * coarsest))
    given = [tuple(features.shape[1:]) for features in maps]
    promised = [(x.channels, 6 * coarsest // x.stride, 4 * coarsest // x.stride) for x in levels]
    if given != promised[-len(given) :]:
        raise ValueError(f"an input of {4 * coarsest}x{6 * coarsest} gives maps {given}")
    maps[-1].sum().backward()
    if any(p.grad is None for p in trunk.parameters()):
        raise ValueError("parts of it have no influence on its last map")
    held = FeatureMaps(trunk, levels, levels).layers()
    if not all(any(True for module in modules for _ in module.parameters()) for _, modules in held):
        raise ValueError("its modules do not say where its stages end")
    return levels


def _used(levels: tuple[Level, ...], settings: Settings) -> tuple[Level, ...]:
    """The maps that the neck takes."""
    if settings["neck"] == "deconv":
        return levels[-1:]
    used = tuple(level for level in levels if level.stride >= HEATMAP_STRIDE)
    if used[0].stride != HEATMAP_STRIDE:
        raise ConfigError(
            f"neck: pyramid needs a map at stride {HEATMAP_STRIDE}, and {settings['backbone']}'s finest is at stride "
            f"{used[0].stride}; try neck: deconv"
        )
    return used


def _units(module: nn.Module, path: str, ends: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules inside `module` that no stage ends within, in order, with their paths."""
    for name, child in module.named_children():
        inner = f"{path}_{name}" if path else name
        if any(end.startswith(f"{inner}_") for end in ends) and any(True for _ in child.children()):
            yield from _units(child, inner, ends)
        else:
            yield inner, child
