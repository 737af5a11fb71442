"""What to do next, each piece with the evidence it rests on: a sentence for people, and the same for programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from posesweep.analysis.confirmed import Confirmed
from posesweep.analysis.decision import listed
from posesweep.analysis.importance import Effect, Importance
from posesweep.analysis.ranked import Standings
from posesweep.analysis.results import PARAMS, SweepResults
from posesweep.analysis.searched import Axis, axes

EDGE = 0.1  # of a range, on its own scale, at either end
MOST_AT_EDGE = 0.5  # of the best trials: with these or more there, the best may lie beyond
TOP = 5  # trials that are called the best
FLAT = 0.10  # a parameter whose share is surely below this may be fixed
FEWEST_FOR_FLAT = 25  # trials
CONFIRM_TOP, CONFIRM_SEEDS = 3, 3


@dataclass(frozen=True)
class Advice:
    """`kind` is extend_range, fix_parameter, more_trials, enough_trials, confirm or more_images; `change` holds keys of
    the sweep file, dotted, and the values that are proposed."""

    kind: str
    text: str
    parameter: str | None = None
    change: Mapping[str, Any] = field(default_factory=dict)


def advice(
    results: SweepResults, standings: Standings, importance: Importance, confirmed: Confirmed | None = None
) -> tuple[Advice, ...]:
    """What the sweep speaks for trying next, the most useful first; () where it is too small to say anything."""
    if standings.winner is None:
        return ()
    found = [*_confirm(results, standings, confirmed), *_edges(results, importance), *_trials(results)]
    return (*found, *_flat(results, standings, importance), *_images(standings, confirmed))


# --- ranges ----------------------------------------------------------------------------------------------------------


def _edges(results: SweepResults, importance: Importance) -> list[Advice]:
    """Where the best trials press against the end of a range."""
    best = _best_trials(results)
    flat = {effect.axis.name for effect in importance.effects if effect.share.high < FLAT}
    if len(best) < TOP:
        return []
    found = [_edge(axis, axis.places(best[PARAMS + axis.name])) for axis in axes(results) if axis.name not in flat]
    return [one for one in found if one is not None]


def _best_trials(results: SweepResults) -> pd.DataFrame:
    """The best of those that were trained to the end, at most TOP."""
    finished = results.trials[results.trials["state"] == "finished"].dropna(subset=["value"])
    return finished.sort_values("value", ascending=not results.maximize, kind="stable").head(TOP)


def _edge(axis: Axis, places: "np.ndarray[Any, np.dtype[np.float64]]") -> Advice | None:
    """Advice where the best trial and half of the best lie at one end of a range."""
    if axis.choices or not np.isfinite(places[0]):
        return None
    active = places[np.isfinite(places)]
    for at_end, high in (((active <= EDGE), False), ((active >= 1 - EDGE), True)):
        inside = (places[0] >= 1 - EDGE) if high else (places[0] <= EDGE)
        if len(active) >= 3 and inside and at_end.mean() >= MOST_AT_EDGE:
            return _extend(axis, int(at_end.sum()), len(active), high)
    return None


def _extend(axis: Axis, there: int, of: int, high: bool) -> Advice | None:
    end, key = (axis.high, "max") if high else (axis.low, "min")
    new = _further(axis, high)
    if new is None:
        return None
    side = "upper" if high else "lower"
    text = (
        f"{there} of the best {of} trials, the best one among them, have {axis.name} at the {side} end of its range "
        f"({end:g}): what is better may lie beyond. Extend it to {new:g}, if the setting allows that."
    )
    return Advice("extend_range", text, axis.name, {f"parameters.{axis.name}.{key}": new})


def _further(axis: Axis, high: bool) -> float | None:
    """Half a range further, on its own scale, in round numbers; never below 0 where the range was not."""
    new = axis.value(1.5 if high else -0.5)
    new = float(f"{new:.2g}")
    if axis.low >= 0 and new < 0:
        new = 0.0
    if axis.whole:
        new = float(round(new))
    moved = new > axis.high if high else new < axis.low
    return new if moved else None


def _flat(results: SweepResults, standings: Standings, importance: Importance) -> list[Advice]:
    """Parameters that may be fixed: then the same trials search the others more closely."""
    if importance.trials < FEWEST_FOR_FLAT or len(importance.effects) < 2:
        return []
    assert standings.winner is not None
    flat = [e for e in importance.effects if e.share.high < FLAT and e.axis.name in standings.winner.params]
    return [_fix(effect, results, standings) for effect in flat]


def _fix(effect: Effect, results: SweepResults, standings: Standings) -> Advice:
    """At the baseline's value, which nobody has to defend; at the winner's where the baseline has none."""
    name = effect.axis.name
    base = standings.baseline
    of_base = results.params_of(base.trial).get(name) if base is not None else None
    assert standings.winner is not None
    value, whose = (of_base, "the baseline") if of_base is not None else (standings.winner.params[name], "the winner")
    text = (
        f"{name} explains at most {100 * effect.share.high:.0f} % of the differences between trials (95 % interval, "
        f"{effect.trials} trials): fix it at {_plain(value)}, as {whose} has it, and search the others."
    )
    return Advice("fix_parameter", text, name, {f"fixed.{name}": value})


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --- trials, seeds, images -------------------------------------------------------------------------------------------


def expected_of_more(results: SweepResults, more: int) -> float | None:
    """The chance that the best of `more` further trials beats the best so far, were they drawn as those so far: for
    trials in random order it is more / (n + more), whatever their scores. The order of this sweep tells how far the
    search still improves: the chance is scaled by the records of its second half against those expected, at most 3-fold
    and never above 0.95. None with fewer than 10 scored trials."""
    scored = results.trials.dropna(subset=["value"])
    values = scored.sort_values("trial")["value"].to_numpy(float) * (1 if results.maximize else -1)
    n = len(values)
    if n < 10:
        return None
    best_so_far = np.maximum.accumulate(values)
    half = n // 2
    records = int((np.diff(best_so_far[half - 1 :]) > 0).sum())
    expected = float((1 / np.arange(half + 1, n + 1)).sum())  # Renyi: the k-th is a record with probability 1/k
    # one record is added on both sides: a half without any does not make it impossible
    factor = min((records + 1) / (expected + 1), 3.0)
    return min(0.95, factor * more / (n + more))


def _trials(results: SweepResults) -> list[Advice]:
    """Whether more trials would help; nothing while the search still goes on."""
    search = results.sweep.get("search")
    asked = search.get("trials") if isinstance(search, Mapping) else None
    waits = any(status.get("state") == "waiting" for status in results.statuses.values())
    under_way = waits or bool((results.trials["state"] == "running").any())
    if (isinstance(asked, int) and len(results.trials) < asked) or under_way:
        return []
    count = len(results.trials.dropna(subset=["value"]))
    more = max(10, round(count / 2))
    chance = expected_of_more(results, more)
    if chance is None:
        return []
    last = _last_record(results)
    since = count - last
    evidence = f"the best score was found by the {_th(last)} of {count} trials"
    change = {"extend": more, "chance": round(chance, 2)}
    if chance >= 0.3:
        text = f"{more} more trials find something better with a chance of about {100 * chance:.0f} %: {evidence}."
        return [Advice("more_trials", f"{text} Say --extend {more}.", change=change)]
    text = (
        f"More trials are not likely to help: {evidence}, {since} have not beaten it since; {more} more would with a "
        f"chance of about {100 * chance:.0f} %. How much better is another matter."
    )
    return [Advice("enough_trials", text, change=change)]


def _last_record(results: SweepResults) -> int:
    """The position, from 1, of the best scored trial."""
    scored = results.trials.dropna(subset=["value"]).sort_values("trial")
    values = scored["value"].to_numpy(float) * (1 if results.maximize else -1)
    return int(values.argmax()) + 1


def _th(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _confirm(results: SweepResults, standings: Standings, confirmed: Confirmed | None) -> list[Advice]:
    """Before confirming, nothing is known of seeds; a sweep whose file asks for it is going to."""
    if confirmed is not None or results.sweep.get("confirm") or standings.ranked_count < 2:
        return []
    rivals = len(standings.tied)
    top = min(max(CONFIRM_TOP, 1 + rivals), 5, standings.ranked_count)
    why = (
        f"{rivals + 1} trials are tied on these images, and each was trained once"
        if rivals
        else "each config was trained once, so the winner may owe its place to its seed"
    )
    text = (
        f"Train the best {top} and the baseline again with {CONFIRM_SEEDS} seeds: {why}. Add confirm to the sweep file."
    )
    return [Advice("confirm", text, change={"confirm.top_k": top, "confirm.seeds": CONFIRM_SEEDS})]


def _images(standings: Standings, confirmed: Confirmed | None) -> list[Advice]:
    """A tie is a matter of the number of validation images, and of seeds once there are several: intervals shrink with
    its square root. Nothing while a confirmation is on its way."""
    if confirmed is not None and not confirmed.complete:
        return []
    again = confirmed if confirmed is not None and confirmed.winner is not None else None
    names = [str(row.trial) for row in (standings.tied if again is None else again.tied)]
    winner = standings.winner if again is None else again.winner
    if not names or winner is None or winner.gain is None:
        return []
    more = "validate on four times as many images" if again is None else "it takes four times as many images and seeds"
    half = (winner.gain.high - winner.gain.low) / 2
    if half <= 0:
        return []
    text = (
        f"{'Trial' if len(names) == 1 else 'Trials'} {listed(names)} cannot be told apart from the best. To see "
        f"differences half as large ({half / 2:.3f} instead of {half:.3f} AP), {more}; or take the cheapest of them."
    )
    return [Advice("more_images", text, change={"times": 4})]
