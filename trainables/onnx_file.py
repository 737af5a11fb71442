"""A network as model.onnx: the graph, what it says of itself, and the proof that it answers as the network does.

Written with torch's TorchScript exporter (`dynamo=False`), which needs no further package, at opset 17: the first with
layer normalisation, and read by every runtime of the last years.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from posesweep import __version__
from posesweep.datasets.crops import BOX_PADDING
from posesweep.errors import ConfigError, SweepError
from posesweep.trainables.codecs import Codec, HeatmapCodec, Outputs, SimCCCodec
from posesweep.trainables.tasks.topdown import IMAGENET_MEAN, IMAGENET_STD, codec, normalise
from posesweep.trainables.trained import Trained, load_network

OPSET = 17
KEY = "posesweep"  # of the metadata
MOST_DIFFERENT = 1e-3  # outputs, as a share of the largest; what is written answers within 1e-5 as a rule
MOST_PX = 0.1  # decoded points
_UNSURE, _UNSURE_PX = 1e-4, 0.05  # a change of the outputs by such a share that moves a point so far: it was undecided


@dataclass(frozen=True)
class Form:
    """What goes in and what comes out. `decode`: keypoints [batch, K, 3], x and y in input pixels and score; else
    heatmaps or SimCC logits. `normalised`: takes float32 [batch, 3, H, W]; else RGB bytes [batch, H, W, 3]."""

    decode: bool = False
    normalised: bool = False


@dataclass(frozen=True)
class Parity:
    """How far onnxruntime's answers are from torch's, over `images` images."""

    images: int
    of: str  # what the images were
    outputs: float  # largest difference of heatmaps or logits, or of scores, as a share of the largest above 1
    points_px: float | None = None  # largest difference of decoded points, input pixels
    undecided: int = 0  # decoded keypoints left out: two places of their map are as high as each other
    keypoints: int = 0

    def __str__(self) -> str:
        if self.points_px is None:
            return f"largest difference to torch {self.outputs:.1e} over {self.images} {self.of}"
        left_out = f", {self.undecided} of {self.keypoints} keypoints undecided" if self.undecided else ""
        return (
            f"largest difference to torch {self.points_px:.1e} input pixels, scores {self.outputs:.1e}, "
            f"over {self.images} {self.of}{left_out}"
        )


class Deployed(nn.Module):
    """The network as it is handed over: no flip test."""

    def __init__(self, network: nn.Module, codec: Codec, form: Form) -> None:
        super().__init__()
        self.network, self.codec, self.form = network, codec, form

    def forward(self, images: Tensor) -> Outputs:
        outputs = self.network(images if self.form.normalised else normalise(images))
        if self.form.decode:
            points, scores = self.codec.decode(outputs)
            return torch.cat([points, scores[..., None]], dim=-1)
        return self.codec.heatmaps(outputs) if isinstance(self.codec, HeatmapCodec) else outputs


def check_packages() -> None:
    """Raise ConfigError where the extra is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"--onnx needs the extra packages ({error.name}): pip install 'posesweep[export]'") from error


def write_onnx(trained: Trained, form: Form, path: Path, images: UInt8[np.ndarray, "n H W 3"], of: str) -> Parity:
    """Write the network to `path` and hold it against torch on `images` (network inputs; `of` says what they are).

    Raises ConfigError for a network that cannot be written, SweepError when the answers differ.
    """
    check_packages()
    deployed = Deployed(load_network(trained), codec(trained.config), form).eval()
    _write_graph(deployed, trained, path)
    _describe(path, about(trained, form))
    parity = _parity(deployed, path, images, of)
    if parity.outputs > MOST_DIFFERENT or (parity.points_px or 0.0) > MOST_PX:
        raise SweepError(f"model.onnx of {trained.name} does not answer as the network does: {parity}")
    return parity


def output_names(trained: Trained, form: Form) -> list[str]:
    """What the model's outputs are called."""
    if form.decode:
        return ["keypoints"]
    return ["simcc_x", "simcc_y"] if trained.config.codec == "simcc" else ["heatmaps"]


def _write_graph(deployed: Deployed, trained: Trained, path: Path) -> None:
    names = output_names(trained, deployed.form)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing: sizes are constants, which is meant; and of its age
            torch.onnx.export(
                deployed,
                (as_input(np.zeros((1, *trained.config.imgsz[::-1], 3), np.uint8), deployed.form),),
                str(path),
                input_names=["images"],
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in ["images", *names]},
                opset_version=OPSET,
                dynamo=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"model: {trained.config.model} cannot be written as ONNX ({first}); without --decode, or another network, "
            "it may be"
        ) from error


def as_input(images: UInt8[np.ndarray, "n H W 3"], form: Form) -> Tensor:
    """The images as the model takes them."""
    as_bytes = torch.from_numpy(images)
    return normalise(as_bytes).contiguous() if form.normalised else as_bytes


def about(trained: Trained, form: Form) -> dict[str, Any]:
    """What the model says of itself, under the key `posesweep` of its metadata, in JSON."""
    config, skeleton = trained.config, trained.skeleton
    width, height = config.imgsz
    settings = ("codec", "sigma", "sigma_x", "udp", "dark", "blur_kernel", "simcc_split", "simcc_beta")
    return {
        "version": __version__,
        "model": config.model,
        "input": {
            "name": "images",
            "dtype": "float32" if form.normalised else "uint8",
            "layout": "NCHW" if form.normalised else "NHWC",
            "colour": "RGB",
            "width": width,
            "height": height,
            "mean": list(IMAGENET_MEAN),  # RGB, 0 to 255; inside the model where it takes bytes
            "std": list(IMAGENET_STD),
            "box_padding": BOX_PADDING,  # the box's size times this, enlarged to the input's aspect, is what it sees
        },
        "output": _about_output(codec(config), form),
        "skeleton": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
        "edges": [list(edge) for edge in skeleton.edges],
        "codec": {name: value for name in settings if (value := getattr(config, name)) is not None},
    }


def _about_output(codec: Codec, form: Form) -> dict[str, Any]:
    if form.decode:
        return {"kind": "keypoints", "values": "x and y in input pixels, score"}
    if isinstance(codec, SimCCCodec):
        return {"kind": "simcc", "bins_per_pixel": codec.split}
    assert isinstance(codec, HeatmapCodec)
    ends = [(side - 1) / (cells - 1) for side, cells in zip(codec.imgsz, codec.map_size, strict=True)]
    return {"kind": "heatmaps", "pixels_per_cell": ends if codec.udp else [float(codec.stride)] * 2}


def _describe(path: Path, about: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: json.dumps(about)})
    model.doc_string = "Keypoints of one object in a box; the metadata 'posesweep' says what goes in and comes out."
    onnx.checker.check_model(model)
    onnx.save(model, path)


# ----------------------------------------------------------------------------------------------------------- parity


def run_file(path: Path, images: Tensor) -> list[Float[np.ndarray, "..."]]:
    """What onnxruntime answers, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})


@torch.no_grad()
def _parity(deployed: Deployed, path: Path, images: UInt8[np.ndarray, "n H W 3"], of: str) -> Parity:
    inputs = as_input(images, deployed.form)
    theirs = run_file(path, inputs)
    ours = deployed(inputs)
    if not deployed.form.decode:
        pairs = zip(ours if isinstance(ours, tuple) else (ours,), theirs, strict=True)
        return Parity(len(images), of, max(_apart(mine.numpy(), their) for mine, their in pairs))
    (their,) = theirs
    mine, decided = ours.numpy(), _decided(deployed, inputs)
    apart = np.abs(mine - their)[decided]
    scale = max(1.0, float(np.abs(mine[..., 2]).max()))
    return Parity(
        images=len(images),
        of=of,
        outputs=float(apart[:, 2].max(initial=0.0)) / scale,
        points_px=float(apart[:, :2].max(initial=0.0)),
        undecided=int((~decided).sum()),
        keypoints=decided.size,
    )


def _apart(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> float:
    """The largest difference, in units of the largest value where that is above 1."""
    return float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))


def _decided(deployed: Deployed, inputs: Tensor) -> np.ndarray:
    """Which keypoints [n, K] stay where they are when the outputs change in their fourth digit: others have two places
    that are as high as each other, and which is the higher one is chance on any device. Of logits the unit is 1, as a
    sigmoid rounds small differences away."""
    outputs = deployed.network(inputs if deployed.form.normalised else normalise(inputs))
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    points, _ = deployed.codec.decode(outputs)
    random = torch.Generator().manual_seed(0)
    unit = 1.0 if isinstance(deployed.codec, HeatmapCodec) and deployed.codec.sigmoid else 0.0
    decided = np.ones(points.shape[:2], bool)
    for _ in range(3):
        noise = [_UNSURE * max(unit, float(p.abs().amax())) * torch.randn(p.shape, generator=random) for p in parts]
        shaken = tuple(p + n for p, n in zip(parts, noise, strict=True))
        moved, _ = deployed.codec.decode(shaken if isinstance(outputs, tuple) else shaken[0])
        decided &= (moved - points).abs().amax(-1).numpy() <= _UNSURE_PX
    return decided
