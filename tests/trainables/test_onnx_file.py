"""model.onnx answers as the network does: every codec, the networks offered, any batch; and says what it is."""

import builtins
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import ConfigError, SweepError
from posesweep.trainables import onnx_file as module
from posesweep.trainables.onnx_file import Form, as_input, run_file, write_onnx
from posesweep.trainables.tasks import make_config
from posesweep.trainables.tasks.topdown import build_network, codec
from posesweep.trainables.trained import Trained

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = (64, 96)  # width and height differ, so that a swap is seen
CODECS = {
    "msra": {},
    "dark": {"dark": True},
    "udp": {"udp": True},
    "udp dark": {"udp": True, "dark": True},
    "simcc": {"codec": "simcc"},
    "rtmcc": {"codec": "simcc", "simcc_head": "rtmcc"},
    "focal": {"loss": "focal"},
}
NETWORKS = {
    "small": {},
    "hrnet_w18_small": {},
    "hrnet_w18": {},
    "rtmpose_t": {"codec": "simcc"},
    "lite_hrnet_18": {},
    "vitpose_s": {},
    "simple_baseline": {},
}


def trained(folder: Path, model: str = "tiny", **settings) -> Trained:
    """A network with new weights, its batch-norm statistics those of a few images: the scale of a trained one."""
    size = SIZE if model == "tiny" else (64, 64)
    values = {"data": {"train": "-"}, "model": model, "imgsz": list(size), **settings}
    config = make_config(values)
    torch.manual_seed(1)
    network = build_network(config, 17).train()
    with torch.no_grad():
        for _ in range(20 if model == "tiny" else 3):
            network(torch.randn(4, 3, size[1], size[0]))
        if config.codec == "heatmap":
            network.head.maps.weight *= 300  # a new head says next to nothing
    save_file(network.state_dict(), folder / "weights.safetensors")
    return Trained(model, folder, folder / "-", folder / "weights.safetensors", config, load_skeleton("coco17"))


def pictures(trained: Trained, count: int) -> np.ndarray:
    width, height = trained.config.imgsz
    rough = np.random.default_rng(0).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return rough.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_decoded_inside(tmp_path, name):
    one = trained(tmp_path, **CODECS[name])
    parity = write_onnx(one, Form(decode=True), tmp_path / "model.onnx", pictures(one, 5), "pictures")
    assert parity.points_px <= 1e-4 * max(SIZE)
    assert parity.outputs <= 1e-4
    assert parity.undecided <= 0.2 * parity.keypoints
    (found,) = run_file(tmp_path / "model.onnx", as_input(pictures(one, 2), Form(decode=True)))
    assert found.shape == (2, 17, 3)


@pytest.mark.parametrize(("name", "normalised"), [("msra", True), ("focal", False), ("rtmcc", False)])
def test_heatmaps_and_logits(tmp_path, name, normalised):
    one, form = trained(tmp_path, **CODECS[name]), Form(normalised=normalised)
    parity = write_onnx(one, form, tmp_path / "model.onnx", pictures(one, 3), "pictures")
    assert parity.outputs <= 1e-4
    assert parity.points_px is None
    outputs = run_file(tmp_path / "model.onnx", as_input(pictures(one, 1), form))
    assert [output.shape for output in outputs] == (
        [(1, 17, 128), (1, 17, 192)] if name == "rtmcc" else [(1, 17, 24, 16)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("decode", [False, True])
def test_every_kind_of_network(tmp_path, model, decode):
    one = trained(tmp_path, model, **NETWORKS[model])
    parity = write_onnx(one, Form(decode=decode), tmp_path / "model.onnx", pictures(one, 3), "pictures")
    print(model, parity)
    assert parity.outputs <= 1e-4
    assert parity.points_px is None or parity.points_px <= 1e-4 * 64


def test_it_says_what_goes_in_and_comes_out(tmp_path):
    one = trained(tmp_path, udp=True, loss="mse + 0.1 wing", loss_balance="learned")
    write_onnx(one, Form(), tmp_path / "model.onnx", pictures(one, 1), "pictures")
    model = onnx.load(tmp_path / "model.onnx")
    about = json.loads({prop.key: prop.value for prop in model.metadata_props}["posesweep"])
    assert (about["input"]["width"], about["input"]["height"]) == SIZE
    assert about["input"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert about["output"] == {"kind": "heatmaps", "pixels_per_cell": [63 / 15, 95 / 23]}
    assert about["codec"] == {"codec": "heatmap", "sigma": 2.0, "udp": True, "dark": False}
    assert about["flip_pairs"][0] == ["left_eye", "right_eye"]
    assert len(about["keypoints"]) == 17
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 96, 64, 3]
    assert model.opset_import[0].version == 17


def test_a_file_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    """Planted: other weights get into the file than those it is held against."""
    one = trained(tmp_path)

    def spoiled(deployed, found, path):
        with torch.no_grad():
            weight = next(iter(deployed.network.head.parameters()))
            weight += 0.05
            original(deployed, found, path)
            weight -= 0.05

    original = module._write_graph
    monkeypatch.setattr(module, "_write_graph", spoiled)
    with pytest.raises(SweepError, match=r"model.onnx of tiny does not answer as the network does: largest difference"):
        write_onnx(one, Form(), tmp_path / "model.onnx", pictures(one, 2), "pictures")


def test_an_operation_that_onnx_lacks_is_told(tmp_path, monkeypatch):
    one = trained(tmp_path)

    class Odd(torch.nn.Module):
        def forward(self, images):
            return torch.special.bessel_j0(images[:, :, ::4, ::4].repeat(1, 6, 1, 1)[:, :17])

    monkeypatch.setattr(module, "load_network", lambda found: Odd())
    with pytest.raises(ConfigError, match=r"model: tiny cannot be written as ONNX \(.*bessel_j0"):
        write_onnx(one, Form(), tmp_path / "model.onnx", pictures(one, 1), "pictures")


def test_a_missing_extra_is_told_with_the_command(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"--onnx needs the extra packages \(onnxruntime\): pip install 'posesweep"):
        module.check_packages()


def test_undecided_keypoints_are_found(tmp_path):
    """Two cells of one map equally high: undecided; one cell alone: decided."""
    config = make_config({"data": {"train": "-"}, "model": "tiny", "imgsz": [64, 64]})

    class Maps(torch.nn.Module):
        def forward(self, images):
            maps = torch.zeros(len(images), 2, 16, 16)
            maps[:, 0, 2, 2] = maps[:, 0, 9, 9] = 1.0
            maps[:, 1, 5, 5], maps[:, 1, 5, 6], maps[:, 1, 6, 5] = 1.0, 0.5, 0.4
            return maps

    deployed = module.Deployed(Maps(), replace(codec(config)), Form(decode=True, normalised=True))
    assert module._decided(deployed, torch.zeros(1, 3, 64, 64)).tolist() == [[False, True]]
