"""Settings that only some networks have: filled in, passed on, refused where they mean nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from posesweep.trainables.models import model_settings
from posesweep.trainables.tasks import build_task, check_values, make_config
from posesweep.trainables.tasks.topdown import Config, network_settings

DATA = {"train": "train.json"}
ROOT = Path(__file__).resolve().parents[2]


def config_of(**settings):
    return make_config({"data": DATA, **settings})


def mistakes(**settings):
    return {mistake.key: mistake.text for mistake in check_values("topdown", settings)}


def test_every_setting_of_a_network_is_a_field():
    named = {name for settings in model_settings().values() for name in settings}
    assert named == {"channels", "branches", "decoder", "drop_path", "backbone", "neck"}
    assert named <= Config.model_fields.keys()


def test_defaults_are_the_networks():
    assert network_settings(config_of(model="lite_hrnet_30")) == {"channels": 40, "branches": 4}
    assert network_settings(config_of(model="vitpose_l", drop_path=0.1)) == {"decoder": "classic", "drop_path": 0.1}
    assert network_settings(config_of(model="simple_baseline")) == {"backbone": "resnet50", "neck": "deconv"}
    assert network_settings(config_of(model="hrnet_w48")) == {}
    assert config_of(model="tiny").channels is None


def test_the_simcc_head_is_the_networks_own_unless_told():
    assert config_of(model="rtmpose_m", codec="simcc").simcc_head == "rtmcc"
    assert config_of(model="hrnet_w32", codec="simcc").simcc_head == "plain"
    assert config_of(model="hrnet_w32", codec="simcc", simcc_head="rtmcc").simcc_head == "rtmcc"
    assert config_of(model="rtmpose_m", codec="heatmap").simcc_head is None


@pytest.mark.parametrize("codec", ["heatmap", "simcc"])
@pytest.mark.parametrize("model", ["lite_hrnet_18", "rtmpose_t", "vitpose_t", "simple_baseline"])
def test_a_dumped_config_is_the_same_config(model, codec):
    config = config_of(model=model, codec=codec)
    assert make_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "key", "sentence"),
    [
        (
            {"model": "tiny", "branches": 3},
            "branches",
            "model: tiny does not use it; take it out, or add when: {model: lite_hrnet_18}",
        ),
        (
            {"model": "rtmpose_m", "drop_path": 0.1},
            "drop_path",
            "model: rtmpose_m does not use it; take it out, or add when: {model: vitpose_t}",
        ),
        (
            {"model": "rtmpose_m", "simcc_head": "plain"},
            "simcc_head",
            "codec: heatmap does not use it; take it out, or add when: {codec: simcc}",
        ),
        (
            {"model": "lite_hrnet_18", "branches": 5},
            "branches",
            "5 must be 2 to 4 (resolutions of lite_hrnet_18); try 4",
        ),
        (
            {"model": "lite_hrnet_18", "branches": 3, "freeze": 5},
            "freeze",
            "lite_hrnet_18 has 4 layers to freeze (stem, stage2, stage3, merge), so at most 4",
        ),
        (
            {"model": "simple_baseline", "backbone": "resnet51"},
            "backbone",
            "timm has no network 'resnet51'; did you mean resnet51q or resnet50 or resnet18?",
        ),
        (
            {"model": "simple_baseline", "neck": "pyramd"},
            "neck",
            "'pyramd' must be 'deconv' or 'pyramid'; did you mean 'pyramid'?",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(settings, key, sentence):
    assert mistakes(**settings) == {key: sentence}


def test_settings_reach_the_network(horses):
    config = {"data": horses, "model": "lite_hrnet_18", "channels": 8, "branches": 2, "imgsz": [64, 64]}
    backbone = build_task(make_config(config)).model().backbone
    assert (backbone.channels, len(backbone.stages)) == (8, 1)
    task = build_task(make_config({**config, "codec": "simcc", "simcc_head": "rtmcc"}))
    assert type(task.model().head).__name__ == "RTMCCHead"


def test_names_and_settings_are_known_without_timm():
    code = """
import sys
from posesweep.trainables.models import check_imgsz, layer_names, model_names
for model in ("hrnet_w32", "rtmpose_m", "vitpose_b", "lite_hrnet_18"):
    layer_names(model), check_imgsz(model, (192, 256))
print(len(model_names()) > 10, "timm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
