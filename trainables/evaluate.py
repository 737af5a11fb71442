"""`posesweep eval`: score weights on a validation set, or on other annotations."""

from pathlib import Path

from posesweep.analysis.chosen import chosen
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import read_sweep_folder
from posesweep.trainables.checkpoint import take_weights
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import Context, pick_device, prepare_process
from posesweep.trainables.task import Task
from posesweep.trainables.tasks import build_task, find_task
from posesweep.trainables.trial import score_network
from posesweep.trainables.winner import read_config


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
