"""State dicts as OpenMMLab's checkpoints have them, from the names and shapes its sources document, not from our code.

HRNet: mmpose/models/backbones/hrnet.py with configs/_base_'s hrnet_w32; CSPNeXt and RTMCC: mmdet's csp_next.py and
csp_layer.py, mmpose's rtmcc_head.py, rtmcc_block.py with rtmpose-m_8xb256-420e_coco-256x192.py; ViTPose 1.x:
mmpretrain's vision_transformer.py; ViTPose 0.x: vit.py and topdown_heatmap_simple_head.py of ViTAE-Transformer/ViTPose.
Values are drawn at random, a variance is above 0.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Tensors of these shapes, small enough that a deep network's output stays finite."""
    draw = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=draw) * 0.05 for name, shape in shapes.items()}
    for name in state:
        if name.endswith("running_var"):
            state[name] = state[name].abs() + 0.5
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
    return state


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def norm(name: str, channels: int) -> Shapes:
    """Batch norm."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (channels,) for part in parts}, f"{name}.num_batches_tracked": ()}


def hrnet(width: int) -> Shapes:
    """HRNet, one stride-4 output (`multiscale_output=False` in the last stage)."""
    shapes = {"conv1.weight": (64, 3, 3, 3), "conv2.weight": (64, 64, 3, 3), **norm("bn1", 64), **norm("bn2", 64)}
    for block in range(4):  # bottlenecks
        ins = 64 if block == 0 else 256
        shapes |= {f"layer1.{block}.conv1.weight": (64, ins, 1, 1), **norm(f"layer1.{block}.bn1", 64)}
        shapes |= {f"layer1.{block}.conv2.weight": (64, 64, 3, 3), **norm(f"layer1.{block}.bn2", 64)}
        shapes |= {f"layer1.{block}.conv3.weight": (256, 64, 1, 1), **norm(f"layer1.{block}.bn3", 256)}
    shapes |= {"layer1.0.downsample.0.weight": (256, 64, 1, 1), **norm("layer1.0.downsample.1", 256)}
    shapes |= {"transition1.0.0.weight": (width, 256, 3, 3), **norm("transition1.0.1", width)}
    shapes |= {"transition1.1.0.0.weight": (2 * width, 256, 3, 3), **norm("transition1.1.0.1", 2 * width)}
    for stage, branches, modules in ((2, 2, 1), (3, 3, 4), (4, 4, 3)):
        widths = [width * 2**branch for branch in range(branches)]
        if stage > 2:  # a new branch from the coarsest one
            name = f"transition{stage - 1}.{branches - 1}.0"
            shapes |= {f"{name}.0.weight": (widths[-1], widths[-2], 3, 3), **norm(f"{name}.1", widths[-1])}
        for module in range(modules):
            outputs = 1 if (stage, module) == (4, modules - 1) else branches
            shapes |= prefixed(f"stage{stage}.{module}.", _hr_module(widths, outputs))
    return shapes


def _hr_module(widths: list[int], outputs: int) -> Shapes:
    shapes: Shapes = {}
    for branch, width in enumerate(widths):
        for block in range(4):
            for i in (1, 2):
                name = f"branches.{branch}.{block}"
                shapes |= {f"{name}.conv{i}.weight": (width, width, 3, 3), **norm(f"{name}.bn{i}", width)}
    for to in range(outputs):
        for source, width in enumerate(widths):
            name = f"fuse_layers.{to}.{source}"
            if source > to:  # 1x1, then upsampling
                shapes |= {f"{name}.0.weight": (widths[to], width, 1, 1), **norm(f"{name}.1", widths[to])}
            for step in range(to - source):  # a strided convolution per halving, the last one changes the width
                out = widths[to] if step == to - source - 1 else width
                shapes |= {f"{name}.{step}.0.weight": (out, width, 3, 3), **norm(f"{name}.{step}.1", out)}
    return shapes


def final_layer(head: str, keypoints: int, channels: int, kernel: int = 1) -> Shapes:
    """The last convolution of a heatmap head, or RTMCC's."""
    return {
        f"{head}.final_layer.weight": (keypoints, channels, kernel, kernel),
        f"{head}.final_layer.bias": (keypoints,),
    }


def cspnext(widen: float, deepen: float) -> Shapes:
    """CSPNeXt, arch P5, expand_ratio 0.5, with channel attention."""
    stem = int(64 * widen)
    shapes = module("stem.0", 3, stem // 2, 3) | module("stem.1", stem // 2, stem // 2, 3)
    shapes |= module("stem.2", stem // 2, stem, 3)
    for stage, (ins, outs, blocks) in enumerate(((64, 128, 3), (128, 256, 6), (256, 512, 6), (512, 1024, 3)), 1):
        ins, outs, count = int(ins * widen), int(outs * widen), max(round(blocks * deepen), 1)
        shapes |= module(f"stage{stage}.0", ins, outs, 3)
        if stage == 4:  # spatial pyramid pooling of three kernels and the map itself
            shapes |= module("stage4.1.conv1", outs, outs // 2, 1) | module("stage4.1.conv2", outs * 2, outs, 1)
        shapes |= prefixed(f"stage{stage}.{2 if stage == 4 else 1}.", _csp_layer(outs, count))
    return shapes


def _csp_layer(channels: int, count: int) -> Shapes:
    half = channels // 2
    shapes = module("main_conv", channels, half, 1) | module("short_conv", channels, half, 1)
    shapes |= module("final_conv", channels, channels, 1)
    for block in range(count):
        shapes |= module(f"blocks.{block}.conv1", half, half, 3)
        shapes |= module(f"blocks.{block}.conv2.depthwise_conv", 1, half, 5)
        shapes |= module(f"blocks.{block}.conv2.pointwise_conv", half, half, 1)
    return shapes | {"attention.fc.weight": (channels, channels, 1, 1), "attention.fc.bias": (channels,)}


def module(name: str, ins: int, outs: int, kernel: int) -> Shapes:
    """mmcv's ConvModule."""
    return {f"{name}.conv.weight": (outs, ins, kernel, kernel), **norm(f"{name}.bn", outs)}


def rtmcc(keypoints: int, channels: int, imgsz: tuple[int, int]) -> Shapes:
    """RTMCCHead: final_layer_kernel_size 7, hidden_dims 256, s 128, expansion_factor 2, split ratio 2."""
    width, height = imgsz
    return {
        **final_layer("head", keypoints, channels, 7),
        "head.mlp.0.g": (1,),
        "head.mlp.1.weight": (256, width // 32 * (height // 32)),
        "head.gau.gamma": (2, 128),
        "head.gau.beta": (2, 128),
        "head.gau.o.weight": (256, 512),
        "head.gau.uv.weight": (2 * 512 + 128, 256),
        "head.gau.ln.g": (1,),
        "head.gau.res_scale.scale": (256,),
        "head.cls_x.weight": (2 * width, 256),
        "head.cls_y.weight": (2 * height, 256),
    }


def linear(name: str, ins: int, outs: int) -> Shapes:
    return {f"{name}.weight": (outs, ins), f"{name}.bias": (outs,)}


def layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vit_1x(width: int, depth: int, patches: int) -> Shapes:
    """mmpretrain's VisionTransformer, with_cls_token=False, out_type='featmap'."""
    shapes: Shapes = {"pos_embed": (1, patches, width), "patch_embed.projection.weight": (width, 3, 16, 16)}
    shapes |= {"patch_embed.projection.bias": (width,), **layer_norm("ln1", width)}
    for i in range(depth):
        shapes |= layer_norm(f"layers.{i}.ln1", width) | layer_norm(f"layers.{i}.ln2", width)
        shapes |= linear(f"layers.{i}.attn.qkv", width, 3 * width) | linear(f"layers.{i}.attn.proj", width, width)
        shapes |= linear(f"layers.{i}.ffn.layers.0.0", width, 4 * width)
        shapes |= linear(f"layers.{i}.ffn.layers.1", 4 * width, width)
    return shapes


def vit_0x(width: int, depth: int, patches: int) -> Shapes:
    """The ViTPose repository's ViT: a position for a class token that it does not have."""
    shapes: Shapes = {"pos_embed": (1, patches + 1, width), "patch_embed.proj.weight": (width, 3, 16, 16)}
    shapes |= {"patch_embed.proj.bias": (width,), **layer_norm("last_norm", width)}
    for i in range(depth):
        shapes |= layer_norm(f"blocks.{i}.norm1", width) | layer_norm(f"blocks.{i}.norm2", width)
        shapes |= linear(f"blocks.{i}.attn.qkv", width, 3 * width) | linear(f"blocks.{i}.attn.proj", width, width)
        shapes |= linear(f"blocks.{i}.mlp.fc1", width, 4 * width) | linear(f"blocks.{i}.mlp.fc2", 4 * width, width)
    return shapes


def deconvolutions(head: str, channels: Iterable[int]) -> Shapes:
    """4x4 deconvolutions to 256 channels each: Sequential of deconvolution, norm, ReLU."""
    shapes: Shapes = {}
    for i, ins in enumerate(channels):
        shapes |= {f"{head}.deconv_layers.{3 * i}.weight": (ins, 256, 4, 4)}
        shapes |= norm(f"{head}.deconv_layers.{3 * i + 1}", 256)
    return shapes
