"""The untouched test split, where the sweep has one: read once, at the very end."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from posesweep.analysis.page import Block, Cell, Chip, Column, Csv, Row, Section, Table, Words
from posesweep.analysis.ranked import AP
from posesweep.analysis.ranking import Interval
from posesweep.analysis.story import Story
from posesweep.analysis.tested import FILE, ap_alone
from posesweep.analysis.wording import number, setting_text, signed, span
from posesweep.files import read_record


def tested_section(story: Story) -> Section | None:
    """The winner and the baseline on the test split, beside what the validation had promised."""
    file = story.results.folder / FILE
    if not file.is_file():
        return None
    record = read_record(file)
    rows = record.get("trials") if record is not None else None
    if record is None or not isinstance(rows, list) or not rows:
        return _section((Words((f"{FILE} cannot be read; it may be only partly copied.",)),))
    blocks: list[Block] = [_table(rows, story)]
    said = [str(note) for note in record.get("notes") or ()]
    tested = rows[0].get("trial")
    now = story.handed_over
    if now is not None and tested != now:
        said.insert(0, f"It was read for trial {tested}, and is not read again: trial {now}, the winner "
                       "now, has no score on it.")  # fmt: skip
    if said:
        blocks.append(Words(tuple(said)))
    objects, used = setting_text(record.get("objects")), str(record.get("used", ""))[:10]
    lead = f"{objects} objects that nothing was chosen on, read once, on {used}: the score to quote."
    return _section(tuple(blocks), lead)


def _section(blocks: tuple[Block, ...], lead: str = "") -> Section:
    return Section("test", "On the test split", blocks, lead, short="Test")


def _table(rows: list[dict[str, Any]], story: Story) -> Table:
    columns = (Column("trial", "name"), *(Column(name, "num") for name in ("AP", "in validation", "over the baseline")))
    made = [_row(row, story) for row in rows]
    records = [
        {"trial": row.get("trial"), "role": row.get("role"), **_flat("AP", row), **_flat("gain", row)} for row in rows
    ]
    return Table(columns, tuple(made), Csv("test", pd.DataFrame(records)))


def _row(row: Mapping[str, Any], story: Story) -> Row:
    trial, baseline = row.get("trial"), row.get("role") == "baseline"
    ap, gain = _interval(row.get("AP")), _interval(row.get("gain"))
    chip = Chip("baseline", "base") if baseline else Chip("winner", "win") if trial == story.handed_over else None
    score = Cell(number(ap_alone(row))) if ap is None else Cell(number(ap.value), soft=span(ap), strong=True)
    over = Cell() if gain is None or baseline else Cell(signed(gain.value), soft=span(gain, sign=True))
    return Row(
        (Cell(str(trial), chips=() if chip is None else (chip,)), score, Cell(number(_promised(row, story))), over)
    )


def _promised(row: Mapping[str, Any], story: Story) -> float | None:
    """The AP in validation of the training that was tested; None where the sweep is by another metric."""
    if story.results.metric != AP:
        return None
    status = read_record(story.results.folder / str(row.get("folder", "")) / "status.json") or {}
    best = status.get("best")
    return float(best) if isinstance(best, int | float) else None


def _interval(value: Any) -> Interval | None:
    if not isinstance(value, Mapping) or not {"value", "low", "high"} <= set(value):
        return None
    return Interval(float(value["value"]), float(value["low"]), float(value["high"]))


def _flat(name: str, row: Mapping[str, Any]) -> dict[str, float | None]:
    interval = _interval(row.get(name))
    parts = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
