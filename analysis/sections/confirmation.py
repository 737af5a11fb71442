"""What became of the best when they were trained again, and whether the search stopped the right trials."""

from functools import partial

import pandas as pd

from posesweep.analysis.confirmed import Candidate, Confirmed
from posesweep.analysis.page import Block, Cell, Chip, Column, Csv, Row, Section, Table, Words, figure
from posesweep.analysis.promoted import Promoted, Promotion, promotions
from posesweep.analysis.results import SweepResults
from posesweep.analysis.rungs import RungCorrelation
from posesweep.analysis.shrinkage import confirmed_frame, draw_confirmed
from posesweep.analysis.story import Story
from posesweep.analysis.wording import number, percent, seeds_text, signed, span, trials_text


def confirmation_section(story: Story) -> Section | None:
    """The candidates of `confirm:` with all their seeds, beside what the search had seen of them."""
    found, results = story.confirmed, story.results
    if found is None:
        return None
    placed = [row for row in found.rows if not row.reason]
    blocks: list[Block] = []
    if placed:
        metric = results.metric.removeprefix("val/")
        drawn = figure(
            partial(draw_confirmed, placed),
            (5.4, 1.0 + 0.42 * len(placed)),
            f"{metric} of {len(placed)} configs trained again, beside what the search saw",
            Csv("confirmed", confirmed_frame(found.rows)),
            caption=_about_diamonds(found, results),
            most_px=680,
        )
        blocks = [drawn, _table(placed, story), *_sentences(found)]
    if found.rungs:
        blocks.append(rung_words(found.rungs))
    out = [f"Trial {row.trial} has no place: {row.reason}." for row in found.rows if row.reason]
    if out or found.notes:
        blocks.append(Words((*out, *found.notes), points=True))
    return Section("confirmation", "Confirmed with other seeds", tuple(blocks), _lead(found), short="Confirmation")


def _about_diamonds(found: Confirmed, results: SweepResults) -> str:
    """What the search saw can be set beside the dots only where it trained as long."""
    if found.epochs in (None, results.full_epochs):
        return "The diamond: what the search saw. By how much it looks better than its dot, that was luck."
    return "The diamond: what the search saw, after other epochs."


def _lead(found: Confirmed) -> str:
    if not found.rows:
        return ""
    seeds = "one more seed" if len(found.seeds) == 1 else f"{len(found.seeds)} other seeds"
    length = f" for {found.epochs} epochs" if found.epochs else ""
    again = len([row for row in found.rows if row.role != "baseline"])
    who = "The best config" if again == 1 else f"The best {again} configs"
    return (
        f"{who} of the search and the baseline, trained again{length} with {seeds}: "
        "the luck of the first seed is gone from these numbers."
    )


def _table(rows: list[Candidate], story: Story) -> Table:
    metric = story.results.metric.removeprefix("val/")
    titles = (metric, "in the search", "change", "over the baseline", "P(best)", "parameters")
    columns = (Column("#", "num"), Column("trial", "name"), *(Column(title, "num") for title in titles))
    won = story.candidate
    made = [Row(_cells(place, row, row is won), "winner" if row is won else "") for place, row in enumerate(rows, 1)]
    return Table(columns, tuple(made))


def _cells(place: int, row: Candidate, won: bool) -> tuple[Cell, ...]:
    chips = []
    if won:
        chips.append(Chip("winner", "win"))
    elif place == 1:
        chips.append(Chip("best so far", "tie"))
    elif row.tied:
        chips.append(Chip("tied", "tie"))
    if row.role == "baseline":
        chips.append(Chip("baseline", "base"))
    score = Cell(number(row.value), strong=True)
    if row.ap is not None:
        score = Cell(number(row.ap.value), soft=span(row.ap), strong=True)
    gain = Cell()
    if row.gain is not None and row.role != "baseline":
        gain = Cell(signed(row.gain.value), soft=span(row.gain, sign=True))
    return (
        Cell(str(place)),
        Cell(str(row.trial), chips=tuple(chips)),
        score,
        Cell(number(row.sweep_value)),
        Cell("" if row.shrinkage is None else signed(row.shrinkage)),
        gain,
        Cell("" if row.p_best is None else percent(row.p_best)),
        Cell("" if row.parameters is None else f"{row.parameters / 1e6:.2f} M"),
    )


def promotion_section(story: Story) -> Section | None:
    """The trials of `--promote`, trained longer, beside the baseline trained as long."""
    found = promotions(story.results)
    if not found:
        return None
    blocks: list[Block] = []
    for promotion in found:
        if promotion.rows:
            blocks.append(_promoted(promotion, story))
        notes = list(promotion.notes)
        if promotion.left:
            trainings = "1 training has" if promotion.left == 1 else f"{promotion.left} trainings have"
            notes.append(f"{trainings} not ended yet.")
        if notes:
            blocks.append(Words(tuple(notes), "" if promotion.rows else f"{promotion.epochs} epochs", points=True))
    return Section("promoted", "Trained longer", tuple(blocks))


def _promoted(promotion: Promotion, story: Story) -> Table:
    titles = (story.results.metric.removeprefix("val/"), "in the search", "over the baseline trained as long")
    columns = (Column("trial", "name"), *(Column(title, "num") for title in titles))
    before = {row.trial: row.value for row in story.table.rows}
    rows = [Row(_promoted_cells(row, before.get(row.trial), first=i == 0)) for i, row in enumerate(promotion.rows)]
    frame = pd.DataFrame(
        [(row.trial, row.role, row.seed, row.epochs, row.value, before.get(row.trial)) for row in promotion.rows],
        columns=["trial", "role", "seed", "epochs", "value", "in_search"],
    )
    csv = Csv(f"promoted_{promotion.epochs}", frame)
    return Table(columns, tuple(rows), csv, title=f"{promotion.epochs} epochs")


def _promoted_cells(row: Promoted, before: float | None, first: bool) -> tuple[Cell, ...]:
    chips = [Chip("tied", "tie")] if row.tied and not first else []
    if row.role == "baseline":
        chips.append(Chip("baseline", "base"))
    score = Cell(number(row.value), strong=True)
    if row.ap is not None:
        score = Cell(number(row.ap.value), soft=span(row.ap), strong=True)
    gain = Cell()
    if row.gain is not None and row.role != "baseline":
        gain = Cell(signed(row.gain.value), soft=span(row.gain, sign=True))
    return Cell(str(row.trial), chips=tuple(chips)), score, Cell(number(before)), gain


def _sentences(found: Confirmed) -> list[Block]:
    said = []
    winner, cheapest = found.winner, found.cheapest_tied
    if winner is not None and cheapest is not None and cheapest.trial != winner.trial:
        size = "" if cheapest.parameters is None else f" ({cheapest.parameters / 1e6:.2f} M parameters)"
        said.append(f"Of those that are tied, trial {cheapest.trial} is the cheapest{size}.")
    if found.seed_sd is not None:
        said.append(seeds_text(found.seed_sd))
    return [Words(tuple(said))] if said else []


def rung_words(rungs: tuple[RungCorrelation, ...]) -> Words:
    """How well each rung foretold the end."""
    return Words(tuple(_rung(rung) for rung in rungs), "Did early scores foretell the end?", points=True)


def _rung(rung: RungCorrelation) -> str:
    if rung.spearman is None:
        return f"Epoch {rung.epoch}: {trials_text(rung.trials)} went on to the end, too few to say."
    found = f"{rung.spearman.value:.2f} ({rung.spearman.low:.2f} to {rung.spearman.high:.2f})"
    over = f"over {trials_text(rung.trials)} that went on to the end"
    return f"Epoch {rung.epoch}: rank correlation with the final score {found}, {over}."
