import sys
import textwrap

import pytest
import timm
import torch

from posesweep.errors import ConfigError
from posesweep.trainables import models
from posesweep.trainables.models import build_model, check_imgsz, find_model, layer_names, model_names

SMALL_ENOUGH = ("tiny", "small", "hrnet_w18_small")  # for more than counting on two cores
IMGSZ = (64, 96)


@pytest.fixture(scope="module", params=SMALL_ENOUGH)
def model(request):
    torch.manual_seed(0)
    return build_model(request.param, 5, IMGSZ)


def test_names_are_found_and_unique():
    names = model_names()
    assert {"tiny", "small", "hrnet_w18_small", "hrnet_w18", "hrnet_w32"} <= set(names)
    assert len(set(names)) == len(names)
    assert find_model("hrnet_w18") is find_model("hrnet_w32")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"^model: no network is called 'hrnet_w31'; did you mean 'hrnet_w32'\?$"):
        find_model("hrnet_w31")


def test_a_new_network_is_one_new_file(tmp_path, monkeypatch):
    code = """
        from torch import nn
        VARIANTS, LAYERS, STRIDE = ("one_conv",), ("all",), 4
        class Net(nn.Module):
            channels, stride = 6, 4
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 6, 4, stride=4)
            def layers(self):
                return [("all", [self.conv])]
            def forward(self, images):
                return self.conv(images)
        def build(variant, pretrained):
            return Net()
    """
    (tmp_path / "one_conv.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    try:
        assert layer_names("one_conv") == ("all",)
        assert build_model("one_conv", 2, (8, 16))(torch.zeros(1, 3, 16, 8)).shape == (1, 2, 4, 2)
    finally:
        sys.modules.pop(f"{models.__name__}.one_conv", None)


@pytest.mark.parametrize("name", model_names())
def test_layers_hold_every_parameter_once_in_the_stated_order(name):
    model = build_model(name, 3, IMGSZ, simcc_split=1.0)
    layers = model.layers()
    assert tuple(layer for layer, _ in layers) == (*layer_names(name), "head")
    held = [p for _, modules in layers for module in modules for p in module.parameters()]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    assert all(any(True for m in modules for _ in m.parameters()) for _, modules in layers)


def test_layers_are_in_the_order_of_the_forward_pass(model):
    """Hooks tell when each layer's first convolution runs."""
    order, hooks = [], []
    for name, modules in model.layers():
        convolution = next(m for module in modules for m in module.modules() if isinstance(m, torch.nn.Conv2d))
        hooks.append(convolution.register_forward_hook(lambda *_, name=name: order.append(name)))
    model.eval()(torch.zeros(1, 3, 96, 64))
    for hook in hooks:
        hook.remove()
    assert order == [name for name, _ in model.layers()]


def test_heatmaps_are_a_quarter_of_the_input_and_every_parameter_learns(model):
    heatmaps = model.train()(torch.randn(2, 3, 96, 64))
    assert heatmaps.shape == (2, 5, 24, 16)
    heatmaps.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("split", [1.0, 1.5, 2.0])
def test_simcc_logits_have_split_bins_per_pixel(split):
    model = build_model("tiny", 5, IMGSZ, simcc_split=split)
    x, y = model(torch.randn(2, 3, 96, 64))
    assert (x.shape, y.shape) == ((2, 5, 64 * split), (2, 5, 96 * split))
    (x.square().mean() + y.square().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_hrnet_w32_has_the_parameters_of_the_published_one():
    model = build_model("hrnet_w32", 17, (192, 256))
    assert sum(p.numel() for p in model.parameters()) == 28_536_113  # mmpose's, head of 561 included


def test_hrnet_gives_timms_stride_4_features_bit_for_bit():
    ours = find_model("hrnet_w18_small").build("hrnet_w18_small", False).eval()
    whole = timm.create_model("hrnet_w18_small", features_only=True, feature_location="", out_indices=(1,)).eval()
    missing, unexpected = whole.load_state_dict(ours.trunk.state_dict(), strict=False)
    assert unexpected == []
    assert missing
    assert all(name.startswith("stage4.") and ".fuse_layers." in name for name in missing)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(images), whole(images)[0])


@pytest.mark.parametrize(
    ("name", "imgsz", "words"),
    [
        ("hrnet_w32", (190, 256), "imgsz: 190x256 must be multiples of 32 pixels for hrnet_w32; try [192, 256]"),
        ("hrnet_w18", (256, 8), "imgsz: 256x8 must be multiples of 32 pixels for hrnet_w18; try [256, 32]"),
    ],
)
def test_a_size_that_does_not_fit_names_one_that_does(name, imgsz, words):
    with pytest.raises(ConfigError) as caught:
        build_model(name, 3, imgsz)
    assert str(caught.value) == words


@pytest.mark.parametrize("name", model_names())
def test_the_size_that_is_proposed_fits(name):
    stride = find_model(name).STRIDE
    check_imgsz(name, (stride * 3, stride))


# ---------------------------------------------------------------------------------- ImageNet weights


def test_small_networks_have_no_imagenet_weights():
    with pytest.raises(ConfigError, match="pretrained: there are no ImageNet weights of tiny; set pretrained: false"):
        build_model("tiny", 3, IMGSZ, pretrained=True)


def test_weights_that_cannot_be_downloaded_are_a_plain_sentence(monkeypatch, tmp_path):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"ImageNet weights of hrnet_w18_small .* set pretrained: false, or put the"):
        build_model("hrnet_w18_small", 3, IMGSZ, pretrained=True)


def test_imagenet_weights_reach_the_backbone(monkeypatch):
    """timm's download replaced by the weights of a whole classifier, as its published files hold."""
    classifier = timm.create_model("hrnet_w18_small").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(classifier))
    trunk = build_model("hrnet_w18_small", 3, IMGSZ, pretrained=True).backbone.trunk
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, classifier[name]), name
