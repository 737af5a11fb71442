"""The ranking as intervals, best on top (a forest plot)."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from posesweep.analysis.drawing import BASELINE, GREY, INK, TIED, WINNER
from posesweep.analysis.ranked import Standing, Standings
from posesweep.analysis.ranking import Interval


@dataclass(frozen=True)
class IntervalRow:
    """One trial: a label, a value with its 95 % interval, the colour of its part in the story, and P(best) or None."""

    label: str
    ap: Interval
    colour: str
    p_best: float | None


def interval_rows(ranked: Standings, most: int, winner: int | None = None) -> tuple[IntervalRow, ...]:
    """The ranked trials that have an interval: the best `most`, and baseline and winner wherever they are.

    `winner`: the trial, where it is not the best of the search.
    """
    green = winner if winner is not None or ranked.winner is None else ranked.winner.trial
    rows = [row for row in ranked.rows if row.rank is not None and row.ap is not None]
    shown = [row for row in rows if rows.index(row) < most or row.role == "baseline" or row.trial == green]
    return tuple(
        IntervalRow(_label(row), row.ap, WINNER if row.trial == green else _colour(row), row.p_best)
        for row in shown
        if row.ap is not None
    )


def _label(row: Standing) -> str:
    return f"trial {row.trial}" + (" (baseline)" if row.role == "baseline" else "")


def _colour(row: Standing) -> str:
    if row.role == "baseline":
        return BASELINE
    return TIED if row.tied else GREY


def height_in(count: int) -> float:
    """A good height of the figure for `count` rows."""
    return max(1.4, 0.85 + 0.27 * count)


def draw_intervals(rows: Sequence[IntervalRow], ax: Axes) -> None:
    """A dot at each AP on its 95 % interval, P(best) at the right."""
    for y, row in enumerate(rows):
        ax.plot([row.ap.low, row.ap.high], [y, y], color=row.colour, linewidth=3, solid_capstyle="round", alpha=0.7)
        ax.plot(row.ap.value, y, "o", color=row.colour, markersize=7)
        if row.p_best is not None:
            ax.text(1.02, y, _percent(row.p_best), transform=ax.get_yaxis_transform(), va="center", fontsize=9)
    if rows:
        ax.axvline(rows[0].ap.value, color=GREY, linewidth=0.9, linestyle=(0, (2, 3)), zorder=0)
    ax.text(1.02, -0.85, "P(best)", transform=ax.get_yaxis_transform(), va="center", fontsize=8, color=GREY)
    ax.set_yticks(range(len(rows)), [row.label for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("AP, with 95 % interval")
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)


def _percent(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
