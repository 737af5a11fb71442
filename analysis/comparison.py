"""compare.html: sweeps beside each other, as a page and as a table for the terminal."""

from pathlib import Path

import pandas as pd

from posesweep.analysis.compare import Comparison, Contender, Difference, Run, compare, verdict
from posesweep.analysis.decision import decision
from posesweep.analysis.page import Block, Cell, Column, Csv, Page, Row, Section, Table, Words, plain_table, render
from posesweep.analysis.report import ABOUT
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.story import Story
from posesweep.analysis.wording import duration, number, percent, setting_text, signed, span, trials_text
from posesweep.files import write_text

COLUMNS = ("run", "winner", "score", "over the first", "P(best)", "trials", "trial time")


def read_run(folder: Path) -> Run:
    """Read and rank one sweep folder. Raises SweepError."""
    story = Story.of(read_sweep_folder(folder))
    return Run(str(folder), story.results, story.table, story.decisive)


def compare_folders(folders: list[Path], out: Path | None = None) -> tuple[Comparison, Path]:
    """Compare sweeps and write the page: to `out`, or compare.html beside the first. Raises SweepError."""
    compared = compare([read_run(folder) for folder in folders])
    path = out if out is not None else folders[0].resolve().parent / "compare.html"
    write_text(path, render(comparison_page(compared)))
    return compared, path


def comparison_rows(compared: Comparison) -> list[tuple[str, ...]]:
    """A row of texts for each run, under COLUMNS."""
    return [_row(one) for one in compared.contenders]


def _row(one: Contender) -> tuple[str, ...]:
    score = number(one.value) if one.ap is None else f"{number(one.ap.value)} ({span(one.ap)})"
    gain = "" if one.gain is None else f"{signed(one.gain.value)} ({span(one.gain, True)})"
    wins = "" if one.p_best is None else percent(one.p_best)
    winner = "none yet" if one.trial is None else f"trial {one.trial}"
    spent = duration(one.total_s) if one.total_s else "not known"
    return one.run.label, winner, score, gain, wins, str(len(one.run.results.trials)), spent


def comparison_page(compared: Comparison) -> Page:
    """The page."""
    first = compared.contenders[0]
    count = sum(len(one.run.results.trials) for one in compared.contenders)
    said = [(one.run.label, verdict(one, first)) for one in compared.contenders[1:]]
    return Page(
        title=" / ".join(one.run.results.name for one in compared.contenders),
        kind="comparison",
        subtitle=f"{len(compared.contenders)} sweeps, {trials_text(count)}",
        decision=tuple(said),
        sections=tuple(filter(None, (_winners(compared), *_decisions(compared), _differences(compared)))),
        notes=compared.notes,
    )


def _winners(compared: Comparison) -> Section:
    columns = tuple(Column(title, "" if title == "run" else "num") for title in COLUMNS)
    rows = tuple(Row(tuple(Cell(text) for text in row)) for row in comparison_rows(compared))
    frame = pd.DataFrame([_record(one) for one in compared.contenders])
    lead = (
        f"Differences to the winner of {compared.contenders[0].run.label}, on the same validation images, "
        "with 95 % intervals."
    )
    return Section("winners", "The winners", (Table(columns, rows, Csv("compare", frame)),), lead)


def _record(one: Contender) -> dict[str, object]:
    record: dict[str, object] = {"run": one.run.label, "trial": one.trial, "value": one.value, "p_best": one.p_best}
    for name, interval in (("AP", one.ap), ("gain", one.gain)):
        parts = (interval.value, interval.low, interval.high) if interval is not None else (None, None, None)
        record |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
    return record | {"trials": len(one.run.results.trials), "wall_s": one.total_s, "not_comparable": one.apart}


def _decisions(compared: Comparison) -> list[Section]:
    """What each sweep says of itself."""
    found = []
    for i, one in enumerate(compared.contenders):
        said = decision(one.run.results, one.run.table, one.run.confirmed)
        sentences = tuple(f"{about}: {text}" for about, text in zip(ABOUT, said, strict=True))
        blocks: list[Block] = [Words(sentences)]
        if one.run.results.notes:
            blocks.append(Words(one.run.results.notes, "Notes", points=True))
        found.append(Section(f"run{i + 1}", one.run.label, tuple(blocks)))
    return found


def _differences(compared: Comparison) -> Section | None:
    labels = [one.run.label for one in compared.contenders]
    blocks: list[Block] = [
        _difference_table(title, key, found, labels)
        for title, key, found in (
            ("Settings of the winners that differ", "settings", compared.settings),
            ("What the sweep files say differently", "sweeps", compared.searched),
        )
        if found
    ]
    return Section("differences", "What differs", tuple(blocks)) if blocks else None


def _difference_table(title: str, key: str, found: tuple[Difference, ...], labels: list[str]) -> Table:
    rows = [(one.key, *(setting_text(value) for value in one.values)) for one in found]
    frame = pd.DataFrame(rows, columns=["setting", *labels])
    return plain_table(("setting", *labels), rows, csv=Csv(f"compare_{key}", frame), title=title)
