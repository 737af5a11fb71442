"""RTMPose (Jiang et al., 2023): timm's CSPNeXt, and with SimCC the RTMCC head. Input stride 32.

A checkpoint of OpenMMLab's fits: `backbone.stem.` is `backbone.trunk.stem.`, `backbone.stageN.` is
`backbone.trunk.stages.{N - 1}.`; for the head see rtmcc.py.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from posesweep.trainables.models.plan import Plan, Settings
from posesweep.trainables.models.pretrained import timm_network

BACKBONES = {
    "rtmpose_t": "cspnext_tiny",
    "rtmpose_s": "cspnext_s",
    "rtmpose_m": "cspnext_m",
    "rtmpose_l": "cspnext_l",
}
VARIANTS: dict[str, Settings] = {variant: {} for variant in BACKBONES}
SIMCC_HEAD = "rtmcc"
LAYERS = ("stem", "stage1", "stage2", "stage3", "stage4")
STRIDE = 32


class CSPNeXt(nn.Module):
    """timm's CSPNeXt up to its last map."""

    stride = STRIDE

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk
        self.channels = trunk.num_features

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.trunk.forward_features(images)

    def layers(self) -> list[tuple[str, list[nn.Module]]]:
        """The stem and the four stages."""
        trunk: Any = self.trunk
        return list(zip(LAYERS, ([module] for module in (trunk.stem, *trunk.stages)), strict=True))


def plan(variant: str, settings: Settings) -> Plan:
    """The same for every size."""
    return Plan(LAYERS, STRIDE)


def build(variant: str, settings: Settings, imgsz: tuple[int, int], pretrained: bool) -> CSPNeXt:
    """A CSPNeXt; with `pretrained`, timm's ImageNet weights. Raises ConfigError when those cannot be fetched."""
    return CSPNeXt(timm_network(BACKBONES[variant], pretrained, num_classes=0))
