"""What holds for every network. Most of it runs on torch's meta device: shapes and graphs without numbers or memory."""

import sys
import textwrap
from functools import lru_cache

import pytest
import timm
import torch

from posesweep.errors import ConfigError
from posesweep.trainables import models
from posesweep.trainables.models import (
    build_model,
    check_imgsz,
    find_model,
    layer_names,
    model_names,
    model_settings,
    simcc_head_of,
)

IMGSZ = (64, 96)
COCO = (192, 256)
SMALL = {  # one of each family, for what needs numbers; settings that make it small
    "tiny": {},
    "hrnet_w18_small": {},
    "lite_hrnet_18": {"channels": 8},
    "rtmpose_t": {},
    "vitpose_t": {"decoder": "classic"},
    "simple_baseline": {"backbone": "resnet18"},
}


@lru_cache
def on_meta(name, imgsz=IMGSZ):
    """The network with a heatmap head, once for all tests."""
    with torch.device("meta"):
        return build_model(name, 5, imgsz)


@pytest.fixture(scope="module", params=SMALL)
def model(request):
    torch.manual_seed(0)
    return build_model(request.param, 5, IMGSZ, **SMALL[request.param])


def outputs_of(model, imgsz):
    """The shapes it puts out for a batch of 2, after a backward pass."""
    device = next(model.parameters()).device
    outputs = model.train()(torch.randn(2, 3, imgsz[1], imgsz[0], device=device))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(part.square().mean() for part in outputs).backward()
    return [tuple(part.shape) for part in outputs]


def without_gradient(model):
    return [name for name, p in model.named_parameters() if p.grad is None]


def count(module):
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------------------------------------- names and files


def test_names_are_found_and_unique():
    names = model_names()
    assert {"tiny", "hrnet_w32", "hrnet_w48", "rtmpose_m", "lite_hrnet_30", "vitpose_b", "simple_baseline"} <= set(
        names
    )
    assert len(set(names)) == len(names) == len(model_settings())
    assert find_model("hrnet_w18") is find_model("hrnet_w48")
    assert model_settings()["lite_hrnet_18"] == {"channels": 40, "branches": 4}


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"^model: no network is called 'hrnet_w31'; did you mean 'hrnet_w32'\?$"):
        find_model("hrnet_w31")


def test_an_unknown_setting_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"^chanels: lite_hrnet_18 has no such setting; did you mean 'channels'\?$"):
        build_model("lite_hrnet_18", 3, IMGSZ, chanels=32)


def test_a_new_network_is_one_new_file(tmp_path, monkeypatch):
    code = """
        from torch import nn
        from posesweep.trainables.models.plan import Plan
        VARIANTS = {"one_conv": {}}
        class Net(nn.Module):
            channels, stride = 6, 8
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 6, 8, stride=8)
            def layers(self):
                return [("all", [self.conv])]
            def forward(self, images):
                return self.conv(images)
        def plan(variant, settings):
            return Plan(("all",), 8)
        def build(variant, settings, imgsz, pretrained):
            return Net()
    """
    (tmp_path / "one_conv.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    try:
        assert layer_names("one_conv") == ("all",)
        assert build_model("one_conv", 2, (8, 16))(torch.zeros(1, 3, 16, 8)).shape == (1, 2, 4, 2)
        x, y = build_model("one_conv", 2, (8, 16), simcc_split=2.0)(torch.zeros(1, 3, 16, 8))
        assert (x.shape, y.shape) == ((1, 2, 16), (1, 2, 32))
    finally:
        sys.modules.pop(f"{models.__name__}.one_conv", None)


# ---------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("name", model_names())
def test_layers_hold_every_parameter_once_in_the_stated_order(name):
    model = on_meta(name)
    layers = model.layers()
    assert tuple(layer for layer, _ in layers) == (*layer_names(name), "head")
    held = [[p for part in parts for p in parameters(part)] for _, parts in layers]
    assert sorted(map(id, (p for layer in held for p in layer))) == sorted(map(id, model.parameters()))
    assert all(held)


def parameters(part):
    return [part] if isinstance(part, torch.nn.Parameter) else list(part.parameters())


def test_layers_are_in_the_order_of_the_forward_pass(model):
    """Hooks tell when each layer's first convolution or linear layer runs."""
    order, hooks = [], []
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear, torch.nn.LayerNorm)
    for name, parts in model.layers():
        modules = [m for part in parts if isinstance(part, torch.nn.Module) for m in part.modules()]
        first = next(m for m in modules if isinstance(m, kinds))
        hooks.append(first.register_forward_hook(lambda *_, name=name: order.append(name)))
    model.eval()(torch.zeros(1, 3, 96, 64))
    for hook in hooks:
        hook.remove()
    assert order == [name for name, _ in model.layers()]


# ---------------------------------------------------------------------------------------------- outputs


def test_heatmaps_are_a_quarter_of_the_input_and_every_parameter_learns(model):
    assert outputs_of(model, IMGSZ) == [(2, 5, 24, 16)]
    assert without_gradient(model) == []  # DDP would wait for these for ever


@pytest.mark.parametrize("name", SMALL)
def test_simcc_logits_are_two_bins_a_pixel_and_every_parameter_learns(name):
    model = build_model(name, 5, IMGSZ, simcc_split=2.0, **SMALL[name])
    assert outputs_of(model, IMGSZ) == [(2, 5, 128), (2, 5, 192)]
    assert without_gradient(model) == []


@pytest.mark.slow
@pytest.mark.parametrize("split", [None, 2.0])
@pytest.mark.parametrize("name", model_names())
def test_every_network_learns_with_all_its_parameters(name, split):
    """pytest tests/trainables/test_models.py -m slow"""
    with torch.device("meta"):
        model = build_model(name, 5, IMGSZ, split)
    assert outputs_of(model, IMGSZ) == ([(2, 5, 24, 16)] if split is None else [(2, 5, 128), (2, 5, 192)])
    assert without_gradient(model) == []


@pytest.mark.parametrize("name", model_names())
def test_every_network_makes_heatmaps(name):
    with torch.no_grad():
        assert on_meta(name).eval()(torch.zeros(1, 3, 96, 64, device="meta")).shape == (1, 5, 24, 16)


@pytest.mark.parametrize("imgsz", [(64, 64), (96, 64)])
@pytest.mark.parametrize("name", SMALL)
def test_any_size_divisible_by_the_stride(name, imgsz):
    """With numbers: finite, and different for different images."""
    torch.manual_seed(0)
    for split in (None, 1.0):
        model = build_model(name, 5, imgsz, split, **SMALL[name]).eval()
        with torch.no_grad():
            outputs = model(torch.randn(2, 3, imgsz[1], imgsz[0]))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        shapes = [(2, 5, imgsz[1] // 4, imgsz[0] // 4)] if split is None else [(2, 5, imgsz[0]), (2, 5, imgsz[1])]
        assert [tuple(part.shape) for part in outputs] == shapes
        assert all(torch.isfinite(part).all() and not torch.equal(part[0], part[1]) for part in outputs)


@pytest.mark.parametrize("split", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("simcc_head", ["plain", "rtmcc"])
def test_simcc_logits_have_split_bins_per_pixel(split, simcc_head):
    model = build_model("tiny", 5, IMGSZ, simcc_split=split, simcc_head=simcc_head)
    assert outputs_of(model, IMGSZ) == [(2, 5, 64 * split), (2, 5, 96 * split)]
    assert without_gradient(model) == []


def test_only_rtmpose_has_its_own_simcc_head():
    assert {name for name in model_names() if simcc_head_of(name) == "rtmcc"} == {f"rtmpose_{s}" for s in "tsml"}


# ---------------------------------------------------------------------------------------------- parameter counts


@pytest.mark.parametrize(
    ("name", "split", "parameters", "of_backbone"),
    [("hrnet_w32", None, 28_536_113, 28_535_552), ("rtmpose_m", 2.0, 13_587_611, 12_279_432)],
)
def test_exactly_the_parameters_of_the_reference(name, split, parameters, of_backbone):
    """mmpose's, for 17 keypoints at 256x192."""
    with torch.device("meta"):
        model = build_model(name, 17, COCO, split)
    assert (count(model), count(model.backbone)) == (parameters, of_backbone)


@pytest.mark.parametrize(
    ("name", "split", "settings", "millions", "digits"),
    [
        ("hrnet_w48", None, {}, 63.6, 1),  # HRNet's table for COCO
        ("rtmpose_t", 2.0, {}, 3.34, 2),  # RTMPose's tables
        ("rtmpose_s", 2.0, {}, 5.47, 2),
        ("rtmpose_m", 2.0, {}, 13.59, 2),
        ("rtmpose_l", 2.0, {}, 27.66, 2),
        ("lite_hrnet_18", None, {}, 1.1, 1),  # Lite-HRNet's table 1
        ("lite_hrnet_30", None, {}, 1.8, 1),
        ("simple_baseline", None, {}, 34.0, 1),  # SimpleBaseline's table 2
        ("vitpose_s", None, {}, 24, 0),  # ViTPose's tables
        ("vitpose_b", None, {}, 90, 0),
        ("vitpose_b", None, {"decoder": "simple"}, 86, 0),
        ("vitpose_l", None, {}, 309, 0),
    ],
)
def test_the_parameters_of_the_papers_tables(name, split, settings, millions, digits):
    """To the digits that the tables have, for 17 keypoints at 256x192."""
    with torch.device("meta"):
        model = build_model(name, 17, COCO, split, **settings)
    assert round(count(model) / 1e6, digits) == millions


# ---------------------------------------------------------------------------------------------- backbones


def test_hrnet_gives_timms_stride_4_features_bit_for_bit():
    ours = build_model("hrnet_w18_small", 3, IMGSZ).backbone.eval()
    whole = timm.create_model("hrnet_w18_small", features_only=True, feature_location="", out_indices=(1,)).eval()
    missing, unexpected = whole.load_state_dict(ours.trunk.state_dict(), strict=False)
    assert unexpected == []
    assert missing
    assert all(name.startswith("stage4.") and ".fuse_layers." in name for name in missing)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(images), whole(images)[0])


def test_rtmpose_gives_timms_last_features_bit_for_bit():
    ours = build_model("rtmpose_t", 3, IMGSZ).backbone.eval()
    whole = timm.create_model("cspnext_tiny").eval()
    missing, unexpected = whole.load_state_dict(ours.trunk.state_dict(), strict=False)
    assert (missing, unexpected) == (["head.fc.weight", "head.fc.bias"], [])
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(images), whole.forward_features(images))


# ---------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "imgsz", "words"),
    [
        ("hrnet_w32", (190, 256), "imgsz: 190x256 must be multiples of 32 pixels for hrnet_w32; try [192, 256]"),
        ("hrnet_w18", (256, 8), "imgsz: 256x8 must be multiples of 32 pixels for hrnet_w18; try [256, 32]"),
        ("rtmpose_m", (192, 250), "imgsz: 192x250 must be multiples of 32 pixels for rtmpose_m; try [192, 256]"),
        ("vitpose_b", (200, 256), "imgsz: 200x256 must be multiples of 16 pixels for vitpose_b; try [192, 256]"),
    ],
)
def test_a_size_that_does_not_fit_names_one_that_does(name, imgsz, words):
    with pytest.raises(ConfigError) as caught:
        build_model(name, 3, imgsz)
    assert str(caught.value) == words


@pytest.mark.parametrize("name", model_names())
def test_the_size_that_is_proposed_fits(name):
    stride = find_model(name).plan(name, model_settings()[name]).stride
    check_imgsz(name, (stride * 3, stride))


# ---------------------------------------------------------------------------------------------- ImageNet weights


@pytest.mark.parametrize("name", ["tiny", "lite_hrnet_18"])
def test_our_own_networks_have_no_imagenet_weights(name):
    with pytest.raises(
        ConfigError, match=f"pretrained: there are no ImageNet weights of {name}; set pretrained: false"
    ):
        build_model(name, 3, IMGSZ, pretrained=True)


def test_weights_that_cannot_be_downloaded_are_a_plain_sentence(monkeypatch, tmp_path):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"ImageNet weights of hrnet_w18_small .* set pretrained: false, or put the"):
        build_model("hrnet_w18_small", 3, IMGSZ, pretrained=True)


@pytest.mark.parametrize(
    ("name", "published", "settings"),
    [
        ("hrnet_w18_small", "hrnet_w18_small", {}),
        ("rtmpose_t", "cspnext_tiny", {}),
        ("simple_baseline", "resnet18", {"backbone": "resnet18"}),
    ],
)
def test_imagenet_weights_reach_the_backbone(monkeypatch, name, published, settings):
    """timm's download replaced by the weights of a whole classifier, as its published files hold."""
    classifier = timm.create_model(published).state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(classifier))
    trunk = build_model(name, 3, IMGSZ, pretrained=True, **settings).backbone.trunk
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, classifier[key]), key
