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
intervals of gains therefore hold for all trials that they were chosen from (Dunnett, see `ranking.against`), as far as
the sweep kept evidence of them. The AP itself is flattered by this choice all the same; only images that were never
used to choose can mend that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from posesweep.analysis.keypoint_ap import Matches, bootstrap_ap, keypoint_ap
from posesweep.analysis.ranked import AP, groups_of, matches_of
from posesweep.analysis.ranking import (
    Bootstrap,
    Interval,
    Luck,
    against,
    against_best,
    matches_at,
    of_each,
    same_truth,
    share_best,
    size_notes,
)
from posesweep.analysis.results import SweepResults
from posesweep.analysis.rungs import RungCorrelation, rung_correlations
from posesweep.errors import SweepError
from posesweep.files import read_json

FILE = "confirm.json"
ENDED = ("finished", "diverged", "failed")  # states of a training that will not go on


@dataclass(frozen=True)
class Candidate:
    """One config that was trained again. Without a place, `reason` says why, and all intervals are None."""

    trial: int  # its number in the sweep
    role: str
    ap: Interval | None = None  # mean over seeds; images and seeds are in the interval
    gain: Interval | None = None  # AP less the baseline's; holds for all candidates at once, and for the choice of them
    p_best: float | None = None
    tied: bool = False  # with the best, which is itself tied
    seed_values: Mapping[int, float] = field(default_factory=dict)  # seed -> the sweep's metric at the best epoch
    sweep_value: float | None = None  # what it had in the sweep
    parameters: int | None = None
    train_s: float | None = None  # of one run, mean
    reason: str = ""
    trainings: int | None = None  # in `ap` and the other intervals: fewer than the seeds where evidence is missing

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
        values = list(self.seed_values.values())
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
    complete: bool = True  # all runs have ended, well or not; else the figures may still change

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


# --- from the folder -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One config trained with one seed, as far as it came."""

    trial: int
    seed: int
    state: str  # as in status.json; unknown where that is missing or torn
    reason: str = ""
    value: float | None = None  # the sweep's metric at the best epoch
    matches: Matches | None = None
    parameters: int | None = None
    train_s: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it was trained to its end and has a score."""
        return self.state == "finished" and self.value is not None

    def __str__(self) -> str:
        return f"trial {self.trial} with seed {self.seed}"


def confirmed(results: SweepResults) -> Confirmed | None:
    """Read and rank the runs of `confirm:`; None where the sweep has none. Whatever is missing becomes a note."""
    record, note = _record(results.folder / FILE)
    if record is None:
        return Confirmed((), None, (), None, (), (note,), complete=False) if note else None
    runs = [_read_run(results.folder, row) for row in record["runs"]]
    rows = [_candidate(results, row, runs) for row in record["candidates"]]
    rows, seed_sd, notes = _placed(results, rows, runs, record.get("baseline"))
    return Confirmed(
        rows=tuple(rows),
        epochs=record.get("epochs"),
        seeds=tuple(map(int, record["seeds"])),
        seed_sd=seed_sd,
        rungs=rung_correlations(results),
        notes=(*_run_notes(runs), *notes, *_length_note(results, record.get("epochs"))),
        complete=all(run.state in ENDED for run in runs),
    )


def _record(path: Path) -> tuple[dict[str, Any] | None, str]:
    """(confirm.json, "") or (None, what is wrong with it; "" where there is none)."""
    if not path.is_file():
        return None, ""
    try:
        record = read_json(path)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return None, f"{path.name} cannot be read; it may be only partly copied."
    whole = isinstance(record, dict) and all(isinstance(record.get(k), list) for k in ("candidates", "seeds", "runs"))
    return (record, "") if whole else (None, f"{path.name} is not what a sweep writes.")


def _read_run(sweep_folder: Path, row: Mapping[str, Any]) -> Run:
    folder = sweep_folder / str(row["folder"])
    trial, seed = int(row["trial"]), int(row["seed"])
    try:
        status = read_json(folder / "status.json")
    except (FileNotFoundError, ValueError):
        return Run(trial, seed, "unknown", "no readable status.json")
    best, cost = status.get("best"), status.get("cost") or {}
    return Run(
        trial=trial,
        seed=seed,
        state=str(status.get("state", "unknown")),
        reason=str(status.get("reason") or ""),
        value=float(best) if best is not None and np.isfinite(best) else None,
        matches=matches_at(folder / "evidence.npz"),
        parameters=status.get("parameters"),
        train_s=cost.get("train_s"),
    )


def _candidate(results: SweepResults, row: Mapping[str, Any], runs: Sequence[Run]) -> Candidate:
    """What can be said without comparing."""
    trial = int(row["trial"])
    mine = [run for run in runs if run.trial == trial]
    done = [run for run in mine if run.counts]
    in_sweep = results.trials.loc[results.trials["trial"] == trial, "value"]
    times = [run.train_s for run in done if run.train_s is not None]
    return Candidate(
        trial=trial,
        role=str(row.get("role") or "search"),
        seed_values={run.seed: run.value for run in done if run.value is not None},
        sweep_value=float(in_sweep.iloc[0]) if len(in_sweep) and np.isfinite(in_sweep.iloc[0]) else None,
        parameters=next((run.parameters for run in done if run.parameters is not None), None),
        train_s=float(np.mean(times)) if times else None,
        reason=_out_of_place(mine, done),
    )


def _out_of_place(runs: Sequence[Run], done: Sequence[Run]) -> str:
    """Why a candidate cannot be ranked, or ""."""
    diverged = [str(run.seed) for run in runs if run.state == "diverged"]
    if diverged:  # leaving such runs out would flatter the config
        return f"diverged with seed {', '.join(diverged)}, so it cannot be relied on"
    if done:
        return ""
    ended = bool(runs) and all(run.state in ENDED for run in runs)
    return "no run came to its end with a score" if ended else "no run has been trained to its end yet"


def _run_notes(runs: Sequence[Run]) -> list[str]:
    notes = [f"Failed: {run} ({run.reason or 'no reason given'})." for run in runs if run.state == "failed"]
    if scoreless := [str(run) for run in runs if run.state == "finished" and not run.counts]:
        notes.append(f"Finished without a score: {', '.join(scoreless)}; no validation object has a label.")
    if missing := [str(run) for run in runs if run.state not in ENDED]:
        notes.append(f"Not trained to the end yet: {', '.join(missing)}; the confirmed figures may still change.")
    return notes


def _length_note(results: SweepResults, epochs: int | None) -> list[str]:
    full = results.full_epochs
    if epochs is None or full is None or epochs == full:
        return []
    return [f"Confirmed with {epochs} epochs, the sweep had {full}: its numbers beside these are of other trainings."]


def _placed(
    results: SweepResults, rows: list[Candidate], runs: Sequence[Run], baseline: int | None
) -> tuple[list[Candidate], float | None, list[str]]:
    """The candidates in order, with intervals where there is evidence; the seeds' deviation; notes."""
    ranked_ = {row.trial for row in rows if not row.reason}
    with_matches = [run for run in runs if run.trial in ranked_ and run.counts and run.matches is not None]
    notes = []
    if results.metric != AP:
        notes.append(f"Ranked by {results.metric}, as the sweep asks; intervals exist for {AP} only.")
    elif {run.trial for run in with_matches} != ranked_:
        gone = ", ".join(map(str, sorted(ranked_ - {run.trial for run in with_matches})))
        notes.append(f"No intervals: there is no evidence.npz of trial {gone}.")
    elif with_matches:
        try:
            found = pooled(with_matches, _contenders(results, baseline), baseline, _bootstrap(results, with_matches))
        except SweepError as error:  # what cannot be compared is still shown side by side
            notes.append(f"No intervals: {error}.")
        else:
            rows = [replace(row, **found.fields.get(row.trial, {})) for row in rows]
            return _in_order(rows, results), found.seed_sd, [*_without_evidence(ranked_, runs), *found.notes]
    return _in_order(rows, results), None, notes


def _without_evidence(trials: set[int], runs: Sequence[Run]) -> list[str]:
    """A note on the runs whose values are shown and that no interval knows."""
    gone = [str(run) for run in runs if run.trial in trials and run.counts and run.matches is None]
    return [f"Without evidence.npz, so not in the intervals: {', '.join(gone)}."] if gone else []


def _in_order(rows: list[Candidate], results: SweepResults) -> list[Candidate]:
    """The best first, those without a place last."""
    sign = 1 if results.maximize else -1

    def height(row: Candidate) -> float:
        value = row.ap.value if row.ap else row.value
        return -np.inf if row.reason or value is None else sign * value

    return sorted(rows, key=height, reverse=True)


def _bootstrap(results: SweepResults, runs: Sequence[Run]) -> Bootstrap:
    first = runs[0].matches
    return Bootstrap(groups=groups_of(results, first.images) if first is not None else None)


def _contenders(results: SweepResults, baseline: int | None) -> list[Matches]:
    """The evidence of the trials among which the candidates were chosen."""
    finished = results.trials[results.trials["state"] == "finished"]["trial"]
    found = [matches_of(results.evidence(trial)) for trial in finished if trial != baseline]
    return [matches for matches in found if matches is not None]


# --- the statistics --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooled:
    """Fields of Candidate by trial."""

    fields: Mapping[int, Mapping[str, Any]]
    seed_sd: float | None
    notes: tuple[str, ...]


def pooled(
    runs: Sequence[Run], contenders: Sequence[Matches], baseline: int | None, bootstrap: Bootstrap | None = None
) -> Pooled:
    """Rank the configs of `runs`, all of which have matches, by their mean AP.

    `contenders` are the trials of the sweep from among which they were chosen; those that were validated on other
    images are left out. Raises SweepError where runs were validated on different images or truths.
    """
    bootstrap = bootstrap or Bootstrap()
    same_truth([(run.trial, run.matches) for run in runs if run.matches is not None])
    by_trial = {trial: _of_trial(runs, trial) for trial in dict.fromkeys(run.trial for run in runs)}
    mean_ap = {trial: float(np.mean([keypoint_ap(m)["AP"] for m in found])) for trial, found in by_trial.items()}
    order = sorted(by_trial, key=lambda trial: -mean_ap[trial])
    reference = by_trial[order[0]][0]
    if not reference.truth_count[:, 0].any():
        raise SweepError("AP is not defined: no labelled object in the validation images")
    weights = bootstrap.weights(len(reference.images))
    runs_ap = [np.array([keypoint_ap(m)["AP"] for m in by_trial[trial]]) for trial in order]
    sampled = [np.stack([bootstrap_ap(m, weights) for m in by_trial[trial]]) for trial in order]
    others = [bootstrap_ap(m, weights) for m in contenders if _is_same(m, reference)]
    keep = np.isfinite(sampled[0][0])  # a resample without a truth that counts says nothing
    sampled = [bootstrap.widened(each[:, keep], len(reference.images)) for each in sampled]
    seeds = Seeds.of(runs_ap, sampled)
    luck = seeds.luck(int(keep.sum()), np.random.default_rng([bootstrap.seed, 1]))
    further = np.stack([each[keep] for each in others]) if others else np.zeros((0, int(keep.sum())))
    further = bootstrap.widened(further, len(reference.images))
    fields = _fields(order, np.array([mean_ap[t] for t in order]), _means(sampled), luck, (baseline, further))
    fields = {trial: {**said, "trainings": len(by_trial[trial])} for trial, said in fields.items()}
    groups = int(bootstrap.group_index(len(reference.images)).max()) + 1
    notes = size_notes(len(reference.images), groups)
    if seeds.scatter is None:
        notes += ("One seed each: the luck of the seed is not in these intervals; confirm with two seeds or more.",)
    return Pooled(fields, seeds.between, notes)


def _of_trial(runs: Sequence[Run], trial: int) -> list[Matches]:
    return [run.matches for run in runs if run.trial == trial and run.matches is not None]


def _is_same(matches: Matches, reference: Matches) -> bool:
    try:
        same_truth([(0, reference), (1, matches)])
    except SweepError:
        return False
    return True


def _means(sampled: Sequence[Float[np.ndarray, "_ B"]]) -> Float[np.ndarray, "C B"]:
    """The mean over the seeds of each candidate."""
    return np.stack([each.mean(axis=0) for each in sampled])


def _fields(
    order: Sequence[int],
    ap: Float[np.ndarray, "C"],
    samples: Float[np.ndarray, "C B"],
    luck: Luck,
    compared: tuple[int | None, Float[np.ndarray, "N B"]],
) -> dict[int, dict[str, Any]]:
    """Fields of Candidate by trial; `compared`: the baseline, and the further trials of the sweep."""
    baseline, further = compared
    intervals = of_each(ap, samples, luck)
    p_best = share_best(samples + luck.draws)
    _, tied = against_best(ap, samples, luck)
    gains: Sequence[Interval | None] = [None] * len(order)
    if baseline in order:
        control = order.index(baseline)
        gains = against(ap, samples, control, luck, further - samples[control])
    return {
        trial: {
            "ap": intervals[i],
            "gain": gains[i],
            "p_best": float(p_best[i]),
            "tied": bool(tied[i]),
        }
        for i, trial in enumerate(order)
    }


@dataclass(frozen=True)
class Seeds:
    """How much the runs of a config scatter: see the top of this file. All variances are of the AP of one run."""

    count: Float[np.ndarray, "C"]  # runs of each candidate
    scatter: Float[np.ndarray, "C"] | None  # between its runs, averaged with the others'; None: one run each
    freedom: Float[np.ndarray, "C"]  # degrees of freedom of that average (Satterthwaite, Biometrics Bulletin 2, 1946)
    own_images: Float[np.ndarray, "C"]  # the part of the scatter that is each run's own luck with the images
    between: float | None  # standard deviation between seeds without that part, all candidates pooled

    @classmethod
    def of(cls, ap: Sequence[Float[np.ndarray, "_"]], sampled: Sequence[Float[np.ndarray, "_ B"]]) -> "Seeds":
        """From the AP of each candidate's runs, and those in each resample."""
        count = np.array([len(each) for each in ap], float)
        df = count - 1
        if not df.any():
            return cls(count, None, df, df, None)
        several = [_within(each) for each in sampled if len(each) > 1]
        images = np.array([_within(each) if len(each) > 1 else np.mean(several) for each in sampled])
        own = np.array([each.var(ddof=1) if len(each) > 1 else 0.0 for each in ap])
        share = df / df.sum()
        # each candidate's weights of all own scatters: half on its own where it has one, the rest pooled
        weights = np.where(df[:, None] > 0, 0.5 * np.eye(len(ap)) + 0.5 * share, share)
        freedom = 1 / (np.divide(weights**2, df, out=np.zeros_like(weights), where=df > 0)).sum(axis=1)
        between = float(np.sqrt(max(0.0, (share * (own - images)).sum())))
        return cls(count, weights @ own, freedom, images, between)

    def luck(self, resamples: int, rng: np.random.Generator) -> Luck:
        """What other seeds would have added to the mean of each candidate's runs."""
        shape = (len(self.count), resamples)
        if self.scatter is None:
            return Luck(np.zeros(shape), np.zeros(len(self.count)))
        drawn = (self.scatter * self.freedom)[:, None] / rng.chisquare(self.freedom[:, None], shape)
        variance = np.maximum(drawn - self.own_images[:, None], 0) / self.count[:, None]
        expected = np.maximum(self.scatter - self.own_images, 0) / self.count
        return Luck(rng.normal(0, 1, shape) * np.sqrt(variance), expected)


def _within(sampled: Float[np.ndarray, "S B"]) -> float:
    """The variance over the images of a run's AP about the mean of its config's runs."""
    return float((sampled - sampled.mean(axis=0)).var(axis=1).sum() / (len(sampled) - 1))
