"""The weights of the k best epochs, in top/<epoch>/: to average, to compare, or to go back to."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posesweep.files import write_json
from posesweep.search_spaces.schema import Metric
from posesweep.trainables.checkpoint import Weights, save_weights
from posesweep.trainables.patience import validated


def best_epochs(rows: Sequence[Mapping[str, Any]], metric: Metric, count: int) -> list[int]:
    """The `count` best epochs of the `rows` of metrics.jsonl, the best first, the earlier of equals."""
    sign = -1.0 if metric.goal == "maximize" else 1.0
    scored = [(sign * row[metric.name], int(row["epoch"])) for row in validated(rows, metric.name)]
    return [epoch for _, epoch in sorted(scored)[:count]]


def keep_top(folder: Path, epochs: Sequence[int], row: Mapping[str, Any], weights: Weights) -> None:
    """Save the weights of the epoch of `row` in `folder` when it is one of `epochs`, and remove those of all others.

    An epoch's folder is written beside its place and renamed, the losers are removed after: a kill at any moment leaves
    whole folders, at worst one too many, which the next call removes.
    """
    epoch = int(row["epoch"])
    if epoch in epochs:
        place, new = folder / f"{epoch:04d}", folder / f"{epoch:04d}.new"
        for left in (new, place):  # a resumed training comes by its last epochs again
            shutil.rmtree(left, ignore_errors=True)
        new.mkdir(parents=True)
        save_weights(new / "weights.safetensors", weights)
        write_json(new / "state.json", {"epoch": epoch, "metrics": dict(row)})
        new.rename(place)
    kept = {f"{epoch:04d}" for epoch in epochs}
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.name not in kept:
            shutil.rmtree(left)
