"""Lite-HRNet (Yu et al., 2021): HRNet's parallel maps, held together by weights for channels instead of convolutions.

A block leaves half of the channels as they are. The other half is multiplied by weights that are computed from the
pooled maps of all resolutions at once, passes a depthwise convolution, and is multiplied by weights computed from its
own mean; then the halves are shuffled. `channels` is the width at stride 4, twice as wide at each halving; `branches`
the number of resolutions, one more with each stage.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesweep.errors import ConfigError
from posesweep.trainables.models.plan import Plan, Settings

MODULES = {"lite_hrnet_18": (2, 4, 2), "lite_hrnet_30": (3, 8, 3)}  # in stages 2, 3 and 4
VARIANTS: dict[str, Settings] = {variant: {"channels": 40, "branches": 4} for variant in MODULES}
STEM_CHANNELS = 32
BLOCKS = 2  # in a module
CROSS_RATIO = 8  # by how much the weights of all resolutions are computed with fewer channels
SPATIAL_RATIO = 4  # the same for the weights of one map
FEWEST_CHANNELS = 2 * SPATIAL_RATIO

Maps = list[Tensor]  # [B, C, H / 4, W / 4], then [B, 2 C, H / 8, W / 8], ...


class LiteHRNet(nn.Module):
    """`widths` are the channels of the branches, the finest first; `modules` how many modules each stage has."""

    stride = 4

    def __init__(self, widths: Sequence[int], modules: Sequence[int]) -> None:
        super().__init__()
        self.channels = widths[0]
        self.stem = Stem(STEM_CHANNELS)
        before = [STEM_CHANNELS]
        self.stages = nn.ModuleList()
        for count in modules:
            widths_here = widths[: len(self.stages) + 2]
            fusing = [Module(widths_here) for _ in range(count)]
            self.stages.append(nn.Sequential(Transition(before, widths_here), *fusing))
            before = list(widths_here)
        self.merge = Merge(widths)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        maps = [self.stem(images)]
        for stage in self.stages:
            maps = stage(maps)
        return self.merge(maps)

    def layers(self) -> list[tuple[str, list[nn.Module]]]:
        """The stem, each stage with the transition to it, and what adds the coarse maps to the finest."""
        modules = [self.stem, *self.stages, self.merge]
        return [(name, [module]) for name, module in zip(_layers(len(self.stages) + 1), modules, strict=True)]


class Stem(nn.Module):
    """A strided convolution and a strided shuffle block (ShuffleNet V2: Ma et al., 2018), to stride 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.short = nn.Sequential(*_depthwise(half, stride=2), *_pointwise(half, half, nn.ReLU))
        self.long = nn.Sequential(
            *_pointwise(half, channels, nn.ReLU), *_depthwise(channels, stride=2), *_pointwise(channels, half, nn.ReLU)
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        first, second = self.conv(images).chunk(2, dim=1)
        return _shuffle(torch.cat([self.short(first), self.long(second)], dim=1))


class Transition(nn.Module):
    """Maps of the widths `before` to those of `after`, which has one coarser map more."""

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        self.same = nn.ModuleList(
            nn.Identity() if old == new else _separable(old, new) for old, new in zip(before, after, strict=False)
        )
        self.coarser = _separable(before[-1], after[-1], stride=2)

    def forward(self, maps: Maps) -> Maps:
        return [*(same(features) for same, features in zip(self.same, maps, strict=True)), self.coarser(maps[-1])]


class Module(nn.Module):
    """Blocks, then every map is added to every other."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(widths) for _ in range(BLOCKS)))
        branches = range(len(widths))
        self.fuse = nn.ModuleList(
            nn.ModuleList(_resize(widths, source, target) for source in branches) for target in branches
        )

    def forward(self, maps: Maps) -> Maps:
        """As in the authors' code, the finest map counts twice in every sum, and the coarser maps are given it after
        its own sum: an addition in place there, to whose absence a comment ascribes a loss of 0.5 to 1 AP."""
        maps = self.blocks(maps)
        finest = self._sum(0, maps)
        coarser = [self._sum(target, [finest, *maps[1:]]) for target in range(1, len(maps))]
        return [functional.relu(total) for total in (finest, *coarser)]

    def _sum(self, target: int, maps: Maps) -> Tensor:
        resizers: nn.ModuleList = self.fuse[target]  # type: ignore[assignment]
        finest, *others = (resize(features) for resize, features in zip(resizers, maps, strict=True))
        return sum(others, 2 * finest)


class Block(nn.Module):
    """Conditional channel weighting (section 3.2 of the paper)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        halves = [width // 2 for width in widths]
        self.cross = CrossResolutionWeights(halves)
        self.depthwise = nn.ModuleList(nn.Sequential(*_depthwise(half)) for half in halves)
        self.spatial = nn.ModuleList(SpatialWeights(half) for half in halves)

    def forward(self, maps: Maps) -> Maps:
        kept, changed = zip(*(features.chunk(2, dim=1) for features in maps), strict=True)
        weighted = [
            spatial(depthwise(features))
            for spatial, depthwise, features in zip(
                self.spatial, self.depthwise, self.cross(list(changed)), strict=True
            )
        ]
        return [_shuffle(torch.cat(halves, dim=1)) for halves in zip(kept, weighted, strict=True)]


class CrossResolutionWeights(nn.Module):
    """Each map times weights for its channels and cells, from all maps pooled to the coarsest one's size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        total = sum(widths)
        self.widths = list(widths)
        self.weights = nn.Sequential(
            *_pointwise(total, total // CROSS_RATIO, nn.ReLU), *_pointwise(total // CROSS_RATIO, total, nn.Sigmoid)
        )

    def forward(self, maps: Maps) -> Maps:
        halvings = len(maps) - 1
        pooled = [functional.avg_pool2d(features, 2 ** (halvings - i)) for i, features in enumerate(maps)]
        weights = self.weights(torch.cat(pooled, dim=1)).split(self.widths, dim=1)
        return [
            features * functional.interpolate(weight, size=features.shape[-2:])
            for features, weight in zip(maps, weights, strict=True)
        ]


class SpatialWeights(nn.Module):
    """A map times weights for its channels, from its mean over the cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        fewer = width // SPATIAL_RATIO
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, fewer, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(fewer, width, 1),
            nn.Sigmoid(),
        )
        nn.init.zeros_(self.weights[1].get_parameter("bias"))  # so few hidden units must not all start dead

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return features * self.weights(features)


class Merge(nn.Module):
    """From the coarsest map to the finest: add what came from below, bring it to the next one's width."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        targets = [widths[0], *widths[:-1]]
        self.project = nn.ModuleList(_separable(old, new) for old, new in zip(widths, targets, strict=True))

    def forward(self, maps: Maps) -> Float[Tensor, "B C h w"]:
        *finer, coarsest = zip(self.project, maps, strict=True)
        merged = coarsest[0](coarsest[1])
        for project, features in reversed(finer):
            size = features.shape[-2:]
            merged = project(features + functional.interpolate(merged, size=size, mode="bilinear", align_corners=True))
        return merged


def plan(variant: str, settings: Settings) -> Plan:
    """A stage for each branch after the first. Raises ConfigError for widths and depths that cannot be built."""
    channels, branches = settings["channels"], settings["branches"]
    most = len(MODULES[variant]) + 1
    if not 2 <= branches <= most:
        raise ConfigError(f"branches: {branches} must be 2 to {most} (resolutions of {variant}); try {most}")
    if channels < FEWEST_CHANNELS or channels % 2:
        fitting = max(FEWEST_CHANNELS, channels + channels % 2)
        raise ConfigError(
            f"channels: {channels} must be an even number of at least {FEWEST_CHANNELS}, because {variant}'s blocks "
            f"halve them; try {fitting}"
        )
    return Plan(_layers(branches), 4 * 2 ** (branches - 1))


def build(variant: str, settings: Settings, imgsz: tuple[int, int], pretrained: bool) -> LiteHRNet:
    """A network of random weights. Raises ConfigError when `pretrained`: there are no weights to have."""
    if pretrained:
        raise ConfigError(f"pretrained: there are no ImageNet weights of {variant}; set pretrained: false")
    branches = settings["branches"]
    return LiteHRNet([settings["channels"] * 2**i for i in range(branches)], MODULES[variant][: branches - 1])


def _layers(branches: int) -> tuple[str, ...]:
    return ("stem", *(f"stage{i}" for i in range(2, branches + 1)), "merge")


def _shuffle(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """One channel of the first half, one of the second, and so on."""
    return features.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def _resize(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch's width and size to another's; coarser in steps of two, with ReLU between them."""
    if source == target:
        return nn.Identity()
    if source > target:
        upsample = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*_pointwise(widths[source], widths[target], nn.Identity), upsample)
    width = widths[source]
    steps = [_separable(width, width, stride=2) for _ in range(target - source - 1)]
    last = nn.Sequential(*_depthwise(width, stride=2), *_pointwise(width, widths[target], nn.Identity))
    return nn.Sequential(*steps, last)


def _separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_depthwise(in_channels, stride), *_pointwise(in_channels, out_channels, nn.ReLU))


def _depthwise(channels: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


def _pointwise(in_channels: int, out_channels: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), activation()]
