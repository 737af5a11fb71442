"""The report of a sweep: one self-contained HTML page, the decision first; report.md for a pull request; csv/."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from posesweep.analysis.confirmed import confirmed
from posesweep.analysis.cost import cost
from posesweep.analysis.decision import decision
from posesweep.analysis.markdown import markdown
from posesweep.analysis.page import Page, Section, Tile, write_page
from posesweep.analysis.ranked import Standings, ranked
from posesweep.analysis.results import SweepResults, read_sweep_folder, write_results_parquet
from posesweep.analysis.sections.confirmation import confirmation_section
from posesweep.analysis.sections.course import cost_section, data_section, settings_section
from posesweep.analysis.sections.keypoints import keypoints_section, pictures_section
from posesweep.analysis.sections.ranking import ranking_section
from posesweep.analysis.sections.search import curves_section, parameters_section
from posesweep.analysis.sections.why import importance_section, pareto_section, sensitivity_section
from posesweep.analysis.wording import duration, number, percent, signed, trials_text
from posesweep.files import write_text

MakeSection: TypeAlias = Callable[[SweepResults, Standings], Section | None]
ABOUT = ("The winner", "Over the baseline", "How sure")
SECTIONS: tuple[MakeSection, ...] = (  # in the order in which a reader wants them
    ranking_section,
    confirmation_section,
    importance_section,
    parameters_section,
    curves_section,
    keypoints_section,
    pictures_section,
    sensitivity_section,
    pareto_section,
    cost_section,
    data_section,
    settings_section,
)


def build_report(folder: Path) -> Path:
    """Write report.html, report.md, csv/ and results.parquet into the sweep folder; the path of the page.

    Raises SweepError when the folder is not a sweep's.
    """
    results = read_sweep_folder(folder)
    table = ranked(results)
    path = results.folder / "report.html"
    write_page(report_page(results, table), path)
    write_text(results.folder / "report.md", markdown(results, table))
    write_results_parquet(results, results.folder / "results.parquet")
    return path


def report_page(results: SweepResults, table: Standings) -> Page:
    """The page, from what there is."""
    made = (section(results, table) for section in SECTIONS)
    count = len(results.split.get("val") or ())
    scored = f", scored on {count} validation objects" if count else ""
    return Page(
        title=results.name,
        kind="report",
        subtitle=f"{trials_text(len(results.trials))}{scored}; written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        decision=tuple(zip(ABOUT, decision(results, table, confirmed(results)), strict=True)),
        tiles=tuple(_tiles(results, table)),
        notes=(*results.notes, *table.notes),
        sections=tuple(section for section in made if section is not None),
        footer=f"Made from the files in {results.folder} alone. The numbers behind every figure are in csv/ there.",
    )


def _tiles(results: SweepResults, table: Standings) -> Iterator[Tile]:
    """The decision in large letters."""
    winner = table.winner
    if winner is None:
        return
    alone = "best" if winner.p_best is None else "best, alone"
    yield Tile(f"trial {winner.trial}", f"best, tied with {len(table.tied)} more" if table.tied else alone)
    if winner.ap is None:
        yield Tile(number(winner.value), results.metric)
    else:
        yield Tile(number(winner.ap.value), f"AP, {winner.ap.low:.3f} to {winner.ap.high:.3f}")
    if winner.gain is not None and winner.role != "baseline":
        low, high = signed(winner.gain.low), signed(winner.gain.high)
        yield Tile(signed(winner.gain.value), f"over the baseline, {low} to {high}")
    if winner.p_best is not None and table.ranked_count > 1:
        yield Tile(percent(winner.p_best), f"of resampled validation sets: best of {table.ranked_count}")
    total = cost(results).total_s
    if total > 0:
        yield Tile(duration(total), "of training time, all trials together")
