"""What a sweep found, in three plain statements: who won, what that gains, how sure it is."""

from collections.abc import Mapping
from typing import Any

from posesweep.analysis.chosen import Chosen
from posesweep.analysis.confirmed import Confirmed
from posesweep.analysis.ranked import Standing, Standings
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import SweepResults
from posesweep.analysis.wording import seeds_text

PREDICATES = {
    "finished": "has no score",
    "pruned": "was stopped early",
    "diverged": "diverged",
    "failed": "failed",
    "running": "is still running",
    "unknown": "cannot be read",
}


def decision(
    results: SweepResults, ranked: Standings, confirmed: Confirmed | None = None, picked: Chosen | None = None
) -> tuple[str, str, str]:
    """(the winner, the gain over the baseline, how sure).

    A sweep trains each config once: what it can say is that this trained network does better on these images. Only
    `confirmed`, with several seeds, says that a gain is confirmed; simulated sweeps of equal configs show why
    (benchmarks/trust.py). `confirmed` is one that decides (`Story.decisive`), `picked` the training handed over.
    """
    winner, gain, sure = _of_winner(results, ranked, confirmed)
    return winner + _trained_longer(picked, results), gain, sure


def _of_winner(results: SweepResults, ranked: Standings, confirmed: Confirmed | None) -> tuple[str, str, str]:
    if confirmed is not None and confirmed.winner is not None:
        return _confirmed_winner(confirmed), _confirmed_gain(confirmed), _confirmed_sure(confirmed, results)
    winner = ranked.winner
    if winner is None:
        return _nothing(results), "So there is nothing to compare with the baseline.", "Nothing can be said yet."
    return _winner(winner, ranked, results), _gain(winner, ranked), _how_sure(winner, ranked, results)


def _trained_longer(picked: Chosen | None, results: SweepResults) -> str:
    """A sentence more where another training than the winner's is handed over."""
    row = picked.promoted if picked is not None else None
    if row is None:
        return ""
    metric = results.metric.removeprefix("val/")
    reached = f"{metric} {_number(row.value)}" if row.ap is None else _with_interval(row.ap)
    return (
        f" Trained for {row.epochs} epochs, trial {row.trial} became better: {reached}; "
        "it is the one that is handed over."
    )


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
    first = f"{who}: {_with_interval(winner.ap)}."
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
    if winner.gain.low <= 0:
        return f"The gain may be chance: {size}."
    return f"On these images the gain is beyond chance, but not confirmed with other seeds: {size}."


def _confirmed_winner(confirmed: Confirmed) -> str:
    winner = confirmed.winner
    assert winner is not None
    seeds = len(winner.seed_values) if winner.trainings is None else winner.trainings
    trainings = f"{seeds} trainings" if seeds > 1 else "1 training"
    shown = _with_interval(winner.ap) if winner.ap else _number(winner.value)
    first = f"Trial {winner.trial} is the best config: {shown}, mean of {trainings}"
    first += f"; the sweep had {_number(winner.sweep_value)}." if winner.sweep_value is not None else "."
    if winner.ap is None:
        return first
    if not confirmed.tied:
        return f"{first} No other candidate comes close enough to be called a tie."
    others = [str(row.trial) for row in confirmed.tied]
    word = "trial" if len(others) == 1 else "trials"
    first += f" It cannot be told apart from {word} {listed(others)}"
    cheapest = confirmed.cheapest_tied
    if cheapest is None or cheapest.parameters is None:
        return f"{first}."
    which = (
        "it is the cheapest of them" if cheapest.trial == winner.trial else f"the cheapest is trial {cheapest.trial}"
    )
    return f"{first}; {which} ({_millions(cheapest.parameters)})."


def _confirmed_gain(confirmed: Confirmed) -> str:
    winner, baseline = confirmed.winner, confirmed.baseline
    assert winner is not None
    if winner.role == "baseline":
        return "It is the baseline itself: trained again, nothing that the search found is better."
    if baseline is None:
        return "The baseline was not trained again, so what the search gained is not confirmed."
    of = f"the baseline (trial {baseline.trial})"
    if baseline.reason:
        return f"What the search gained is not confirmed: {of}: {baseline.reason}."
    if winner.gain is None:
        return (
            f"{_number(winner.value)} against {_number(baseline.value)} of {of}; without an interval it may be chance."
        )
    size = f"{winner.gain.value:+.3f} AP over {of}, 95 % interval {_range(winner.gain, sign=True)}"
    if winner.gain.low <= 0:
        return f"The gain is not confirmed, it may be chance: {size}."
    if not confirmed.gain_confirmed:
        return f"On these images the gain is beyond chance, but one seed does not confirm it: {size}."
    return f"The gain is confirmed: {size}."


def _confirmed_sure(confirmed: Confirmed, results: SweepResults) -> str:
    winner = confirmed.winner
    assert winner is not None
    parts = []
    candidates = sum(not row.reason for row in confirmed.rows)
    if winner.p_best is not None and candidates > 1:
        parts.append(
            f"With other images and seeds, trial {winner.trial} would be best of these {candidates} in "
            f"{_percent(winner.p_best)} of cases."
        )
    if confirmed.seed_sd is not None:
        parts.append(seeds_text(confirmed.seed_sd))
    if count := len(results.split.get("val") or ()):
        parts.append(f"The validation set holds {count} objects.")
    if winner.ap is not None:
        parts.append("The candidates were chosen on these images, so the AP itself is still a little flattered.")
    if note := _sigmas_note(results.split):
        parts.append(f"{note[:1].upper()}{note[1:].rstrip('.')}.")
    return " ".join(parts) or "How sure this is is not known."


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.3g} M parameters" if parameters >= 1e5 else f"{parameters:,} parameters"


def _how_sure(winner: Standing, ranked: Standings, results: SweepResults) -> str:
    parts = []
    if winner.p_best is not None and ranked.ranked_count > 1:
        wins = _percent(winner.p_best)
        parts.append(f"In {wins} of resampled validation sets, trial {winner.trial} is best of {ranked.ranked_count}.")
    if count := len(results.split.get("val") or ()):
        parts.append(_resolution(count, winner))
    if ranked.ranked_count > 1 and winner.ap is None:
        parts.append(
            "Each config was trained once, so the one picked had more luck of the seed than most; confirm takes it out."
        )
    elif ranked.ranked_count > 1:
        parts.append(
            "Each config was trained once: the luck of the seed is not in these intervals, and the one picked had more "
            "of it than most; confirm takes it out."
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


def _with_interval(ap: Interval) -> str:
    return f"AP {ap.value:.3f} (95 % interval {_range(ap)})"


def _range(interval: Interval, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"{interval.low:{plus}.3f} to {interval.high:{plus}.3f}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return "below 1 %" if share < 0.01 else "above 99 %" if share > 0.99 else f"{100 * share:.0f} %"
