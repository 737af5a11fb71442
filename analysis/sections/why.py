"""What mattered, and what the ranking would be with other sigmas or a smaller budget."""

from functools import partial

import pandas as pd

from posesweep.analysis.advice import advice
from posesweep.analysis.importance import Effect, Importance
from posesweep.analysis.importance import draw as draw_importance
from posesweep.analysis.importance import numbers as importance
from posesweep.analysis.page import Block, Csv, Figure, Section, Table, Words, figure, plain_table
from posesweep.analysis.pareto import COSTS, Pareto, draw_pareto, pareto
from posesweep.analysis.ranked import AP
from posesweep.analysis.sensitivity import Sensitivity, draw_sensitivity, sensitivity
from posesweep.analysis.story import Story
from posesweep.analysis.wording import number, percent, setting_text

MOST_BARS = 12


def importance_section(story: Story) -> Section | None:
    """The share of the differences between trials that each setting explains."""
    if not story.results.params:
        return None
    found = importance(story.results)
    blocks = (Words((found.reason,)),) if not found.effects else _importance(found, story.results.maximize)
    said = tuple(one.text for one in advice(story.results, story.table, found, story.confirmed))
    next_steps = (Words(said, "What to try next", points=True),) if said else ()
    return Section("importance", "What mattered", (*blocks, *next_steps), short="What mattered, what next")


def _importance(found: Importance, maximize: bool) -> tuple[Block, ...]:
    bars = min(len(found.effects), MOST_BARS)
    last = f"at epoch {found.epoch}, the last that all reached"
    when = "at the end of their training" if found.epoch is None else last
    drawn = figure(
        lambda ax: draw_importance(found, ax, MOST_BARS),
        (5.4, 0.8 + 0.3 * bars),
        f"share of the differences between trials that each of {len(found.effects)} settings explains",
        Csv("importance", _importance_frame(found)),
        caption=f"Bars with 95 % intervals, from {found.trials} trials compared {when}.",
        most_px=680,
    )
    return drawn, _importance_table(found, maximize)


def _importance_table(found: Importance, maximize: bool) -> Table:
    rows = [
        (
            effect.axis.name,
            percent(effect.share.value),
            f"{percent(effect.share.low)} to {percent(effect.share.high)}",
            number(effect.swing),
            _best_place(effect, maximize),
        )
        for effect in found.effects
    ]
    if found.rest is not None:
        rest = f"{percent(found.rest.low)} to {percent(found.rest.high)}"
        rows.append(("none of these", percent(found.rest.value), rest, "", ""))
    swing = f">worst to best, {found.metric.removeprefix('val/')}"
    return plain_table(("setting", ">explains", ">95 % interval", swing, ">best near"), rows)


def _best_place(effect: Effect, maximize: bool) -> str:
    """Where the model has the metric highest; nothing where the setting may not matter at all."""
    if effect.share.low < 0.01:
        return ""
    best = int(effect.scores.argmax() if maximize else effect.scores.argmin())
    if effect.axis.choices:
        return effect.axis.choices[best]
    return setting_text(effect.axis.value(float(effect.places[best])))


def _importance_frame(found: Importance) -> pd.DataFrame:
    rows = [(e.axis.name, e.trials, e.share.value, e.share.low, e.share.high, e.swing) for e in found.effects]
    return pd.DataFrame(rows, columns=["setting", "trials", "share", "share_low", "share_high", "swing"])


def sensitivity_section(story: Story) -> Section | None:
    """The ranking with OKS sigmas halved and doubled; other metrics than AP do not ask for sigmas."""
    if story.results.metric != AP:
        return None
    found = sensitivity(story.results, story.table)
    if len(found.table) < 2:
        return None
    blocks: list[Block] = [Words((found.sentence,)), _sensitivity(found, story)]
    return Section("sigmas", "With other OKS sigmas", tuple(blocks), short="Sigmas")


def _sensitivity(found: Sensitivity, story: Story) -> Figure:
    return figure(
        partial(draw_sensitivity, found, winner=story.winner_trial),
        (5.4, 3.0),
        f"places of {len(found.table)} trials with sigmas halved, as they are, and doubled",
        Csv("sensitivity", found.table),
        caption="OKS sigmas say how many pixels off still count: lines that cross are trials that change places.",
        most_px=680,
    )


def pareto_section(story: Story) -> Section | None:
    """Score against what using a network costs, where the networks differ."""
    found = pareto(story.results, story.table)
    if not found.drawable:
        return None
    blocks: list[Block] = [_pareto(found, cost, story, first=i == 0) for i, cost in enumerate(found.drawable)]
    if found.notes:
        blocks.append(Words(found.notes))
    lead = "On the line: the trials that no other beats in both score and cost."
    return Section("pareto", "Score against cost of use", tuple(blocks), lead, short="Speed and size")


def _pareto(found: Pareto, cost: str, story: Story, first: bool) -> Figure:
    return figure(
        partial(draw_pareto, found, cost=cost, winner=story.winner_trial),
        (5.4, 3.2),
        f"{found.metric} against {COSTS[cost]} of {len(found.table)} trials",
        Csv("pareto", found.table) if first else None,
        name=f"pareto{cost}",
        most_px=680,
    )
