"""What a sweep found, in three plain statements: who won, what that gains, how sure it is."""

from collections.abc import Mapping
from typing import Any

from posesweep.analysis.confirmed import Confirmed
from posesweep.analysis.ranked import Standing, Standings
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import SweepResults

PREDICATES = {
    "finished": "has no score",
    "pruned": "was stopped early",
    "diverged": "diverged",
    "failed": "failed",
    "running": "is still running",
    "unknown": "cannot be read",
}


def decision(results: SweepResults, ranked: Standings, confirmed: Confirmed | None = None) -> tuple[str, str, str]:
    """(the winner, the gain over the baseline, how sure)."""
    winner = ranked.winner
    if winner is None:
        return _nothing(results), "So there is nothing to compare with the baseline.", "Nothing can be said yet."
    return _winner(winner, ranked, results), _gain(winner, ranked), _how_sure(winner, ranked, results)


def listed(items: list[str], most: int = 6) -> str:
    """'a', 'a and b', 'a, b and c', 'a, b, c and 4 more'."""
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _nothing(results: SweepResults) -> str:
    if results.trials.empty:
        return "No trial has been started yet, so there is no winner."
    return "No trial has come far enough to be ranked, so there is no winner."


def _winner(winner: Standing, ranked: Standings, results: SweepResults) -> str:
    who = f"Trial {winner.trial} did best" if winner.state == "finished" else f"So far trial {winner.trial} leads"
    if winner.ap is None:
        return f"{who}: {results.metric} {_number(winner.value)}, without an interval."
    first = f"{who}: AP {winner.ap.value:.3f} (95 % interval {_range(winner.ap)})."
    if ranked.ranked_count == 1:
        return f"{first} It is the only trial in the ranking."
    if winner.p_best is None:
        return first
    if not ranked.tied:
        return f"{first} No other trial comes close enough to be called a tie."
    others = [str(row.trial) for row in ranked.tied]
    word = "trial" if len(others) == 1 else "trials"
    return f"{first} It cannot be told apart from {word} {listed(others)}: on these data they are tied."


def _gain(winner: Standing, ranked: Standings) -> str:
    baseline = ranked.baseline
    if winner.role == "baseline":
        return "It is the baseline itself: the search has found nothing better than the settings it began with."
    if baseline is None:
        return "No baseline was trained, so what the search gained is not known."
    of = f"the baseline (trial {baseline.trial})"
    if baseline.rank is None:
        return f"What the search gained is not known: {of} {PREDICATES[baseline.state]}."
    if winner.gain is None:
        return (
            f"{_number(winner.value)} against {_number(baseline.value)} of {of}; without an interval it may be chance."
        )
    size = f"{winner.gain.value:+.3f} AP over {of}, 95 % interval {_range(winner.gain, sign=True)}"
    return f"The gain is real: {size}." if winner.gain.low > 0 else f"The gain may be chance: {size}."


def _how_sure(winner: Standing, ranked: Standings, results: SweepResults) -> str:
    parts = []
    if winner.p_best is not None and ranked.ranked_count > 1:
        wins = _percent(winner.p_best)
        parts.append(f"In {wins} of resampled validation sets, trial {winner.trial} is best of {ranked.ranked_count}.")
    if count := len(results.split.get("val") or ()):
        parts.append(_resolution(count, winner))
    if ranked.ranked_count > 1:
        parts.append(
            "Its AP is a little flattered by being the one picked, and each config was trained once: "
            "the luck of the seed is not in these intervals."
        )
    if note := _sigmas_note(results.split):
        parts.append(f"{note[:1].upper()}{note[1:].rstrip('.')}.")
    return " ".join(parts) or "The size of the validation set is not known, so neither is how sure this is."


def _resolution(count: int, winner: Standing) -> str:
    said = f"The validation set holds {count} objects"
    if winner.gain is None or winner.role == "baseline":
        return f"{said}."
    half = (winner.gain.high - winner.gain.low) / 2
    return f"{said}, so a difference below about {half:.3f} AP cannot be seen on it."


def _sigmas_note(split: Mapping[str, Any]) -> str:
    """What the data say about OKS sigmas that nobody measured: AP then depends on a guess."""
    said = (split.get("skeleton") or {}).get("sigmas_note")
    return str(said or next((note for note in split.get("notes") or () if "sigmas" in str(note)), ""))


def _range(interval: Interval, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"{interval.low:{plus}.3f} to {interval.high:{plus}.3f}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return "below 1 %" if share < 0.01 else "above 99 %" if share > 0.99 else f"{100 * share:.0f} %"
