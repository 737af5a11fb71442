"""Which training a sweep hands over: the one place that export, prediction, evaluation and the report ask."""

from dataclasses import dataclass
from pathlib import Path

from posesweep.analysis.ranked import Standings
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import SweepResults
from posesweep.errors import SweepError
from posesweep.files import trial_folder


@dataclass(frozen=True)
class Chosen:
    """One training: its settings are those of `trial`, its files (config.yaml, status.json, best/) lie in `folder`."""

    trial: int
    folder: Path
    value: float | None  # the sweep's metric
    ap: Interval | None


def chosen(results: SweepResults, table: Standings, number: int | None = None) -> Chosen:
    """The winner's training, or that of trial `number`; SweepError where there is none."""
    row = table.winner if number is None else next((row for row in table.rows if row.trial == number), None)
    if row is None:
        what = "no winner yet" if number is None else f"no trial {number}; it has {len(table.rows)} trials"
        raise SweepError(f"{results.folder} has {what}")
    return Chosen(row.trial, trial_folder(results.folder, row.trial), row.value, row.ap)
