"""The best of a sweep after they were trained again with several seeds: ranked by all of these trainings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from posesweep.analysis.keypoint_ap import Matches, bootstrap_ap, keypoint_ap
from posesweep.analysis.ranking import Bootstrap, Interval, TrialEvidence
from posesweep.analysis.results import SweepResults
from posesweep.files import read_json


@dataclass(frozen=True)
class Candidate:
    """One config over its seeds. `ap` and `gain` hold over images and seeds."""

    trial: int
    role: str
    ap: Interval | None
    gain: Interval | None  # over the baseline, paired
    p_best: float | None
    tied: bool
    seed_values: Mapping[int, float]  # seed -> AP
    sweep_value: float | None  # what the search saw


@dataclass(frozen=True)
class Confirmed:
    """The candidates, best first."""

    rows: tuple[Candidate, ...]
    winner: Candidate
    baseline: Candidate | None
    cheapest_tied: Candidate | None
    notes: tuple[str, ...]


def confirmed(results: SweepResults) -> Confirmed | None:
    """None before a candidate has a finished training."""
    file = results.folder / "confirm.json"
    if not file.is_file():
        return None
    plan = read_json(file)
    found = {trial: _seeds(results.folder, plan, trial) for trial in {run["trial"] for run in plan["runs"]}}
    found = {trial: seeds for trial, seeds in found.items() if seeds}
    if not found:
        return None
    samples = _samples(found)
    roles = {one["trial"]: one["role"] for one in plan["candidates"]} | {plan["baseline"]: "baseline"}
    rows = [_row(results, roles[trial], trial, found, samples, plan["baseline"]) for trial in found]
    rows.sort(key=lambda row: (-(row.ap.value if row.ap else -1.0), row.trial))
    baseline = next((row for row in rows if row.trial == plan["baseline"]), None)
    return Confirmed(tuple(rows), rows[0], baseline, None, ())


def _seeds(folder: Path, plan: Mapping[str, Any], trial: int) -> dict[int, Matches]:
    found = {}
    for run in plan["runs"]:
        status = folder / run["folder"] / "status.json"
        if run["trial"] != trial or not status.is_file() or read_json(status)["state"] != "finished":
            continue
        matches = TrialEvidence.read(trial, folder / run["folder"] / "evidence.npz").matches
        if matches is not None:
            found[int(run["seed"])] = matches
    return found


def _samples(found: Mapping[int, Mapping[int, Matches]]) -> dict[int, Float[np.ndarray, "B"]]:
    """The mean AP of a candidate's seeds in each resample of images."""
    first = next(iter(next(iter(found.values())).values()))
    weights = Bootstrap().weights(len(first.images))
    return {
        trial: np.mean([bootstrap_ap(matches, weights) for matches in seeds.values()], axis=0)
        for trial, seeds in found.items()
    }


def _row(
    results: SweepResults,
    role: str,
    trial: int,
    found: Mapping[int, Mapping[int, Matches]],
    samples: Mapping[int, Float[np.ndarray, "B"]],
    baseline: int,
) -> Candidate:
    values = {seed: keypoint_ap(matches)["AP"] for seed, matches in found[trial].items()}
    ap = Interval(float(np.mean(list(values.values()))), *_range(samples[trial]))
    best = np.stack(list(samples.values())).max(axis=0)
    seen = results.trials.loc[results.trials["trial"] == trial, "value"]
    gain = None
    if baseline in samples:
        against = np.mean([keypoint_ap(matches)["AP"] for matches in found[baseline].values()])
        gain = Interval(float(ap.value - against), *_range(samples[trial] - samples[baseline]))
    return Candidate(trial, role, ap, gain, float(np.mean(samples[trial] >= best)), False, values, float(seen.iloc[0]))


def _range(samples: Float[np.ndarray, "B"]) -> tuple[float, float]:
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return float(low), float(high)
