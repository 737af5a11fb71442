"""The end of a sweep: ranked table, best.yaml, report; and what one does with the winner: export, train, score."""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

from posesweep.analysis.chosen import chosen
from posesweep.analysis.ranked import Standing, Standings, ranked
from posesweep.analysis.report import build_report
from posesweep.analysis.results import SweepResults, read_sweep_folder, write_results_csv
from posesweep.errors import ConfigError, SweepError
from posesweep.files import trial_folder, write_text
from posesweep.search_spaces.document import apply_overrides
from posesweep.trainables.checkpoint import take_weights
from posesweep.trainables.codecs import HeatmapCodec
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import Context, in_this_process, pick_device, prepare_process
from posesweep.trainables.debug import print_epoch
from posesweep.trainables.latency import measure_latency
from posesweep.trainables.progress import params_text
from posesweep.trainables.task import Task
from posesweep.trainables.tasks import build_task, find_task, make_config
from posesweep.trainables.trial import dump_config, run_trial, score_network

PIPED_WIDTH = 140  # columns, where there is no terminal to ask


def conclude(folder: Path) -> None:
    """Rank a sweep folder, print the table, and write best.yaml, results.csv and report.html into it.

    Raises SweepError when `folder` is no sweep. A sweep without a winner gets its report, which says why.
    """
    results = read_sweep_folder(folder)
    table = ranked(results)
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    console.print(ranking_table(table, results.metric))
    for note in table.notes:
        console.print(f"note: {note}", markup=False)
    write_results_csv(results, folder / "results.csv")
    if table.winner is not None:
        write_text(folder / "best.yaml", best_yaml(results, table, table.winner))
        console.print(f"winner: trial {table.winner.trial}; {folder / 'best.yaml'} trains it again", markup=False)
    if said := measure_latency(results, [row.trial for row in table.rows if row.rank is not None]):
        console.print(f"note: {said}", markup=False)
    console.print(f"report: {build_report(folder)}", markup=False)


def ranking_table(standings: Standings, metric: str) -> Table:
    """The ranking for a terminal: the best on top, below the ranked trials those that were stopped, and why."""
    table = Table(title="Ranking", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("#", "trial", metric.removeprefix("val/"), "95 % interval", "P(best)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("gain over baseline", justify="right", min_width=7)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("settings, or why it ended", overflow="fold", min_width=20)
    for row in standings.rows:
        table.add_row(
            "" if row.rank is None else f"{row.rank}{'=' if row.tied and row.rank > 1 else ''}",
            str(row.trial),
            "" if row.value is None else f"{row.value:.3f}",
            "" if row.ap is None else f"{row.ap.low:.3f} to {row.ap.high:.3f}",
            "" if row.p_best is None else f"{row.p_best:.0%}",
            "" if row.gain is None else f"{row.gain.value:+.3f} [{row.gain.low:+.3f}, {row.gain.high:+.3f}]",
            str(row.epochs),
            ("baseline  " if row.role == "baseline" else "")
            + (params_text(row.params) if row.rank is not None else row.reason),
            style="bold" if row.rank == 1 else "" if row.rank is not None else "dim",
        )
    if standings.tied:
        table.caption = "= cannot be told from the winner by this validation set"
    return table


def best_yaml(results: SweepResults, table: Standings, trial: Standing) -> str:
    """The trial's full config, headed by what it reached, against what, and with what."""
    status = results.statuses[trial.trial]
    config = yaml.safe_load((trial_folder(results.folder, trial.trial) / "config.yaml").read_text(encoding="utf-8"))
    config["data"]["split_hash"] = results.split["hash"]  # training refuses other data than it was chosen on
    reached = f"{results.metric} {trial.value:.4f}" if trial.value is not None else "no score"
    if trial.ap is not None:
        reached = f"AP {trial.ap.value:.4f}, 95 % interval {trial.ap.low:.4f} to {trial.ap.high:.4f}"
    tied = ", ".join(str(other.trial) for other in table.tied) if trial.rank == 1 else ""
    exact = status["device"] == "cpu" and status["workers"] == 1
    ran_with = ", ".join(f"{name} {version}" for name, version in status["versions"].items())
    header = [
        f"The best of sweep '{results.name}': trial {trial.trial}" if trial.rank == 1 else f"Trial {trial.trial}",
        f"reached: {reached}, at epoch {status['best_epoch']} of {status['epochs']}",
        *([f"tied with trials {tied}: the validation set cannot tell them apart"] if tied else []),
        f"validation split: {results.split['hash']}, {len(results.split['val'])} objects",
        f"ran on: {status['device']}, {status['threads']} threads, {ran_with}",
        f"train it again{' (bit for bit the same on this machine)' if exact else ''}: "
        "posesweep train best.yaml --out runs/again",
    ]
    return "".join(f"# {line}\n" for line in header) + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def export(folder: Path, out: Path, number: int | None, onnx: bool) -> None:
    """Copy the winner, or trial `number`, to `out`: best.yaml, weights.safetensors, skeleton.yaml, evidence, ONNX.

    Raises SweepError when there is no such trial or its weights were not kept, ConfigError when ONNX is not installed.
    """
    results = read_sweep_folder(folder)
    table = ranked(results)
    picked = chosen(results, table, number)
    trial = next(row for row in table.rows if row.trial == picked.trial)
    weights = picked.folder / "best" / "weights.safetensors"
    if not weights.is_file():
        raise SweepError(
            f"the weights of trial {trial.trial} were not kept (keep.checkpoints_of_top in the sweep file); train it "
            f"again: posesweep train {picked.folder / 'config.yaml'} --out runs/again"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "best.yaml", best_yaml(results, table, trial))
    write_text(out / "skeleton.yaml", yaml.safe_dump(results.split["skeleton"], sort_keys=False))
    shutil.copyfile(weights, out / "weights.safetensors")
    files = ["best.yaml", "skeleton.yaml", "weights.safetensors"]
    if onnx:
        write_onnx(read_config(out / "best.yaml"), weights, out / "model.onnx")
        files.append("model.onnx")
    print(f"trial {trial.trial} is in {out}: {', '.join(files)}")


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


def read_config(path: Path, settings: list[str] | None = None) -> TrialConfig:
    """The config of one training from best.yaml or config.yaml, with `key=value` settings over it.

    Raises ConfigError for a file that is not one, with every mistake in it.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not there; give the best.yaml of a sweep folder, or a trial's config.yaml")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or "data" not in values:
        raise ConfigError(f"{path} is not the config of one training; best.yaml in a sweep folder is one")
    return make_config(apply_overrides(values, settings or []))


def train_alone(path: Path, settings: list[str], out: Path) -> None:
    """Train one config in this process, into `out`; repeated, it goes on from the last epoch. Prints each epoch."""
    config = read_config(path, settings)
    begun = out / "config.yaml"
    if begun.is_file() and begun.read_text(encoding="utf-8") != dump_config(config):
        raise ConfigError(f"{out} holds a training with other settings ({begun}); choose another --out, or remove it")
    loop = run_trial(config, in_this_process(out, print_epoch))
    best = f"{config.metric.name} {loop.best:.4f} at epoch {loop.best_epoch}" if loop.best is not None else "no score"
    print(f"{out}: trained {loop.epoch} epochs, best {best}; weights in {out / 'best'}")


def evaluate(folder: Path, data: Path | None, images: Path | None) -> None:
    """Score the best weights in `folder` on its validation split, or on the COCO file `data`; prints the metrics."""
    trial = folder
    if not (folder / "config.yaml").is_file():
        results = read_sweep_folder(folder)
        trial = chosen(results, ranked(results)).folder
    config = read_config(trial / "config.yaml")
    weights = trial / "best" / "weights.safetensors"
    task = build_task(config) if data is None else find_task(config.task).build_on(config, data, images)
    for name, value in score_weights(task, config, weights).items():
        print(f"{name:>14} {value:.4f}")


def score_weights(task: Task, config: TrialConfig, weights: Path) -> dict[str, float]:
    """The metrics of a weights file on the task's validation samples."""
    prepare_process(config.threads, config.seed)
    context = Context(weights.parent, lambda row: None, pick_device())
    network = task.model()
    take_weights(network, weights)
    return score_network(network.to(context.device), task, task.datasets()[1], config, context).metrics
