"""`posesweep export`: the winner in a folder of its own, also as ONNX."""

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from posesweep.analysis.chosen import chosen
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import read_sweep_folder
from posesweep.errors import ConfigError, SweepError
from posesweep.files import write_text
from posesweep.trainables.checkpoint import take_weights
from posesweep.trainables.codecs import HeatmapCodec
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.tasks import build_task
from posesweep.trainables.winner import best_yaml, read_config


def export(folder: Path, out: Path, number: int | None, onnx: bool) -> None:
    """Copy the winner, or trial `number`, to `out`: best.yaml, weights.safetensors, skeleton.yaml, evidence, ONNX.

    Raises SweepError when there is no such trial or its weights were not kept, ConfigError when ONNX is not installed.
    """
    results = read_sweep_folder(folder)
    table = ranked(results)
    picked = chosen(results, table, number)
    weights = picked.folder / "best" / "weights.safetensors"
    if not weights.is_file():
        raise SweepError(
            f"the weights of trial {picked.trial} were not kept (keep.checkpoints_of_top in the sweep file); train it "
            f"again: posesweep train {picked.folder / 'config.yaml'} --out runs/again"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "best.yaml", best_yaml(results, table, picked))
    write_text(out / "skeleton.yaml", yaml.safe_dump(results.split["skeleton"], sort_keys=False))
    shutil.copyfile(weights, out / "weights.safetensors")
    files = ["best.yaml", "skeleton.yaml", "weights.safetensors"]
    if onnx:
        write_onnx(read_config(out / "best.yaml"), weights, out / "model.onnx")
        files.append("model.onnx")
    print(f"trial {picked.trial} is in {out}: {', '.join(files)}")


class _Heatmaps(nn.Module):
    """What a network's outputs are to others: heatmaps, where it was trained with a loss on their logits."""

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, outputs: Any) -> Any:
        return self.codec.heatmaps(outputs) if isinstance(self.codec, HeatmapCodec) else outputs


def write_onnx(config: TrialConfig, weights: Path, path: Path) -> None:
    """The network as ONNX: normalised images float32 [batch, 3, H, W] -> heatmaps, or SimCC logits over x and y.

    Raises ConfigError when the extra is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError("--onnx needs the extra packages: pip install 'posesweep[export]'") from error
    task = build_task(config)
    network = task.model().eval()
    take_weights(network, weights)
    network = nn.Sequential(network, _Heatmaps(getattr(task, "codec", None)))
    sample = task.datasets()[1].batch(torch.arange(1).numpy(), 0)
    height, width = sample["image"].shape[1:3]
    outputs = ["simcc_x", "simcc_y"] if isinstance(network(torch.zeros(1, 3, height, width)), tuple) else ["heatmaps"]
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, height, width),),
        str(path),
        input_names=["images"],
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in ["images", *outputs]},
        dynamo=False,
    )
