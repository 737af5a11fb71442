"""What the search promised beside what training again has kept of it."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from posesweep.analysis.confirmed import Candidate
from posesweep.analysis.drawing import BASELINE, GREY, INK, TIED, WINNER


def draw_confirmed(rows: Sequence[Candidate], ax: Axes) -> None:
    """Dots: confirmed values on their intervals, best on top; small dots: seeds; hollow: what the search saw."""
    for y, row in enumerate(rows):
        colour = WINNER if y == 0 else BASELINE if row.role == "baseline" else TIED if row.tied else GREY
        if row.ap is not None:
            ax.plot([row.ap.low, row.ap.high], [y, y], color=colour, linewidth=3, solid_capstyle="round", alpha=0.7)
        value = row.ap.value if row.ap is not None else row.value
        if value is not None:
            ax.plot(value, y, "o", color=colour, markersize=7)
        seeds = list(row.seed_values.values())
        ax.plot(seeds, [y + 0.27] * len(seeds), ".", color=colour, markersize=5)
        if row.sweep_value is not None:
            ax.plot(row.sweep_value, y, "D", markerfacecolor="none", markeredgecolor=INK, markersize=6)
    ax.plot([], [], "o", color=GREY, label="confirmed")
    ax.plot([], [], ".", color=GREY, label="each seed")
    ax.plot([], [], "D", markerfacecolor="none", markeredgecolor=INK, label="in the search")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    names = [f"trial {row.trial}" + (" (baseline)" if row.role == "baseline" else "") for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)


def confirmed_frame(rows: Sequence[Candidate]) -> pd.DataFrame:
    """One row per candidate and seed, with what all seeds together say beside it."""
    records = []
    for row in rows:
        record = {"trial": row.trial, "role": row.role, "in_search": row.sweep_value, "confirmed": row.value}
        for name, interval in (("AP", row.ap), ("gain", row.gain)):
            parts = (interval.value, interval.low, interval.high) if interval is not None else (None, None, None)
            record |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
        record |= {"p_best": row.p_best, "tied": row.tied, "parameters": row.parameters, "reason": row.reason}
        records += [record | {"seed": seed, "seed_value": value} for seed, value in row.seed_values.items()] or [record]
    return pd.DataFrame(records)
