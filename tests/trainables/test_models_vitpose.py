"""ViTPose: patches, positions, decoders."""

import pytest
import timm
import torch
from torch.nn import functional

from posesweep.errors import ConfigError
from posesweep.trainables.models import build_model, layer_names

IMGSZ = (64, 96)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return build_model("vitpose_t", 3, IMGSZ).backbone.eval()


def test_layers_are_the_blocks_and_what_is_around_them():
    assert layer_names("vitpose_b") == ("patch_embed", *(f"block{i}" for i in range(1, 13)), "norm")
    assert len(layer_names("vitpose_l")) == 26


def test_patches_begin_two_pixels_outside(vit):
    """The first token by hand: the product of the padded corner with the kernel, plus bias and position."""
    images = torch.randn(1, 3, 96, 64)
    trunk = vit.trunk
    corner = functional.pad(images, (2, 2, 2, 2))[0, :, :16, :16]
    kernel, bias = trunk.patch_embed.proj.weight, trunk.patch_embed.proj.bias
    with torch.no_grad():
        tokens = trunk.patch_embed(images)
        expected = (kernel * corner).sum((1, 2, 3)) + bias
    assert tokens.shape == (1, 6 * 4, 192)
    torch.testing.assert_close(tokens[0, 0], expected, rtol=1e-4, atol=1e-4)


def test_tokens_become_a_map_row_by_row(vit):
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        tokens, features = vit.trunk.forward_features(images), vit(images)
    assert features.shape == (1, 192, 6, 4)
    assert torch.equal(features[0, :, 2, 3], tokens[0, 2 * 4 + 3])


def test_the_simple_decoder_enlarges_and_the_classic_one_deconvolves():
    simple = build_model("vitpose_t", 3, IMGSZ, decoder="simple")
    classic = build_model("vitpose_t", 3, IMGSZ, decoder="classic")
    assert sum(p.numel() for p in simple.neck.parameters()) == 0
    assert simple.head.maps.weight.shape == (3, 192, 3, 3)
    assert classic.head.maps.weight.shape == (3, 256, 1, 1)
    # names and shapes of OpenMMLab's deconv_layers
    shapes = {name: tuple(p.shape) for name, p in classic.neck.named_parameters() if p.ndim > 1}
    assert shapes == {"0.weight": (192, 256, 4, 4), "3.weight": (256, 256, 4, 4)}
    with torch.no_grad():
        features = simple.eval().backbone(torch.randn(1, 3, 96, 64))
        enlarged = functional.interpolate(features.relu(), scale_factor=4, mode="bilinear", align_corners=False)
        torch.testing.assert_close(simple.neck(features), enlarged)


def test_drop_path_rises_to_the_setting():
    trunk = build_model("vitpose_t", 3, IMGSZ, drop_path=0.22).backbone.trunk
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in trunk.blocks]
    assert rates == pytest.approx([0.02 * i for i in range(12)])


def test_imagenet_weights_without_their_class_token(monkeypatch):
    """At the size they were trained at, positions are as published; at another, interpolated."""
    classifier = timm.create_model("deit_tiny_patch16_224").state_dict()
    for fetch in ("load_state_dict_from_hf", "load_state_dict_from_url"):
        monkeypatch.setattr(f"timm.models._builder.{fetch}", lambda *_, **__: dict(classifier))
    for imgsz, same in (((224, 224), True), (IMGSZ, False)):
        trunk = build_model("vitpose_t", 3, imgsz, pretrained=True).backbone.trunk
        state = trunk.state_dict()
        positions = state.pop("pos_embed")
        assert all(torch.equal(value, classifier[key]) for key, value in state.items())
        assert positions.shape == (1, imgsz[0] * imgsz[1] // 256, 192)
        published = classifier["pos_embed"]
        if not same:
            published = timm.layers.resample_abs_pos_embed(published, [6, 4], num_prefix_tokens=1)
        assert torch.equal(positions, published[:, 1:])


def test_sizes_without_imagenet_weights_say_so():
    words = (
        "pretrained: there are no ImageNet weights that fit vitpose_s (of its family: vitpose_t, vitpose_b); "
        "set pretrained: false, or give a ViTPose checkpoint with weights:"
    )
    with pytest.raises(ConfigError) as caught:
        build_model("vitpose_s", 3, IMGSZ, pretrained=True)
    assert str(caught.value) == words
