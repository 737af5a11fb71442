"""The names that tensors have in other people's checkpoints, brought to one set of names.

The common names are `backbone.` + timm's own name, and `head.` + OpenMMLab's of its version 1:

    ours                      OpenMMLab 1.x                 0.x                          common
    backbone.trunk.conv1.     backbone.conv1.               backbone.conv1.              backbone.conv1.
    neck.0.                   head.deconv_layers.0.         keypoint_head.deconv_...     head.deconv_layers.0.
    head.maps.                head.final_layer.             keypoint_head.final_layer.   head.final_layer.

HRNet, ResNet and MobileNet have the same names in timm and OpenMMLab. CSPNeXt counts its stages from 1 there, and the
transformers of mmpretrain and of the ViTPose repository have names of their own (read from the sources of mmpose 1.3,
mmdetection 3.3, mmpretrain 1.2 and ViTPose).
"""

import re
from collections.abc import Iterable

Renames = tuple[tuple[str, str], ...]

OWN = "PoseSweep"  # what our own checkpoints are called

OURS: Renames = (
    # timm's features_only: what was stages.0
    (r"^backbone\.trunk\.(?:model\.)?(stem|stages|layers|blocks|features)_", r"backbone.\1."),
    (r"^backbone\.trunk\.(?:model\.)?", "backbone."),
    (r"^neck\.", "head.deconv_layers."),
    (r"^head\.maps\.", "head.final_layer."),
    (r"^head\.([xy])\.", r"head.mlp_head_\1."),
)
HEADS: Renames = (
    (r"^keypoint_head\.", "head."),
    (r"^head\.deconv_head\.", "head."),  # mmpose's SimCC over deconvolutions
)
# a name that only this family of backbones has -> what is called otherwise in timm
BACKBONES: dict[str, Renames] = {
    "stem.0.conv.weight": ((r"^stage(\d)\.", r"stages.{\1}."),),  # CSPNeXt; {n}: one less than n
    "patch_embed.projection.weight": (  # mmpretrain's VisionTransformer, which mmpose 1.x's ViTPose is
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.(\d+)\.(?:ln|norm)([12])\.", r"blocks.\1.norm\2."),
        (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
        (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
        (r"^layers\.(\d+)\.", r"blocks.\1."),
        (r"^(?:ln|norm)1\.", "norm."),
    ),
    "last_norm.weight": ((r"^last_norm\.", "norm."),),  # the ViTPose repository
}
NOT_THE_NETWORK = ("data_preprocessor.", "loss", "head.loss", "keypoint_head.loss")
# starts of names that are not a backbone's when there is no `backbone.` before a backbone's own
CLASSIFIERS = ("head.", "classifier.", "fc.")


def names_of_ours(keys: Iterable[str]) -> dict[str, str]:
    """The common name of every tensor of a PoseSweep network."""
    return {key: _renamed(key, OURS) for key in keys}


def common_names(keys: Iterable[str]) -> tuple[str, dict[str, str]]:
    """What kind of checkpoint has tensors of these names, in words, and the common name of each.

    A tensor that is no part of the network (means and deviations of the images, for instance) has none.
    """
    keys = [key for key in keys if not key.startswith(NOT_THE_NETWORK)]
    if any(key.startswith(("backbone.trunk.", "head.maps.")) for key in keys):
        return OWN, names_of_ours(keys)
    wrapped = any(key.startswith("backbone.") for key in keys)
    short = {key: key.removeprefix("backbone.") for key in keys if key.startswith("backbone.") or not wrapped}
    renames = next((names for mark, names in BACKBONES.items() if mark in short.values()), ())
    names = {}
    for key in keys:
        if key in short and (wrapped or not key.startswith(CLASSIFIERS)):
            names[key] = "backbone." + _renamed(short[key], renames)
        else:
            names[key] = _renamed(key, HEADS)
    return _kind(keys, wrapped), _last_layers(names)


def _kind(keys: list[str], wrapped: bool) -> str:
    if any(key.startswith("keypoint_head.") for key in keys):
        return "OpenMMLab 0.x"
    if not wrapped:
        return "a backbone alone (timm, torchvision or an ImageNet checkpoint)"
    pose = any(key.startswith(("head.final_layer.", "head.cls_x.", "head.mlp_head_x.")) for key in keys)
    return "OpenMMLab 1.x" if pose else "OpenMMLab, a backbone without keypoint head"


def _last_layers(names: dict[str, str]) -> dict[str, str]:
    """OpenMMLab 0.x counts the convolutions before the last one in `final_layer` too: only the last is it."""
    counted = {key: match for key, name in names.items() if (match := re.match(r"head\.final_layer\.(\d+)\.", name))}
    last = max((int(match[1]) for match in counted.values()), default=0)
    for key, match in counted.items():
        place = "head.final_layer." if int(match[1]) == last else f"head.conv_layers.{match[1]}."
        names[key] = place + names[key][match.end() :]
    return names


def _renamed(name: str, renames: Renames) -> str:
    """After the first rename that fits."""
    for pattern, replacement in renames:
        new, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return re.sub(r"\{(\d+)\}", lambda number: str(int(number[1]) - 1), new)
    return name
