"""The report of a sweep: one self-contained HTML page, the decision first; report.md for a pull request; csv/."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from posesweep.analysis.confirmed import Candidate
from posesweep.analysis.cost import cost
from posesweep.analysis.decision import decision
from posesweep.analysis.markdown import markdown
from posesweep.analysis.page import Page, Section, Tile, write_page
from posesweep.analysis.ranked import Standing
from posesweep.analysis.results import read_sweep_folder, write_results_parquet
from posesweep.analysis.sections.confirmation import confirmation_section, promotion_section
from posesweep.analysis.sections.course import cost_section, data_section, settings_section
from posesweep.analysis.sections.keypoints import keypoints_section, pictures_section
from posesweep.analysis.sections.labels import datacurve_section, label_errors_section
from posesweep.analysis.sections.ranking import ranking_section
from posesweep.analysis.sections.search import curves_section, parameters_section
from posesweep.analysis.sections.tested import tested_section
from posesweep.analysis.sections.why import importance_section, pareto_section, sensitivity_section
from posesweep.analysis.story import Story
from posesweep.analysis.wording import duration, number, percent, signed, trials_text
from posesweep.files import write_text

MakeSection: TypeAlias = Callable[[Story], Section | None]
ABOUT = ("The winner", "Over the baseline", "How sure")
SECTIONS: tuple[MakeSection, ...] = (  # in the order in which a reader wants them
    ranking_section,
    confirmation_section,
    promotion_section,
    tested_section,
    importance_section,
    parameters_section,
    curves_section,
    keypoints_section,
    pictures_section,
    label_errors_section,
    sensitivity_section,
    pareto_section,
    datacurve_section,
    cost_section,
    data_section,
    settings_section,
)


def build_report(folder: Path, story: Story | None = None) -> Path:
    """Write report.html, report.md, csv/ and results.parquet into the sweep folder; the path of the page.

    `story`: of this folder, where it was read already. Raises SweepError when the folder is not a sweep's.
    """
    story = story or Story.of(read_sweep_folder(folder))
    results = story.results
    path = results.folder / "report.html"
    write_page(report_page(story), path)
    write_text(results.folder / "report.md", markdown(story))
    write_results_parquet(results, results.folder / "results.parquet")
    return path


def report_page(story: Story) -> Page:
    """The page, from what there is."""
    results, table = story.results, story.table
    made = (section(story) for section in SECTIONS)
    count = len(results.split.get("val") or ())
    scored = f", scored on {count} validation objects" if count else ""
    return Page(
        title=results.name,
        kind="report",
        subtitle=f"{trials_text(len(results.trials))}{scored}; written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        decision=tuple(zip(ABOUT, decision(results, table, story.decisive, story.picked), strict=True)),
        tiles=tuple(_tiles(story)),
        notes=story.notes,
        sections=tuple(section for section in made if section is not None),
        footer=f"Made from the files in {results.folder} alone. The numbers behind every figure are in csv/ there.",
    )


def _tiles(story: Story) -> Iterator[Tile]:
    """The decision in large letters."""
    winner, again, table = story.winner, story.candidate, story.table
    if winner is None:
        return
    one: Standing | Candidate = winner if again is None else again
    tied = table.tied if story.decisive is None else story.decisive.tied
    of = "" if again is None else ", confirmed with other seeds"
    alone = "best" if one.p_best is None else "best, alone"
    yield Tile(f"trial {winner.trial}", f"best, tied with {len(tied)} more" if tied else alone)
    if one.ap is None:
        yield Tile(number(one.value), f"{story.results.metric}{of}")
    else:
        yield Tile(number(one.ap.value), f"AP, {one.ap.low:.3f} to {one.ap.high:.3f}{of}")
    if one.gain is not None and one.role != "baseline":
        low, high = signed(one.gain.low), signed(one.gain.high)
        yield Tile(signed(one.gain.value), f"over the baseline, {low} to {high}")
    if again is None and winner.p_best is not None and table.ranked_count > 1:
        yield Tile(percent(winner.p_best), f"of resampled validation sets: best of {table.ranked_count}")
    total = cost(story.results).total_s
    if total > 0:
        yield Tile(duration(total), "of training time, all trials together")
