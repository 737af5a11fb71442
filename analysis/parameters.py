"""Score against each searched parameter, one at a time ("slices"): where the good values lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from posesweep.analysis.drawing import BASELINE, OTHER, WINNER
from posesweep.analysis.results import PARAMS, SweepResults
from posesweep.analysis.searched import choice_text


@dataclass(frozen=True)
class Slice:
    """n trials in which the parameter was active and which have a score. `places` are the values themselves, or the
    positions in `categories` when the parameter is not a number."""

    name: str
    log: bool
    categories: tuple[str, ...]  # () for a number
    trials: Int[np.ndarray, "n"]
    places: Float[np.ndarray, "n"]
    scores: Float[np.ndarray, "n"]
    full: Bool[np.ndarray, "n"]  # trained to the end; the others' scores come from fewer epochs


@dataclass(frozen=True)
class Scale:
    """Where n values of one parameter lie: the values themselves, or positions in `categories`; nan where missing."""

    log: bool
    categories: tuple[str, ...]  # () for a number
    places: Float[np.ndarray, "n"]


def scale_of(values: pd.Series, stated: Mapping[str, Any]) -> Scale:
    """The scale of a parameter from its `values` in some trials and what the sweep file states of it."""
    known = values.dropna()
    numeric = pd.api.types.is_numeric_dtype(known.infer_objects()) and not pd.api.types.is_bool_dtype(
        known.infer_objects()
    )
    if numeric and not stated.get("values"):
        places = values.astype(float).to_numpy()
        return Scale(bool(stated.get("log")) and bool((places[~np.isnan(places)] > 0).all()), (), places)
    texts = known.map(choice_text)
    named = [choice_text(value) for value in stated.get("values") or ()]
    categories = tuple(dict.fromkeys([*named, *sorted(texts)]))
    return Scale(False, categories, texts.map(categories.index).reindex(values.index).to_numpy(float))


def stated_parameters(results: SweepResults) -> dict[str, Mapping[str, Any]]:
    """What the sweep file says of each parameter; {} for one that it does not describe as a sweep does."""
    stated = results.sweep.get("parameters")
    found = stated if isinstance(stated, Mapping) else {}
    return {str(name): value if isinstance(value, Mapping) else {} for name, value in found.items()}


def slices(results: SweepResults) -> tuple[Slice, ...]:
    """One slice per searched parameter that took more than one value."""
    stated = stated_parameters(results)
    found = [_slice(results.trials, name, stated.get(name, {})) for name in results.params]
    return tuple(s for s in found if len(np.unique(s.places)) > 1)


def _slice(trials: pd.DataFrame, name: str, stated: Mapping[str, Any]) -> Slice:
    rows = trials.dropna(subset=[PARAMS + name, "value"])
    scale = scale_of(rows[PARAMS + name], stated)
    return Slice(
        name=name,
        log=scale.log,
        categories=scale.categories,
        trials=rows["trial"].to_numpy(),
        places=scale.places,
        scores=rows["value"].to_numpy(float),
        full=(rows["state"] == "finished").to_numpy(),
    )


def slices_table(numbers: Sequence[Slice]) -> pd.DataFrame:
    """One row per slice and trial: parameter, trial, value, score, trained_to_the_end."""
    parts = [
        pd.DataFrame(
            {
                "parameter": one.name,
                "trial": one.trials,
                "value": [one.categories[int(place)] for place in one.places] if one.categories else one.places,
                "score": one.scores,
                "trained_to_the_end": one.full,
            }
        ).astype({"value": object})
        for one in numbers
    ]
    return pd.concat(parts, ignore_index=True)


def draw_slice(numbers: Slice, ax: Axes, winner: int | None = None, baseline: int | None = None) -> None:
    """Filled: trained to the end. Hollow: stopped early, so lower than it might have become."""
    places = numbers.places + _spread(numbers)
    for full in (False, True):
        rows = numbers.full == full
        face = OTHER if full else "none"
        ax.scatter(
            places[rows], numbers.scores[rows], 26, facecolors=face, edgecolors=OTHER, linewidths=1.2, alpha=0.85
        )
    for trial, colour in ((baseline, BASELINE), (winner, WINNER)):
        rows = numbers.trials == trial
        ax.scatter(places[rows], numbers.scores[rows], 58, color=colour, zorder=3)
    ax.set_title(numbers.name)
    if numbers.log:
        _log_axis(ax, numbers.places)
    if numbers.categories:
        ax.set_xticks(range(len(numbers.categories)), numbers.categories)
        ax.set_xlim(-0.5, len(numbers.categories) - 0.5)


def _spread(numbers: Slice) -> Float[np.ndarray, "n"]:
    """Categories would lie on one line: move trials sideways a little, always the same way."""
    if not numbers.categories:
        return np.zeros(len(numbers.places))
    return 0.3 * (np.modf(numbers.trials * 0.618034)[0] - 0.5)


def _log_axis(ax: Axes, places: Float[np.ndarray, "n"]) -> None:
    """Ticks as plain text (0.001), between the powers of ten as well when there are few of those."""
    ax.set_xscale("log")
    span = places.max() / places.min()
    between = (1, 2, 5) if span < 10 else (1, 3) if span < 100 else (1,)
    ax.xaxis.set_major_locator(LogLocator(10, subs=between, numticks=6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
