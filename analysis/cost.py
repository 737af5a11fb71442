"""What each trial cost and why it ended, and what stopping the hopeless early has saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from posesweep.analysis.drawing import BAD, GREY, OTHER, TIED, WINNER
from posesweep.analysis.ranked import STATE_WORDS
from posesweep.analysis.results import SweepResults

COLOURS = {"finished": OTHER, "pruned": TIED, "diverged": BAD, "failed": BAD, "running": GREY, "unknown": GREY}
SHOWN = {"finished": "to the end", "pruned": "stopped early", "failed": "failed or diverged"}  # in the legend


@dataclass(frozen=True)
class Cost:
    """`trials`: one row each: trial, role, state, epochs, wall_s, gpu_s, cpu_s (nan where not known; a trial on a GPU
    has no cpu_s), share (of the wall time of all), saved_s (what its stop saved: the epochs it did not train, each as
    long as those it did; nan unless the search stopped it), why (in words)."""

    trials: pd.DataFrame

    @property
    def total_s(self) -> float:
        """Wall time of all trials together."""
        return float(self.trials["wall_s"].sum())

    @property
    def saved_s(self) -> float:
        """What the stops saved together."""
        return float(self.trials["saved_s"].sum())

    @property
    def saved_share(self) -> float | None:
        """Of what training the stopped trials to the end would have taken, with everything else as it was."""
        whole = self.total_s + self.saved_s
        return self.saved_s / whole if self.saved_s > 0 else None


def cost(results: SweepResults) -> Cost:
    """The cost of every trial, as far as its files tell."""
    trials = results.trials
    table = trials[["trial", "role", "state", "epochs", "wall_s"]].copy()
    chips = [_chips(results.statuses.get(trial, {})) for trial in trials["trial"]]
    for name in ("gpu", "cpu"):
        table[f"{name}_s"] = table["wall_s"] * np.array([chip[name] for chip in chips], float)
    total = float(table["wall_s"].sum())
    table["share"] = table["wall_s"] / total if total > 0 else np.nan
    full = [_full_epochs(results, trial) for trial in trials["trial"]]
    left = np.array([np.nan if epochs is None else epochs for epochs in full], float) - table["epochs"]
    stopped = (trials["state"] == "pruned") & (table["epochs"] > 0) & (left > 0)
    table["saved_s"] = (left * table["wall_s"] / table["epochs"].where(stopped)).where(stopped)
    table["why"] = [_why(state, reason) for state, reason in zip(trials["state"], trials["reason"], strict=True)]
    return Cost(table)


def _chips(status: Mapping[str, Any]) -> dict[str, float]:
    """How many GPUs and CPUs the trial kept busy, nan where not known."""
    device, workers, threads = (status.get(key) for key in ("device", "workers", "threads"))
    workers = workers if isinstance(workers, int) else 1
    if not isinstance(device, str):
        return {"gpu": np.nan, "cpu": np.nan}
    if device != "cpu":
        return {"gpu": float(workers), "cpu": np.nan}
    return {"gpu": np.nan, "cpu": float(workers * threads) if isinstance(threads, int) else np.nan}


def _full_epochs(results: SweepResults, trial: int) -> int | None:
    """The epochs that the trial was to train."""
    epochs = results.settings(trial).get("epochs")
    return epochs if isinstance(epochs, int) else results.full_epochs


def _why(state: str, reason: str) -> str:
    return reason or {"running": "still running"}.get(state, STATE_WORDS[state])


def draw_cost(numbers: Cost, ax: Axes, winner: int | None = None) -> None:
    """A bar for each trial in the order in which they began; outlined above it, what its stop saved."""
    table = numbers.trials
    scale, unit = _unit(float((table["wall_s"].fillna(0) + table["saved_s"].fillna(0)).max()))
    place, spent = table["trial"], table["wall_s"].fillna(0) / scale
    colours = [
        WINNER if trial == winner else COLOURS[state]
        for trial, state in zip(table["trial"], table["state"], strict=True)
    ]
    saved = table["saved_s"].fillna(0) / scale
    outline: dict[str, Any] = {"fill": False, "edgecolor": GREY, "linewidth": 0.7, "linestyle": (0, (2, 1.5))}
    ax.bar(place, saved, 0.8, bottom=spent, **outline)
    ax.bar(place, spent, 0.8, color=colours)
    present = set(table["state"].replace("diverged", "failed"))
    handles = [Patch(color=COLOURS[state], label=word) for state, word in SHOWN.items() if state in present]
    if winner is not None:
        handles.insert(0, Patch(color=WINNER, label="the winner"))
    if saved.any():
        handles.append(Patch(label="saved by stopping", **outline))
    ax.set_xlabel("trial")
    ax.set_ylabel(unit)
    ax.grid(False, axis="x")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)


def _unit(longest_s: float) -> tuple[float, str]:
    if longest_s > 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if longest_s > 180 else (1.0, "seconds")
