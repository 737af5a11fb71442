"""SimpleBaseline: any of timm's backbones, its stages told apart, its necks."""

import pytest
import torch
from torch.nn import functional

from posesweep.errors import ConfigError
from posesweep.trainables.models import build_model, layer_names
from posesweep.trainables.models.necks import Pyramid

IMGSZ = (64, 96)
NAME = "simple_baseline"
WAY_OUT = "try resnet50, convnext_tiny or mobilenetv3_small_050"


def on_meta(**settings):
    with torch.device("meta"):
        return build_model(NAME, 5, IMGSZ, **settings)


@pytest.mark.parametrize(
    ("backbone", "neck"),
    [
        ("resnet18", "deconv"),
        ("convnext_atto", "pyramid"),
        ("mobilenetv3_small_050", "pyramid"),
        ("cspnext_tiny", "pyramid"),
    ],
)
def test_backbones_of_every_kind_learn_with_all_their_parameters(backbone, neck):
    """timm keeps the maps of a network in three ways: a list of modules, a class of its own, the whole network."""
    model = on_meta(backbone=backbone, neck=neck)
    heatmaps = model.train()(torch.zeros(2, 3, 96, 64, device="meta"))
    heatmaps.square().mean().backward()
    assert heatmaps.shape == (2, 5, 24, 16)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    held = [id(p) for _, modules in model.layers() for module in modules for p in module.parameters()]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert tuple(layer for layer, _ in model.layers()) == (*layer_names(NAME, {"backbone": backbone}), "head")


@pytest.mark.parametrize(
    ("backbone", "prefixes"),
    [
        ("resnet18", [("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",)]),
        (
            "mobilenetv3_small_050",
            [
                ("conv_stem.", "bn1."),
                ("blocks.0.",),
                ("blocks.1.",),
                ("blocks.2.", "blocks.3."),
                ("blocks.4.", "blocks.5."),
            ],
        ),
        ("convnext_atto", [("stem_0.", "stem_1.", "stages_0."), ("stages_1.",), ("stages_2.",), ("stages_3.",)]),
    ],
)
def test_stages_by_hand(backbone, prefixes):
    model = on_meta(backbone=backbone)
    trunk_names = {id(p): name for name, p in model.backbone.trunk.named_parameters()}
    *layers, _head = model.layers()
    names = [name for name, _ in layers]
    assert names == (["stem"] if len(prefixes) == 5 else []) + ["stage1", "stage2", "stage3", "stage4"]
    for (layer, modules), expected in zip(layers, prefixes, strict=True):
        held = [trunk_names[id(p)] for module in modules for p in module.parameters()]
        assert held, layer
        assert all(name.startswith(expected) for name in held), layer


def test_the_pyramid_adds_coarse_maps_to_finer_ones():
    torch.manual_seed(0)
    pyramid = Pyramid([4, 6, 8]).eval()
    maps = [torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4), torch.randn(1, 8, 2, 2)]
    with torch.no_grad():
        fine, middle, coarse = (lateral(m) for lateral, m in zip(pyramid.laterals, maps, strict=True))
        middle = middle + functional.interpolate(coarse, scale_factor=2)
        expected = pyramid.out(fine + functional.interpolate(middle, scale_factor=2))
        torch.testing.assert_close(pyramid(maps), expected)


def test_a_pyramid_is_lighter_than_deconvolutions():
    deconv, pyramid = (on_meta(backbone="resnet18", neck=neck).neck for neck in ("deconv", "pyramid"))
    size = [sum(p.numel() for p in neck.parameters()) for neck in (deconv, pyramid)]
    assert size[1] < size[0] / 10


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("resnet51", "backbone: timm has no network 'resnet51'; did you mean resnet51q or resnet50 or resnet18?"),
        ("xyz", f"backbone: timm has no network 'xyz'; {WAY_OUT}"),
        (
            "vit_tiny_patch16_224",
            "backbone: vit_tiny_patch16_224 cannot be used here (its 12 maps are not each coarser than the one before: "
            f"strides [16]); {WAY_OUT}",
        ),
    ],
)
def test_a_backbone_that_cannot_be_used_is_one_sentence(backbone, words):
    with pytest.raises(ConfigError) as caught:
        layer_names(NAME, {"backbone": backbone})
    assert str(caught.value) == words


def test_a_network_for_one_input_size_only_is_refused():
    with pytest.raises(
        ConfigError, match=r"^backbone: swin_tiny_patch4_window7_224 cannot be used here \(.*\); try res"
    ):
        layer_names(NAME, {"backbone": "swin_tiny_patch4_window7_224"})
