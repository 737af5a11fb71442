"""The ranked table: one row per trial, best first, as the terminal and the report show it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posesweep.analysis.keypoint_ap import Matches
from posesweep.analysis.ranking import MATCH_PREFIX, Bootstrap, Interval, Ranking, TrialEvidence, rank
from posesweep.analysis.results import Evidence, SweepResults
from posesweep.errors import SweepError

AP = "val/AP"


@dataclass(frozen=True)
class Standing:
    """One trial. `rank` is None for those outside the ranking: stopped early, failed, running, without a score."""

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
        words = STATE_WORDS[self.state]
        return f"{words}: {self.reason}" if self.reason and self.state != "finished" else words


STATE_WORDS = {
    "finished": "trained to the end",
    "pruned": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
    "running": "still running",
    "unknown": "not known",
}


@dataclass(frozen=True)
class Standings:
    """Ranked trials first, best on top; then the others, the higher their last score the earlier."""

    rows: tuple[Standing, ...]
    notes: tuple[str, ...] = ()

    @property
    def winner(self) -> Standing | None:
        """The best ranked trial."""
        return next((row for row in self.rows if row.rank == 1), None)

    @property
    def baseline(self) -> Standing | None:
        """The trial with the settings the user began with."""
        return next((row for row in self.rows if row.role == "baseline"), None)

    @property
    def tied(self) -> tuple[Standing, ...]:
        """The trials that cannot be told apart from the winner, without the winner."""
        return tuple(row for row in self.rows if row.tied and row.rank != 1)

    @property
    def ranked_count(self) -> int:
        """How many trials have a rank."""
        return sum(row.rank is not None for row in self.rows)


def ranked(results: SweepResults) -> Standings:
    """Rank the trials that were trained to the end; while none was, those that are on their way or were stopped.

    By AP with paired intervals when the sweep's metric is val/AP and the predictions are there, else by the metric
    alone, and a note says so. Raises SweepError for predictions that cannot be read.
    """
    rows = sorted(_rows(results), key=lambda row: _height(row, results), reverse=True)
    scored = [row for row in rows if row.value is not None and row.state not in ("failed", "diverged")]
    contenders = [row for row in scored if row.state == "finished"] or scored
    intervals, notes = _intervals(results, contenders)
    placed = [replace(row, rank=i, **intervals.get(row.trial, {})) for i, row in enumerate(contenders, start=1)]
    ranked_trials = {row.trial for row in placed}
    return Standings((*placed, *(row for row in rows if row.trial not in ranked_trials)), notes)


def _rows(results: SweepResults) -> list[Standing]:
    return [
        Standing(
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


def _height(row: Standing, results: SweepResults) -> float:
    """The higher the better; without a value last."""
    if row.value is None:
        return -math.inf
    return row.value if results.maximize else -row.value


def _intervals(results: SweepResults, contenders: list[Standing]) -> tuple[dict[int, dict[str, Any]], tuple[str, ...]]:
    """What the paired bootstrap says of each trial that has predictions, as fields of Standing; and notes."""
    if results.metric != AP:
        return {}, (f"Ranked by {results.metric}, as the sweep asks; intervals exist for {AP} only.",)
    found = {row.trial: matches_of(results.evidence(row.trial)) for row in contenders}
    trials = [TrialEvidence(trial, matches) for trial, matches in found.items() if matches is not None]
    images = next((matches.images for matches in found.values() if matches is not None), None)
    if images is None:
        return {}, ()
    try:
        ranking = rank(trials, results.baseline, Bootstrap(groups=groups_of(results, images)))
    except SweepError as error:  # trials that cannot be compared are still shown side by side
        return {}, (f"No intervals: {error}.",)
    left_out = [trial for trial, matches in found.items() if matches is None]
    if left_out:
        missing = ", ".join(map(str, sorted(left_out)))
        return _fields(ranking, whole=False), (
            *ranking.notes,
            f"No ties and no P(best): not known for trial {missing}.",
        )
    return _fields(ranking, whole=True), ranking.notes


def matches_of(evidence: Evidence | None) -> Matches | None:
    """What the ranking needs of a trial's predictions; None where there are none."""
    arrays = evidence.arrays if evidence is not None else {}
    saved = {name.removeprefix(MATCH_PREFIX): array for name, array in arrays.items() if name.startswith(MATCH_PREFIX)}
    return Matches.from_arrays(saved) if saved else None


def groups_of(results: SweepResults, images: np.ndarray) -> np.ndarray | None:
    """The group (video, animal) of each image where split.json knows them: pictures of one are not independent.

    Raises SweepError where all images are of one group (or there is but one image): resampling it gives the same set
    each time, so intervals of no width.
    """
    groups, found = results.split.get("groups"), None
    if isinstance(groups, Mapping) and all(str(image) in groups for image in images):
        found = np.array([str(groups[str(image)]) for image in images])
    check_several(found, len(images))
    return found


def check_several(groups: np.ndarray | None, images: int) -> None:
    """Raise SweepError where the validation images are one group only; without `groups` each image is its own."""
    if images == 1:
        raise SweepError("there is only one image, so nothing tells how far chance reaches; validate on two or more")
    if groups is not None and len(np.unique(groups)) == 1:
        raise SweepError(
            "all validation images are of one group, so nothing tells how far chance reaches; validate on two groups "
            "or more"
        )


def _fields(ranking: Ranking, whole: bool) -> dict[int, dict[str, Any]]:
    """Fields of Standing by trial. Ties and P(best) say something only where the ranking is `whole`."""
    return {
        row.trial: {"ap": row.ap, "gain": row.to_baseline} | ({"p_best": row.p_best, "tied": row.tied} if whole else {})
        for row in ranking.rows
        if row.ap is not None
    }
