"""Checkpoints in OpenMMLab's layouts, written down from their sources, in our networks."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.cspnext import checkpoint_filter_fn
from torch.nn import functional

from posesweep.trainables.models import build_model
from posesweep.trainables.models.openmmlab import common_names, names_of_ours
from posesweep.trainables.starting import start_from
from tests.trainables.openmmlab_layouts import (
    cspnext,
    deconvolutions,
    filled,
    final_layer,
    hrnet,
    linear,
    prefixed,
    rtmcc,
    vit_0x,
    vit_1x,
)

COCO = tuple(f"point {i}" for i in range(17))
PREPROCESSOR = {"data_preprocessor.mean": (3, 1, 1), "data_preprocessor.std": (3, 1, 1)}
IMGSZ = (192, 256)


def started(tmp_path, network, state, keypoints=COCO):
    path = tmp_path / "file.pth"
    torch.save({"meta": {"epoch": 210}, "state_dict": state}, path)
    return start_from(network, path, keypoints)


def parameters(shapes) -> int:
    running = ("running_mean", "running_var", "num_batches_tracked")
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if not name.endswith(running))


@pytest.mark.parametrize(
    ("width", "head", "layout", "count"),
    [(32, "head", "OpenMMLab 1.x", 28_536_113), (18, "keypoint_head", "OpenMMLab 0.x", 9_318_215)],
)
def test_hrnet_takes_every_tensor_and_computes_as_timm_does(tmp_path, width, head, layout, count):
    shapes = prefixed("backbone.", hrnet(width)) | final_layer(head, 17, width)
    assert parameters(shapes) == count  # mmpose's HRNet-W32 for COCO: the names and shapes are the documented ones
    state = filled(shapes)
    network = build_model(f"hrnet_w{width}", 17, IMGSZ).eval()
    report = started(tmp_path, network, state | filled(PREPROCESSOR))
    assert (report.layout, report.reshaped, report.left, report.missing) == (layout, {}, (), ())
    assert len(report.loaded) == len(shapes)
    assert (report.backbone_share, report.file_share) == (1.0, 1.0)
    assert torch.equal(network.head.maps.weight, state[f"{head}.final_layer.weight"])
    assert torch.equal(network.head.maps.bias, state[f"{head}.final_layer.bias"])

    reference = timm.create_model(f"hrnet_w{width}", features_only=True, feature_location="", out_indices=(1,)).eval()
    backbone = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    missing, unexpected = reference.load_state_dict(backbone, strict=False)
    assert unexpected == []
    assert all(name.startswith("stage4.2.fuse_layers.") for name in missing)
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(network.backbone(images), reference(images)[0])


def test_rtmpose_m_takes_every_tensor_and_its_backbone_computes_as_timms(tmp_path):
    shapes = prefixed("backbone.", cspnext(0.75, 0.67)) | rtmcc(17, 768, IMGSZ)
    assert parameters(prefixed("backbone.", cspnext(0.75, 0.67))) == 12_279_432
    assert parameters(shapes) == 13_587_611  # mmpose's rtmpose-m at 256x192
    state = filled(shapes)
    network = build_model("rtmpose_m", 17, IMGSZ, simcc_split=2.0).eval()
    report = started(tmp_path, network, state | filled(PREPROCESSOR))
    assert (report.layout, report.reshaped, report.left, report.missing) == ("OpenMMLab 1.x", {}, (), ())
    assert len(report.loaded) == len(shapes)
    for name in (name for name in shapes if name.startswith("head.")):
        assert torch.equal(network.state_dict()[name], state[name]), name

    reference = timm.create_model("cspnext_m", num_classes=0).eval()
    backbone = {name: value for name, value in state.items() if name.startswith("backbone.")}
    reference.load_state_dict(checkpoint_filter_fn(backbone))
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(network.backbone(images), reference.forward_features(images))


def slow_vit_1x(state, images, heads):
    """mmpretrain's forward pass, from its source: norms before, patches begin 2 pixels outside the image."""
    get = {name.removeprefix("backbone."): value for name, value in state.items()}
    patches = functional.conv2d(images, get["patch_embed.projection.weight"], get["patch_embed.projection.bias"], 16, 2)
    tokens = patches.flatten(2).transpose(1, 2) + get["pos_embed"]
    width, i = tokens.shape[2], 0
    while f"layers.{i}.ln1.weight" in get:
        at = f"layers.{i}."

        def dense(name, x, at=at):
            return x @ get[f"{at}{name}.weight"].T + get[f"{at}{name}.bias"]

        def norm(name, x, at=at):
            return functional.layer_norm(x, (width,), get[f"{at}{name}.weight"], get[f"{at}{name}.bias"], 1e-6)

        q, k, v = dense("attn.qkv", norm("ln1", tokens)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(2, 3) * (width // heads) ** -0.5).softmax(-1) @ v
        tokens = tokens + dense("attn.proj", mixed.transpose(1, 2).flatten(2))
        hidden = functional.gelu(dense("ffn.layers.0.0", norm("ln2", tokens)))
        tokens, i = tokens + dense("ffn.layers.1", hidden), i + 1
    tokens = functional.layer_norm(tokens, (width,), get["ln1.weight"], get["ln1.bias"], 1e-6)
    return tokens.transpose(1, 2).unflatten(2, patches.shape[2:])


def test_vitpose_1x_takes_every_tensor_and_computes_as_documented(tmp_path):
    shapes = prefixed("backbone.", vit_1x(192, 12, 8 * 6))
    shapes |= deconvolutions("head", (192, 256)) | final_layer("head", 17, 256)
    state = filled(shapes)
    network = build_model("vitpose_t", 17, (96, 128)).eval()
    report = started(tmp_path, network, state)
    assert (report.layout, report.reshaped, report.left, report.missing) == ("OpenMMLab 1.x", {}, (), ())
    assert len(report.loaded) == len(shapes)
    images = torch.randn(2, 3, 128, 96)
    torch.testing.assert_close(network.backbone(images), slow_vit_1x(state, images, heads=3), rtol=1e-4, atol=1e-5)


def test_vitpose_0x_takes_every_tensor_and_adds_the_class_tokens_position(tmp_path):
    shapes = prefixed("backbone.", vit_0x(192, 12, 8 * 6))
    shapes |= deconvolutions("keypoint_head", (192, 256)) | final_layer("keypoint_head", 17, 256)
    state = filled(shapes)
    network = build_model("vitpose_t", 17, (96, 128))
    report = started(tmp_path, network, state)
    assert (report.layout, report.left, report.missing) == ("OpenMMLab 0.x", (), ())
    assert report.reshaped == {"backbone.trunk.pos_embed": "positions: its class token's added to every patch's"}
    positions = state["backbone.pos_embed"]
    assert torch.equal(network.backbone.trunk.pos_embed, positions[:, 1:] + positions[:, :1])
    ours = network.state_dict()
    for theirs, own in (
        ("blocks.3.mlp.fc1.weight", "blocks.3.mlp.fc1.weight"),
        ("last_norm.bias", "norm.bias"),
        ("patch_embed.proj.weight", "patch_embed.proj.weight"),
    ):
        assert torch.equal(ours[f"backbone.trunk.{own}"], state[f"backbone.{theirs}"]), theirs
    assert torch.equal(ours["neck.3.weight"], state["keypoint_head.deconv_layers.3.weight"])


def test_vitpose_of_another_input_size_has_its_positions_interpolated(tmp_path):
    """A field that is linear over the grid stays so away from the border, as far as this cubic can (0.05 of a row)."""
    state = filled(prefixed("backbone.", vit_1x(192, 12, 16 * 12)))
    rows = torch.arange(16.0).repeat_interleave(12)
    state["backbone.pos_embed"] = rows[None, :, None].repeat(1, 1, 192)
    network = build_model("vitpose_t", 17, (192, 192))
    report = started(tmp_path, network, state)
    words = "positions: interpolated from 16x12 to 12x12 patches"
    assert report.reshaped == {"backbone.trunk.pos_embed": words}
    assert words in report.summary()
    found = network.backbone.trunk.pos_embed[0, :, 0].reshape(12, 12)
    expected = (torch.arange(12.0) + 0.5) * 16 / 12 - 0.5  # cell centres
    torch.testing.assert_close(found[2:-2], expected[2:-2, None].expand(8, 12), rtol=0, atol=0.05)


def test_positions_of_an_imagenet_transformer_lose_the_class_tokens(tmp_path):
    state = timm.create_model("deit_tiny_patch16_224").state_dict()
    network = build_model("vitpose_t", 17, (224, 224))
    report = started(tmp_path, network, state)
    assert report.reshaped == {"backbone.trunk.pos_embed": "positions: its class token's left out"}
    assert torch.equal(network.backbone.trunk.pos_embed, state["pos_embed"][:, 1:])
    assert set(report.left) == {"cls_token", "head.weight", "head.bias"}
    assert report.backbone_share == 1.0
    assert report.head == "head: all 17 keypoints start fresh: the file has none"


def test_timms_imagenet_state_dict_of_an_hrnet(tmp_path):
    state = timm.create_model("hrnet_w18_small").state_dict()
    network = build_model("hrnet_w18_small", 17, IMGSZ)
    report = started(tmp_path, network, state)
    assert report.backbone_share == 1.0
    assert all(key.startswith(("neck.", "head.")) for key in report.missing)
    assert {key.partition(".")[0] for key in report.left} >= {"incre_modules", "classifier"}


@pytest.mark.parametrize(
    ("backbone", "neck"),
    [
        ("convnext_atto", "pyramid"),
        ("resnetv2_50", "deconv"),
        ("cspnext_s", "pyramid"),
    ],
)
def test_timms_state_dict_of_any_backbone_of_simple_baseline(backbone, neck):
    """timm renames and drops modules when it makes feature extractors: by name and shape, nothing is missing."""
    with torch.device("meta"):
        whole = timm.create_model(backbone).state_dict()
        network = build_model("simple_baseline", 17, IMGSZ, backbone=backbone, neck=neck)
    _, names = common_names(whole)
    theirs = {common: whole[name].shape for name, common in names.items()}
    state = network.state_dict()
    ours = {common: state[name].shape for name, common in names_of_ours(state).items() if name.startswith("backbone.")}
    assert {common: theirs.get(common) for common in ours} == ours


def test_resnet_of_simple_baseline_in_openmmlabs_layout(tmp_path):
    """ResNet has torchvision's names everywhere; its head is three deconvolutions."""
    backbone = {f"backbone.{k}": v for k, v in timm.create_model("resnet18", num_classes=0).state_dict().items()}
    head = deconvolutions("keypoint_head", (512, 256, 256)) | final_layer("keypoint_head", 17, 256)
    network = build_model("simple_baseline", 17, IMGSZ, backbone="resnet18")
    report = started(tmp_path, network, backbone | filled(head))
    assert (report.layout, report.reshaped, report.left, report.missing) == ("OpenMMLab 0.x", {}, (), ())


def test_the_last_of_several_final_layers_of_0x_is_the_final_layer():
    names = ["backbone.conv1.weight", "keypoint_head.final_layer.0.weight", "keypoint_head.final_layer.1.weight"]
    names += ["keypoint_head.final_layer.3.weight", "keypoint_head.final_layer.3.bias", "data_preprocessor.mean"]
    layout, common = common_names(names)
    assert layout == "OpenMMLab 0.x"
    assert common == {
        "backbone.conv1.weight": "backbone.conv1.weight",
        "keypoint_head.final_layer.0.weight": "head.conv_layers.0.weight",
        "keypoint_head.final_layer.1.weight": "head.conv_layers.1.weight",
        "keypoint_head.final_layer.3.weight": "head.final_layer.weight",
        "keypoint_head.final_layer.3.bias": "head.final_layer.bias",
    }


def test_simcc_over_deconvolutions_of_mmpose_fits_the_plain_simcc_head(tmp_path):
    backbone = {f"backbone.{k}": v for k, v in timm.create_model("resnet18", num_classes=0).state_dict().items()}
    shapes = deconvolutions("head.deconv_head", (512, 256, 256)) | final_layer("head.deconv_head", 17, 256)
    shapes |= linear("head.mlp_head_x", 48 * 64, 2 * 192) | linear("head.mlp_head_y", 48 * 64, 2 * 256)
    network = build_model("simple_baseline", 17, IMGSZ, simcc_split=2.0, backbone="resnet18")
    report = started(tmp_path, network, backbone | filled(shapes))
    assert (report.layout, report.reshaped, report.left, report.missing) == ("OpenMMLab 1.x", {}, (), ())


@pytest.mark.parametrize(
    ("name", "split", "settings"),
    [
        ("tiny", 2.0, {}),
        ("hrnet_w18_small", None, {}),
        ("rtmpose_t", 2.0, {}),
        ("vitpose_t", None, {}),
        ("lite_hrnet_18", None, {"branches": 2}),
        ("simple_baseline", None, {"backbone": "mobilenetv3_small_050", "neck": "pyramid"}),
    ],
)
def test_our_own_weights_come_back_whole(tmp_path, name, split, settings):
    torch.manual_seed(0)
    old = build_model(name, 3, (64, 96), split, **settings)
    save_file({key: value.contiguous() for key, value in old.state_dict().items()}, tmp_path / "weights.safetensors")
    new = build_model(name, 3, (64, 96), split, **settings)
    report = start_from(new, tmp_path / "weights.safetensors", ("a", "b", "c"))
    assert (report.layout, report.reshaped, report.left, report.missing) == ("PoseSweep", {}, (), ())
    assert all(torch.equal(value, new.state_dict()[key]) for key, value in old.state_dict().items())
