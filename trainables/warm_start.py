"""`warm_start:` of a sweep: trials of earlier sweeps, shown to its sampler as if they had been tried here.

What was read is put into the new folder (warm_start.json) before the first trial; from then on the earlier folders are
not needed. Of each trial the sampler sees the values of the parameters that are searched now: those that were searched
then, and those that were fixed then, where the new range holds them.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from posesweep.errors import SweepError
from posesweep.files import read_json, write_json
from posesweep.search_spaces.space import Sweep, is_active
from posesweep.trainables.proposals import as_sampled, encoded
from posesweep.trainables.search import longest_training

if TYPE_CHECKING:
    from posesweep.analysis.results import SweepResults

FILE = "warm_start.json"
SHOWN = ("finished", "pruned", "diverged")


@dataclass(frozen=True)
class Past:
    """One trial of an earlier sweep: `reports` are {epoch: value}, of a diverged trial none."""

    folder: str
    trial: int
    state: str
    params: Mapping[str, Any]
    reports: Mapping[int, float]


@dataclass
class Carried:
    """What an earlier sweep gives: its trials, and why others are left out."""

    results: "SweepResults"
    trials: list[Past] = field(default_factory=list)
    outside: Counter[str] = field(default_factory=Counter)  # parameter -> trials whose value the new range lacks


def earlier_trials(sweep: Sweep, folder: Path, split_hash: str) -> tuple[list[FrozenTrial], list[str]]:
    """The trials of the sweeps that `warm_start` names, as the sampler is to take them, and, the first time, notes.

    Raises SweepError for a folder that is no sweep, has another metric, or has nothing that is searched here.
    """
    if not sweep.warm_start:
        return [], []
    file, notes = folder / FILE, []
    if not file.is_file():
        carried = [carry_over(sweep, Path(source)) for source in sweep.warm_start]
        notes = [note for each in carried for note in notes_on(sweep, each, split_hash)]
        write_json(file, {"notes": notes, "trials": [_record(past) for each in carried for past in each.trials]})
    record = read_json(file)
    past = [Past(**{**one, "reports": {int(e): v for e, v in one["reports"].items()}}) for one in record["trials"]]
    return [trial for _, one in groupby(past, lambda each: each.folder) for trial in as_shown(sweep, list(one))], notes


def carry_over(sweep: Sweep, source: Path) -> Carried:
    """The trials of one earlier sweep, with their values in the new space."""
    try:
        from posesweep.analysis.results import read_sweep_folder  # pandas, which Ray's start would wait for

        results = read_sweep_folder(source)
    except SweepError as error:
        raise SweepError(f"warm_start: {error}") from None
    ours = (sweep.metric.name, sweep.metric.goal == "maximize")
    if (results.metric, results.maximize) != ours:
        raise SweepError(
            f"warm_start: {source} was ranked by {results.metric}, this sweep is by {sweep.metric.name}, so what was "
            "good there says nothing here; take it out, or use the same metric"
        )
    if not set(results.params) & set(sweep.parameters):
        raise SweepError(
            f"warm_start: {source} searched {_listed(results.params)}, of which nothing is searched here "
            f"({_listed(sweep.parameters)}); take it out"
        )
    found = Carried(results)
    for row in results.trials.to_dict("records"):
        if row["state"] in SHOWN:
            _carry(sweep, found, int(row["trial"]), str(row["state"]))
    if not found.trials:
        raise SweepError(
            f"warm_start: {source} has no trial within the ranges of this sweep"
            + (f" ({_outside(found)})" if found.outside else "")
            + "; widen the ranges, or take it out"
        )
    return found


def _carry(sweep: Sweep, found: Carried, trial: int, state: str) -> None:
    """Take one trial over, unless it has a value outside the ranges, or no score."""
    reports = _reports(sweep, found.results, trial) if state != "diverged" else {}
    params = _values(sweep, found, trial)
    if params and (reports or state == "diverged"):
        found.trials.append(Past(str(found.results.folder), trial, state, params, reports))


def _values(sweep: Sweep, found: Carried, trial: int) -> dict[str, Any] | None:
    """The trial's values of the parameters searched now; None where it had one that the new range lacks.

    A setting that was fixed then and lies outside the range is only left out: nobody chose it.
    """
    searched, settings = found.results.params_of(trial), found.results.settings(trial)
    values: dict[str, Any] = {}
    for name, parameter in sweep.parameters.items():
        if not is_active(parameter, {**sweep.fixed, **values}):
            continue
        try:
            values[name] = parameter.settle(searched[name] if name in searched else settings[name])
        except (KeyError, ValueError):
            if name in searched:
                found.outside[name] += 1
                return None
    return values


def _reports(sweep: Sweep, results: "SweepResults", trial: int) -> dict[int, float]:
    """What the trial showed after each epoch, as far as a trial here can come."""
    rows = results.curves[(results.curves["trial"] == trial) & (results.curves["epoch"] <= longest_training(sweep))]
    pairs = zip(rows["epoch"].tolist(), rows["value"].tolist(), strict=True)
    return {int(epoch): float(value) for epoch, value in pairs if math.isfinite(value)}


def notes_on(sweep: Sweep, found: Carried, split_hash: str) -> Iterator[str]:
    """What was taken over and what not."""
    results, where = found.results, f"warm_start: {found.results.folder}"
    shared = [name for name in results.params if name in sweep.parameters]
    yield f"{where}: {_count(len(found.trials), 'trial')} shown to the sampler, with {_listed(shared)}"
    gone = [name for name in results.params if name not in sweep.parameters]
    if gone:
        yield f"{where}: {_listed(gone)} not searched here, so not carried over"
    if found.outside:
        yield f"{where}: left out {_count(sum(found.outside.values()), 'trial')} outside the ranges ({_outside(found)})"
    new = [name for name in sweep.parameters if not any(name in past.params for past in found.trials)]
    if new:
        yield f"{where}: says nothing of {_listed(new)}"
    if (then := results.full_epochs) is not None and then != longest_training(sweep):
        yield f"{where}: trained {then} epochs, here it is {longest_training(sweep)}; its scores count as they were"
    if results.split.get("hash") != split_hash:
        yield f"{where}: had other data or another split; its scores count as they were"


def as_shown(sweep: Sweep, past: Sequence[Past]) -> list[FrozenTrial]:
    """The trials of one earlier sweep as the sampler is shown this sweep's own: those cut short at the value that they
    would have reached, judged by the others of that sweep."""
    trials = [_trial(sweep, one) for one in past]
    for number, trial in enumerate(trials):
        trial.number = number
    return as_sampled(sweep, trials)


def _trial(sweep: Sweep, past: Past) -> FrozenTrial:
    params, distributions = encoded(sweep, past.params)
    best = max if sweep.metric.goal == "maximize" else min
    finished = past.state == "finished"
    return create_trial(
        state=TrialState.COMPLETE if finished else TrialState.PRUNED,
        value=best(past.reports.values()) if finished else None,
        params=params,
        distributions=distributions,
        intermediate_values=dict(past.reports),
    )


def _record(past: Past) -> dict[str, Any]:
    return {
        "folder": past.folder,
        "trial": past.trial,
        "state": past.state,
        "params": dict(past.params),
        "reports": {str(epoch): value for epoch, value in past.reports.items()},
    }


def _outside(found: Carried) -> str:
    return ", ".join(f"{name} of {_count(count, 'trial')}" for name, count in sorted(found.outside.items()))


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names) or "nothing"
