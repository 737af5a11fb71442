"""HRNet (Sun et al., 2019) from timm: keeps a stride-4 map all the way. Weights of OpenMMLab's HRNets fit `trunk`."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from posesweep.trainables.models.plan import Plan, Settings
from posesweep.trainables.models.pretrained import timm_network

VARIANTS: dict[str, Settings] = {
    "hrnet_w18_small": {},
    "hrnet_w18": {},
    "hrnet_w32": {},
    "hrnet_w40": {},
    "hrnet_w44": {},
    "hrnet_w48": {},
}
LAYERS = ("stem", "layer1", "stage2", "stage3", "stage4")
STRIDE = 32  # the coarsest of the four branches; they are summed, so every one must divide evenly


class HRNet(nn.Module):
    """timm's HRNet without what a stride-4 output does not use."""

    stride = 4

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        # the last fusion also makes strides 8, 16 and 32, whose weights would never get a gradient: DDP stops at that
        del trunk.stage4[-1].fuse_layers[1:]
        self.trunk = trunk
        self.channels = trunk.feature_info.channels()[0]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.trunk(images)[0]

    def layers(self) -> list[tuple[str, list[nn.Module]]]:
        """Each stage with the transition that makes its branches."""
        trunk: Any = self.trunk
        modules = (
            [trunk.conv1, trunk.bn1, trunk.conv2, trunk.bn2],
            [trunk.layer1],
            [trunk.transition1, trunk.stage2],
            [trunk.transition2, trunk.stage3],
            [trunk.transition3, trunk.stage4],
        )
        return list(zip(LAYERS, modules, strict=True))


def plan(variant: str, settings: Settings) -> Plan:
    """The same for every width."""
    return Plan(LAYERS, STRIDE)


def build(variant: str, settings: Settings, imgsz: tuple[int, int], pretrained: bool) -> HRNet:
    """An HRNet; with `pretrained`, timm's ImageNet weights. Raises ConfigError when those cannot be fetched."""
    # feature_location '': the branches themselves; the default adds a classifier's channel increase
    trunk = timm_network(variant, pretrained, features_only=True, feature_location="", out_indices=(1,))
    return HRNet(trunk)
