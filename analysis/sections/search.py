"""What the search tried: score against each parameter, parallel coordinates, learning curves."""

from dataclasses import replace
from functools import partial

from markupsafe import Markup

from posesweep.analysis.curves import LearningCurves, curves_table, draw_curves, learning_curves
from posesweep.analysis.decision import listed
from posesweep.analysis.drawing import svg
from posesweep.analysis.page import Csv, Figure, Grid, Section, Words, figure
from posesweep.analysis.parallel import draw_parallel, parallel, parallel_table
from posesweep.analysis.parameters import draw_slice, slices, slices_table
from posesweep.analysis.rungs import rung_correlations
from posesweep.analysis.sections.confirmation import rung_words
from posesweep.analysis.story import Story

MOST_CURVES = 150  # more are unreadable, and make a heavy page
AXIS_PX = 112  # the least width of an axis of the parallel coordinates


def parameters_section(story: Story) -> Section | None:
    """Slices and parallel coordinates."""
    blocks = [block for block in (_slices(story), _parallel(story)) if block is not None]
    return (
        Section("parameters", "Score against the settings", tuple(blocks), short="Settings tried") if blocks else None
    )


def curves_section(story: Story) -> Section | None:
    """Learning curves, rungs marked."""
    results = story.results
    numbers = learning_curves(results)
    if not numbers.curves:
        return None
    winner, baseline = story.winner_trial, story.baseline_trial
    first = [row.trial for row in story.table.rows][:MOST_CURVES]
    kept = replace(numbers, curves=tuple(c for c in numbers.curves if c.trial in {*first, winner, baseline}))
    drawn = figure(
        partial(draw_curves, kept, winner=winner, baseline=baseline),
        (5.6, 3.3),
        f"{results.metric} over the epochs of {len(kept.curves)} trials",
        Csv("curves", curves_table(kept)),
        caption=_about_curves(numbers, kept),
        most_px=800,
    )
    return Section("curves", "Learning curves", (drawn, *_rungs(story)))


def _rungs(story: Story) -> list[Words]:
    """Whether the rungs foretold the end; where the winner was confirmed, it stands there."""
    found = rung_correlations(story.results) if story.confirmed is None else ()
    return [rung_words(found)] if any(rung.spearman is not None for rung in found) else []


def _about_curves(numbers: LearningCurves, kept: LearningCurves) -> str:
    said = ""
    if any(curve.state != "finished" for curve in kept.curves):
        said = "A cross: stopped there by the search or, in red, failed."
    if numbers.rungs:
        rungs = listed(list(map(str, numbers.rungs)))
        said += f" Dotted: the rungs, epochs at which the search decides who goes on ({rungs})."
    if len(kept.curves) < len(numbers.curves):
        said += f" The best {len(kept.curves)} of {len(numbers.curves)} trials."
    return said.strip()


def _slices(story: Story) -> Grid | None:
    results, winner, baseline = story.results, story.winner_trial, story.baseline_trial
    numbers = slices(results)
    if not numbers:
        return None
    drawn = []
    for i, one in enumerate(numbers):
        draw = partial(draw_slice, one, winner=winner, baseline=baseline)
        drawn.append(Markup(svg(draw, (3.1, 2.3), f"slice{i}", f"{results.metric} by {one.name}")))
    caption = f"{results.metric.removeprefix('val/')} of every trial against each searched setting. "
    if not all(one.full.all() for one in numbers):
        caption += f"Hollow: stopped early, so {'lower' if results.maximize else 'higher'} than it might have become. "
    caption += "The large dots: winner (green) and baseline (orange)."
    return Grid(tuple(drawn), caption, Csv("slices", slices_table(numbers)))


def _parallel(story: Story) -> Figure | None:
    results = story.results
    numbers = parallel(results)
    if numbers is None:
        return None
    draw = partial(draw_parallel, numbers, winner=story.winner_trial, baseline=story.baseline_trial)
    count = len(numbers.axes)
    caption = "Each line is a trial, through its settings to its score at the right; the greener the better."
    if any(axis.conditional for axis in numbers.axes):
        caption += " Below an axis: a setting that the trial did not use."
    return figure(
        draw,
        (max(5.0, 1.35 * count), 4.0),
        f"parallel coordinates of {len(numbers.trials)} trials: {', '.join(axis.name for axis in numbers.axes)}",
        Csv("parallel", parallel_table(numbers, results)),
        caption=caption,
        least_px=AXIS_PX * count,
        most_px=max(620, 190 * count),
        halo=True,
    )
