"""report.md: the decision, the ranking and what differs, short enough for a pull request."""

from collections.abc import Iterable, Sequence

from posesweep.analysis.decision import decision
from posesweep.analysis.ranked import Standing
from posesweep.analysis.results import SweepResults
from posesweep.analysis.sections.course import winner_settings
from posesweep.analysis.story import Story
from posesweep.analysis.wording import number, percent, setting_text, signed, span, trials_text

ROWS = 8  # of the ranking
ESCAPES = str.maketrans({letter: f"\\{letter}" for letter in "\\`*_[]#~"} | {x: f"&#{ord(x)};" for x in "<>@&"})


def markdown(story: Story) -> str:
    """The short report as GitHub Markdown; names from the data cannot break out of their place."""
    results, table = story.results, story.table
    said = decision(results, table, story.decisive, story.picked)
    parts = [f"## {literal(results.name)}", "\n".join(f"- {literal(one)}" for one in said)]
    if any(row.rank is not None for row in table.rows):
        parts.append(_ranking(story))
    differ = [one for one in winner_settings(story) if one.differs]
    if differ:
        rows = [(one.key, setting_text(one.winner), setting_text(one.baseline)) for one in differ]
        parts.append(
            "**Settings that differ from the baseline**\n\n" + table_of(("setting", "winner", "baseline"), rows)
        )
    if notes := [*story.notes, *(story.confirmed.notes if story.confirmed is not None else ())]:
        parts.append("**Notes**\n\n" + "\n".join(f"- {literal(note)}" for note in notes))
    return "\n\n".join([*parts, _source(results)]) + "\n"


def _source(results: SweepResults) -> str:
    said = f"{trials_text(len(results.trials))}; split {results.split.get('hash', 'not known')}"
    return f"<sub>{literal(said)}; the whole report: report.html</sub>"


def _ranking(story: Story) -> str:
    results = story.results
    placed = [row for row in story.table.rows if row.rank is not None]
    kept = {story.winner_trial, story.baseline_trial}  # wherever they stand
    shown = [row for row in placed if placed.index(row) < ROWS or row.trial in kept]
    columns = ("#", "trial", results.metric.removeprefix("val/"), "P(best)", "over the baseline", *results.params)
    text = table_of(columns, [_row(row, results) for row in shown])
    left = len(placed) - len(shown)
    if story.confirmed is not None:
        text = f"**Ranking of the search**\n\n{text}"
    return text + (f"\n\nand {trials_text(left)} more" if left else "")


def _row(row: Standing, results: SweepResults) -> tuple[str, ...]:
    role = ", the baseline" if row.role == "baseline" else ""
    tied = "=" if row.tied and row.rank != 1 else ""
    score = number(row.value) if row.ap is None else f"{row.ap.value:.3f} ({span(row.ap)})"
    gain = f"{signed(row.gain.value)} ({span(row.gain, True)})" if row.gain is not None and not role else ""
    settings = [setting_text(row.params[name]) if name in row.params else "" for name in results.params]
    wins = "" if row.p_best is None else percent(row.p_best)
    return f"{row.rank}{tied}", f"{row.trial}{role}", score, wins, gain, *settings


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text if text == "---" else literal(text).replace("|", "\\|")


def literal(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no HTML, no links, no emphasis, no mentions."""
    return " ".join(text.split()).translate(ESCAPES)
