"""Parallel coordinates: every trial a line through its searched values to its score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from posesweep.analysis.drawing import BASELINE, GREY, INK, WINNER
from posesweep.analysis.parameters import Scale, scale_of, stated_parameters
from posesweep.analysis.results import PARAMS, SweepResults

UNUSED = -0.13  # height of trials in which a parameter is not active: below its axis
TICKS = 4
SHADES = LinearSegmentedColormap.from_list("score", ["#c3b6e8", "#6b8fc9", WINNER])  # worst to best; seen on both pages


@dataclass(frozen=True)
class Axis:
    """One upright axis. `heights`: 0 at its foot, 1 at its head, nan in trials where the parameter is not active."""

    name: str
    heights: Float[np.ndarray, "n"]
    ticks: tuple[tuple[float, str], ...]  # (height, text)

    @property
    def conditional(self) -> bool:
        """Whether some trials go past it."""
        return bool(np.isnan(self.heights).any())


@dataclass(frozen=True)
class Parallel:
    """n trials with a score, worst first, so that the best are drawn last; the last axis is the score."""

    trials: Int[np.ndarray, "n"]
    axes: tuple[Axis, ...]
    full: Bool[np.ndarray, "n"]  # trained to the end
    merit: Float[np.ndarray, "n"]  # 0 worst to 1 best


def parallel(results: SweepResults) -> Parallel | None:
    """Axes of the searched parameters that varied (or were not active everywhere), and of the score.

    None where there is nothing to see: fewer than two trials with a score, or no parameter that varied.
    """
    rows = results.trials.dropna(subset="value").sort_values("value", ascending=results.maximize, kind="stable")
    if len(rows) < 2:
        return None
    stated = stated_parameters(results)
    known = [name for name in results.params if rows[PARAMS + name].notna().any()]
    axes = [_axis(name, rows[PARAMS + name], stated.get(name, {})) for name in known]
    varied = [axis for axis in axes if len(np.unique(axis.heights)) > 1]  # nan counts as one value
    if not varied:
        return None
    score = _axis(results.metric.removeprefix("val/"), rows["value"], {})
    merit = score.heights if results.maximize else 1 - score.heights
    full = (rows["state"] == "finished").to_numpy()
    return Parallel(rows["trial"].to_numpy(), (*varied, score), full, merit)


def _axis(name: str, values: pd.Series, stated: Mapping[str, Any]) -> Axis:
    scale = scale_of(values, stated)
    if scale.categories:
        last = max(len(scale.categories) - 1, 1)
        return Axis(name, scale.places / last, tuple((i / last, text) for i, text in enumerate(scale.categories)))
    low, high = _ends(scale, stated)
    if scale.log:
        ticks = _log_ticks(low, high)
        heights, at = (np.log(np.asarray(some) / low) / np.log(high / low) for some in (scale.places, ticks))
    else:
        whole = bool(np.all(scale.places[np.isfinite(scale.places)] % 1 == 0))
        ticks = np.asarray(MaxNLocator(TICKS, integer=whole, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        heights, at = ((np.asarray(some) - low) / (high - low) for some in (scale.places, ticks))
    return Axis(name, heights, tuple((float(y), f"{tick:.6g}") for y, tick in zip(at, ticks, strict=True)))


def _log_ticks(low: float, high: float) -> Float[np.ndarray, "t"]:
    """The powers of ten in a range; where there are fewer than two, numbers in even steps of the logarithm."""
    powers = 10.0 ** np.arange(np.ceil(np.log10(low) - 1e-9), np.floor(np.log10(high) + 1e-9) + 1)
    return powers if len(powers) > 1 else np.array([float(f"{tick:.2g}") for tick in np.geomspace(low, high, TICKS)])


def _ends(scale: Scale, stated: Mapping[str, Any]) -> tuple[float, float]:
    """The searched range, widened to values outside it (a baseline may lie there); never empty."""
    ends = [stated.get(key, stated.get(other)) for key, other in (("low", "min"), ("high", "max"))]
    said = [float(end) for end in ends if isinstance(end, int | float)]
    if scale.log:
        said = [end for end in said if end > 0]
    every = np.concatenate([scale.places[np.isfinite(scale.places)], said])
    low, high = float(every.min(initial=np.inf)), float(every.max(initial=-np.inf))
    if not low < high:
        low = low if np.isfinite(low) else 0.0
        return (low / 2, low * 2) if scale.log else (low - 0.5, low + 0.5)
    return low, high


def draw_parallel(numbers: Parallel, ax: Axes, winner: int | None = None, baseline: int | None = None) -> None:
    """Stopped trials pale, the others the darker the better, winner and baseline in their colours on top."""
    every = np.array([np.where(np.isnan(axis.heights), UNUSED, axis.heights) for axis in numbers.axes])  # [axes, n]
    order = np.argsort(numbers.full, kind="stable").tolist()  # the stopped below
    for i in sorted(order, key=lambda i: (numbers.trials[i] == winner, numbers.trials[i] == baseline)):
        colour, width, alpha = _look(numbers, i, winner, baseline)
        x, y = _bent(every[:, i])
        ax.plot(x, y, color=colour, linewidth=width, alpha=alpha, solid_capstyle="round")
    for place, axis in enumerate(numbers.axes):
        _draw_axis(axis, place, ax)
    for trial, name, colour in ((winner, "winner", WINNER), (baseline, "baseline", BASELINE)):
        if trial in numbers.trials and (name == "winner" or trial != winner):
            ax.plot([], [], color=colour, linewidth=2.6, label=f"trial {trial}, the {name}")
    ax.plot([], [], color=GREY, linewidth=1, alpha=0.6, label="stopped early")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3)
    ax.set_xlim(-0.35, len(numbers.axes) - 0.55)
    ax.set_ylim(UNUSED - 0.06, 1.14)
    ax.set_axis_off()


def _look(numbers: Parallel, i: int, winner: int | None, baseline: int | None) -> tuple[Any, float, float]:
    """(colour, line width, opacity)"""
    if numbers.trials[i] == winner:
        return WINNER, 3.0, 1.0
    if numbers.trials[i] == baseline:
        return BASELINE, 2.4, 1.0
    if not numbers.full[i]:
        return GREY, 0.9, 0.38
    return SHADES(float(numbers.merit[i])), 1.5, 0.9


def _bent(heights: Float[np.ndarray, "a"]) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """A line that leaves and reaches every axis level, so that lines through one point can be told apart."""
    t = np.linspace(0, 1, 13)[:-1]
    ease = t * t * (3 - 2 * t)
    x = np.append((np.arange(len(heights) - 1)[:, None] + t).ravel(), len(heights) - 1)
    y = (heights[:-1, None] + np.diff(heights)[:, None] * ease).ravel()
    return x, np.append(y, heights[-1])


def _draw_axis(axis: Axis, place: int, ax: Axes) -> None:
    ax.plot([place, place], [0, 1], color=GREY, linewidth=1.1, zorder=4)
    for height, text in axis.ticks:
        ax.plot([place - 0.025, place], [height, height], color=GREY, linewidth=1.1, zorder=4)
        ax.text(place - 0.05, height, text, ha="right", va="center", fontsize=8, color=INK, zorder=5)
    if axis.conditional:
        ax.text(place - 0.05, UNUSED, "not used", ha="right", va="center", fontsize=8, color=GREY, style="italic")
    ax.text(place, 1.06, axis.name, ha="center", va="bottom", fontsize=9.5, color=INK, weight="bold")


def parallel_table(numbers: Parallel, results: SweepResults) -> pd.DataFrame:
    """The trials of the figure, best first: trial, state, the searched values, the score."""
    rows = results.trials.set_index("trial").loc[numbers.trials[::-1]].reset_index()
    return rows[["trial", "state", *(PARAMS + name for name in results.params), "value"]]
