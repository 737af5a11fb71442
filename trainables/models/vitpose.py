"""ViTPose (Xu et al., 2022): a plain vision transformer from timm and a decoder from stride 16 to stride 4.

A checkpoint of OpenMMLab's fits once its keys are renamed, `backbone.` to `backbone.trunk.` and in it
    pos_embed, patch_embed.projection.          pos_embed, patch_embed.proj.
    layers.N.ln1., layers.N.ln2.                blocks.N.norm1., blocks.N.norm2.
    layers.N.ffn.layers.0.0., ...ffn.layers.1.  blocks.N.mlp.fc1., blocks.N.mlp.fc2.
    layers.N.attn.                              blocks.N.attn.
    ln1.                                        norm.
and of the head `head.deconv_layers.` to `neck.`, `head.final_layer.` to `head.maps.`.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from posesweep.errors import ConfigError
from posesweep.trainables.models.necks import Neck, bilinear, deconvolutions
from posesweep.trainables.models.plan import Plan, Settings
from posesweep.trainables.models.pretrained import timm_network
from posesweep.trainables.optim import Layers

STRIDE = 16  # one patch


@dataclass(frozen=True)
class Size:
    """`imagenet` is timm's name of a transformer of this very shape, trained with the mean and deviation we use."""

    width: int
    depth: int
    heads: int
    drop_path: float
    imagenet: str | None = None


SIZES = {  # drop_path as in the published configs; ViTPose-S has 12 heads, every ImageNet transformer of its width 6
    "vitpose_t": Size(192, 12, 3, 0.0, "deit_tiny_patch16_224"),
    "vitpose_s": Size(384, 12, 12, 0.1),
    "vitpose_b": Size(768, 12, 12, 0.3, "deit_base_patch16_224"),
    "vitpose_l": Size(1024, 24, 16, 0.5),
}
VARIANTS: dict[str, Settings] = {
    name: {"decoder": "classic", "drop_path": size.drop_path} for name, size in SIZES.items()
}


class ViT(nn.Module):
    """timm's vision transformer, without class token, its tokens laid out as a map."""

    stride = STRIDE

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        # ViTPose's patches begin 2 pixels outside the image
        trunk.patch_embed.proj.padding = (2, 2)
        self.trunk = trunk
        self.channels = trunk.embed_dim

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        height, width = (side // STRIDE for side in images.shape[-2:])
        return self.trunk.forward_features(images).transpose(1, 2).unflatten(2, (height, width)).contiguous()

    def layers(self) -> Layers:
        """The patches with their positions, every block, the last norm. timm's trunk keeps the positions from decay."""
        trunk: Any = self.trunk
        parts = [[trunk.patch_embed, trunk.pos_embed], *([block] for block in trunk.blocks), [trunk.norm]]
        return list(zip(_layers(len(trunk.blocks)), parts, strict=True))


def plan(variant: str, settings: Settings) -> Plan:
    """As many layers as there are blocks, and one before and one after them."""
    return Plan(_layers(SIZES[variant].depth), STRIDE)


def build(variant: str, settings: Settings, imgsz: tuple[int, int], pretrained: bool) -> ViT:
    """A transformer for this input size; with `pretrained`, DeiT's ImageNet weights, its positions interpolated.

    Raises ConfigError when there are none for this size of network or they cannot be fetched.
    """
    size = SIZES[variant]
    if pretrained and size.imagenet is None:
        having = ", ".join(name for name, other in SIZES.items() if other.imagenet)
        raise ConfigError(
            f"pretrained: there are no ImageNet weights that fit {variant} (of its family: {having}); set pretrained: "
            "false, or give a ViTPose checkpoint with weights:"
        )
    shape = {"embed_dim": size.width, "depth": size.depth, "num_heads": size.heads}
    common = {"num_classes": 0, "global_pool": "", "img_size": (imgsz[1], imgsz[0]), **shape}
    trunk = timm_network(
        "vit_base_patch16_224", False, class_token=False, drop_path_rate=settings["drop_path"], **common
    )
    if pretrained:
        _take(trunk, timm_network(str(size.imagenet), True, **common))
    return ViT(trunk)


def neck(backbone: ViT, settings: Settings) -> Neck:
    """ViTPose's simple or classic decoder, without its last convolution."""
    decoder = {"simple": bilinear, "classic": deconvolutions}[settings["decoder"]]
    return decoder(backbone.channels, backbone.stride)


def _take(trunk: nn.Module, imagenet: nn.Module) -> None:
    """The weights of a transformer with class token."""
    weights = imagenet.state_dict()
    del weights["cls_token"]
    weights["pos_embed"] = weights["pos_embed"][:, 1:]
    trunk.load_state_dict(weights)


def _layers(depth: int) -> tuple[str, ...]:
    return ("patch_embed", *(f"block{i + 1}" for i in range(depth)), "norm")
