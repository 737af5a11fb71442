"""Learning curves: the metric over the epochs of every trial, and where the search stopped the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from posesweep.analysis.drawing import BAD, BASELINE, GREY, INK, WINNER
from posesweep.analysis.results import SweepResults

FEW = 30  # curves beyond which each is drawn more faintly


@dataclass(frozen=True)
class Curve:
    """One trial. Epochs without validation are left out."""

    trial: int
    state: str
    epochs: Int[np.ndarray, "n"]
    values: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class LearningCurves:
    """All curves with at least one value, and the epochs at which ASHA decides who goes on."""

    metric: str
    curves: tuple[Curve, ...]
    rungs: tuple[int, ...]


def learning_curves(results: SweepResults) -> LearningCurves:
    """The validated epochs of every trial."""
    states = dict(zip(results.trials["trial"], results.trials["state"], strict=True))
    curves = []
    for trial, rows in results.curves.dropna(subset=["value"]).groupby("trial"):
        number = int(str(trial))
        curves.append(Curve(number, states[number], rows["epoch"].to_numpy(), rows["value"].to_numpy()))
    return LearningCurves(results.metric, tuple(curves), rung_epochs(results.sweep, results.full_epochs))


def curves_table(numbers: LearningCurves) -> pd.DataFrame:
    """One row per trial and validated epoch: trial, state, epoch, value, rung (whether the search decides there)."""
    parts = [
        pd.DataFrame({"trial": one.trial, "state": one.state, "epoch": one.epochs, "value": one.values})
        for one in numbers.curves
    ]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(rung=table["epoch"].isin(numbers.rungs))


def rung_epochs(sweep: Mapping[str, Any], full_epochs: int | None) -> tuple[int, ...]:
    """min_epochs * eta^k below the epochs of a whole training: where successive halving compares trials (Li et al.
    2020, arXiv 1810.05934; of Hyperband, the bracket that starts first). () when trials are stopped otherwise."""
    stopping = sweep.get("early_terminate")
    if not isinstance(stopping, dict) or stopping.get("type", "asha") not in ("asha", "hyperband"):
        return ()
    rung, eta = stopping.get("min_epochs", 1), stopping.get("eta", 3)
    rungs = []
    while full_epochs is not None and rung < full_epochs:
        rungs.append(rung)
        rung *= eta
    return tuple(rungs)


def draw_curves(numbers: LearningCurves, ax: Axes, winner: int | None = None, baseline: int | None = None) -> None:
    """Winner and baseline in colour over the rest in grey; a cross marks where a trial was stopped."""
    for rung in numbers.rungs:
        ax.axvline(rung, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)))
        where = ax.get_xaxis_transform()
        ax.text(rung, 0.99, f" {rung}", transform=where, fontsize=8, color=GREY, va="top")
    faint = 0.75 if len(numbers.curves) <= FEW else 0.35
    for curve in sorted(numbers.curves, key=lambda c: (c.trial == winner, c.trial == baseline)):
        _draw_curve(curve, ax, *_look(curve.trial, winner, baseline), faint)
    ax.set_xlabel("epoch")
    ax.set_ylabel(numbers.metric.removeprefix("val/"))
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if any(curve.state != "finished" for curve in numbers.curves):
        ax.plot([], [], "x", color=GREY, label="stopped early")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right")


def _look(trial: int, winner: int | None, baseline: int | None) -> tuple[str, float, str]:
    """(colour, line width, legend)"""
    if trial == winner:
        return WINNER, 2.6, f"trial {trial}, the winner"
    if trial == baseline:
        return BASELINE, 2.2, f"trial {trial}, the baseline"
    return GREY, 1.1, ""


def _draw_curve(curve: Curve, ax: Axes, colour: str, width: float, label: str, faint: float) -> None:
    alpha = 1.0 if label else faint
    ax.plot(curve.epochs, curve.values, color=colour, linewidth=width, alpha=alpha, label=label or None)
    if curve.state in ("pruned", "diverged", "failed"):
        cross = BAD if curve.state != "pruned" else (colour if label else INK)
        ax.plot(curve.epochs[-1:], curve.values[-1:], "x", color=cross, markersize=5, markeredgewidth=1.4, alpha=alpha)
    if len(curve.epochs) == 1:
        ax.plot(curve.epochs, curve.values, ".", color=colour, alpha=alpha)
