"""What lies between a backbone and a head: layers that bring its maps to a quarter of the input.

They are new where the backbone is pretrained, so they learn and decay with the head.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

HEATMAP_STRIDE = 4  # input pixels per heatmap cell
DECONVOLUTION_CHANNELS = 256
PYRAMID_CHANNELS = 128


class Neck(nn.Sequential):
    """Layers, and what a head must know of the map they make; without layers it passes the backbone's map on.

    `map_kernel` is the size of the convolution that turns this map into heatmaps.
    """

    def __init__(self, *layers: nn.Module, channels: int, stride: int, map_kernel: int = 1) -> None:
        super().__init__(*layers)
        self.channels = channels
        self.stride = stride
        self.map_kernel = map_kernel


def deconvolutions(in_channels: int, stride: int) -> Neck:
    """4x4 deconvolutions with batch norm and ReLU, each doubling the map, from `stride` to 4 (SimpleBaseline: Xiao et
    al., 2018; ViTPose's classic decoder). Numbered as OpenMMLab's `deconv_layers`."""
    layers: list[nn.Module] = []
    while stride > HEATMAP_STRIDE:
        deconvolution = nn.ConvTranspose2d(in_channels, DECONVOLUTION_CHANNELS, 4, stride=2, padding=1, bias=False)
        nn.init.normal_(deconvolution.weight, std=0.001)
        layers += [deconvolution, nn.BatchNorm2d(DECONVOLUTION_CHANNELS), nn.ReLU(inplace=True)]
        in_channels, stride = DECONVOLUTION_CHANNELS, stride // 2
    return Neck(*layers, channels=in_channels, stride=stride)


def bilinear(in_channels: int, stride: int) -> Neck:
    """ReLU and bilinear upsampling from `stride` to 4, for a 3x3 convolution to maps: ViTPose's simple decoder."""
    upsample = nn.Upsample(scale_factor=stride / HEATMAP_STRIDE, mode="bilinear")
    return Neck(nn.ReLU(), upsample, channels=in_channels, stride=HEATMAP_STRIDE, map_kernel=3)


def pyramid(channels: Sequence[int], stride: int) -> Neck:
    """The sum of maps of several sizes, the finest at `stride`, at the finest one's."""
    return Neck(Pyramid(channels), channels=PYRAMID_CHANNELS, stride=stride)


class Pyramid(nn.Module):
    """Each map, from the coarsest, is added to the next finer after a 1x1 convolution (FPN: Lin et al., 2017), without
    a convolution per level: only the finest sum is put out, after one 3x3 convolution."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, PYRAMID_CHANNELS, 1) for count in channels)
        self.out = nn.Sequential(
            nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(PYRAMID_CHANNELS),
            nn.ReLU(inplace=True),
        )

    def forward(self, maps: list[Tensor]) -> Float[Tensor, "B C h w"]:
        finer = [lateral(features) for lateral, features in zip(self.laterals, maps, strict=True)]
        total = finer.pop()
        while finer:
            level = finer.pop()
            total = level + functional.interpolate(total, size=level.shape[-2:])
        return self.out(total)
