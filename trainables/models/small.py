"""A small residual network for CPUs: dense 3x3 convolutions, which beat depthwise ones there, and a stride-4 output.

Stages at strides 4, 8 and 16 see ever more of the image; what they found is added back at stride 4, where the last
convolution widens it: a head of 1x1 convolutions makes every heatmap a sum of these channels, and with fewer of them
than keypoints it is chance which keypoints are learned at all (26 from 16 channels: 12 trainings of the demo, of four
settings with three seeds each, had AP 0.38 to 0.50 and differed by 0.033 between seeds; from 64 it is 0.46 to 0.54 and
0.008).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesweep.errors import ConfigError
from posesweep.trainables.models.plan import Plan, Settings

WIDTHS = {"tiny": 16, "small": 32}  # channels at stride 4
VARIANTS: dict[str, Settings] = {variant: {} for variant in WIDTHS}
LAYERS = ("stem", "stage1", "stage2", "stage3", "merge")
STRIDE = 16


class Block(nn.Module):
    """Two 3x3 convolutions around which the input passes by (ResNet's basic block, He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return functional.relu(features + self.second(self.first(features)))


class SmallNet(nn.Module):
    """`width` channels at stride 4, twice as many at each halving."""

    stride = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = 4 * width
        self.stem = _conv(3, width, stride=2)
        self.stage1 = nn.Sequential(_conv(width, width, stride=2), Block(width))
        self.stage2 = nn.Sequential(_conv(width, 2 * width, stride=2), Block(2 * width))
        self.stage3 = nn.Sequential(_conv(2 * width, 4 * width, stride=2), Block(4 * width))
        self.merge = nn.ModuleDict(
            {
                "from3": nn.Conv2d(4 * width, 2 * width, 1),
                "from2": nn.Conv2d(2 * width, width, 1),
                "out": _conv(width, 4 * width),
            }
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        fine = self.stage1(self.stem(images))
        middle = self.stage2(fine)
        coarse = self.stage3(middle)
        middle = middle + functional.interpolate(self.merge["from3"](coarse), scale_factor=2)
        fine = fine + functional.interpolate(self.merge["from2"](middle), scale_factor=2)
        return self.merge["out"](fine)

    def layers(self) -> list[tuple[str, list[nn.Module]]]:
        """One module per layer."""
        return [(name, [getattr(self, name)]) for name in LAYERS]


def plan(variant: str, settings: Settings) -> Plan:
    """The same for both widths."""
    return Plan(LAYERS, STRIDE)


def build(variant: str, settings: Settings, imgsz: tuple[int, int], pretrained: bool) -> SmallNet:
    """A network of random weights. Raises ConfigError when `pretrained`: there are no weights to have."""
    if pretrained:
        raise ConfigError(f"pretrained: there are no ImageNet weights of {variant}; set pretrained: false")
    return SmallNet(WIDTHS[variant])


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
