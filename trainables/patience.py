"""When a training ends: after its epochs, or early, when the metric has stopped improving."""

from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any

from posesweep.trainables.config import TrialConfig


def end_of(config: TrialConfig, epoch: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Why the training ends after `epoch` epochs, in words; nothing while it goes on.

    Decided from the `rows` of metrics.jsonl alone, so a resumed training ends where an uninterrupted one does.
    """
    if epoch >= config.epochs:
        return f"trained all {epoch} epochs"
    if config.patience is None:
        return ""
    assert config.patience_smooth is not None, "filled in by the config"
    assert config.min_delta is not None
    metric = config.metric
    values = [row[metric.name] for row in validated(rows, metric.name)]
    sign = 1.0 if metric.goal == "maximize" else -1.0
    stalled = without_improvement([sign * value for value in values], config.patience_smooth, config.min_delta)
    if stalled < config.patience:
        return ""
    smoothed = " (smoothed)" if config.patience_smooth > 1 else ""
    moved = "risen" if metric.goal == "maximize" else "fallen"
    by = f" by more than {config.min_delta:g}" if config.min_delta else ""
    return f"stopped early after epoch {epoch}: {metric.name}{smoothed} has not {moved}{by} for {stalled} validations"


def validated(rows: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    """The rows of metrics.jsonl that have the metric and come from an epoch with a validation; others have no weights
    to keep, even where the metric is the loss of the training."""
    return [row for row in rows if row.get(metric) is not None and (metric.startswith("val/") or "val_s" in row)]


def without_improvement(values: Sequence[float], smooth: int, min_delta: float) -> int:
    """How many validations ago the smoothed value last rose more than `min_delta` above its best until then.

    Smoothed: the median of the last `smooth` values (of an even number the lower), fewer at the start. One lucky epoch
    moves no median of three, so it neither keeps a training going nor sets a level that is never reached again.
    """
    best, since = float("-inf"), 0
    for i in range(len(values)):
        level = median_low(values[max(0, i + 1 - smooth) : i + 1])
        if level > best + min_delta:
            best, since = level, 0
        else:
            since += 1
    return since
