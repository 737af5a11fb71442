"""The best of a sweep trained longer (`--promote K --epochs E`), ranked beside the baseline trained as long."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posesweep.analysis.ranked import AP, groups_of
from posesweep.analysis.ranking import Bootstrap, Interval, Ranked, TrialEvidence, matches_at, rank
from posesweep.analysis.results import SweepResults
from posesweep.errors import SweepError
from posesweep.files import read_record

NEEDED = {"runs", "candidates", "baseline", "epochs"}  # of promote-*.json; one half copied is passed over


@dataclass(frozen=True)
class Promoted:
    """One trial trained longer; `folder` holds what a trial's folder holds."""

    trial: int
    role: str
    seed: int
    epochs: int
    folder: Path
    value: float  # the sweep's metric at the best epoch
    ap: Interval | None = None
    gain: Interval | None = None  # over the baseline trained as long, paired
    tied: bool = False


@dataclass(frozen=True)
class Promotion:
    """The trials promoted to one number of epochs, best first, as far as they came to their end."""

    epochs: int
    rows: tuple[Promoted, ...]
    left: int  # trainings that have not ended
    notes: tuple[str, ...] = ()


def promotions(results: SweepResults) -> list[Promotion]:
    """Every promotion of a sweep, the shortest trainings first."""
    records = [read_record(file) for file in results.folder.glob("promote-*.json")]
    whole = [record for record in records if record is not None and set(record) >= NEEDED]
    return [_promotion(results, record) for record in sorted(whole, key=lambda record: record["epochs"])]


def _promotion(results: SweepResults, record: Mapping[str, Any]) -> Promotion:
    statuses = {run["trial"]: _status(results.folder / run["folder"]) for run in record["runs"]}
    roles = {one["trial"]: one["role"] for one in record["candidates"]}
    done = [run for run in record["runs"] if statuses[run["trial"]].get("state") == "finished"]
    places, notes = _places(results, done, record["baseline"])
    rows = []
    for run in done:
        trial, place = run["trial"], places.get(run["trial"])
        row = Promoted(
            trial=trial,
            role=roles[trial],
            seed=run["seed"],
            epochs=record["epochs"],
            folder=results.folder / run["folder"],
            value=statuses[trial]["best"],
            ap=place.ap if place is not None else None,
            gain=place.to_baseline if place is not None else None,
            tied=place.tied if place is not None else False,
        )
        rows.append(row)
    sign = 1 if results.maximize else -1
    rows.sort(key=lambda row: sign * row.value, reverse=True)
    left = sum(status.get("state") in (None, "running") for status in statuses.values())
    return Promotion(record["epochs"], tuple(rows), left, notes)


def _places(
    results: SweepResults, runs: list[Mapping[str, Any]], baseline: int
) -> tuple[dict[int, Ranked], tuple[str, ...]]:
    """What the paired bootstrap says, where the sweep is by AP."""
    if results.metric != AP:
        return {}, ()
    read = {run["trial"]: matches_at(results.folder / run["folder"] / "evidence.npz") for run in runs}
    found = {trial: matches for trial, matches in read.items() if matches is not None}
    if not found:
        return {}, ()
    try:
        groups = groups_of(results, next(iter(found.values())).images)
        ranking = rank([TrialEvidence(*each) for each in found.items()], baseline, Bootstrap(groups=groups))
    except SweepError as error:  # trainings that cannot be compared are still shown side by side
        return {}, (f"No intervals: {error}.",)
    notes = ranking.notes
    if gone := [str(trial) for trial, matches in read.items() if matches is None]:
        notes += (f"Without evidence.npz, so not in the intervals: trial {', '.join(gone)}.",)
    return {row.trial: row for row in ranking.rows}, notes


def _status(folder: Path) -> dict[str, Any]:
    return read_record(folder / "status.json") or {}
