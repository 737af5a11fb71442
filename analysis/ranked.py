"""The ranked table: one row per trial, best first, as the terminal and the report show it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from posesweep.analysis import ranking
from posesweep.analysis.keypoint_ap import Matches
from posesweep.analysis.results import SweepResults

AP = "val/AP"


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankedTrial:
    """One trial. `rank` is None for those outside the ranking: stopped early, failed, still running, without a score."""

    trial: int
    role: str
    state: str
    reason: str
    params: Mapping[str, Any]  # searched values
    epochs: int
    value: float | None  # the sweep's own metric at the best epoch
    rank: int | None = None
    ap: Interval | None = None
    p_best: float | None = None
    tied: bool = False  # cannot be told apart from the best
    gain: Interval | None = None  # AP over the baseline, paired

    @property
    def in_words(self) -> str:
        """State and reason, for people."""
        return self.reason or STATE_WORDS[self.state]


STATE_WORDS = {
    "finished": "trained to the end",
    "pruned": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
    "running": "still running",
    "unknown": "not known",
}


@dataclass(frozen=True)
class Ranked:
    """Ranked trials first, best on top; then the others, the higher their last score the earlier."""

    rows: tuple[RankedTrial, ...]
    notes: tuple[str, ...] = ()

    @property
    def winner(self) -> RankedTrial | None:
        """The best ranked trial."""
        return next((row for row in self.rows if row.rank == 1), None)

    @property
    def baseline(self) -> RankedTrial | None:
        """The trial with the settings the user began with."""
        return next((row for row in self.rows if row.role == "baseline"), None)

    @property
    def tied(self) -> tuple[RankedTrial, ...]:
        """The trials that cannot be told apart from the winner, without the winner."""
        return tuple(row for row in self.rows if row.tied and row.rank != 1)

    @property
    def ranked_count(self) -> int:
        """How many trials have a rank."""
        return sum(row.rank is not None for row in self.rows)


def ranked(results: SweepResults) -> Ranked:
    """Rank the trials that were trained to the end; while none was, those that have been scored so far.

    By AP with paired intervals when the sweep's metric is val/AP and the predictions are there, else by the metric
    alone, and a note says so. Raises SweepError for predictions that cannot be read.
    """
    rows = sorted(_rows(results), key=lambda row: _height(row, results), reverse=True)
    scored = [row for row in rows if row.value is not None]
    contenders = [row for row in scored if row.state == "finished"] or scored
    notes = []
    if results.metric == AP:
        intervals = _intervals(results, contenders)
    else:
        intervals = {}
        notes.append(f"Ranked by {results.metric}, as the sweep asks; intervals exist for {AP} only.")
    placed = [replace(row, rank=i, **intervals.get(row.trial, {})) for i, row in enumerate(contenders, start=1)]
    ranked_trials = {row.trial for row in placed}
    return Ranked((*placed, *(row for row in rows if row.trial not in ranked_trials)), tuple(notes))


def _rows(results: SweepResults) -> list[RankedTrial]:
    return [
        RankedTrial(
            trial=record["trial"],
            role=record["role"],
            state=record["state"],
            reason=record["reason"],
            params=results.params_of(record["trial"]),
            epochs=record["epochs"],
            value=None if math.isnan(record["value"]) else record["value"],
        )
        for record in results.trials.to_dict("records")
    ]


def _height(row: RankedTrial, results: SweepResults) -> float:
    """The higher the better; without a value last."""
    if row.value is None:
        return -math.inf
    return row.value if results.maximize else -row.value


def _intervals(results: SweepResults, contenders: list[RankedTrial]) -> dict[int, dict[str, Any]]:
    """What the paired bootstrap says of each trial that has predictions, as fields of RankedTrial."""
    matches = {}
    for row in contenders:
        evidence = results.evidence(row.trial)
        stored = {k.removeprefix("match/"): v for k, v in evidence.arrays.items()} if evidence is not None else {}
        if "matched" in stored:
            matches[row.trial] = Matches.from_arrays(stored)
    if not matches:
        return {}
    baseline = results.baseline if results.baseline in matches else None
    return {s.trial: dict(ap=Interval(s.ap, s.low, s.high), p_best=s.p_best, tied=s.tied, gain=None if s.gain is None else Interval(s.gain, s.gain_low, s.gain_high)) for s in ranking.rank(matches, baseline)}
