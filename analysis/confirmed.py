"""What training the best configs again, with several seeds, has shown: the ranking of configs, not of trained networks.

A sweep trains each config once and picks the best: part of its lead is luck, of the images and of the seed. The runs of
`confirm:` have seeds of their own, so the second kind of luck is gone from their mean, and its size can be seen.

The AP of a config is the mean over its seeds. It is uncertain for two reasons, which cross: the seeds are a sample, and
so are the images, the same for all runs. This is the layout of reader studies in radiology (readers x cases; Obuchowski
and Rockette, Commun. Stat. Simul. 24, 1995; Hillis, Stat. Med. 26, 2007):

  variance of the mean = variance over images, of the mean of these runs           from the paired bootstrap
                       + variance over seeds / number of seeds                     from the runs' scatter

The scatter of the runs holds twice what is wanted: seeds differ (g), and each run has its own luck with the images (e),
which the bootstrap holds already. So g = scatter - e, not below 0, with e from the bootstrap itself. Two or three seeds
are far too few to take their scatter for the truth or to resample them. It is averaged with the other configs' (as in
`ranking`, after Smyth 2004), and in each resample it is drawn anew from what it may be, scatter * df / chi2(df), the
generalised confidence interval of Weerahandi (JASA 88, 1993) for variance components: without images this gives
Student's interval. Seeds of two configs count as unrelated, though they have the same number: if they have anything in
common the intervals are too wide, not too narrow.

The candidates were chosen among all trials of the sweep for doing well on these images, and meet them again. The
intervals of gains therefore hold for all trials that they were chosen from (Dunnett, see `ranking`), as far as the
sweep kept evidence of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posesweep.analysis.keypoint_ap import Matches, bootstrap_ap
from posesweep.analysis.ranking import Bootstrap, Interval, TrialEvidence
from posesweep.analysis.results import SweepResults
from posesweep.analysis.rungs import RungCorrelation
from posesweep.files import read_json

FILE = "confirm.json"


@dataclass(frozen=True)
class Candidate:
    """One config that was trained again. Without a place, `reason` says why, and all intervals are None."""

    trial: int  # its number in the sweep
    role: str
    ap: Interval | None = None  # mean over seeds; images and seeds are in the interval
    gain: Interval | None = None  # AP less the baseline's; holds for all candidates at once, and for the choice of them
    p_best: float | None = None
    tied: bool = False  # with the best, which is itself tied
    seed_values: Mapping[int, float] | None = None  # seed -> the sweep's metric at the run's best epoch
    sweep_value: float | None = None  # what it had in the sweep
    parameters: int | None = None
    train_s: float | None = None  # of one run, mean
    reason: str = ""

    @property
    def value(self) -> float | None:
        """The sweep's metric, mean over the seeds."""
        return float(np.mean(list(self.seed_values.values()))) if self.seed_values else None

    @property
    def shrinkage(self) -> float | None:
        """What confirming took away from (below 0) or gave to the sweep's number."""
        return None if self.value is None or self.sweep_value is None else self.value - self.sweep_value

    @property
    def seed_sd(self) -> float | None:
        """The standard deviation between seeds; None with fewer than two."""
        values = list((self.seed_values or {}).values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Confirmed:
    """Candidates from the best down, those without a place last."""

    rows: tuple[Candidate, ...]
    epochs: int | None  # of each run
    seeds: tuple[int, ...]
    seed_sd: float | None  # standard deviation of AP between seeds of one config, pooled over the candidates
    rungs: tuple[RungCorrelation, ...]  # of the sweep: how well its rungs foretold the end
    notes: tuple[str, ...] = ()
    complete: bool = True  # all runs have ended as trainings do; else the figures may still change

    @property
    def winner(self) -> Candidate | None:
        """The best candidate, if any has a place."""
        return self.rows[0] if self.rows and not self.rows[0].reason else None

    @property
    def baseline(self) -> Candidate | None:
        """The settings that the user began with."""
        return next((row for row in self.rows if row.role == "baseline"), None)

    @property
    def tied(self) -> tuple[Candidate, ...]:
        """The candidates that cannot be told apart from the winner, without the winner."""
        return tuple(row for row in self.rows if row.tied and row is not self.winner)

    @property
    def cheapest_tied(self) -> Candidate | None:
        """Of the winner and those tied with it: the fewest parameters, then the shortest training."""
        among = [row for row in self.rows if row.tied] or [row for row in (self.winner,) if row]
        return min(among, key=_cost, default=None)

    @property
    def gain_confirmed(self) -> bool:
        """Whether the winner is better than the baseline beyond the luck of images, seeds and selection."""
        winner = self.winner
        return winner is not None and winner.gain is not None and winner.gain.low > 0 and self.seed_sd is not None


def _cost(row: Candidate) -> tuple[float, float]:
    unknown = float("inf")
    return (
        unknown if row.parameters is None else row.parameters,
        unknown if row.train_s is None else row.train_s,
    )


def confirmed(results: SweepResults) -> Confirmed | None:
    """Read and rank the runs of `confirm:`; None where the sweep has none. Whatever is missing becomes a note.

    Raises SweepError for predictions that cannot be read.
    """
    path = results.folder / FILE
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    evidence = {int(row["trial"]): _seeds(results, record, int(row["trial"])) for row in record["candidates"]}
    samples = _samples(evidence) if results.metric == "val/AP" else {}
    rows = [_candidate(results, row, record, samples) for row in record["candidates"]]
    sign = 1 if results.maximize else -1
    rows.sort(key=lambda row: sign * row.value if row.value is not None else -np.inf, reverse=True)
    return Confirmed(tuple(rows), record.get("epochs"), tuple(record["seeds"]), None, ())


def _seeds(results: SweepResults, record: Mapping[str, Any], trial: int) -> list[Matches]:
    runs = [run for run in record["runs"] if run["trial"] == trial]
    found = [TrialEvidence.read(trial, results.folder / run["folder"] / "evidence.npz").matches for run in runs]
    return [matches for matches in found if matches is not None]


def _samples(evidence: Mapping[int, list[Matches]]) -> dict[int, np.ndarray]:
    """The mean AP of a candidate's seeds in each resample of images."""
    found = {trial: seeds for trial, seeds in evidence.items() if seeds}
    if not found:
        return {}
    weights = Bootstrap().weights(len(next(iter(found.values()))[0].images))
    return {trial: np.mean([bootstrap_ap(each, weights) for each in seeds], axis=0) for trial, seeds in found.items()}


def _candidate(
    results: SweepResults, row: Mapping[str, Any], record: Mapping[str, Any], samples: Mapping[int, np.ndarray]
) -> Candidate:
    trial, values = int(row["trial"]), {}
    for run in record["runs"]:
        file = results.folder / run["folder"] / "status.json"
        status = read_json(file) if file.is_file() else {}
        if run["trial"] == trial and status.get("state") == "finished":
            values[run["seed"]] = status["best"]
    seen = results.trials.loc[results.trials["trial"] == trial, "value"]
    found = Candidate(
        trial, str(row["role"]), seed_values=values, sweep_value=float(seen.iloc[0]) if len(seen) else None
    )
    if not values or trial not in samples:
        return replace(found, reason="" if values else "no run has been trained to its end yet")
    ap = Interval(float(np.mean(list(values.values()))), *_range(samples[trial]))
    best = np.stack(list(samples.values())).max(axis=0)
    gain = None
    if record["baseline"] in samples:
        difference = samples[trial] - samples[record["baseline"]]
        gain = Interval(float(difference.mean()), *_range(difference))
    return replace(found, ap=ap, gain=gain, p_best=float(np.mean(samples[trial] >= best)))


def _range(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return float(low), float(high)
