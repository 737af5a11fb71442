"""Who is best: intervals, the ranked table, and the trials outside the ranking."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from posesweep.analysis.intervals import draw_intervals, height_in, interval_rows
from posesweep.analysis.page import ROWS_SHOWN, Block, Cell, Chip, Column, Csv, Figure, Row, Section, Table, figure
from posesweep.analysis.ranked import Standing
from posesweep.analysis.results import PARAMS, SweepResults
from posesweep.analysis.story import Story
from posesweep.analysis.wording import number, percent, setting_text, signed, span


def ranking_section(story: Story) -> Section | None:
    """Figure and table of the trials with a rank."""
    placed = [row for row in story.table.rows if row.rank is not None]
    if not placed:
        return None
    drawn = _intervals(story)
    blocks: list[Block] = [] if drawn is None else [drawn]
    title = "Ranking" if story.confirmed is None else "Ranking of the search"
    return Section("ranking", title, (*blocks, _ranked(placed, story)), short="Ranking")


def _metric(results: SweepResults) -> str:
    return results.metric.removeprefix("val/")


def _intervals(story: Story) -> Figure | None:
    rows = interval_rows(story.table, most=ROWS_SHOWN, winner=story.winner_trial)
    if not rows:
        return None
    frame = pd.DataFrame(
        [(row.label, row.ap.value, row.ap.low, row.ap.high, row.p_best) for row in rows],
        columns=["trial", "AP", "AP_low", "AP_high", "p_best"],
    )
    caption = (
        "Dots: AP on the validation set; bars: its 95 % interval. "
        "Ties are judged trial against trial on the same images, so trials whose bars overlap may still differ."
    )
    return figure(
        partial(draw_intervals, rows),
        (5.4, height_in(len(rows))),
        f"AP of {len(rows)} trials with 95 % intervals, best on top",
        Csv("intervals", frame),
        caption=caption,
        most_px=680,
    )


def _ranked(rows: Sequence[Standing], story: Story) -> Table:
    results = story.results
    columns = [Column("#", "num"), Column("trial", "name"), Column(_metric(results), "num"), Column("P(best)", "num")]
    columns += [Column("over the baseline", "num"), *(Column(name, "num") for name in results.params)]
    columns += [Column("epochs", "num")]
    made = [Row(_ranked_cells(row, story), "winner" if row.trial == story.winner_trial else "") for row in rows]
    return Table(tuple(columns), tuple(made), Csv("ranking", standings_table(rows, results)))


def _ranked_cells(row: Standing, story: Story) -> tuple[Cell, ...]:
    if row.ap is not None:
        score = Cell(number(row.ap.value), soft=span(row.ap), strong=True)
    else:
        score = Cell(number(row.value))
    gain = Cell()
    if row.gain is not None and row.role != "baseline":
        gain = Cell(signed(row.gain.value), soft=span(row.gain, sign=True))
    wins = Cell("" if row.p_best is None else percent(row.p_best))
    rank = Cell(str(row.rank), strong=row.rank == 1)
    return rank, trial_cell(row, story), score, wins, gain, *params_cells(row, story.results), Cell(str(row.epochs))


def trial_cell(row: Standing, story: Story) -> Cell:
    """The trial's number and what it is in the story."""
    chips = []
    if row.trial == story.winner_trial:
        chips.append(Chip("winner", "win"))
    elif row.rank == 1:
        chips.append(Chip("best in the search", "tie"))
    elif row.tied:
        chips.append(Chip("tied", "tie"))
    if row.role == "baseline":
        chips.append(Chip("baseline", "base"))
    elif row.role != "search":
        chips.append(Chip(row.role.replace("_", " ")))
    return Cell(str(row.trial), chips=tuple(chips))


def params_cells(row: Standing, results: SweepResults) -> tuple[Cell, ...]:
    """The searched values, empty where one was not active."""
    return tuple(Cell(setting_text(row.params[name]) if name in row.params else "") for name in results.params)


def standings_table(rows: Sequence[Standing], results: SweepResults) -> pd.DataFrame:
    """Rows of the ranking as numbers."""
    records = []
    for row in rows:
        record: dict[str, Any] = {
            "rank": row.rank,
            "trial": row.trial,
            "role": row.role,
            "state": row.state,
            "reason": row.reason,
        }
        record |= {"value": row.value, "epochs": row.epochs, "p_best": row.p_best, "tied": row.tied}
        for name, interval in (("AP", row.ap), ("gain", row.gain)):
            parts = (interval.value, interval.low, interval.high) if interval is not None else (None, None, None)
            record |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
        records.append(record | {PARAMS + name: row.params.get(name) for name in results.params})
    return pd.DataFrame(records)
