"""What accuracy costs: AP against the size of the network and the time of a forward pass, and the trials worth having.

    numbers = pareto(results, ranked(results))
    draw_pareto(numbers, ax, "parameters"); draw_pareto(numbers, ax, "ms_batch1"); numbers.table.to_csv(...)
    for cost in numbers.drawable: ...           # the costs that differ between trials
    numbers.notes                               # sentences

Nothing is measured here: trials/<n>/latency.json is written at the end of a sweep (`trainables/latency.py`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from posesweep.analysis.drawing import BASELINE, GREY, INK, OTHER, WINNER
from posesweep.analysis.ranked import Standings
from posesweep.analysis.results import SweepResults
from posesweep.files import trial_folder

COSTS = {
    "parameters": "parameters of the network",
    "ms_batch1": "ms a forward pass, one object",
    "ms_batch16": "ms a forward pass, 16 objects",
}
LATENCY = "latency.json"


@dataclass(frozen=True)
class Pareto:
    """`table`: one row per ranked trial that has a score, best first: trial, rank, value (the sweep's metric),
    model, parameters, ms_batch1, ms_batch16 (as the trial predicts: two passes with the flip test), flip_test, device,
    and for each cost on_front_<cost>: no other trial is at least as good and cheaper. nan: not known."""

    table: pd.DataFrame
    metric: str
    maximize: bool
    baseline: int | None
    notes: tuple[str, ...]

    @property
    def drawable(self) -> tuple[str, ...]:
        """The costs that are not the same for all trials."""
        return tuple(cost for cost in COSTS if self.table[cost].nunique() > 1)


def pareto(results: SweepResults, standings: Standings) -> Pareto:
    """Costs and scores of the ranked trials, from what the sweep wrote down."""
    size = dict(zip(results.trials["trial"], results.trials["parameters"], strict=True))
    rows = []
    for row in standings.rows:
        if row.rank is None or row.value is None:
            continue
        settings = results.settings(row.trial)
        parameters = size.get(row.trial)
        costs = {"parameters": np.nan if pd.isna(parameters) else float(parameters), **_latency(results, row.trial)}
        model = str(settings.get("model", ""))
        rows.append({"trial": row.trial, "rank": row.rank, "value": row.value, "model": model, **costs})
    columns = ["trial", "rank", "value", "model", *COSTS, "flip_test", "device"]
    table = pd.DataFrame(rows, columns=columns)
    goodness = table["value"].to_numpy(float) * (1 if results.maximize else -1)
    for cost in COSTS:
        table[f"on_front_{cost}"] = front(table[cost].to_numpy(float), goodness)
    return Pareto(table, results.metric, results.maximize, results.baseline, _notes(table))


def front(cost: Float[np.ndarray, "n"], goodness: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Which points no other beats: at least as good and cheaper, or better and no dearer. False where nan."""
    known = np.isfinite(cost) & np.isfinite(goodness)
    no_dearer, as_good = cost[:, None] <= cost, goodness[:, None] >= goodness  # [other, one]
    beats = no_dearer & as_good & ((cost[:, None] < cost) | (goodness[:, None] > goodness))
    return known & ~beats[known].any(axis=0)


def _latency(results: SweepResults, trial: int) -> dict[str, Any]:
    """The trial's own times, nan where they were not measured."""
    found = _read(trial_folder(results.folder, trial) / LATENCY)
    ms = found.get("ms_flip_test" if found.get("flip_test") else "ms") or {}
    times = {f"ms_batch{size}": float(ms.get(str(size), np.nan)) for size in (1, 16)}
    return times | {"flip_test": found.get("flip_test"), "device": found.get("device", "")}


def _read(path: Path) -> dict[str, Any]:
    """{} where nothing was measured or the file is only half copied: then nothing is known of the times."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _notes(table: pd.DataFrame) -> tuple[str, ...]:
    if table.empty:
        return ("No trial has a rank, so there is nothing to weigh against its cost.",)
    notes = []
    timed = table.dropna(subset=["ms_batch1"])
    if table["parameters"].nunique() <= 1 and timed["ms_batch1"].nunique() <= 1:
        notes.append("All ranked trials have the same network, so none is cheaper than another.")
    elif timed.empty:
        notes.append("The time of a forward pass was not measured; `posesweep report` on the machine in question does.")
    elif missing := len(table) - len(timed):
        notes.append(f"The time of a forward pass was not measured for {missing} of {len(table)} ranked trials.")
    devices = sorted({str(device) for device in timed["device"] if device})
    if devices:
        notes.append(f"Times were measured on {' and '.join(devices)}; other machines differ.")
    return tuple(notes)


def draw_pareto(numbers: Pareto, ax: Axes, cost: str = "parameters", winner: int | None = None) -> None:
    """One dot a trial, the front as a line along its trials, which are named. `winner`: where it is not the best of
    the search."""
    table = numbers.table.dropna(subset=[cost])
    best = winner if winner is not None or table.empty else table["trial"].iloc[0]
    colours = [WINNER if t == best else BASELINE if t == numbers.baseline else OTHER for t in table["trial"]]
    ax.scatter(table[cost], table["value"], 34, color=colours, zorder=3)
    on_front = table[table[f"on_front_{cost}"]].sort_values(cost)
    ax.plot(on_front[cost], on_front["value"], color=GREY, linewidth=1.2, drawstyle="steps-post", zorder=2)
    for _, row in on_front.iterrows():
        label = f"trial {row['trial']}" + (f", {row['model']}" if table["model"].nunique() > 1 else "")
        ax.annotate(
            label, (row[cost], row["value"]), (5, -3), textcoords="offset points", va="top", fontsize=8, color=INK
        )
    if len(table) and table[cost].min() > 0 and table[cost].max() > 4 * table[cost].min():
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    if cost == "parameters":
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g} M"))
    ax.set_xlabel(COSTS[cost])
    ax.set_ylabel(numbers.metric.removeprefix("val/"))
    ax.margins(x=0.12, y=0.1)
