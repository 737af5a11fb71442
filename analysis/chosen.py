"""Which training a sweep hands over: the one place that export, prediction, evaluation and the report ask."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posesweep.analysis.confirmed import ENDED, Candidate, Confirmed, confirmed
from posesweep.analysis.promoted import Promoted, promotions
from posesweep.analysis.ranked import Standings
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import SweepResults
from posesweep.errors import SweepError
from posesweep.files import read_json, read_record, trial_folder


@dataclass(frozen=True)
class Chosen:
    """One training: its settings are those of `trial`, its files (config.yaml, status.json, best/) lie in `folder`.

    After a confirmation the winner's `ap` is that of all its seeds together, while the files are those of its best
    one, `seed`.
    """

    trial: int
    folder: Path
    value: float | None  # the sweep's metric
    ap: Interval | None
    seed: int | None = None
    candidate: Candidate | None = None  # where it was confirmed
    promoted: Promoted | None = None  # where it was trained longer


def chosen(
    results: SweepResults, table: Standings, number: int | None = None, found: Confirmed | None = None
) -> Chosen:
    """The winner's training, or that of trial `number` in the search; SweepError where there is none.

    The winner is the confirmed one, once all trainings of the confirmation have ended; the best that was promoted to
    more epochs takes its place where it became better. `found`: the confirmation where it was read already.
    """
    if number is not None:
        return _of_search(results, table, number)
    found = None if unconfirmed(results) else found or confirmed(results)
    if found is not None and found.winner is not None:
        picked = best_seed(results, found.winner)
    else:
        picked = _of_search(results, table, None)
    return _longer(results, picked) or picked


def _of_search(results: SweepResults, table: Standings, number: int | None) -> Chosen:
    row = table.winner if number is None else next((row for row in table.rows if row.trial == number), None)
    if row is None:
        what = "no winner yet" if number is None else f"no trial {number}; it has {len(table.rows)} trials"
        raise SweepError(f"{results.folder} has {what}")
    return Chosen(row.trial, trial_folder(results.folder, row.trial), row.value, row.ap)


def _longer(results: SweepResults, picked: Chosen) -> Chosen | None:
    """The best promoted training, where it is better than the one that would be handed over."""
    done = [promotion for promotion in promotions(results) if promotion.rows and not promotion.left]
    rows = [promotion.rows[0] for promotion in done]
    sign = 1.0 if results.maximize else -1.0
    best = max(rows, key=lambda row: sign * row.value, default=None)
    before = _best_of(picked.folder)
    if best is None or (before is not None and sign * best.value <= sign * before):
        return None
    return Chosen(best.trial, best.folder, best.value, best.ap, best.seed, promoted=best)


def unconfirmed(results: SweepResults) -> int:
    """How many trainings of the confirmation have not ended; 0 where there is none."""
    runs = (read_record(results.folder / "confirm.json") or {}).get("runs") or []
    return sum(_status(results.folder / run["folder"]).get("state") not in ENDED for run in runs)


def best_seed(results: SweepResults, candidate: Candidate) -> Chosen:
    """The best training of a confirmed candidate by the sweep's metric, the first seed of equals."""
    runs = [run for run in read_json(results.folder / "confirm.json")["runs"] if run["trial"] == candidate.trial]
    ended = {run["seed"]: _best_of(results.folder / run["folder"]) for run in runs}
    scored = {seed: value for seed, value in ended.items() if value is not None}
    if not scored:
        raise SweepError(f"{results.folder}: the trainings that confirmed trial {candidate.trial} are gone")
    sign = 1.0 if results.maximize else -1.0
    seed = max(scored, key=lambda seed: sign * scored[seed])
    folder = next(results.folder / run["folder"] for run in runs if run["seed"] == seed)
    return Chosen(candidate.trial, folder, candidate.value, candidate.ap, seed, candidate)


def _best_of(folder: Path) -> float | None:
    """The sweep's metric at the best epoch of a training that came to its end."""
    status = _status(folder)
    return status.get("best") if status.get("state") == "finished" else None


def _status(folder: Path) -> dict[str, Any]:
    return read_record(folder / "status.json") or {}
